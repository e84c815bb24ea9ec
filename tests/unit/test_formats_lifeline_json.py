"""Our JSON: an envelope is one on both ways through it; refusals are bounded, and bound no good reading."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from services.ingest.formats import lifeline_json
from services.ingest.formats.lifeline_json import decode_plain, parse_json
from services.ingest.formats.model import MAX_PAYLOAD, MOST_REFUSALS, MOST_REFUSED_BYTES, Refusal, Refusals

ONE = b'{"point":"p","value":1}'


@pytest.mark.parametrize("key", ['"readings"', '"reading\\u0073"'])
@pytest.mark.parametrize("inside", ["[]", '[{"point":"q","value":2}]', "null", "{}", '"x"'])
def test_an_object_with_readings_is_an_envelope_whatever_else_it_holds(key: str, inside: str) -> None:
    payload = f'{{"point":"p","value":1,{key}:{inside}}}'.encode()
    assert decode_plain(payload) is None
    parsed = parse_json(payload)
    names = [item["point"] for item in json.loads(inside)] if inside.startswith("[") else []
    assert [reading.name for reading in parsed.readings] == names
    assert [refusal.reason for refusal in parsed.refusals] == ([] if inside.startswith("[") else ["bad_payload"])


def test_a_reading_in_an_array_may_carry_any_further_key() -> None:
    payload = b'[{"point":"p","value":1,"readings":[]}]'
    assert [reading.point for reading in decode_plain(payload) or []] == ["p"]
    assert [reading.name for reading in parse_json(payload).readings] == ["p"]


def test_a_single_reading_is_plain() -> None:
    (reading,) = decode_plain(ONE) or []
    assert (reading.point, reading.value) == ("p", 1.0)


def test_refusals_at_the_bound_are_all_listed() -> None:
    parsed = parse_json(b"[" + b",".join([b"1"] * MOST_REFUSALS) + b"]")
    assert len(parsed.refusals) == MOST_REFUSALS
    assert {refusal.raw for refusal in parsed.refusals} == {b"1"}


def test_refusals_beyond_the_bound_become_one_and_good_readings_are_taken() -> None:
    items = [b"1"] * MOST_REFUSALS + [ONE] + [b"2"] * 3 + [b'{"point":"p"}'] * 2 + [ONE]
    payload = b"[" + b",".join(items) + b"]"
    parsed = parse_json(payload)
    assert len(parsed.readings) == 2
    assert len(parsed.refusals) == MOST_REFUSALS + 1
    last = parsed.refusals[-1]
    assert (last.reason, last.raw) == ("bad_payload", payload)
    assert last.detail == "5 more readings of this message are refused, not listed: bad_payload 3, bad_value 2"


def test_texts_beyond_the_bound_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    encode = lifeline_json._encode

    def counting(item: object) -> bytes:
        made.append(item)
        return encode(item)

    monkeypatch.setattr(lifeline_json, "_encode", counting)
    parse_json(b"[" + b",".join([b"1"] * (MOST_REFUSALS + 500)) + b"]")
    assert len(made) == MOST_REFUSALS


def test_refusals_are_bounded_by_their_bytes_too() -> None:
    refusals = Refusals()
    text = bytes(MOST_REFUSED_BYTES // 8)
    for _ in range(20):
        refusals.add(Refusal("bad_value", "", text))
    listed = refusals.close(b"whole")
    assert len(listed) == 9
    assert (listed[-1].raw, listed[-1].detail[:16]) == (b"whole", "12 more readings")
    again = Refusals(listed)
    assert again.full
    again.add(Refusal("unknown_point", "", b""))
    assert len(again.close(b"whole")) == 10


@pytest.mark.parametrize("item", [b"1", b"{}", b'""', b'{"point":"p"}'])
def test_memory_of_a_hostile_message_is_bounded(item: Any) -> None:
    payload = b"[" + b",".join([item] * ((MAX_PAYLOAD - 2) // (len(item) + 1))) + b"]"
    document = json.loads(payload)
    del document  # what the interpreter caches is not counted
    tracemalloc.start()
    try:
        parsed = parse_json(payload)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(parsed.refusals) == MOST_REFUSALS + 1
    assert kept < 6 << 20
    assert peak < 40 << 20
