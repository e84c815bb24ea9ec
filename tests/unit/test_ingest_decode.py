"""The short way and the close way through the decoder mean the same; limits and ranges hold on both."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeline.readings import BAD, GOOD, UNCERTAIN, Readings
from services.ingest import decode as decode_module
from services.ingest.decode import Decoder, Limits
from services.ingest.messages import Message, Oversize
from services.ingest.points import Device, Points, effective

NOW = 1_795_000_000_000_000
TOPIC = b"lifeline/v1/632521/d1/readings"
DAY = 86_400_000_000


def make_points() -> Points:
    device = Device(7, "d1", "632521", {"p1": 0, "p2": 1}, {"p1": 0, "tag 2": 1})
    return Points(
        1,
        {"d1": device},
        np.array([11, 12], np.int32),
        np.array([0.0, -np.inf]),
        np.array([1.6, np.inf]),
        ["MPa", None],
    )


def decoder() -> Decoder:
    return Decoder(make_points(), Limits(600_000_000, 7305 * DAY))


def take(payload: bytes, topic: bytes = TOPIC) -> tuple[list[tuple[Any, ...]], list[tuple[str, bytes]]]:
    """(point, time, value, quality) of every reading, and (reason, text) of every refusal, each in order."""
    decoded = decoder().decode([Message(topic, payload, NOW, 1)])
    readings = decoded.readings
    rows = list(
        zip(
            readings.point_id.tolist(),
            readings.time.tolist(),
            readings.value.tolist(),
            readings.quality.tolist(),
            strict=True,
        )
    )
    return rows, [(letter.reason, letter.payload) for letter in decoded.refusals]


values = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3), st.just(1e999))
times = st.one_of(
    st.integers(NOW // 1000 - 10**10, NOW // 1000 + 10**7),
    st.integers(),
    st.datetimes().map(lambda moment: moment.isoformat() + "+08:00"),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.builds(
        "2026-11-0{}T08:00:{:02}.{}{}".format,
        st.integers(1, 9),
        st.integers(0, 60),
        st.integers(0, 10**9),
        st.sampled_from(["Z", "z", "+08:00", "+0800", "+08", ""]),
    ),
    st.none(),
    st.text(max_size=5),
    st.booleans(),
    st.floats(),
)
readings_like = st.fixed_dictionaries(
    {"point": st.sampled_from(["p1", "p2", "nowhere", 5]), "value": values},
    optional={"time": times, "quality": st.sampled_from(["good", "uncertain", "bad", "odd", None]), "other": values},
)
documents = st.one_of(
    readings_like,
    st.lists(readings_like, max_size=4),
    st.lists(readings_like, max_size=4).map(lambda items: {"readings": items}),
    st.dictionaries(st.text(max_size=8), values, max_size=3),
)


@given(documents)
def test_short_way_and_close_way_mean_the_same(document: object) -> None:
    payload = json.dumps(document, separators=(",", ":")).encode()
    shortly = take(payload)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_module, "decode_plain", lambda _: None)
        closely = take(payload)
    assert sorted(shortly[0], key=repr) == sorted(closely[0], key=repr)
    assert sorted(shortly[1]) == sorted(closely[1])


@given(documents)
def test_every_reading_is_stored_or_refused(document: object) -> None:
    rows, refusals = take(json.dumps(document).encode())
    items = document["readings"] if isinstance(document, dict) and "readings" in document else document
    expected = len(items) if isinstance(items, list) else 1
    assert len(rows) + len(refusals) == expected


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_no_bytes_on_any_topic_raise(payload: bytes, topic: bytes) -> None:
    for name in (TOPIC, TOPIC.replace(b"readings", b"senml"), TOPIC.replace(b"readings", b"status"), topic):
        take(payload, name)
    take(payload, b"spBv1.0/g/DDATA/n/d1")


def test_values_outside_the_valid_range_are_bad_and_kept() -> None:
    rows, refusals = take(b'[{"point":"p1","value":-0.1},{"point":"p1","value":0},{"point":"p2","value":-9e9}]')
    assert [row[3] for row in rows] == [BAD, GOOD, GOOD]
    assert refusals == []


def test_quality_of_the_source_is_kept() -> None:
    rows, _ = take(b'[{"point":"p1","value":1,"quality":"uncertain"},{"point":"p1","value":9,"quality":"uncertain"}]')
    assert [row[3] for row in rows] == [UNCERTAIN, BAD]


@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (600_000_000, None),
        (600_001_000, "future_time"),
        (-7305 * DAY, None),
        (-7305 * DAY - 1000, "too_old"),
    ],
)
def test_limits_of_time_are_exact(offset: int, reason: str | None) -> None:
    rows, refusals = take(b'{"point":"p1","value":1,"time":%d}' % ((NOW + offset) // 1000))
    assert [name for name, _ in refusals] == ([] if reason is None else [reason])
    assert len(rows) == (reason is None)


def test_untimely_reading_costs_no_neighbour_and_keeps_its_own_text() -> None:
    rows, refusals = take(b'[{"point":"p1","value":1},{"point":"p2","value":2,"time":9000000000000}]')
    assert [row[0] for row in rows] == [11]
    assert refusals == [("future_time", b'{"point":"p2","value":2,"time":9000000000000}')]


def test_last_of_a_repeated_key_counts() -> None:
    assert take(b'{"point":"nowhere","point":"p1","value":"x","value":1}')[0][0][::2] == (11, 1.0)
    assert take(b'{"point":"p1","value":1,"value":"x"}')[1][0][0] == "bad_value"


def test_source_names_are_for_senml_and_codes_for_json() -> None:
    senml = TOPIC.replace(b"readings", b"senml")
    assert take(b'[{"n":"tag 2","v":1}]', senml)[0][0][0] == 12
    assert take(b'[{"n":"p2","v":1}]', senml)[1][0][0] == "unknown_point"
    assert take(b'{"point":"tag 2","value":1}')[1][0][0] == "unknown_point"


def test_units_convert_or_are_refused() -> None:
    senml = TOPIC.replace(b"readings", b"senml")
    rows, refusals = take(
        b'[{"n":"p1","v":415,"u":"kPa"},{"n":"p1","v":1,"u":"kg"},{"n":"tag 2","v":1,"u":"kg"}]', senml
    )
    assert [row[2] for row in rows] == [0.415, 1.0]
    assert [reason for reason, _ in refusals] == ["bad_unit"]


def test_oversize_is_refused_with_the_size_it_had() -> None:
    payload = Oversize(b"[" * 100)
    payload.size = 5_000_000
    letter = decoder().decode([Message(TOPIC, payload, NOW, 1)]).refusals[0]
    assert (letter.reason, letter.payload_size, len(letter.payload)) == ("too_large", 5_000_000, 100)


def test_topics_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ingest.routes._MOST_ROUTES", 10)
    made = decoder()
    messages = [Message(b"lifeline/v1/632521/x%d/readings" % n, b"{}", NOW, 1) for n in range(100)]
    assert len(made.decode(messages).refusals) == 100
    assert len(made._routes._known) <= 10


def test_no_readings_is_an_empty_batch() -> None:
    assert len(decoder().decode([]).readings) == len(Readings.empty()) == 0


@pytest.mark.parametrize(
    ("own", "indicators", "expected"),
    [
        ((None, None, None), ("MPa", 0, 1.6), ("MPa", 0, 1.6)),
        (("kPa", None, None), ("MPa", 0, 1.6), ("kPa", 0, 1600)),
        (("kPa", 5, None), ("MPa", 0, 1.6), ("kPa", 5, 1600)),
        ((None, None, None), (None, None, None), (None, -np.inf, np.inf)),
    ],
)
def test_inherited_range_is_in_the_points_own_unit(
    own: tuple[Any, ...], indicators: tuple[Any, ...], expected: tuple[Any, ...]
) -> None:
    assert effective(*own, *indicators) == pytest.approx(expected)
