"""Keeps the registry in memory current: a change is seen within ``registry_poll_s``, without a restart."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from lifeline import logs
from services.ingest import points
from services.ingest.decode import Decoder, Limits
from services.ingest.polling import Polling

if TYPE_CHECKING:
    import psycopg

    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics

_log = logs.get(__name__)

_LOAD_LIMIT_S = 60


class Registry:
    """Holds the decoder for the newest registry that could be read; polls in a thread of its own."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._limits = Limits.of(settings)
        self._loading = threading.Lock()
        self._decoder: Decoder | None = None
        self._polling = Polling(
            settings,
            metrics,
            "registry",
            self._refresh,
            period_s=settings.registry_poll_s,
            limit_s=_LOAD_LIMIT_S,
            complaint="registry not read, the last one stays",
        )

    @property
    def decoder(self) -> Decoder | None:
        """The decoder for the registry as last read; None until the database was there once."""
        return self._decoder

    @property
    def alive(self) -> bool:
        return self._polling.alive

    def start(self) -> None:
        self._polling.start()

    def stop(self, timeout_s: float) -> None:
        self._polling.stop(timeout_s)

    def require(self, connection: psycopg.Connection) -> Decoder:
        """The decoder, read through ``connection`` where there is none yet. Raises ``psycopg.Error``."""
        return self._decoder or self._refresh(connection)

    def _refresh(self, connection: psycopg.Connection) -> Decoder:
        with self._loading:
            decoder = self._decoder
            if decoder is not None and points.version(connection) == decoder.points.version:
                return decoder
            began = time.monotonic()
            loaded = points.load(connection)
            decoder = self._decoder = Decoder(loaded, self._limits)
        self._metrics.points.set(len(loaded))
        _log.info(
            "registry read", points=len(loaded), version=loaded.version, seconds=round(time.monotonic() - began, 3)
        )
        return decoder
