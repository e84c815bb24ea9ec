"""Storage: bytes a reading takes, before and after compression."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import psycopg

from benchmarks.stage import Figure, Stage
from lifeline.readings import Readings
from lifeline.timeseries import Home, ensure_partitions_at, home, write

START_US = 1_790_000_000_000_000
POINTS, ROUNDS = 200, 5000

# Everything that belongs to readings: table, partitions or chunks, and their indexes.
_PLAIN_SIZE = """
SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'reading'::regclass
"""
_HYPERTABLE_SIZE = "SELECT hypertable_size('reading')"
_COMPRESS = "SELECT compress_chunk(chunk, true) FROM show_chunks('reading') chunk"


def storage(stage: Stage, only: str) -> Iterator[Figure]:
    """Bytes per reading for a minute's reading of pressures that wander as real ones do."""
    if not "storage.bytes_per_reading".startswith(only):
        return
    stage.register(POINTS, 1)
    stage.clear()
    random = np.random.default_rng(7)
    values = np.round(0.4 + np.cumsum(random.normal(0, 0.002, (ROUNDS, POINTS)), axis=0), 3)
    with psycopg.connect(stage.database_url, autocommit=True) as connection:
        write.prepare(connection)
        point_ids = np.array([row[0] for row in connection.execute("SELECT id FROM point ORDER BY id")], np.int32)
        for first in range(0, ROUNDS, 100):
            rounds = np.arange(first, first + 100)
            time_us = START_US + np.repeat(rounds, POINTS) * 60_000_000
            received = time_us + random.integers(100_000, 900_000, len(time_us))
            readings = write.sorted_once(
                Readings(
                    np.tile(point_ids, 100),
                    time_us,
                    received,
                    values[rounds].ravel(),
                    np.zeros(len(time_us), np.int16),
                )
            )
            ensure_partitions_at(connection, readings.time)
            with connection.cursor() as cursor:
                write.write_new(cursor, readings)
        count = ROUNDS * POINTS
        if home(connection) is Home.PLAIN:
            yield Figure("storage.bytes_per_reading", _number(connection, _PLAIN_SIZE) / count, "bytes", of=None)
            return
        yield Figure("storage.bytes_per_reading", _number(connection, _HYPERTABLE_SIZE) / count, "bytes")
        connection.execute(_COMPRESS)
        compressed = _number(connection, _HYPERTABLE_SIZE) / count
        yield Figure("storage.bytes_per_reading.compressed", compressed, "bytes")


def _number(connection: psycopg.Connection, query: str) -> float:
    row = connection.execute(query).fetchone()
    assert row is not None
    return float(row[0])
