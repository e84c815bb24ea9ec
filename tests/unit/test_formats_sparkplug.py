"""Sparkplug B: values, births, aliases, sequence, deaths, rebirth requests; and that nothing sent can raise."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lifeline import sparkplug
from lifeline.readings import BAD, GOOD, UNCERTAIN
from lifeline.sparkplug import make_metric
from lifeline.sparkplug_b_pb2 import DataType, Metric, Payload
from services.ingest.formats.sparkplug import (
    LONGEST_NAME,
    Received,
    SparkplugTopic,
    parse_metrics,
    parse_sparkplug_topic,
    receive,
)
from services.ingest.formats.sparkplug_node import MOST_METRICS, REBIRTH_WAIT_S, NodeState
from services.ingest.formats.topics import TopicError

MS = 1_790_000_000_000
S = 1_000_000


class Host:
    """The receiving side of one edge node: its state stored as JSON between messages, as the database would."""

    def __init__(self, node: str = "n1", group: str = "g") -> None:
        self.node, self.group = node, group
        self.stored: str | None = None
        self.now_ms = MS

    @property
    def state(self) -> NodeState:
        return NodeState() if self.stored is None else NodeState.from_dict(json.loads(self.stored))

    def deliver(self, kind: str, payload: bytes, device: str | None = None) -> Received:
        topic = f"spBv1.0/{self.group}/{kind}/{self.node}" + ("" if device is None else f"/{device}")
        state = None if self.stored is None else self.state
        received = receive(state, parse_sparkplug_topic(topic), payload, self.now_ms * 1000)
        if received.state is not None:
            self.stored = json.dumps(received.state.to_dict())
        return received

    def send(
        self, kind: str, seq: int | None, *metrics: Metric, device: str | None = None, ms: int | None = None
    ) -> Received:
        """Deliver a message sent now, one second after the last."""
        self.now_ms += 1000
        sent_ms = self.now_ms if ms is None else ms
        return self.deliver(kind, sparkplug.encode(metrics, timestamp_ms=sent_ms, seq=seq), device)

    def birth(self, bd_seq: int = 0, *metrics: Metric, seq: int = 0) -> Received:
        return self.send("NBIRTH", seq, bd(bd_seq), *(metrics or (make_metric("level", 1.0, alias=1, unit="m"),)))

    def death(self, bd_seq: int) -> Received:
        return self.send("NDEATH", None, bd(bd_seq))


def bd(bd_seq: int) -> Metric:
    return make_metric("bdSeq", bd_seq, DataType.Int64)


def by_alias(alias: int, value: float, datatype: int = DataType.Double) -> Metric:
    metric = make_metric(None, value, datatype, alias=alias)
    metric.ClearField("datatype")
    return metric


def values(received: Received) -> list[tuple[str, str, float]]:
    return [(device, reading.name, reading.value) for device, reading in received.readings]


def statuses(received: Received) -> list[tuple[str, bool]]:
    return [(status.device_code, status.online) for status in received.statuses]


# Topics


@pytest.mark.parametrize(
    ("topic", "parsed", "code"),
    [
        ("spBv1.0/g/NBIRTH/n", SparkplugTopic("g", "NBIRTH", "n", None), "n"),
        ("spBv1.0/g h/NDATA/节点", SparkplugTopic("g h", "NDATA", "节点", None), "节点"),
        ("spBv1.0/g/DDATA/n/d", SparkplugTopic("g", "DDATA", "n", "d"), "d"),
        ("spBv1.0/g/DCMD/n/d", SparkplugTopic("g", "DCMD", "n", "d"), "d"),
        ("spBv1.0/STATE/host", SparkplugTopic("", "STATE", "host", None), "host"),
    ],
)
def test_topic(topic: str, parsed: SparkplugTopic, code: str) -> None:
    assert parse_sparkplug_topic(topic) == parsed
    assert parsed.device_code == code


@pytest.mark.parametrize(
    "topic",
    [
        *("", "/", "spBv1.0", "spBv1.0/", "spBv1.0/g", "spBv1.0/g/NDATA", "spBv1.0/g/NDATA/", "spBv1.0//NDATA/n"),
        *("spBv1.0/g/NDATA/n/d", "spBv1.0/g/DDATA/n", "spBv1.0/g/DDATA/n/d/x", "spBv1.0/g/DDATA/n/"),
        *("spBv1.0/g/ndata/n", "spBv1.0/g/XDATA/n", "spAv1.0/g/NDATA/n", "spBv1.0/g/NDATA/\0"),
        *("spBv1.0/STATE", "spBv1.0/STATE/", "spBv1.0/STATE/h/x"),
    ],
)  # fmt: skip
def test_bad_topic(topic: str) -> None:
    with pytest.raises(TopicError):
        parse_sparkplug_topic(topic)


# Values


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (make_metric("x", -1, DataType.Int8), -1),
        (Metric(name="x", datatype=DataType.Int8, int_value=0xFF), -1),
        (Metric(name="x", datatype=DataType.Int8, int_value=0x80), -128),
        (Metric(name="x", datatype=DataType.Int8, int_value=127), 127),
        (make_metric("x", -32768, DataType.Int16), -32768),
        (Metric(name="x", datatype=DataType.Int16, int_value=0xFFFE), -2),
        (Metric(name="x", datatype=DataType.Int16, long_value=2**64 - 2), -2),
        (make_metric("x", -(2**31), DataType.Int32), -(2**31)),
        (Metric(name="x", datatype=DataType.Int32, long_value=0xFFFFFFFF), -1),
        (Metric(name="x", datatype=DataType.Int32, long_value=2**64 - 1), -1),
        (make_metric("x", -(2**63), DataType.Int64), -(2**63)),
        (Metric(name="x", datatype=DataType.Int64, int_value=5), 5),
        (make_metric("x", 255, DataType.UInt8), 255),
        (make_metric("x", 2**32 - 1, DataType.UInt32), 2**32 - 1),
        (Metric(name="x", datatype=DataType.UInt32, int_value=2**32 - 1), 2**32 - 1),
        (make_metric("x", 2**64 - 1, DataType.UInt64), float(2**64 - 1)),
        (make_metric("x", 0.1, DataType.Float), struct.unpack("f", struct.pack("f", 0.1))[0]),
        (make_metric("x", 0.1, DataType.Double), 0.1),
        (Metric(name="x", datatype=DataType.Double, int_value=3), 3),
        (make_metric("x", True, DataType.Boolean), 1),
        (make_metric("x", False, DataType.Boolean), 0),
        (Metric(name="x", datatype=DataType.Boolean, int_value=1), 1),
        (Metric(name="x", int_value=2**32 - 1), 2**32 - 1),
    ],
)
def test_number(metric: Metric, value: float) -> None:
    parsed = parse_metrics(sparkplug.encode([metric], timestamp_ms=MS, seq=None), 0)
    assert [(r.name, r.time, r.value, r.quality) for r in parsed.readings] == [("x", MS * 1000, value, GOOD)]


@pytest.mark.parametrize(
    ("metric", "named"),
    [
        (make_metric("x", None), "null"),
        (Metric(name="x", is_null=True, double_value=5), "null"),
        (Metric(name="x", datatype=DataType.Double), "no value"),
        (make_metric("x", math.nan), "nan"),
        (make_metric("x", math.inf), "inf"),
        (Metric(name="x", datatype=DataType.Float, float_value=-math.inf), "-inf"),
        (make_metric("x", "5", DataType.String), "String"),
        (Metric(name="x", string_value="5"), "string_value"),
        (make_metric("x", MS, DataType.DateTime), "DateTime"),
        (make_metric("x", "a", DataType.Text), "Text"),
        (Metric(name="x", datatype=DataType.Bytes, bytes_value=b"1"), "Bytes"),
        (Metric(name="x", datatype=DataType.DataSet, dataset_value=b"\xff"), "DataSet"),
        (Metric(name="x", datatype=34, bytes_value=b"1"), "type 34"),
        (Metric(name="x", datatype=DataType.Int8, int_value=300), "outside Int8"),
        (Metric(name="x", datatype=DataType.UInt8, int_value=256), "outside UInt8"),
        (Metric(name="x", datatype=DataType.UInt32, long_value=2**32), "outside UInt32"),
        (Metric(name="x", datatype=DataType.Boolean, int_value=2), "Boolean"),
    ],
)
def test_no_number_is_refused_alone(metric: Metric, named: str) -> None:
    good = make_metric("y", 1.0)
    parsed = parse_metrics(sparkplug.encode([good, metric, good], timestamp_ms=MS, seq=None), 0)
    assert len(parsed.readings) == 2
    (refusal,) = parsed.refusals
    assert refusal.reason == "bad_value"
    assert named in refusal.detail
    assert parse_metrics(refusal.raw, 0).refusals == [refusal]


@pytest.mark.parametrize(
    ("code", "quality"),
    [(None, GOOD), (192, GOOD), (0, BAD), (500, UNCERTAIN), (216, GOOD), (24, BAD), (64, UNCERTAIN), (520, BAD)],
)
def test_quality(code: int | None, quality: int) -> None:
    payload = sparkplug.encode([make_metric("x", 1.0, quality=code)], timestamp_ms=MS, seq=None)
    (reading,) = parse_metrics(payload, 0).readings
    assert reading.quality == quality


def test_times() -> None:
    metrics = [make_metric("a", 1.0, timestamp_ms=MS - 5), make_metric("b", 1.0), make_metric("c", 1.0, timestamp_ms=0)]
    metrics.append(make_metric("d", 1.0, timestamp_ms=2**64 - 1))
    parsed = parse_metrics(sparkplug.encode(metrics, timestamp_ms=MS, seq=None), 0)
    assert [reading.time for reading in parsed.readings][:3] == [(MS - 5) * 1000, MS * 1000, 0]
    farthest = parsed.readings[3].time
    assert farthest is not None
    assert MS * 1000 < farthest < 2**63
    (reading,) = parse_metrics(
        sparkplug.encode([make_metric("a", 1.0)], timestamp_ms=None, seq=None), MS * 1000
    ).readings
    assert reading.time is None
    (again,) = parse_metrics(reading.raw, 0).readings
    assert again.time == MS * 1000


# Births and aliases


def test_birth_values_are_readings_and_controls_are_not() -> None:
    host = Host()
    received = host.birth(
        3,
        make_metric("Node Control/Rebirth", False, DataType.Boolean, alias=0),
        make_metric("Device Control/Reboot", False, DataType.Boolean),
        make_metric("level", 1.5, alias=1, unit="m"),
    )
    assert values(received) == [("n1", "level", 1.5)]
    assert received.refusals == []
    assert statuses(received) == [("n1", True)]
    assert received.rebirth is None
    assert (host.state.online, host.state.bd_seq, host.state.seq) == (True, 3, 0)
    assert values(host.send("NDATA", 1, by_alias(0, True, DataType.Boolean), by_alias(1, 2.5))) == [
        ("n1", "level", 2.5)
    ]


def test_alias_type_and_unit_hold_since_birth() -> None:
    host = Host()
    host.birth(0, make_metric("t", -5, DataType.Int16, alias=0, unit="Cel"))
    ((_, reading),) = host.send("NDATA", 1, by_alias(0, -7, DataType.Int16)).readings
    assert (reading.name, reading.value, reading.unit) == ("t", -7.0, "Cel")
    (again,) = parse_metrics(reading.raw, 0).readings
    assert again == reading
    assert not Payload.FromString(reading.raw).metrics[0].HasField("alias")


def test_a_device_birth_delivered_again_is_read_as_it_was() -> None:
    host = Host()
    host.birth()
    first = sparkplug.encode([make_metric("t", 1.0)], timestamp_ms=host.now_ms + 1, seq=1)
    host.deliver("DBIRTH", first, "d1")
    host.send("DBIRTH", 2, make_metric("t", 2.0, unit="Cel"), device="d1")
    ((_, reading),) = host.deliver("DBIRTH", first, "d1").readings
    assert (reading.value, reading.unit) == (1.0, None)


def test_aliases_of_devices_stand_apart() -> None:
    host = Host()
    host.birth(0, make_metric("a", 1.0, alias=1))
    host.send("DBIRTH", 1, make_metric("b", 1.0, alias=1), device="d1")
    host.send("DBIRTH", 2, make_metric("c", 1.0, alias=1), device="d2")
    assert values(host.send("DDATA", 3, by_alias(1, 2.0), device="d1")) == [("d1", "b", 2.0)]
    assert values(host.send("DDATA", 4, by_alias(1, 3.0), device="d2")) == [("d2", "c", 3.0)]
    assert values(host.send("NDATA", 5, by_alias(1, 4.0))) == [("n1", "a", 4.0)]


def test_unknown_alias_is_refused_alone_and_asks_for_rebirth() -> None:
    host = Host()
    host.birth()
    received = host.send("NDATA", 1, by_alias(1, 2.0), by_alias(9, 3.0))
    assert values(received) == [("n1", "level", 2.0)]
    (refusal,) = received.refusals
    assert refusal.reason == "unknown_point"
    assert "alias 9" in refusal.detail
    assert "'g/n1'" in refusal.detail
    assert received.rebirth is not None
    assert received.rebirth.topic == "spBv1.0/g/NCMD/n1"
    assert "alias 9" in received.rebirth.reason


def test_a_new_birth_ends_all_aliases() -> None:
    host = Host()
    host.birth(0, make_metric("a", 1.0, alias=1))
    host.send("DBIRTH", 1, make_metric("b", 1.0, alias=2), device="d1")
    received = host.birth(1, make_metric("z", 1.0, alias=5))
    assert statuses(received) == [("n1", True), ("d1", False)]
    assert values(host.send("NDATA", 1, by_alias(1, 2.0), by_alias(5, 2.0))) == [("n1", "z", 2.0)]
    received = host.send("DDATA", 2, by_alias(2, 2.0), make_metric("b", 3.0), device="d1")
    assert values(received) == [("d1", "b", 3.0)]
    assert len(received.refusals) == 1


def test_a_clock_set_back_before_a_birth_loses_nothing() -> None:
    host = Host()
    host.birth()
    host.now_ms -= 86_400_000
    host.birth(1)
    assert values(host.send("NDATA", 1, by_alias(1, 2.0))) == [("n1", "level", 2.0)]


def test_death_of_a_session_whose_birth_was_missed() -> None:
    host = Host()
    host.birth(255)
    assert statuses(host.death(254)) == []
    assert statuses(host.death(0)) == [("n1", False)]


def test_message_sent_before_a_birth_is_not_read_with_aliases_that_moved() -> None:
    host = Host()
    host.birth(0, make_metric("a", 1.0, alias=1), make_metric("b", 1.0, alias=2))
    sent_ms = host.now_ms + 10
    host.birth(1, make_metric("c", 1.0, alias=1), make_metric("b", 1.0, alias=2))
    late = host.send("NDATA", 1, by_alias(1, 7.0), by_alias(2, 8.0), ms=sent_ms)
    assert values(late) == [("n1", "b", 8.0)]
    assert [refusal.reason for refusal in late.refusals] == ["unknown_point"]
    assert values(host.send("NDATA", 1, by_alias(1, 9.0))) == [("n1", "c", 9.0)]


# Sequence


def test_sequence_wraps_without_a_request() -> None:
    host = Host()
    host.birth(0, seq=0)
    for seq in [*range(1, 256), 0, 1]:
        received = host.send("NDATA", seq, by_alias(1, float(seq)))
        assert received.rebirth is None
        assert values(received) == [("n1", "level", float(seq))]


def test_birth_may_start_at_any_number() -> None:
    host = Host()
    host.birth(0, seq=200)
    assert host.send("NDATA", 201, by_alias(1, 1.0)).rebirth is None


def test_a_gap_keeps_the_readings_and_asks_once() -> None:
    host = Host()
    host.birth()
    received = host.send("NDATA", 2, by_alias(1, 5.0))
    assert values(received) == [("n1", "level", 5.0)]
    assert received.rebirth is not None
    assert "seq 2 of g/n1 came after 0" in received.rebirth.reason
    again = host.send("NDATA", 4, by_alias(1, 6.0))
    assert values(again) == [("n1", "level", 6.0)]
    assert again.rebirth is None


def test_request_is_made_again_until_a_birth_comes_and_ever_less_often() -> None:
    host = Host()
    host.birth()
    seq, asked = 5, []
    for _ in range(120):
        received = host.send("NDATA", seq, by_alias(1, 1.0))
        seq = (seq + 1) % 256
        if received.rebirth is not None:
            asked.append(host.now_ms)
    waits = [(later - earlier) / 1000 for earlier, later in pairwise(asked)]
    assert waits == [REBIRTH_WAIT_S, 2 * REBIRTH_WAIT_S, 4 * REBIRTH_WAIT_S]
    host.birth()
    host.now_ms += 600_000
    assert host.send("NDATA", 1, by_alias(1, 1.0)).rebirth is None


@pytest.mark.parametrize("ms_back", [0, 1500])
def test_repeat_is_no_gap(ms_back: int) -> None:
    host = Host()
    host.birth()
    for seq in range(1, 6):
        host.send("NDATA", seq, by_alias(1, float(seq)))
    before = host.stored
    received = host.send("NDATA", 5 if ms_back == 0 else 3, by_alias(1, 3.0), ms=host.now_ms - ms_back)
    assert values(received) == [("n1", "level", 3.0)]
    assert received.rebirth is None
    assert host.stored == before
    assert host.send("NDATA", 6, by_alias(1, 6.0)).rebirth is None


def test_same_number_sent_later_still_counts() -> None:
    host = Host()
    host.birth()
    host.send("NDATA", 1, by_alias(1, 1.0))
    received = host.send("DBIRTH", 1, make_metric("b", 1.0), device="d1")
    assert received.rebirth is None
    assert statuses(received) == [("d1", True)]


def test_everything_delivered_again_changes_nothing() -> None:
    host, sent = Host(), []
    script: list[tuple[str, int | None, tuple[Metric, ...], str | None]] = [
        ("NBIRTH", 0, (bd(0), make_metric("a", 1.0, alias=1)), None),
        ("DBIRTH", 1, (make_metric("b", 1.0, alias=2),), "d1"),
        ("NDATA", 2, (by_alias(1, 2.0),), None),
        ("DDATA", 3, (by_alias(2, 2.0),), "d1"),
        ("DDEATH", 4, (), "d1"),
        ("NDATA", 5, (by_alias(1, 3.0),), None),
    ]
    first = []
    for kind, seq, metrics, device in script:
        host.now_ms += 1000
        payload = sparkplug.encode(metrics, timestamp_ms=host.now_ms, seq=seq)
        sent.append((kind, payload, device))
        first.append(host.deliver(kind, payload, device))
    before = host.stored
    for (kind, payload, device), original in zip(sent, first, strict=True):
        again = host.deliver(kind, payload, device)
        assert values(again) == values(original)
        assert (again.refusals, again.statuses, again.rebirth) == ([], [], None)
        assert host.stored == before


def test_sessions_delivered_again_do_not_bring_back_the_older() -> None:
    host, sent = Host(), []
    for session, name in enumerate("ab"):
        for kind, seq, metrics in (
            ("NBIRTH", 0, (bd(session), make_metric(name, 1.0, alias=1))),
            ("NDATA", 1, (by_alias(1, 2.0),)),
            ("NDEATH", None, (bd(session),)),
        ):
            host.now_ms += 1000
            sent.append((kind, sparkplug.encode(metrics, timestamp_ms=host.now_ms, seq=seq)))
            host.deliver(*sent[-1])
    before = host.stored
    for message in sent[:3]:
        again = host.deliver(*message)
        assert all(name == "a" for _, name, _ in values(again))
        assert (again.statuses, again.rebirth) == ([], None)
        assert host.stored == before


def test_data_before_any_birth() -> None:
    host = Host()
    received = host.send("NDATA", 17, make_metric("named", 1.0), by_alias(1, 2.0))
    assert values(received) == [("n1", "named", 1.0)]
    assert [refusal.reason for refusal in received.refusals] == ["unknown_point"]
    assert received.rebirth is not None
    assert "NBIRTH is not known" in received.rebirth.reason
    host.birth()
    host.now_ms += 600_000
    assert host.send("NDATA", 1, by_alias(1, 2.0)).rebirth is None


def test_device_data_before_its_birth() -> None:
    host = Host()
    host.birth()
    received = host.send("DDATA", 1, make_metric("named", 1.0), device="d1")
    assert values(received) == [("d1", "named", 1.0)]
    assert received.rebirth is not None
    assert "DBIRTH is not known" in received.rebirth.reason


# Deaths


def test_death_takes_the_devices_along() -> None:
    host = Host()
    host.birth(7)
    assert statuses(host.send("DBIRTH", 1, make_metric("b", 1.0, alias=2), device="d1")) == [("d1", True)]
    received = host.death(7)
    assert statuses(received) == [("n1", False), ("d1", False)]
    assert {status.time for status in received.statuses} == {host.now_ms * 1000}
    assert statuses(host.death(7)) == []


def test_older_death_is_ignored() -> None:
    host = Host()
    host.birth(7)
    host.birth(8)
    assert statuses(host.death(7)) == []
    assert host.state.online
    assert statuses(host.death(8)) == [("n1", False)]


def test_late_birth_does_not_revive() -> None:
    host = Host()
    host.birth(7)
    host.death(7)
    received = host.birth(7, make_metric("level", 4.0, alias=1))
    assert values(received) == [("n1", "level", 4.0)]
    assert statuses(received) == []
    assert not host.state.online
    assert statuses(host.birth(8)) == [("n1", True)]


def test_death_known_before_its_birth() -> None:
    host = Host()
    assert statuses(host.death(7)) == [("n1", False)]
    assert statuses(host.birth(7)) == []
    assert not host.state.online


def test_late_birth_leaves_the_present_session_alone() -> None:
    host = Host()
    host.birth(7, make_metric("old", 1.0, alias=1))
    host.death(7)
    host.birth(8, make_metric("new", 1.0, alias=1))
    before = host.stored
    assert values(host.birth(7, make_metric("old", 2.0, alias=1))) == [("n1", "old", 2.0)]
    assert host.stored == before
    assert values(host.send("NDATA", 1, by_alias(1, 3.0))) == [("n1", "new", 3.0)]


def test_data_after_death_is_taken_and_asks() -> None:
    host = Host()
    host.birth(7)
    host.death(7)
    received = host.send("NDATA", 1, by_alias(1, 3.0))
    assert values(received) == [("n1", "level", 3.0)]
    assert received.rebirth is not None
    assert "after its death" in received.rebirth.reason
    assert not host.state.online


def test_device_birth_under_a_dead_node_is_not_online() -> None:
    host = Host()
    host.birth(7)
    host.death(7)
    received = host.send("DBIRTH", 1, make_metric("b", 1.0), device="d1")
    assert values(received) == [("d1", "b", 1.0)]
    assert statuses(received) == []
    assert received.rebirth is not None


def test_device_death_and_return() -> None:
    host = Host()
    host.birth()
    host.send("DBIRTH", 1, make_metric("b", 1.0, alias=2), device="d1")
    assert statuses(host.send("DDEATH", 2, device="d1")) == [("d1", False)]
    assert host.send("DDATA", 3, by_alias(2, 1.0), device="d1").rebirth is not None
    assert statuses(host.send("DBIRTH", 4, make_metric("b", 1.0, alias=2), device="d1")) == [("d1", True)]
    assert statuses(host.send("DDEATH", 5, device="never-born")) == [("never-born", False)]


def test_death_without_number_counts() -> None:
    host = Host()
    host.birth(7)
    assert statuses(host.send("NDEATH", None)) == [("n1", False)]


# Hostile input


@pytest.mark.parametrize("kind", ["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"])
@pytest.mark.parametrize("payload", [b"", b"\xff" * 9, b"\x12\xff\xff\xff\xff\x0f", b"\x0b" * 300, b'{"online": true}'])
def test_malformed_is_one_refusal_and_no_change(kind: str, payload: bytes) -> None:
    host = Host()
    host.birth()
    before = host.stored
    received = host.deliver(kind, payload, "d1" if kind.startswith("D") else None)
    assert [(refusal.reason, refusal.raw) for refusal in received.refusals] == [("bad_payload", payload)]
    assert (received.readings, received.statuses, received.rebirth) == ([], [], None)
    assert host.stored == before


@pytest.mark.parametrize("topic", ["spBv1.0/g/NCMD/n1", "spBv1.0/g/DCMD/n1/d", "spBv1.0/STATE/host"])
def test_commands_and_host_states_bring_nothing(topic: str) -> None:
    state = NodeState(online=True)
    assert receive(state, parse_sparkplug_topic(topic), b"\xff", MS) == Received(state, [], [], [], None)


def test_names_that_cannot_be_kept() -> None:
    host = Host()
    not_utf8 = Payload.FromString(b"\x12\x0d\x0a\x02a\xff\x69" + struct.pack("<d", 2.5))
    received = host.birth(
        0,
        make_metric("nul\0", 1.0, alias=1),
        make_metric("x" * (LONGEST_NAME + 1), 1.0, alias=2),
        make_metric("", 1.0),
        not_utf8.metrics[0],
    )
    assert values(received) == [("n1", "a�", 2.5)]
    assert [refusal.reason for refusal in received.refusals] == ["bad_payload"] * 3
    assert "\\u0000" not in (host.stored or "")
    for refusal in received.refusals:
        assert parse_metrics(refusal.raw, 0).refusals[0].reason == "bad_payload"


def test_units_that_cannot_be_kept() -> None:
    received = Host().birth(0, make_metric("a", 1.0, unit="m\0"), make_metric("b", 1.0, unit="m" * 65))
    assert [(reading.name, reading.unit) for _, reading in received.readings] == [("a", "m")]
    assert [refusal.reason for refusal in received.refusals] == ["bad_unit"]


def test_memory_of_a_node_is_bounded() -> None:
    host = Host()
    host.birth()
    many = [Metric(name=f"m{i}", alias=i, int_value=1) for i in range(MOST_METRICS // 4)]
    for i in range(6):
        host.send("DBIRTH", 1 + i, *many, device=f"d{i}")
    kept = host.state.devices
    assert sum(len(birth.types) for birth in kept.values()) <= MOST_METRICS
    assert len(kept["d1"].aliases) == len(many)


def test_state_of_another_format_is_forgotten() -> None:
    assert NodeState.from_dict({"format": 99, "seq": 5}) == NodeState()


@given(st.binary(max_size=200), st.sampled_from(["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"]))
def test_arbitrary_bytes(payload: bytes, kind: str) -> None:
    host = Host()
    host.birth()
    host.deliver(kind, payload, "d1" if kind.startswith("D") else None)
    parse_metrics(payload, 0)


@given(st.data())
@settings(max_examples=200)
def test_broken_payloads(data: st.DataObject) -> None:
    metrics = [
        make_metric("压力", 1.0, alias=1, unit="MPa", quality=192),
        make_metric("b", "text", DataType.String, alias=2),
    ]
    payload = bytearray(sparkplug.encode(metrics, timestamp_ms=MS, seq=1))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    host = Host()
    host.birth()
    host.deliver("NDATA", bytes(payload))
    host.deliver("NBIRTH", bytes(payload))
    host.deliver("DBIRTH", bytes(payload), "d")


# Sequences of messages, with losses, repeats and deaths

NAMES = ("a", "b", "c", "d")


class EdgeNode(RuleBasedStateMachine):
    """A node that follows the specification, a network that loses and repeats: values never go to a wrong name.

    Only a birth that gives aliases new meanings is never lost here: the messages after it could not be told from
    those after a lost reading, which are read all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.session = -1
        self.connected = False
        self.seq = 0
        self.value = 0.0
        self.aliases: dict[str | None, dict[int, str]] = {}
        self.names: dict[str | None, list[str]] = {}
        self.said: dict[tuple[str, float], str] = {}
        self.sent: list[tuple[str, bytes, str | None]] = []
        self.asked: list[int] = []

    def _deliver(self, kind: str, metrics: list[Metric], device: str | None, lost: bool) -> None:
        self.host.now_ms += 1000
        seq = None if kind == "NDEATH" else self.seq
        self.seq = 1 if kind == "NBIRTH" else (self.seq if seq is None else (self.seq + 1) % 256)
        payload = sparkplug.encode(metrics, timestamp_ms=self.host.now_ms, seq=seq)
        if not lost:
            self.sent.append((kind, payload, device))
            self._check(self.host.deliver(kind, payload, device))

    def _check(self, received: Received) -> None:
        for code, reading in received.readings:
            assert self.said[code, reading.value] == reading.name
            assert parse_metrics(reading.raw, 0).readings == [reading]
        if received.rebirth is not None:
            self.asked.append(self.host.now_ms)

    def _measure(self, device: str | None, name: str) -> float:
        self.value += 1
        self.said[device or self.host.node, self.value] = name
        return self.value

    def _born(self, device: str | None, names: list[str], lost: bool) -> list[Metric]:
        if not lost:
            self.names[device] = names
        self.aliases[device] = dict(enumerate(self.names.get(device, names)))
        return [
            make_metric(name, self._measure(device, name), alias=alias) for alias, name in self.aliases[device].items()
        ]

    @rule(names=st.permutations(NAMES), lost=st.booleans(), new=st.booleans())
    def node_birth(self, names: list[str], lost: bool, new: bool) -> None:
        if new or not self.connected:
            self.session += 1
        self.connected, self.seq = True, 0
        self.aliases.clear()
        self._deliver("NBIRTH", [bd(self.session), *self._born(None, names, lost)], None, lost)

    @rule(names=st.permutations(NAMES), lost=st.booleans(), device=st.sampled_from(["d1", "d2"]))
    def device_birth(self, names: list[str], lost: bool, device: str) -> None:
        if self.connected:
            self._deliver("DBIRTH", self._born(device, names, lost), device, lost)

    @rule(lost=st.booleans(), device=st.sampled_from([None, "d1", "d2"]), alias=st.integers(0, 3))
    def data(self, lost: bool, device: str | None, alias: int) -> None:
        if self.connected and device in self.aliases:
            value = self._measure(device, self.aliases[device][alias])
            self._deliver("NDATA" if device is None else "DDATA", [by_alias(alias, value)], device, lost)

    @rule(lost=st.booleans(), device=st.sampled_from(["d1", "d2"]))
    def device_death(self, lost: bool, device: str) -> None:
        if self.connected and device in self.aliases:
            del self.aliases[device]
            self._deliver("DDEATH", [], device, lost)

    @rule()
    def node_death(self) -> None:
        if self.connected:
            self.connected = False
            self.aliases.clear()
            self._deliver("NDEATH", [bd(self.session)], None, lost=False)
            if self.session == self.host.state.bd_seq:
                assert not self.host.state.online

    @rule(count=st.integers(1, 5))
    def redeliver(self, count: int) -> None:
        for kind, payload, device in self.sent[-count:]:
            self._check(self.host.deliver(kind, payload, device))

    @invariant()
    def requests_keep_their_distance(self) -> None:
        assert all(later - earlier >= REBIRTH_WAIT_S * 1000 for earlier, later in pairwise(self.asked))


EdgeNode.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestEdgeNode: Any = EdgeNode.TestCase


# The codec's other direction


def test_rebirth_command() -> None:
    payload = Payload.FromString(sparkplug.rebirth_command(MS))
    (metric,) = payload.metrics
    assert (payload.timestamp, payload.HasField("seq")) == (MS, False)
    assert (metric.name, metric.datatype, metric.boolean_value) == ("Node Control/Rebirth", DataType.Boolean, True)


INTEGERS: list[tuple[int, Callable[[int], bool]]] = [
    (DataType.Int8, lambda v: -(2**7) <= v < 2**7),
    (DataType.Int16, lambda v: -(2**15) <= v < 2**15),
    (DataType.Int32, lambda v: -(2**31) <= v < 2**31),
    (DataType.Int64, lambda v: -(2**63) <= v < 2**63),
    (DataType.UInt8, lambda v: 0 <= v < 2**8),
    (DataType.UInt16, lambda v: 0 <= v < 2**16),
    (DataType.UInt32, lambda v: 0 <= v < 2**32),
    (DataType.UInt64, lambda v: 0 <= v < 2**64),
]


@given(st.integers(-(2**63), 2**64 - 1) | st.integers(-300, 300))
def test_integers_go_and_come_back(value: int) -> None:
    for datatype, holds in INTEGERS:
        if holds(value):
            assert sparkplug.number(make_metric("x", value, datatype), datatype) == float(value)
