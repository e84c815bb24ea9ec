"""Questions about readings, answered alike in both homes. Times are aware; ``start`` is included, ``end`` is not.

A question leaves transactions to its caller: several asked in one see one state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING, Literal, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

AggregateResolution = Literal["1m", "1h", "1d"]
Resolution = Literal["raw", "1m", "1h", "1d"]

BUCKET_SECONDS: dict[AggregateResolution, int] = {"1m": 60, "1h": 3600, "1d": 86_400}
"""Seconds of a bucket; a day may differ where the calendar's zone changes its clocks."""

USUAL_INTERVAL_S = 60.0
"""What is assumed of a point whose interval nobody stated."""

_MICROSECOND = timedelta(microseconds=1)


class StoredReading(NamedTuple):
    """One reading as stored."""

    time: datetime
    value: float
    quality: int
    """:data:`lifeline.readings.GOOD`, ``UNCERTAIN`` or ``BAD``."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The readings of one point that begin with ``bucket`` and end with the next; those of bad quality left out."""

    bucket: datetime
    avg: float | None
    """None, as ``min`` and ``max``, where all readings of the bucket are bad."""
    min: float | None
    max: float | None
    count: int


class NewestReading(NamedTuple):
    """The newest reading of a point by its own time."""

    point_id: int
    time: datetime
    received_at: datetime
    value: float
    quality: int


# A page of a point's readings in order of time.
_RAW = """
SELECT time, value, quality FROM reading
WHERE point_id = %(point_id)s AND time >= %(start)s AND time < %(end)s
ORDER BY time LIMIT %(limit)s
"""

# A point's buckets in order of time.
_AGGREGATED = """
SELECT bucket, sum / nullif(count, 0) AS avg, min, max, count FROM {table}
WHERE point_id = %(point_id)s AND bucket >= %(start)s AND bucket < %(end)s
ORDER BY bucket LIMIT %(limit)s
"""

_NEWEST = """
SELECT point_id, time, received_at, value, quality FROM newest_reading WHERE point_id = ANY(%s) ORDER BY point_id
"""


def raw(
    connection: psycopg.Connection,
    point_id: int,
    start: datetime,
    end: datetime,
    *,
    after: datetime | None = None,
    limit: int = 10_000,
) -> list[StoredReading]:
    """Up to ``limit`` readings in order of time, never thinned. ``after`` is the last time of the page before."""
    rows = connection.execute(_RAW, _window(point_id, start, end, after, limit), binary=True)
    return [StoredReading(*row) for row in rows]


def aggregated(
    connection: psycopg.Connection,
    point_id: int,
    start: datetime,
    end: datetime,
    resolution: AggregateResolution,
    *,
    after: datetime | None = None,
    limit: int | None = None,
) -> list[Bucket]:
    """The buckets that begin from ``start`` to before ``end``, in order; a bucket without any reading is left out.

    Hours and minutes are those of UTC, days those of the calendar table's zone. ``after`` and ``limit`` page.
    """
    query = sql.SQL(_AGGREGATED).format(table=sql.Identifier(f"reading_{resolution}"))
    rows = connection.execute(query, _window(point_id, start, end, after, limit), binary=True)
    return [Bucket(*row) for row in rows]


def newest(connection: psycopg.Connection, point_ids: Sequence[int]) -> list[NewestReading]:
    """The newest reading of each of the points that has one, ordered by point."""
    rows = connection.execute(_NEWEST, (list(point_ids),), binary=True)
    return [NewestReading(*row) for row in rows]


def choose_resolution(start: datetime, end: datetime, max_points: int, interval_s: float | None) -> Resolution:
    """The finest resolution that is expected to give at most ``max_points`` for a point read every ``interval_s``.

    ``interval_s`` None: :data:`USUAL_INTERVAL_S`. The coarsest where none is coarse enough.
    """
    span = max((end - start).total_seconds(), 0.0)
    interval = interval_s or USUAL_INTERVAL_S
    if ceil(span / interval) <= max_points:
        return "raw"
    for resolution, width in BUCKET_SECONDS.items():
        if ceil(span / max(width, interval)) <= max_points:
            return resolution
    return "1d"


def _window(
    point_id: int, start: datetime, end: datetime, after: datetime | None, limit: int | None
) -> dict[str, object]:
    if after is not None:
        start = max(start, after + _MICROSECOND)
    return {"point_id": point_id, "start": start, "end": end, "limit": limit}
