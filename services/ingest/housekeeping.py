"""The work that readings need now and then: partitions ahead of time, aggregates, retention.

Every ingest process asks for it; an advisory lock in the database lets one at a time do it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg
from apscheduler.schedulers.background import BackgroundScheduler

from lifeline import db, logs, timeseries

if TYPE_CHECKING:
    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics

_log = logs.get(__name__)

PERIOD_S = 2
_LIMIT_S = 120


class Housekeeping:
    """Calls :func:`lifeline.timeseries.keep` every two seconds, on a connection of its own."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._connection: psycopg.Connection | None = None
        self._scheduler = BackgroundScheduler(timezone="UTC")
        self._scheduler.add_job(
            self._keep, "interval", seconds=PERIOD_S, next_run_time=datetime.now(UTC), max_instances=1, coalesce=True
        )

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        connection = self._connection
        if connection is not None:
            db.cut(connection)  # a round that waits for the database must not hold up our end
        self._scheduler.shutdown(wait=True)
        if connection is not None:
            connection.close()

    def _keep(self) -> None:
        began = datetime.now(UTC)
        try:
            if self._connection is None:
                self._connection = db.connect(self._settings, "ingest-housekeeping", autocommit=True)
            with db.deadline(self._connection, _LIMIT_S):
                timeseries.keep(self._connection, self._settings, began)
        except psycopg.Error as error:
            _log.warning("housekeeping put off", error=str(error).strip())
            if self._connection is not None:
                self._connection.close()
            self._connection = None
        if (datetime.now(UTC) - began).total_seconds() > PERIOD_S:
            self._metrics.overruns.labels("housekeeping").inc()
