"""The demonstration's brokers let through what ingest refuses: a message too large is told, and blocks nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from services.demo.broker import Kind
from tests.integration.ingest_rig import COUNTY, Publisher, Rig, count, fetch, register
from tests.servers import BrokerServer, Process, need_mosquitto, wait_for

SIZE = 5 << 20


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_message_of_5_mib_is_refused_by_name_and_the_next_one_stored(
    kind: Kind, lifeline_process: Callable[..., Process], database_url: str, tmp_path: Path
) -> None:
    if kind == "mosquitto":
        need_mosquitto()
    broker = BrokerServer(tmp_path / "own_broker", kind)
    broker.start()
    try:
        register(database_url)
        rig = Rig(lifeline_process, database_url, broker.url, tmp_path)
        if broker.broker.has_shared_subscriptions:
            rig.ingest()
        else:
            rig.ingest({"LIFELINE_MQTT_PROTOCOL": broker.broker.protocol, "LIFELINE_MQTT_SHARE_GROUP": ""})
        publisher = Publisher(broker.url)
        publisher.publish(f"lifeline/v1/{COUNTY}/d1/readings", b"x" * SIZE)
        publisher.reading("d1", "p1", 1)
        publisher.settle()
        wait_for(lambda: count(database_url) == 1, what="the reading after it")
        assert fetch(database_url, "SELECT reason, payload_size FROM dead_letter") == [("too_large", SIZE)]
        publisher.close()
    finally:
        broker.stop()
