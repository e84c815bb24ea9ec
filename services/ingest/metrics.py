"""What Prometheus sees of an ingest process. Names are the contract's; labels never carry device or point codes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from services.ingest.formats.model import Reason

if TYPE_CHECKING:
    from lifeline.settings import Settings
    from services.ingest.parcels import ParcelQueue
    from services.ingest.spool import Spool

_COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one ingest process, on a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.messages = Counter(
            "lifeline_ingest_messages_total", "MQTT messages taken, by format.", ["format"], registry=registry
        )
        self.readings = Counter(
            "lifeline_ingest_readings_total",
            "Readings by outcome: stored, repeat, refused.",
            ["outcome"],
            registry=registry,
        )
        self.rejected = Counter(
            "lifeline_ingest_rejected_total", "Refusals written to the dead letter.", ["reason"], registry=registry
        )
        self.commit = Histogram(
            "lifeline_ingest_commit_seconds",
            "Writing one batch: from its first statement to its commit.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self.queue = Gauge(
            "lifeline_ingest_queue_readings", "Readings (messages, where not yet decoded) in memory.", registry=registry
        )
        self.unacknowledged = Gauge(
            "lifeline_ingest_unacknowledged_seconds", "Age of the oldest message not acknowledged.", registry=registry
        )
        self.spool = Gauge("lifeline_ingest_spool_bytes", "Messages waiting on disk, bytes.", registry=registry)
        self.lag = Gauge(
            "lifeline_ingest_lag_seconds", "Age of the oldest message not yet in the database.", registry=registry
        )
        self.connected = Gauge(
            "lifeline_ingest_connected", "1 while a session with the broker stands.", ["client_id"], registry=registry
        )
        self.database = Gauge("lifeline_ingest_database", "1 while the database takes our commits.", registry=registry)
        self.points = Gauge("lifeline_ingest_points", "Points of the registry in memory.", registry=registry)
        self.overruns = Counter(
            "lifeline_ingest_overruns_total",
            "Rounds of a loop that took longer than its period.",
            ["loop"],
            registry=registry,
        )
        for outcome in ("stored", "repeat", "refused"):
            self.readings.labels(outcome)
        for reason in get_args(Reason):
            self.rejected.labels(reason)
        for kind in ("json", "senml", "sparkplug", "status", "ours", "unknown"):
            self.messages.labels(kind)

    def watch(self, queue: ParcelQueue, spool: Spool) -> None:
        """Have the backlog told as it is at the moment of asking, also while the writer is stuck."""

        def lag() -> float:
            oldest = spool.oldest
            in_memory = queue.weigh()[1]
            return in_memory if oldest is None else max(in_memory, time.time() - oldest / 1e6)

        self.queue.set_function(lambda: queue.weigh()[0])
        self.unacknowledged.set_function(lambda: queue.weigh()[1])
        self.spool.set_function(lambda: spool.size)
        self.lag.set_function(lag)

    def serve(self, settings: Settings) -> int:
        """Serve ``/metrics`` in a thread; the port, which is a free one where the setting is 0."""
        server, _ = start_http_server(settings.metrics_port, addr=settings.metrics_host, registry=self.registry)
        return int(server.server_address[1])
