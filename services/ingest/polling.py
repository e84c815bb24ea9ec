"""A thread that asks the database something again and again, on a connection of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg

from lifeline import db, logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics

_log = logs.get(__name__)


class Polling:
    """Calls ``ask(connection)`` at once and then every ``period_s``, each time within ``limit_s``.

    The connection is in autocommit, and is made anew after a ``psycopg.Error``, which is logged with ``complaint``.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        name: str,
        ask: Callable[[psycopg.Connection], object],
        *,
        period_s: float,
        limit_s: float,
        complaint: str,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._name = name
        self._ask = ask
        self._period_s = period_s
        self._limit_s = limit_s
        self._complaint = complaint
        self._connected_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def connected_s(self) -> float:
        """For how long the present connection has stood; asked within ``ask``."""
        return time.monotonic() - self._connected_at

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ask no more, and give up the connection with all its locks."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        connection: psycopg.Connection | None = None
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                if connection is None:
                    connection = db.connect(self._settings, f"ingest-{self._name}", autocommit=True)
                    self._connected_at = time.monotonic()
                with db.deadline(connection, self._limit_s):
                    self._ask(connection)
            except psycopg.Error as error:
                _log.warning(self._complaint, error=str(error).strip())
                if connection is not None:
                    connection.close()
                connection = None
            if time.monotonic() - began > self._period_s:
                self._metrics.overruns.labels(self._name).inc()
            self._stopping.wait(self._period_s)
        if connection is not None:
            connection.close()
