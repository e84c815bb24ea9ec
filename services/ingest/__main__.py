"""The ingest process: one straight wiring function, and its end in reverse order."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING

import click

from lifeline import logs, settings
from services.ingest.consumer import Consumer
from services.ingest.formats.topics import FILTERS
from services.ingest.heir import Heir
from services.ingest.housekeeping import Housekeeping
from services.ingest.metrics import Metrics
from services.ingest.nodes import EdgeNodes
from services.ingest.parcels import ParcelQueue
from services.ingest.registry import Registry
from services.ingest.sessions import Sessions
from services.ingest.slots import NoSlotError, claim, client_id
from services.ingest.spool import Spool
from services.ingest.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.ingest.parcels import Parcel

_log = logs.get(__name__)

DRAIN_S = 25.0
"""How long the messages in memory may take to become durable after SIGTERM."""
_SWITCH_INTERVAL_S = 0.001
"""The writer must get the interpreter back soon after the server answers, while a consumer decodes."""


@click.command()
def main() -> None:
    """Take readings from the broker into the database, each once, whatever fails on the way.

    Configured by environment variables alone (LIFELINE_DATABASE_URL, LIFELINE_MQTT_URL, LIFELINE_SPOOL_DIR, …).
    Several ingest processes share the load; on one machine they may share LIFELINE_SPOOL_DIR. SIGTERM stops taking
    messages, stores and acknowledges what was taken, and ends.
    """
    loaded = settings.load()
    logs.configure(loaded, "ingest")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        ok = run(loaded, stop)
    except NoSlotError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(0 if ok else 1)


def run(loaded: settings.Settings, stop: threading.Event) -> bool:
    """Run ingest until ``stop`` is set; true when it ended with nothing left behind."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    slot = claim(loaded.spool_dir)
    metrics = Metrics()
    try:
        port = metrics.serve(loaded)
    except OSError as error:
        raise click.ClickException(f"LIFELINE_METRICS_PORT: {loaded.metrics_port} cannot be used: {error}") from error
    spool = Spool(slot.spool, loaded.spool_limit_mb << 20)
    registry = Registry(loaded, metrics)
    queue = ParcelQueue(loaded.ingest_queue_mb << 20)
    metrics.watch(queue, spool)
    nodes = EdgeNodes(loaded, queue.put, metrics)
    writer = Writer(loaded, queue, spool, registry, metrics, nodes.ask_rebirth)
    nodes.on_lead = writer.forget_nodes

    def put(parcel: Parcel, go_on: Callable[[], bool]) -> bool:
        """Decode ahead, while the writer waits for the server; where the spool comes first it would be in vain."""
        decoder = registry.decoder
        if decoder is not None and writer.direct:
            parcel.hold(decoder.decode(parcel.messages))
        return queue.put(parcel, go_on)

    shared = f"$share/{loaded.mqtt_share_group}/" if loaded.mqtt_share_group else ""
    filters = tuple(shared + name for name in FILTERS)
    consumer = Consumer(loaded, client_id(loaded, slot), filters, put, metrics, busy=lambda: queue.has_waiting)
    housekeeping = Housekeeping(loaded, metrics)
    sessions = Sessions(loaded, metrics, client_id(loaded, slot), ready=lambda: consumer.connected)
    heir = Heir(loaded, slot.number, filters, queue.put, metrics, sessions)

    parts = (registry, writer, consumer, sessions, heir, *((nodes,) if loaded.sparkplug else ()))
    for part in parts:
        part.start()
    housekeeping.start()
    _log.info("ingest started", slot=slot.number, metrics_port=port, spooled=len(spool))
    while not stop.wait(0.5) and all(part.alive for part in parts):
        pass

    failed = [type(part).__name__ for part in parts if not part.alive]
    _log.info("ingest stopping", failed=failed)
    for source in (consumer, nodes, heir):
        source.stop_reading(5)
    queue.close()
    drained = writer.join(DRAIN_S)
    for source in (consumer, nodes, heir):
        source.close(5)
    sessions.stop(5)
    registry.stop(5)
    housekeeping.stop()
    slot.release()
    _log.info("ingest stopped", drained=drained)
    return drained and not failed


if __name__ == "__main__":
    main()
