"""Decoding JSON from strangers: lenient in what costs one reading, one error for all else."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ingest.formats.hostile_json import HostileJSONError, decode, quoted

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"1e999", math.inf),
        (b"-1e999", -math.inf),
        (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
        (b"1" * 5000, math.inf),
        (b"-" + b"1" * 5000, -math.inf),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": NaN, "a": 2}', {"a": 2}),
        (b"\xef\xbb\xbf{}", {}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'{"\\ud83d": ["\\ude00", {"x": "a\\udfff"}]}', {"�": ["�", {"x": "a�"}]}),
        (b'"\\u0000"', "\0"),
    ],
)
def test_leniency(payload: bytes, value: object) -> None:
    assert decode(payload) == value


def test_nan_stays_among_its_neighbours() -> None:
    assert str(decode(b"[1, NaN, 2]")) == "[1, nan, 2]"


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[1] x", "not JSON"),
        (b"[01]", "not JSON"),
        (b'"\xff"', "not UTF-8: byte 0xff at 1"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"[NaN," + b"[" * 100_000, "nested too deep"),
    ],
)
def test_refused(payload: bytes, detail: str) -> None:
    with pytest.raises(HostileJSONError, match=detail) as caught:
        decode(payload)
    assert "\0" not in caught.value.detail


@given(JSON)
def test_means_what_json_means(value: object) -> None:
    assert decode(json.dumps(value).encode()) == value


@given(st.binary() | st.text(alphabet='[]{}":,\\u0deNaIfinty123.e-+ ').map(str.encode))
@example(b"\\ud800")
def test_raises_nothing_else(payload: bytes) -> None:
    with contextlib.suppress(HostileJSONError):
        json.dumps(decode(payload), ensure_ascii=False).encode("utf-8")


@given(JSON | st.binary() | st.text())
def test_quotes_are_short_and_storable(value: object) -> None:
    shown = quoted(value)
    assert len(shown) < 1000
    assert shown.isprintable()
    shown.encode("utf-8")


def test_quotes_say_what_stands_there() -> None:
    values: list[object] = [None, True, 3, 1.5, "a\0", [1], {}, 10**4000]
    assert [quoted(value) for value in values] == [
        "null",
        "true",
        "3",
        "1.5",
        "'a\\x00'",
        "an array",
        "an object",
        "a huge number",
    ]
