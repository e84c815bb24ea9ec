"""One ingest process at a time speaks with the Sparkplug edge nodes, for their messages only make sense in order.

Who holds the advisory lock leads. While the database is away the leader stays the leader, as nobody else can become it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifeline import logs
from services.ingest.polling import Polling

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics

_log = logs.get(__name__)

SPARKPLUG_LOCK = 0x1FE11E05
_PERIOD_S = 2.0
_LIMIT_S = 10.0

_TRY = "SELECT pg_try_advisory_lock(%s)"


class Leader:
    """Calls ``gain`` when this process becomes the leader and ``lose`` when another one has."""

    def __init__(
        self, settings: Settings, metrics: Metrics, gain: Callable[[], None], lose: Callable[[], None]
    ) -> None:
        self._gain = gain
        self._lose = lose
        self._leading = False
        self._holder: psycopg.Connection | None = None
        """The connection that holds the lock."""
        self._polling = Polling(
            settings,
            metrics,
            "leader",
            self._ask,
            period_s=_PERIOD_S,
            limit_s=_LIMIT_S,
            complaint="lead unknown, it stays as it is",
        )
        self.start, self.stop = self._polling.start, self._polling.stop

    @property
    def alive(self) -> bool:
        return self._polling.alive

    def _ask(self, connection: psycopg.Connection) -> None:
        if connection is self._holder:
            connection.execute("SELECT")  # the lock is ours as long as this connection stands; taken twice it counts
            return
        row = connection.execute(_TRY, (SPARKPLUG_LOCK,)).fetchone()
        holds = row is not None and bool(row[0])
        self._holder = connection if holds else None
        if holds == self._leading:
            return
        self._leading = holds
        _log.info("speaks with the Sparkplug edge nodes" if holds else "another process speaks with the edge nodes")
        (self._gain if holds else self._lose)()
