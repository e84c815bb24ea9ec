"""One ingest process at a time speaks with the Sparkplug edge nodes, for their messages only make sense in order.

Who holds the advisory lock leads. While the database is away the leader stays the leader, as nobody else can become it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg

from lifeline import db, logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifeline.settings import Settings

_log = logs.get(__name__)

SPARKPLUG_LOCK = 0x1FE11E05
_PERIOD_S = 2.0
_LIMIT_S = 10.0

_TRY = "SELECT pg_try_advisory_lock(%s)"


class Leader:
    """Calls ``gain`` when this process becomes the leader and ``lose`` when another one has."""

    def __init__(self, settings: Settings, gain: Callable[[], None], lose: Callable[[], None]) -> None:
        self._settings = settings
        self._gain = gain
        self._lose = lose
        self._leading = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Give up the lead; the lock goes with the connection."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        connection: psycopg.Connection | None = None
        while not self._stopping.is_set():
            try:
                if connection is None:
                    connection = db.connect(self._settings, "ingest-leader")
                    connection.autocommit = True
                    holds = False
                with db.deadline(connection, _LIMIT_S):
                    # Once held, taking it again would only count: ask whether the connection still stands.
                    row = connection.execute(
                        "SELECT true" if holds else _TRY, None if holds else (SPARKPLUG_LOCK,)
                    ).fetchone()
                holds = row is not None and bool(row[0])
                self._follow(holds)
            except psycopg.Error as error:
                _log.warning("lead unknown, it stays as it is", leading=self._leading, error=str(error).strip())
                if connection is not None:
                    connection.close()
                connection = None
            self._stopping.wait(_PERIOD_S)
        if connection is not None:
            connection.close()

    def _follow(self, holds: bool) -> None:
        if holds == self._leading:
            return
        self._leading = holds
        _log.info("speaks with the Sparkplug edge nodes" if holds else "another process speaks with the edge nodes")
        (self._gain if holds else self._lose)()
