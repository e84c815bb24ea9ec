"""Contract times: RFC 3339 with an offset, or integer epoch milliseconds, and nothing else."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeline.readings import from_micros, to_micros
from services.ingest.formats.moments import TimeError, parse_time

EARLY, LATE = datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-12-31")


def at(*parts: int) -> int:
    return to_micros(datetime(*parts, tzinfo=UTC))  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("2026-01-31T08:00:00+08:00", at(2026, 1, 31)),
        ("2026-01-31t00:00:00z", at(2026, 1, 31)),
        ("2026-01-31 00:00:00Z", at(2026, 1, 31)),
        ("2026-01-31T00:00:00-00:00", at(2026, 1, 31)),
        ("2026-01-31T00:00:00.5Z", at(2026, 1, 31, 0, 0, 0, 500_000)),
        ("2026-01-31T00:00:00.1234569999Z", at(2026, 1, 31, 0, 0, 0, 123_457)),
        ("2026-01-31T08:00:00+0800", at(2026, 1, 31)),
        ("1969-12-31T23:59:59.25Z", -750_000),
        ("2024-02-29T23:59:59-23:59", at(2024, 3, 1, 23, 58, 59)),
        ("2016-12-31T23:59:60Z", at(2017, 1, 1)),
        ("2017-01-01T07:59:60.5+08:00", at(2017, 1, 1, 0, 0, 0, 500_000)),
        (0, 0),
        (1_769_817_600_123, 1_769_817_600_123_000),
        (-1, -1000),
    ],
)
def test_read(value: object, micros: int) -> None:
    assert parse_time(value) == micros


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 1.5, 1_769_817_600_000.0, [], {}, "", "now", "1769817600000"),
        *("2026-01-31", "2026-01-31T08:00:00", "2026-01-31T08:00Z"),
        *("2026-01-31T08:00:00+08", "20260131T080000Z", "2026-1-31T08:00:00Z"),
        *("2026-01-31T08:00:00.Z", "2026-01-31T08:00:00Z\n", " 2026-01-31T08:00:00Z"),
        *("2026-02-30T00:00:00Z", "2025-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z"),
        *("2026-01-31T24:00:00Z", "2026-01-31T08:60:00Z", "2026-01-31T08:00:61Z", "2026-01-31T08:00:00+24:00"),
        *("2026-01-31T08:00:00+08:60", "2026-01-31T23:59:60+08:00", "２026-01-31T08:00:00Z", "0000-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", 253_402_300_800_000, 10**400, -(10**400)),
    ],
)  # fmt: skip
def test_refused(value: object) -> None:
    with pytest.raises(TimeError) as caught:
        parse_time(value)
    assert "time" in caught.value.detail


def test_says_what_to_do() -> None:
    with pytest.raises(TimeError, match=r"no offset; add Z or one such as \+08:00"):
        parse_time("2026-01-31T08:00:00")


SHAPED = st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", fullmatch=True)


@given(
    st.datetimes(EARLY, LATE),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_agrees_with_the_standard_library(local: datetime, offset_min: int) -> None:
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    assert parse_time(moment.isoformat()) == to_micros(moment)


@given(st.text() | SHAPED | st.integers())
def test_raises_nothing_else(value: object) -> None:
    with contextlib.suppress(TimeError):
        from_micros(parse_time(value))
