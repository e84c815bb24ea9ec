"""Partitions of the plain home are made ahead, on demand and only once, without stopping readers or writers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from lifeline import timeseries
from lifeline.readings import GOOD, to_micros
from lifeline.settings import Settings
from lifeline.timeseries import partitions
from tests.integration.storage_fixtures import T0, connected, fresh, put, settings_for, settle, some, store
from tests.servers import Databases

MAY_2009 = to_micros(datetime(2009, 5, 17, tzinfo=UTC))
JULY_2009 = to_micros(datetime(2009, 7, 1, tzinfo=UTC))


@pytest.fixture
def settings(databases: Databases) -> Iterator[Settings]:
    with fresh(databases, "plain") as settings:
        yield settings


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection]:
    with connected(settings) as connection:
        yield connection


def _names(connection: psycopg.Connection) -> set[str]:
    names = {partitions.partition_name(month) for month in partitions.attached(connection)}
    connection.rollback()
    return names


def test_every_month_from_first_to_last_has_a_partition(connection: psycopg.Connection) -> None:
    timeseries.ensure_partitions(connection, MAY_2009, JULY_2009)
    assert {"reading_2009_05", "reading_2009_06", "reading_2009_07"} <= _names(connection)
    store(connection, some([(1, MAY_2009, 1.0, GOOD), (1, JULY_2009 - 1, 2.0, GOOD), (1, JULY_2009, 3.0, GOOD)]))
    in_july = connection.execute("SELECT count(*) FROM reading_2009_07").fetchone()
    assert in_july == (1,)
    keyed = connection.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'reading_pkey'::regclass").fetchone()
    assert keyed == (len(_names(connection)),)


def test_a_lone_old_reading_makes_one_partition(connection: psycopg.Connection) -> None:
    before = _names(connection)
    timeseries.ensure_partitions_at(connection, np.array([T0, MAY_2009, T0 + 1], np.int64))
    timeseries.ensure_partitions_at(connection, np.empty(0, np.int64))
    assert _names(connection) - before == {"reading_2009_05", "reading_2025_06"}


def test_known_months_cost_no_query(connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    timeseries.ensure_partitions(connection, MAY_2009, MAY_2009)
    monkeypatch.setattr(psycopg.Connection, "execute", None)
    monkeypatch.setattr(psycopg.Connection, "cursor", None)
    timeseries.ensure_partitions(connection, MAY_2009, MAY_2009)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_many_writers_that_need_the_same_months_make_them_once(settings: Settings) -> None:
    def write(writer: int) -> None:
        with connected(settings) as connection:
            for month in range(6):
                at = MAY_2009 + month * 31 * 86_400_000_000
                store(connection, some([(writer, at, 1.0, GOOD)]))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(1, 7)))
    with connected(settings) as connection:
        assert connection.execute("SELECT count(*) FROM reading").fetchone() == (36,)


def test_open_readers_and_writers_do_not_stop_it_nor_it_them(settings: Settings) -> None:
    with connected(settings) as reader, connected(settings) as writer, connected(settings) as maker:
        put(writer, some([(1, T0, 1.0, GOOD)]))
        writer.commit()
        reader.execute("SELECT count(*) FROM reading")  # open: ACCESS SHARE on every partition
        writer.execute("UPDATE reading SET value = 2")  # open: ROW EXCLUSIVE
        maker.execute("SET lock_timeout = '1s'")
        timeseries.ensure_partitions(maker, MAY_2009, MAY_2009)  # opened by SET: not committed yet
        writer.execute("SET LOCAL lock_timeout = '1s'")
        writer.execute("INSERT INTO reading SELECT 2, time, received_at, value, quality FROM reading")
        writer.commit()
        maker.commit()
        assert "reading_2009_05" in _names(maker)


def test_a_transaction_rolled_back_does_not_leave_the_months_known(connection: psycopg.Connection) -> None:
    connection.execute("SELECT 1")
    timeseries.ensure_partitions(connection, MAY_2009, MAY_2009)
    connection.rollback()
    assert "reading_2009_05" not in _names(connection)
    store(connection, some([(1, MAY_2009, 1.0, GOOD)]))


def test_housekeeping_makes_three_months_ahead_and_drops_expired_ones(
    settings: Settings, connection: psycopg.Connection
) -> None:
    now = datetime(2031, 11, 30, 23, tzinfo=UTC)
    kept = timeseries.keep(connection, settings, now)
    assert kept.partitions_made == 4
    assert {f"reading_{month}" for month in ("2031_11", "2031_12", "2032_01", "2032_02")} <= _names(connection)
    store(connection, some([(1, MAY_2009, 1.0, GOOD), (1, JULY_2009, 2.0, GOOD), (1, T0, 3.0, GOOD)]))
    settle(connection)
    short = settings_for(settings.database_url.get_secret_value(), LIFELINE_READINGS_RETENTION_DAYS="30",
                         LIFELINE_TOO_OLD_DAYS="30")  # fmt: skip
    # The last moment of June 2009 is 30 days old only when 30 July has ended.
    kept = timeseries.keep(connection, short, datetime(2009, 7, 30, 23, 59, tzinfo=UTC) + timedelta(hours=1))
    assert kept.partitions_dropped == 1
    assert "reading_2009_05" not in _names(connection)
    assert timeseries.raw(connection, 1, datetime(2000, 1, 1, tzinfo=UTC), now)[0].value == 2.0
    assert len(timeseries.aggregated(connection, 1, datetime(2000, 1, 1, tzinfo=UTC), now, "1d")) == 3
    connection.rollback()
    store(connection, some([(1, MAY_2009, 1.0, GOOD)]))  # the month is made again when it is needed


def test_an_expired_partition_in_use_is_dropped_later(settings: Settings, connection: psycopg.Connection) -> None:
    store(connection, some([(1, MAY_2009, 1.0, GOOD)]))
    now = datetime(2031, 1, 1, tzinfo=UTC)
    with connected(settings) as reader:
        reader.execute("SELECT count(*) FROM reading")
        assert timeseries.keep(connection, settings, now).partitions_dropped == 0
        reader.rollback()
    assert timeseries.keep(connection, settings, now + timedelta(seconds=2)).partitions_dropped == 0  # not so soon
    assert timeseries.keep(connection, settings, now + timedelta(minutes=11)).partitions_dropped == 1
