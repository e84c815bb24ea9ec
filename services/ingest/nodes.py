"""The conversation with Sparkplug edge nodes: one session among all ingest processes, held by whoever leads."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

from lifeline import logs
from lifeline.sparkplug import rebirth_command
from services.ingest.consumer import Announcement, Consumer
from services.ingest.formats.topics import SPARKPLUG_FILTER
from services.ingest.leader import Leader

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifeline.settings import Settings
    from services.ingest.formats.sparkplug import Rebirth
    from services.ingest.metrics import Metrics
    from services.ingest.parcels import Parcel

_log = logs.get(__name__)


class EdgeNodes:
    """Consumes Sparkplug while this process leads, announces the host application's state, and asks for rebirths."""

    def __init__(self, settings: Settings, put: Callable[[Parcel, Callable[[], bool]], bool], metrics: Metrics) -> None:
        self._settings = settings
        self._put = put
        self._metrics = metrics
        self._changing = threading.Lock()
        self._consumer: Consumer | None = None
        self._leader = Leader(settings, metrics, self._gain, self._lose)
        self.on_lead: Callable[[], None] = lambda: None

    @property
    def alive(self) -> bool:
        consumer = self._consumer
        return self._leader.alive and (consumer is None or consumer.alive)

    def start(self) -> None:
        self._leader.start()

    def ask_rebirth(self, rebirth: Rebirth) -> None:
        """Ask an edge node for its births (Sparkplug B 3.0, Node Control/Rebirth)."""
        consumer = self._consumer
        if consumer is not None:
            _log.info("asking for rebirth", topic=rebirth.topic, reason=rebirth.reason)
            consumer.publish(rebirth.topic, rebirth_command(time.time_ns() // 1_000_000))

    def stop_reading(self, timeout_s: float) -> None:
        if self._consumer is not None:
            self._consumer.stop_reading(timeout_s)

    def close(self, timeout_s: float) -> None:
        self._leader.stop(timeout_s)
        self._lose()

    def _gain(self) -> None:
        with self._changing:
            self.on_lead()
            # One name for all processes, so that whoever leads finds the session and what waits in it.
            stem = self._settings.mqtt_share_group or "lifeline-ingest"
            self._consumer = Consumer(
                self._settings, f"{stem}-sparkplug", (SPARKPLUG_FILTER,), self._put, self._metrics, self._announce()
            )
            self._consumer.start()

    def _lose(self) -> None:
        with self._changing:
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                consumer.close(5)

    def _announce(self) -> Announcement:
        """The state of this host application, which edge nodes may wait for (Sparkplug B 3.0, STATE)."""
        topic = f"spBv1.0/STATE/{self._settings.sparkplug_host}"

        def state(online: bool, at_ms: int) -> bytes:
            return json.dumps({"online": online, "timestamp": at_ms}).encode()

        return Announcement(topic, state)
