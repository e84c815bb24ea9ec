"""Databases in either home of readings, and readings to put into them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import psycopg
import pytest

from lifeline import timeseries
from lifeline.db import connect
from lifeline.readings import Readings
from lifeline.settings import Settings, load
from lifeline.timeseries import write
from migrations.upgrade import upgrade
from tests.servers import Databases, wait_for

HomeName = Literal["plain", "timescaledb"]
HOMES: tuple[HomeName, ...] = ("plain", "timescaledb")
SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000
T0 = 1_750_000_000 * SECOND
"""2025-06-15T15:06:40Z."""


def settings_for(url: str, home: str = "auto", **more: str) -> Settings:
    return load({"LIFELINE_DATABASE_URL": url, "LIFELINE_TIMESERIES": home, **more})


def need(home: HomeName, url: str) -> None:
    """Skip the test where the server of ``url`` cannot be the home asked for."""
    if home == "timescaledb":
        with psycopg.connect(url) as connection:
            if timeseries.choose_home(connection, "auto") is not timeseries.Home.TIMESCALEDB:
                pytest.skip("needs TimescaleDB: this server does not have the extension, or does not preload it")


@contextmanager
def fresh(databases: Databases, home: HomeName) -> Iterator[Settings]:
    """Settings of a new database with the schema in ``home``. TimescaleDB's own jobs are off: tests say when."""
    url = databases.create_empty()
    need(home, url)
    settings = settings_for(url, home)
    upgrade(settings)
    if home == "timescaledb":
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs")
    try:
        yield settings
    finally:
        databases.drop(url)


@contextmanager
def connected(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings, "test") as connection:
        write.prepare(connection)
        connection.commit()
        yield connection


def some(rows: list[tuple[int, int, float, int]]) -> Readings:
    """Readings of rows (point, micros, value, quality), received as they were made."""
    point_id, time, value, quality = zip(*rows, strict=True)
    at = np.array(time, np.int64)
    return Readings(np.array(point_id, np.int32), at, at, np.array(value, np.float64), np.array(quality, np.int16))


def random_readings(rng: np.random.Generator, count: int, start: int, end: int, points: int = 5) -> Readings:
    """``count`` readings of ``points`` points from ``start`` to ``end`` (micros), some bad, some uncertain."""
    time = rng.integers(start, end, count)
    value = np.round(rng.normal(0, 100, count), 3)
    quality = rng.choice(np.array([0, 0, 0, 0, 0, 1, 2], np.int16), count)
    return Readings(rng.integers(1, points + 1, count, np.int32), time, time + SECOND, value, quality)


def put(connection: psycopg.Connection, readings: Readings) -> None:
    """Write a batch as ingest does, without committing."""
    timeseries.ensure_partitions_at(connection, readings.time)
    with connection.cursor() as cursor:
        ordered = write.sorted_once(readings)
        new = write.write_absent(cursor, ordered)
        write.write_newest(cursor, ordered)
        if len(new):
            write.enqueue(cursor, new)


def store(connection: psycopg.Connection, readings: Readings) -> None:
    """Write a batch as ingest does, and commit."""
    put(connection, readings)
    connection.commit()


def settle(connection: psycopg.Connection) -> None:
    """Wait until all batches may be taken: an open transaction in any database of the server holds them back."""

    def settled() -> bool:
        row = connection.execute(
            "SELECT coalesce(max(xid) < pg_snapshot_xmin(pg_current_snapshot())::text::bigint, true) "
            "FROM evaluation_batch"
        ).fetchone()
        connection.rollback()
        return row == (True,)

    wait_for(settled, 30, "the end of older transactions")
