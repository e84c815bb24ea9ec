"""Both homes give the same answers to the same questions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import psycopg
import pytest

from lifeline import timeseries
from lifeline.readings import BAD, GOOD, UNCERTAIN, from_micros
from lifeline.timeseries import Bucket, Home
from lifeline.timeseries.queries import AggregateResolution
from tests.integration.storage_fixtures import (
    DAY,
    HOMES,
    HOUR,
    MINUTE,
    SECOND,
    T0,
    HomeName,
    connected,
    fresh,
    random_readings,
    some,
    store,
)
from tests.servers import Databases

AGES = (timedelta(0), timedelta(days=40), timedelta(days=15 * 365))
EVER = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
RESOLUTIONS: tuple[AggregateResolution, ...] = ("1m", "1h", "1d")


@pytest.fixture(params=HOMES)
def database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[psycopg.Connection]:
    """A connection to a fresh database in each home in turn."""
    home: HomeName = request.param
    with fresh(databases, home) as settings, connected(settings) as connection:
        assert timeseries.home(connection) is Home(home)
        yield connection


@pytest.fixture
def both(databases: Databases) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    """A connection to a fresh plain database, and one to a fresh TimescaleDB."""
    with (
        fresh(databases, "timescaledb") as timescale,
        fresh(databases, "plain") as plain,
        connected(plain) as first,
        connected(timescale) as second,
    ):
        yield first, second


def test_random_data_late_data_and_repeats_give_the_same_answers(
    both: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    rng = np.random.default_rng(7)
    for age in (AGES[0], AGES[1], AGES[0], AGES[2], AGES[1]):  # each refresh but the first meets late data
        start = T0 - age // timedelta(microseconds=1)
        batch = random_readings(rng, 3000, start, start + 3 * DAY)
        for connection in both:
            store(connection, batch)
            store(connection, batch)
            timeseries.refresh(connection)
        _assert_same(*both)


def _assert_same(plain: psycopg.Connection, timescale: psycopg.Connection) -> None:
    points = range(1, 7)
    assert timeseries.newest(plain, points) == timeseries.newest(timescale, points)
    seen = 0
    for point in points:
        ours, theirs = (timeseries.raw(each, point, *EVER, limit=100_000) for each in (plain, timescale))
        assert ours == theirs
        for resolution in RESOLUTIONS:
            ours_too, theirs_too = (
                timeseries.aggregated(each, point, *EVER, resolution) for each in (plain, timescale)
            )
            assert len(ours_too) == len(theirs_too)
            for one, other in zip(ours_too, theirs_too, strict=True):
                assert _rounded(one) == _rounded(other)
            assert sum(each.count for each in ours_too) == sum(each.quality != BAD for each in ours)
            seen += len(ours_too)
    assert seen > 1000


def _rounded(bucket: Bucket) -> tuple[object, ...]:
    """Sums of doubles differ in the last digits with their order."""
    average = None if bucket.avg is None else round(bucket.avg, 9)
    return bucket.bucket, average, bucket.min, bucket.max, bucket.count


def test_raw_pages_in_order_with_start_included_and_end_not(database: psycopg.Connection) -> None:
    store(database, some([(1, T0 + index * SECOND, float(index), GOOD) for index in range(10)]))
    start, end = from_micros(T0 + 2 * SECOND), from_micros(T0 + 8 * SECOND)
    first = timeseries.raw(database, 1, start, end, limit=4)
    second = timeseries.raw(database, 1, start, end, after=first[-1].time, limit=4)
    third = timeseries.raw(database, 1, start, end, after=second[-1].time, limit=4)
    assert [each.value for each in first] == [2, 3, 4, 5]
    assert [each.value for each in second] == [6, 7]
    assert third == []
    assert first[0].time == start
    assert first[0].time.tzinfo is not None
    assert timeseries.raw(database, 2, start, end) == []


def test_buckets_count_good_and_uncertain_readings_and_stand_empty_for_bad_ones(database: psycopg.Connection) -> None:
    hour = T0 // HOUR * HOUR
    store(
        database,
        some(
            [
                (1, hour + SECOND, 1.0, GOOD),
                (1, hour + 2 * SECOND, 3.0, UNCERTAIN),
                (1, hour + 3 * SECOND, 1e6, BAD),
                (1, hour + MINUTE, -7.0, BAD),
                (1, hour + HOUR, 5.0, GOOD),
            ]
        ),
    )
    timeseries.refresh(database)
    start, end = from_micros(hour), from_micros(hour + HOUR)
    assert timeseries.aggregated(database, 1, start, end, "1m") == [
        Bucket(start, 2.0, 1.0, 3.0, 2),
        Bucket(start + timedelta(minutes=1), None, None, None, 0),
    ]
    assert timeseries.aggregated(database, 1, start, end, "1h") == [Bucket(start, 2.0, 1.0, 3.0, 2)]
    later = timeseries.aggregated(database, 1, start, end + timedelta(hours=1), "1h", after=start)
    assert later == [Bucket(end, 5.0, 5.0, 5.0, 1)]
    bad = database.execute("SELECT sum(bad)::int FROM reading_1d WHERE point_id = 1").fetchone()
    assert bad == (2,)


def test_days_begin_at_midnight_in_shanghai(database: psycopg.Connection) -> None:
    midnight = datetime(2025, 11, 5, tzinfo=ZoneInfo("Asia/Shanghai"))
    at = int(midnight.timestamp()) * SECOND
    store(database, some([(1, at - 1, 1.0, GOOD), (1, at, 2.0, GOOD), (1, at + DAY - 1, 4.0, GOOD)]))
    timeseries.refresh(database)
    days = timeseries.aggregated(database, 1, *EVER, "1d")
    assert days == [
        Bucket(midnight - timedelta(days=1), 1.0, 1.0, 1.0, 1),
        Bucket(midnight, 3.0, 2.0, 4.0, 2),
    ]


def test_enormous_values_do_not_stop_the_aggregates(database: psycopg.Connection) -> None:
    huge = 1.7e308
    store(database, some([(1, T0 + index, huge, GOOD) for index in range(3)] + [(2, T0, 1.0, GOOD)]))
    store(database, some([(1, T0 + 10 + index, -huge, GOOD) for index in range(2)]))
    timeseries.refresh(database)
    for resolution in RESOLUTIONS:
        (bucket,) = timeseries.aggregated(database, 1, *EVER, resolution)
        assert (bucket.min, bucket.max, bucket.count) == (-huge, huge, 5)
        assert bucket.avg is not None
        assert math.isfinite(bucket.avg)
        assert len(timeseries.aggregated(database, 2, *EVER, resolution)) == 1


def test_late_readings_reach_every_resolution_however_old(database: psycopg.Connection) -> None:
    old = T0 - 15 * 365 * DAY
    store(database, some([(1, old, 1.0, GOOD), (1, T0, 1.0, GOOD)]))
    timeseries.refresh(database)
    store(database, some([(1, old + SECOND, 3.0, GOOD), (1, T0 + SECOND, 5.0, GOOD)]))
    timeseries.refresh(database)
    for resolution in RESOLUTIONS:
        averages = [bucket.avg for bucket in timeseries.aggregated(database, 1, *EVER, resolution)]
        assert averages == [2.0, 3.0]


def test_newest_tells_of_each_point_that_has_a_reading(database: psycopg.Connection) -> None:
    store(database, some([(1, T0, 1.0, GOOD), (2, T0, 2.0, GOOD), (2, T0 - DAY, 9.0, GOOD)]))
    store(database, some([(1, T0 - 1, 8.0, GOOD)]))
    found = timeseries.newest(database, [2, 1, 3])
    assert [(each.point_id, each.value, each.time) for each in found] == [
        (1, 1.0, from_micros(T0)),
        (2, 2.0, from_micros(T0)),
    ]
    assert timeseries.newest(database, []) == []
