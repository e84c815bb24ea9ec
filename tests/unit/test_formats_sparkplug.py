"""Sparkplug B: values, births, aliases, sequence, deaths, rebirth requests; and that nothing sent can raise."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifeline import sparkplug
from lifeline.readings import BAD, GOOD, UNCERTAIN
from lifeline.sparkplug import make_metric
from lifeline.sparkplug_b_pb2 import DataType, Metric, Payload
from services.ingest.formats import sparkplug as sparkplug_format
from services.ingest.formats.model import MOST_REFUSALS
from services.ingest.formats.sparkplug import (
    LONGEST_NAME,
    Received,
    SparkplugTopic,
    parse_metrics,
    parse_sparkplug_topic,
    receive,
)
from services.ingest.formats.sparkplug_node import MOST_METRICS, NodeState
from services.ingest.formats.topics import TopicError
from tests.unit.sparkplug_host import Host, by_alias, statuses, values

MS = 1_790_000_000_000
S = 1_000_000

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


# Many refusals


def test_refusals_beyond_the_bound_become_one_and_good_metrics_are_taken() -> None:
    good = make_metric("p", 1.5)
    beyond = [Metric(), make_metric(None, 1.0, alias=9), make_metric("q", None), make_metric("r" * 999, 1.0)]
    odd_unit = make_metric("u", 1.0, unit="m" * 65)
    payload = sparkplug.encode([Metric()] * MOST_REFUSALS + [good, *beyond, odd_unit, good], timestamp_ms=MS, seq=1)
    topic = parse_sparkplug_topic("spBv1.0/g/NDATA/n")
    received = receive(None, topic, payload, MS * 1000)
    for names, refusals in (
        ([reading.name for _, reading in received.readings], received.refusals),
        ([reading.name for reading in parse_metrics(payload, MS * 1000).readings], parse_metrics(payload, 0).refusals),
    ):
        assert names == ["p", "p"]
        assert len(refusals) == MOST_REFUSALS + 1
        last = refusals[-1]
        assert (last.reason, last.raw) == ("bad_payload", payload)
        assert last.detail == (
            "5 more readings of this message are refused, not listed: "
            "bad_payload 2, bad_unit 1, bad_value 1, unknown_point 1"
        )


def test_texts_beyond_the_bound_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    resolved = sparkplug_format._resolved

    def counting(metric: Metric, name: str, datatype: int, unit: str | None, time_ms: int) -> bytes:
        made.append(name)
        return resolved(metric, name, datatype, unit, time_ms)

    monkeypatch.setattr(sparkplug_format, "_resolved", counting)
    metrics = [make_metric("p", None)] * (MOST_REFUSALS + 10)
    assert len(parse_metrics(sparkplug.encode(metrics, timestamp_ms=MS, seq=1), 0).refusals) == MOST_REFUSALS + 1
    assert len(made) == MOST_REFUSALS
