"""SenML packs (RFC 8428): resolution, refusals one by one, and raw text that can be replayed alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeline.readings import GOOD
from services.ingest.formats import senml
from services.ingest.formats.model import MOST_REFUSALS, MOST_REFUSED_BYTES, Parsed, RawReading
from services.ingest.formats.senml import LONGEST_NAME, parse_senml

NOW = 1_790_000_000_123_456
S = 1_000_000


def parse(pack: Any) -> Parsed:
    return parse_senml(json.dumps(pack).encode(), NOW)


def short(reading: RawReading) -> tuple[str, int | None, float, str | None]:
    assert reading.quality == GOOD
    return reading.name, reading.time, reading.value, reading.unit


@pytest.mark.parametrize(
    ("pack", "readings"),
    [
        # After the examples of RFC 8428, section 5.1: one point; several with bases; a fleet with times back in time.
        ([{"n": "urn:dev:ow:1", "u": "Cel", "v": 23.1}], [("urn:dev:ow:1", None, 23.1, "Cel")]),
        (
            [
                {"bn": "urn:dev:ow:10e2073a01080063:", "n": "voltage", "u": "V", "v": 120.1},
                {"n": "current", "u": "A", "v": 1.2},
            ],
            [
                ("urn:dev:ow:10e2073a01080063:voltage", None, 120.1, "V"),
                ("urn:dev:ow:10e2073a01080063:current", None, 1.2, "A"),
            ],
        ),
        (
            [
                {"bn": "dev:", "bt": 1.276020076001e9, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
                {"n": "current", "t": -5, "v": 1.2},
                {"n": "current", "v": 1.7},
            ],
            [
                ("dev:voltage", 1_276_020_076_001_000, 120.1, "V"),
                ("dev:current", 1_276_020_071_001_000, 1.2, "A"),
                ("dev:current", 1_276_020_076_001_000, 1.7, "A"),
            ],
        ),
        # Bases hold until given anew, and add.
        (
            [{"bn": "a", "bv": 20, "n": "1", "v": 1.5}, {"bn": "b", "n": "2", "v": -1}, {"bv": 0, "v": 3}],
            [("a1", None, 21.5, None), ("b2", None, 19.0, None), ("b", None, 3.0, None)],
        ),
        # Booleans; base value leaves them alone. Sums stand in where there is no value.
        (
            [{"n": "p", "bv": 5, "vb": True}, {"n": "p", "vb": False}, {"n": "s", "s": 7}, {"n": "s", "bs": 2, "s": 7}],
            [("p", None, 1.0, None), ("p", None, 0.0, None), ("s", None, 7.0, None), ("s", None, 9.0, None)],
        ),
        ([{"n": "flow", "v": 3, "s": 100}], [("flow", None, 3.0, None)]),
        # Times: relative below 2**28, both ways; zero is now; absolute from there on.
        (
            [{"n": "a", "v": 1, "t": t} for t in (-60, 2.5, 0, 2**28 - 1, 2**28, -0.000001)],
            [
                ("a", NOW - 60 * S, 1.0, None),
                ("a", NOW + 2_500_000, 1.0, None),
                ("a", None, 1.0, None),
                ("a", NOW + (2**28 - 1) * S, 1.0, None),
                ("a", 2**28 * S, 1.0, None),
                ("a", NOW - 1, 1.0, None),
            ],
        ),
        ([{"bt": 1.7e9, "n": "a", "t": -1.7e9, "v": 1}], [("a", None, 1.0, None)]),
        # What is not a reading, and what is not known, is passed over.
        ([{"bn": "x", "bt": 1.7e9}, {"n": "1", "v": 1}, {"bu": "m"}], [("x1", 1_700_000_000 * S, 1.0, None)]),
        ([{"n": "a", "v": 1, "ut": 60, "note": "x", "bver": 10}], [("a", None, 1.0, None)]),
        ([{"n": "压力 1/入口", "v": 1, "u": ""}], [("压力 1/入口", None, 1.0, None)]),
        ([], []),
    ],
)  # fmt: skip
def test_resolved(pack: Any, readings: list[tuple[str, int | None, float, str | None]]) -> None:
    parsed = parse(pack)
    assert parsed.refusals == []
    assert [short(reading) for reading in parsed.readings] == readings


@pytest.mark.parametrize(
    ("record", "reason", "named"),
    [
        ({"n": "a", "v": None}, "bad_value", "v is null"),
        ({"n": "a", "v": "1"}, "bad_value", "v is '1'"),
        ({"n": "a", "v": True}, "bad_value", "v is true"),
        ({"n": "a", "v": math.nan}, "bad_value", "v is nan"),
        ({"n": "a", "v": -math.inf}, "bad_value", "v is -inf"),
        ({"n": "a", "v": 10**350}, "bad_value", "a huge number"),
        ({"n": "a", "vb": 1}, "bad_value", "vb is 1"),
        ({"n": "a", "vs": "open"}, "bad_value", "vs"),
        ({"n": "a", "vd": "AQID"}, "bad_value", "vd"),
        ({"n": "a", "s": "7"}, "bad_value", "s is '7'"),
        ({"n": "a", "v": 1, "vb": True}, "bad_payload", "v and vb"),
        ({"n": "a"}, "bad_payload", "no value"),
        ({}, "bad_payload", "no value"),
        ({"v": 1}, "bad_payload", "no name"),
        ({"n": 5, "v": 1}, "bad_payload", "n is 5"),
        ({"n": "a" * (LONGEST_NAME + 1), "v": 1}, "bad_payload", "longer"),
        ({"n": "a", "v": 1, "u": 5}, "bad_payload", "u is 5"),
        ({"n": "a", "v": 1, "u": "m" * 65}, "bad_unit", "longer"),
        ({"n": "a", "v": 1, "t": "now"}, "bad_time", "t is 'now'"),
        ({"n": "a", "v": 1, "t": None}, "bad_time", "t is null"),
        ({"n": "a", "v": 1, "t": math.nan}, "bad_time", "t is nan"),
        ({"n": "a", "v": 1, "t": 1e300}, "bad_time", "years 1 to 9999"),
        ({"n": "a", "v": 1, "t": 1e305}, "bad_time", "years 1 to 9999"),
        ({"n": "a", "v": 1, "t": -1e11}, "bad_time", "years 1 to 9999"),
        ({"n": "a", "v": 1, "secret_": 1}, "bad_payload", "'secret_'"),
        (5, "bad_payload", "a SenML record is a JSON object, not 5"),
        ([], "bad_payload", "not an array"),
    ],
)
def test_a_bad_record_costs_only_itself(record: Any, reason: str, named: str) -> None:
    parsed = parse([{"n": "before", "v": 1}, record, {"n": "after", "v": 2}])
    assert [reading.name for reading in parsed.readings] == ["before", "after"]
    (refusal,) = parsed.refusals
    assert refusal.reason == reason
    assert named in refusal.detail
    again = parse_senml(refusal.raw, NOW)
    assert again.readings == []
    assert [(r.reason, r.detail, r.raw) for r in again.refusals] == [(reason, refusal.detail, refusal.raw)]


def test_numbers_beyond_json_cost_only_their_record() -> None:
    parsed = parse_senml(b'[{"n":"a","v":1},{"n":"b","v":1e999},{"n":"c","v":Infinity},{"n":"d","v":2,"v":3}]', NOW)
    assert [(reading.name, reading.value) for reading in parsed.readings] == [("a", 1.0), ("d", 3.0)]
    assert [refusal.reason for refusal in parsed.refusals] == ["bad_value", "bad_value"]


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ({"bv": "x"}, "bad_value"),
        ({"bv": math.nan}, "bad_value"),
        ({"bt": "x"}, "bad_time"),
        ({"bt": [["x" * 5000]]}, "bad_time"),
        ({"bn": 5}, "bad_payload"),
        ({"bn": {"a": 1}}, "bad_payload"),
        ({"bn": "a" * 600_000}, "bad_payload"),
        ({"bu": ["m"]}, "bad_payload"),
        ({"bu": "m" * 600_000}, "bad_unit"),
    ],
)
def test_a_bad_base_field_costs_those_it_holds_for(base: dict[str, Any], reason: str) -> None:
    (label,) = base
    mended = {"bv": 0, "bt": 0, "bn": "", "bu": ""}[label]
    parsed = parse([base, {"n": "a", "v": 1}, {"n": "b", "v": 1}, {label: mended, "n": "c", "v": 1}])
    assert [reading.name for reading in parsed.readings] == ["c"]
    assert [refusal.reason for refusal in parsed.refusals] == [reason, reason]
    for refusal in parsed.refusals:
        assert len(refusal.raw) < 2000
        assert parse_senml(refusal.raw, NOW).refusals == [refusal]


def test_a_record_without_value_replays_as_such_after_bases() -> None:
    (refusal,) = parse([{"bn": "a", "v": 1}, {"n": "b"}]).refusals
    assert parse_senml(refusal.raw, NOW).refusals == [refusal]


def test_sum_out_of_range() -> None:
    parsed = parse([{"bn": "a", "bv": 1e308, "v": 1e308}])
    assert [refusal.reason for refusal in parsed.refusals] == ["bad_value"]


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        (b"", "empty"),
        (b"\xff", "UTF-8"),
        (b"[" * 100_000, "deep"),
        (b'{"n":"a","v":1}', "array"),
        (b'[{"bver":11,"n":"a","v":1}]', "bver is 11"),
        (b'[{"n":"a","v":1},{"bver":11}]', "bver is 11"),
        (b'[{"bver":10,"n":"a","v":1},{"bver":9,"n":"a","v":1}]', "changes from 10 to 9"),
        (b'[{"bver":"10","n":"a","v":1}]', "bver is '10'"),
        (b'[{"bver":true,"n":"a","v":1}]', "bver is true"),
        (b'[{"bver":0,"n":"a","v":1}]', "bver is 0"),
    ],
)
def test_refused_as_a_whole(payload: bytes, named: str) -> None:
    parsed = parse_senml(payload, NOW)
    assert parsed.readings == []
    (refusal,) = parsed.refusals
    assert (refusal.reason, refusal.raw) == ("bad_payload", payload)
    assert named in refusal.detail


def test_raw_of_a_reading_is_resolved_and_stands_alone() -> None:
    pack = [{"bn": "d:", "bt": 1.7e9, "bu": "m", "bv": 10, "n": "a", "t": 0.25, "v": 1}, {"n": "b", "vb": True}]
    parsed = parse(pack)
    assert [json.loads(reading.raw) for reading in parsed.readings] == [
        [{"n": "d:a", "t": 1_700_000_000.25, "u": "m", "v": 11.0}],
        [{"n": "d:b", "t": 1_700_000_000.0, "u": "m", "vb": True}],
    ]


def test_arrival_time_is_kept_for_replay() -> None:
    (reading,) = parse([{"n": "a", "v": 1}]).readings
    (again,) = parse_senml(reading.raw, NOW + 86_400 * S).readings
    assert again.time == NOW


def test_refusals_beyond_the_bound_become_one_and_good_records_are_taken() -> None:
    good = {"n": "a", "v": 1}
    payload = json.dumps([5] * MOST_REFUSALS + [good, 5, {"n": "b", "v": "x"}, {"n": "b", "v": "y"}, good]).encode()
    parsed = parse_senml(payload, NOW)
    assert [reading.name for reading in parsed.readings] == ["a", "a"]
    assert len(parsed.refusals) == MOST_REFUSALS + 1
    last = parsed.refusals[-1]
    assert (last.reason, last.raw) == ("bad_payload", payload)
    assert last.detail == "3 more readings of this message are refused, not listed: bad_payload 1, bad_value 2"


def test_texts_beyond_the_bound_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    one_pack = senml._one_pack

    def counting(record: object) -> bytes:
        made.append(record)
        return one_pack(record)

    monkeypatch.setattr(senml, "_one_pack", counting)
    parse([5] * MOST_REFUSALS + [5, {}])
    assert len(made) == MOST_REFUSALS


def test_base_fields_copied_into_refusals_are_bounded_in_bytes() -> None:
    pack = [{"bn": "界" * LONGEST_NAME, "bt": 10**390}, *[{"v": ""}] * 8000, {"bt": 0, "bn": "a", "v": 1}]
    parsed = parse_senml(json.dumps(pack).encode(), NOW)
    assert [reading.name for reading in parsed.readings] == ["a"]
    assert sum(len(refusal.raw) for refusal in parsed.refusals[:-1]) < MOST_REFUSED_BYTES + 4096
    listed = len(parsed.refusals) - 1
    assert 1000 < listed < 8000
    assert parsed.refusals[-1].detail.startswith(f"{8000 - listed} more readings")


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
TIMES = st.floats(-1e4, 1e4) | st.floats(2**28, 4e9) | st.integers(0, 4_000_000_000)
TEXTS = st.text(max_size=4)
VALUES: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{"v": 1.5}, {"vb": True}, {"s": 3}])
WELL_FORMED = st.builds(
    lambda fields, value: {**fields, **value},
    st.fixed_dictionaries(
        {"n": st.text(min_size=1, max_size=4)},
        optional={"bn": TEXTS, "bt": TIMES, "bu": TEXTS, "bv": st.floats(-1e6, 1e6), "t": TIMES, "u": TEXTS},
    ),
    VALUES,
)
WILD = st.dictionaries(
    st.sampled_from(["bn", "bt", "bu", "bv", "bs", "n", "u", "v", "vb", "vs", "vd", "s", "t", "ut", "x", "x_"]),
    NUMBERS | st.lists(st.none(), max_size=2),
)


@given(st.lists(WELL_FORMED, max_size=6))
def test_well_formed_packs_are_read_whole_and_replay_alone(pack: list[dict[str, Any]]) -> None:
    parsed = parse(pack)
    assert parsed.refusals == []
    assert len(parsed.readings) == len(pack)
    for reading in parsed.readings:
        (again,) = parse_senml(reading.raw, NOW).readings
        assert short(again)[0::2] == short(reading)[0::2]
        assert again.time == (NOW if reading.time is None else reading.time)


@given(st.lists(WILD | NUMBERS, max_size=6))
def test_every_record_is_read_refused_or_carries_bases(pack: list[Any]) -> None:
    parsed = parse(pack)
    silent = [
        record
        for record in pack
        if isinstance(record, dict)
        and not record.keys() & {"v", "vb", "vs", "vd", "s", "x_"}
        and record.keys() & {"bn", "bt", "bu", "bv", "bs"}
    ]
    assert len(parsed.readings) + len(parsed.refusals) + len(silent) == len(pack)
    for reading in parsed.readings:
        assert math.isfinite(reading.value)
    for refusal in parsed.refusals:
        assert [again.reason for again in parse_senml(refusal.raw, NOW).refusals] == [refusal.reason]


@given(st.binary() | st.text(alphabet='[]{}":,nvtbu\\d01e-').map(str.encode))
def test_never_raises(payload: bytes) -> None:
    parse_senml(payload, NOW)
