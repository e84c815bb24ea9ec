"""Grouping by minute, choosing a resolution, counting months: pure, against the plain way to say it."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeline.readings import BAD, Readings
from lifeline.timeseries import choose_resolution
from lifeline.timeseries.aggregates import SUM_CLIP, by_minute
from lifeline.timeseries.partitions import month_of, month_start, partition_name

MINUTE = 60_000_000
ROWS = st.lists(
    st.tuples(
        st.integers(1, 3),
        st.integers(-3 * MINUTE, 3 * MINUTE),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=40,
)


@given(ROWS)
def test_by_minute_counts_adds_and_finds_the_extremes(rows: list[tuple[int, int, float, int]]) -> None:
    point_id, time, value, quality = zip(*rows, strict=True)
    at = np.array(time, np.int64)
    change = by_minute(
        Readings(np.array(point_id, np.int32), at, at, np.array(value, np.float64), np.array(quality, np.int16))
    )
    groups: dict[tuple[int, int], list[tuple[float, int]]] = defaultdict(list)
    for point, moment, measured, grade in rows:
        groups[point, math.floor(moment / MINUTE) * MINUTE].append((measured, grade))
    assert list(zip(change.point_id.tolist(), change.bucket.tolist(), strict=True)) == sorted(groups)
    for index, key in enumerate(sorted(groups)):
        good = [measured for measured, grade in groups[key] if grade != BAD]
        assert change.count[index] == len(good)
        assert change.bad[index] == len(groups[key]) - len(good)
        clipped = [max(min(measured, SUM_CLIP), -SUM_CLIP) for measured in good]
        assert change.sum[index] == pytest.approx(
            math.fsum(clipped), rel=1e-9, abs=1e-9 * max(map(abs, clipped), default=0)
        )
        if good:
            assert (change.min[index], change.max[index]) == (min(good), max(good))
        else:
            assert np.isnan(change.min[index])
            assert np.isnan(change.max[index])


@pytest.mark.parametrize(
    ("span", "interval_s", "expected"),
    [
        (timedelta(minutes=30), 1, "raw"),
        (timedelta(hours=1), 1, "1m"),
        (timedelta(minutes=2000), 60, "raw"),
        (timedelta(minutes=2001), 60, "1h"),
        (timedelta(minutes=2001), None, "1h"),
        (timedelta(days=40), 1800, "raw"),
        (timedelta(days=42), 1800, "1h"),
        (timedelta(days=365), 60, "1d"),
        (timedelta(days=9000), 60, "1d"),
        (timedelta(0), 60, "raw"),
    ],
)
def test_the_finest_resolution_that_fits_is_chosen(span: timedelta, interval_s: float | None, expected: str) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    assert choose_resolution(start, start + span, 2000, interval_s) == expected


def test_months_are_those_of_utc() -> None:
    assert partition_name(month_of(datetime(2025, 12, 31, 23, 59, tzinfo=UTC))) == "reading_2025_12"
    china = timezone(timedelta(hours=8))
    assert partition_name(month_of(datetime(2026, 1, 1, 7, tzinfo=china))) == "reading_2025_12"
    assert month_start(month_of(datetime(1969, 12, 5, tzinfo=UTC))) == datetime(1969, 12, 1, tzinfo=UTC)
    for month in range(-30, 700):
        assert month_of(month_start(month)) == month
        assert month_of(month_start(month + 1) - timedelta(microseconds=1)) == month
