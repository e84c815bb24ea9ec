"""The simulator at a real broker: what arrives, what waits while the broker is away, and how it ends."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from lifeline.sparkplug import decode
from services.simulator.publish import Message, Publisher, parse_broker
from tests.servers import BrokerServer, wait_for

StartProcess = Callable[..., Any]
Heard = list[tuple[str, bytes]]


@contextmanager
def listening(url: str, *topics: str) -> Iterator[Heard]:
    """All messages of ``topics`` while the block runs."""
    heard: Heard = []
    broker = parse_broker(url)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(broker.user, broker.password)
    client.on_message = lambda _c, _u, message: heard.append((message.topic, bytes(message.payload)))
    subscribed: list[int] = []
    client.on_connect = lambda c, _u, _f, _r, _p: [c.subscribe(topic, qos=1) for topic in topics]  # type: ignore[assignment]
    client.on_subscribe = lambda _c, _u, mid, *_: subscribed.append(mid)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        wait_for(lambda: len(subscribed) >= len(topics), what="the subscription")
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_prefecture_is_heard_and_ends_within_two_seconds(
    own_broker: BrokerServer, lifeline_process: StartProcess, protocol: str
) -> None:
    with listening(own_broker.url, "lifeline/v1/#", "spBv1.0/#") as heard:
        simulator = lifeline_process(
            "simulate",
            environ={
                "LIFELINE_MQTT_URL": own_broker.url,
                "LIFELINE_MQTT_PROTOCOL": protocol,
                "LIFELINE_LOG_FORMAT": "json",
            },
        )
        wait_for(lambda: sum("DDATA" in topic for topic, _ in heard) > 20 and len(heard) > 1500, 40, "readings")
        begin = time.monotonic()
        assert simulator.terminate() == 0, simulator.output()
        assert time.monotonic() - begin < 2
        wait_for(lambda: sum("NDEATH" in topic for topic, _ in heard) == 5, what="the deaths of the edge nodes")
    kinds = Counter(topic.split("/")[2 if topic.startswith("spB") else 4] for topic, _ in heard)
    assert kinds["NBIRTH"] == 5
    assert kinds["DBIRTH"] == 30
    assert {topic.split("/")[2] for topic, _ in heard if topic.startswith("life")} == {
        f"63252{number}" for number in range(1, 6)
    }
    assert {"readings", "senml", "status"} <= set(kinds)
    births = [decode(payload) for topic, payload in heard if "DBIRTH" in topic]
    assert all(metric.name and not metric.is_null for birth in births for metric in birth.metrics)
    last = [json.loads(line) for line in simulator.output().splitlines() if '"published"' in line][-1]
    assert last["dropped_readings"] == 0


def test_a_scenario_is_started_from_outside(own_broker: BrokerServer, lifeline_process: StartProcess) -> None:
    environ = {"LIFELINE_MQTT_URL": own_broker.url}
    simulator = lifeline_process(
        "simulate", "--points", "365", "--rate", "100", "--scenario-speed", "240", environ=environ
    )
    with listening(own_broker.url, "lifeline/v1/632523/+/readings") as heard:
        wait_for(lambda: len(heard) > 20, 30, "readings")
        asked = lifeline_process("simulate", "--trigger", "storm:632523", environ=environ)
        assert asked.wait() == 0, asked.output()

        def deepest() -> float:
            rows = (row for _, payload in heard for row in _rows(json.loads(payload)))
            return max((row["value"] for row in rows if row["point"] == "depth"), default=0.0)

        wait_for(lambda: deepest() > 40, 45, "water of 40 cm")
    wrong = lifeline_process("simulate", "--trigger", "flood", environ=environ)
    assert wrong.wait() == 2
    assert "pipe_burst" in wrong.output()
    assert simulator.terminate() == 0


def _rows(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    return list(document.get("readings", [document]))


def test_an_edge_node_is_reborn_on_command_and_dies_by_its_will(
    own_broker: BrokerServer, lifeline_process: StartProcess
) -> None:
    from lifeline.sparkplug import rebirth_command

    with listening(own_broker.url, "spBv1.0/lifeline/+/632521-edge/#") as heard:
        simulator = lifeline_process("simulate", "--points", "365", environ={"LIFELINE_MQTT_URL": own_broker.url})

        def births() -> int:
            return sum("NBIRTH" in topic for topic, _ in heard)

        wait_for(lambda: births() == 1, 30, "a birth")
        host = Publisher(parse_broker(own_broker.url), "host")
        host.start()
        host.offer(Message("spBv1.0/lifeline/NCMD/632521-edge", rebirth_command(1)))
        assert host.close(5)
        wait_for(lambda: births() == 2, 10, "a rebirth")
        simulator.kill()
        wait_for(lambda: any("NDEATH" in topic for topic, _ in heard), 10, "the will")
    numbered = [decode(payload) for topic, payload in heard if "NBIRTH" in topic or "DDATA" in topic]
    born = {metric.long_value for payload in numbered for metric in payload.metrics if metric.name == "bdSeq"}
    died = {decode(payload).metrics[0].long_value for topic, payload in heard if "NDEATH" in topic}
    assert born == died
    assert len(born) == 1


def test_while_the_broker_is_away_memory_is_bounded_and_the_newest_is_kept(own_broker: BrokerServer) -> None:
    publisher = Publisher(parse_broker(own_broker.url), "bounded", in_flight=10, backlog_bytes=1 << 20)
    publisher.start()
    try:
        assert publisher.wait_connected(10)
        own_broker.stop()
        wait_for(lambda: not publisher.connected, what="the loss")
        before = psutil.Process(os.getpid()).memory_info().rss
        for number in range(100_000):
            publisher.offer(Message("test/bounded", b"%08d" % number + bytes(800), 3))
        counts = publisher.counts()
        assert counts.backlog_bytes <= 1 << 20
        assert counts.dropped + counts.backlog + counts.sent == 100_000
        assert counts.dropped_readings == 3 * counts.dropped
        assert psutil.Process(os.getpid()).memory_info().rss - before < 30 << 20
        own_broker.start()
        with listening(own_broker.url, "test/bounded") as heard:
            assert publisher.flush(40), publisher.last_error
            wait_for(lambda: any(payload[:8] == b"00099999" for _, payload in heard), what="the newest")
        assert publisher.counts().acknowledged == counts.backlog + counts.sent
    finally:
        publisher.close(0.2)


def test_nothing_offered_is_lost_when_the_broker_restarts(own_broker: BrokerServer) -> None:
    publisher = Publisher(parse_broker(own_broker.url), "restart")
    publisher.start()
    try:
        assert publisher.wait_connected(10)
        for number in range(2000):
            publisher.offer(Message("test/restart", b"%d" % number, 1))
            if number == 700:
                own_broker.kill()
                own_broker.start()
        assert publisher.flush(40), publisher.last_error
        counts = publisher.counts()
        assert counts.acknowledged == counts.acknowledged_readings == 2000
        assert counts.connects == 2
        assert counts.dropped == 0
    finally:
        publisher.close(0.2)


def test_an_unreachable_broker_does_not_hold_up_the_end(lifeline_process: StartProcess) -> None:
    simulator = lifeline_process(
        "simulate",
        "--points",
        "365",
        environ={"LIFELINE_MQTT_URL": "mqtt://127.0.0.1:9", "LIFELINE_LOG_FORMAT": "json"},
    )
    time.sleep(4)
    assert simulator.is_alive(), simulator.output()
    begin = time.monotonic()
    assert simulator.terminate() == 1
    assert time.monotonic() - begin < 2.5
    assert "broker away" in simulator.output()
