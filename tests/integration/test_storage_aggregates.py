"""Aggregates of the plain home miss nothing and count nothing twice; spent batches go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from lifeline import timeseries
from lifeline.readings import BAD, GOOD, to_micros
from lifeline.settings import Settings
from lifeline.timeseries import aggregates
from tests.integration.storage_fixtures import (
    DAY,
    HOMES,
    MINUTE,
    T0,
    HomeName,
    connected,
    fresh,
    put,
    random_readings,
    settle,
    some,
    store,
)
from tests.servers import Databases

EVER = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC))
NOW = datetime(2025, 6, 16, tzinfo=UTC)


@pytest.fixture
def settings(databases: Databases) -> Iterator[Settings]:
    with fresh(databases, "plain") as settings:
        yield settings


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection]:
    with connected(settings) as connection:
        yield connection


def _counted(connection: psycopg.Connection) -> list[int]:
    row = connection.execute(
        "SELECT (SELECT sum(count + bad) FROM reading_1m)::int, (SELECT sum(count + bad) FROM reading_1h)::int, "
        "(SELECT sum(count + bad) FROM reading_1d)::int"
    ).fetchone()
    connection.rollback()
    return list(row or ())


def test_a_transaction_that_began_earlier_and_commits_later_is_not_skipped(settings: Settings) -> None:
    with connected(settings) as early, connected(settings) as late, connected(settings) as keeper:
        timeseries.ensure_partitions(keeper, T0, T0)
        put(early, some([(1, T0, 1.0, GOOD)]))
        store(late, some([(2, T0 + 1, 3.0, GOOD)]))
        assert timeseries.keep(keeper, settings, NOW).readings_aggregated == 0  # the later one has to wait
        with pytest.raises(TimeoutError, match="pg_stat_activity"):
            timeseries.refresh(keeper, timeout_s=0.1)
        early.commit()
        settle(keeper)
        assert timeseries.keep(keeper, settings, NOW).readings_aggregated == 2
        keeper.rollback()
        assert _counted(keeper) == [2, 2, 2]


def test_a_transaction_that_rolls_back_adds_nothing(settings: Settings, connection: psycopg.Connection) -> None:
    with connected(settings) as other:
        put(other, some([(1, T0, 1.0, GOOD)]))
        other.rollback()
    store(connection, some([(1, T0, 5.0, GOOD)]))
    timeseries.refresh(connection)
    assert _counted(connection) == [1, 1, 1]


def test_writers_and_aggregating_processes_at_once_count_every_reading_once(settings: Settings) -> None:
    stop = threading.Event()

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with connected(settings) as connection:
            for _ in range(15):
                # the same few hours from every writer: most batches hold repeats of others
                store(connection, random_readings(rng, 200, T0, T0 + 2000, points=3))

    def aggregate() -> None:
        with connected(settings) as connection:
            while not stop.is_set():
                timeseries.keep(connection, settings, NOW)

    with ThreadPoolExecutor(6) as pool:
        keepers = [pool.submit(aggregate) for _ in range(2)]
        writers = [pool.submit(write, seed) for seed in range(4)]
        try:
            for writer in writers:
                writer.result(60)
        finally:
            stop.set()
        for keeper in keepers:
            keeper.result(60)
    with connected(settings) as connection:
        timeseries.refresh(connection)
        row = connection.execute("SELECT count(*)::int, count(*) FILTER (WHERE quality = %s)::int FROM reading", (BAD,))
        stored, bad = row.fetchone() or (0, 0)
        connection.rollback()
        assert stored > 2000
        assert bad > 0
        assert _counted(connection) == [stored] * 3


def test_rounds_are_bounded_and_go_on_where_they_stopped(
    connection: psycopg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "ROUND_READINGS", 25)
    for index in range(10):
        store(connection, some([(1, T0 + index * MINUTE + second, 1.0, GOOD) for second in range(10)]))
    settle(connection)
    assert aggregates.aggregate_round(connection) == 30
    assert timeseries.keep(connection, settings, NOW, budget_s=0).readings_aggregated == 30
    assert timeseries.keep(connection, settings, NOW).readings_aggregated == 40
    assert _counted(connection) == [100] * 3


def test_a_damaged_batch_does_not_stop_the_others(connection: psycopg.Connection) -> None:
    store(connection, some([(1, T0, 1.0, GOOD)]))
    connection.execute("INSERT INTO evaluation_batch (readings, packed) VALUES (5, 'rubbish')")
    connection.commit()
    store(connection, some([(2, T0, 1.0, GOOD)]))
    timeseries.refresh(connection)
    assert _counted(connection) == [2, 2, 2]


def test_work_inside_a_transaction_is_refused(connection: psycopg.Connection, settings: Settings) -> None:
    connection.execute("SELECT 1")
    with pytest.raises(ValueError, match="in a transaction"):
        timeseries.keep(connection, settings, NOW)
    with pytest.raises(ValueError, match="in a transaction"):
        timeseries.refresh(connection)


@pytest.mark.parametrize("home", HOMES)
def test_batches_go_when_every_reader_passed_them_or_when_they_are_too_old(
    databases: Databases, home: HomeName
) -> None:
    with fresh(databases, home) as settings, connected(settings) as connection:
        for index in range(3):
            store(connection, some([(1, T0 + index, 1.0, GOOD)]))
        now = datetime.now(UTC)
        batches = connection.execute("SELECT xid, id FROM evaluation_batch ORDER BY xid, id").fetchall()
        connection.execute("INSERT INTO evaluation_reader (name, xid, batch_id) VALUES ('alarms', %s, %s)", batches[1])
        connection.commit()
        settle(connection)
        deleted = timeseries.keep(connection, settings, now).batches_deleted
        assert deleted == 2
        assert timeseries.keep(connection, settings, now).batches_deleted == 0
        assert timeseries.keep(connection, settings, now + timedelta(days=8)).batches_deleted == 1


def test_batches_nobody_reads_wait_until_they_are_too_old(databases: Databases) -> None:
    with fresh(databases, "plain") as settings, connected(settings) as connection:
        connection.execute("DELETE FROM evaluation_reader")
        store(connection, some([(1, T0, 1.0, GOOD)]))
        now = datetime.now(UTC)
        assert timeseries.keep(connection, settings, now).batches_deleted == 0
        assert timeseries.keep(connection, settings, now + timedelta(days=8)).batches_deleted == 1


def test_timescaledb_drops_and_refreshes_by_its_own_jobs(databases: Databases) -> None:
    with fresh(databases, "timescaledb") as settings, connected(settings) as connection:
        now = to_micros(datetime.now(UTC))
        old, recent = now - 100 * DAY, now - 20 * DAY
        store(connection, some([(1, old, 1.0, GOOD), (1, recent, 2.0, GOOD)]))
        timeseries.refresh(connection)
        assert timeseries.layout_differences(connection, settings) != []
        timeseries.apply_settings(connection, settings.model_copy(update={"readings_retention_days": 30}))
        _run_jobs(connection)
        assert [each.value for each in timeseries.raw(connection, 1, *EVER)] == [2.0]
        connection.commit()
        store(connection, some([(1, recent, 7.0, GOOD), (1, recent + 1, 4.0, GOOD)]))  # into the columnstore
        timeseries.refresh(connection)
        assert [each.value for each in timeseries.raw(connection, 1, *EVER)] == [2.0, 4.0]
        for resolution in ("1m", "1h", "1d"):  # aggregates outlive their readings
            assert [each.avg for each in timeseries.aggregated(connection, 1, *EVER, resolution)] == [1.0, 3.0]


def _run_jobs(connection: psycopg.Connection) -> None:
    jobs = connection.execute(
        "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name IN ('policy_retention', 'policy_compression')"
    ).fetchall()
    connection.commit()
    connection.autocommit = True
    for (job,) in jobs:
        connection.execute("CALL run_job(%s)", (job,))
    connection.autocommit = False
