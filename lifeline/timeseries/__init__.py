"""All SQL on readings, for TimescaleDB and plain PostgreSQL: callers and answers are the same for both.

Functions take a psycopg connection (:func:`lifeline.db.connect`).
"""

from lifeline.timeseries.aggregates import refresh
from lifeline.timeseries.homes import Home, HomeError, choose_home, home
from lifeline.timeseries.housekeeping import Kept, apply_settings, keep
from lifeline.timeseries.layout import layout_differences
from lifeline.timeseries.partitions import ensure_partitions, ensure_partitions_at
from lifeline.timeseries.queries import (
    Bucket,
    NewestReading,
    StoredReading,
    aggregated,
    choose_resolution,
    newest,
    raw,
)

__all__ = [
    "Bucket",
    "Home",
    "HomeError",
    "Kept",
    "NewestReading",
    "StoredReading",
    "aggregated",
    "apply_settings",
    "choose_home",
    "choose_resolution",
    "ensure_partitions",
    "ensure_partitions_at",
    "home",
    "keep",
    "layout_differences",
    "newest",
    "raw",
    "refresh",
]
