"""Writing readings: the hot path of ingest, the same for TimescaleDB and plain PostgreSQL.

Columns go to the server as they are: NumPy lays out the rows of binary COPY, so that no Python object is made per
reading. Format: PostgreSQL documentation, "COPY", section "Binary Format".
"""

from __future__ import annotations

import numpy as np
import psycopg
from psycopg import sql

from lifeline.readings import Readings
from lifeline.timeseries import arrays
from lifeline.timeseries.arrays import FLOAT8, INT2, INT4, POSTGRES_EPOCH, TIMESTAMPTZ, Array

_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_COPY_ROW = np.dtype(
    [
        ("fields", ">i2"),
        *(
            item
            for name, kind in (
                ("point_id", ">i4"),
                ("time", ">i8"),
                ("received_at", ">i8"),
                ("value", ">f8"),
                ("quality", ">i2"),
            )
            for item in ((f"{name}_size", ">i4"), (name, kind))
        ),
    ]
)

_KEY = np.dtype([("point_id", np.int64), ("time", np.int64)])

# Readings that are all new: the fast way. Fails as a whole on the first repeat.
_COPY = "COPY {} (point_id, time, received_at, value, quality) FROM STDIN (FORMAT BINARY)"

# Readings among which some are there already: tells which ones were new.
_INSERT_ABSENT = """
INSERT INTO reading (point_id, time, received_at, value, quality)
SELECT * FROM unnest(%b::int4[], %b::timestamptz[], %b::timestamptz[], %b::float8[], %b::int2[])
ON CONFLICT (point_id, time) DO NOTHING
RETURNING point_id, (extract(epoch FROM time) * 1000000)::int8
"""

# The newest reading per point, by its own time; a repeat or late reading changes nothing.
_UPSERT_NEWEST = """
INSERT INTO newest_reading AS newest (point_id, time, received_at, value, quality)
SELECT * FROM unnest(%b::int4[], %b::timestamptz[], %b::timestamptz[], %b::float8[], %b::int2[])
ON CONFLICT (point_id) DO UPDATE
SET time = excluded.time, received_at = excluded.received_at, value = excluded.value, quality = excluded.quality
WHERE newest.time < excluded.time
"""

# Hand the batch to the readers of the evaluation queue and wake them.
_ENQUEUE = "INSERT INTO evaluation_batch (readings, packed) VALUES (%b, %b)"
_WAKE = "NOTIFY lifeline_evaluation"


def prepare(connection: psycopg.Connection) -> None:
    """Make ``connection`` fit for the functions of this module: array dumpers, and late data into compressed chunks."""
    arrays.register(connection)
    # TimescaleDB stops a transaction that must open many compressed rows to look for a repeat; late batches may.
    connection.execute("SELECT set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', false)")


def write_new(cursor: psycopg.Cursor, readings: Readings, table: str = "reading") -> None:
    """Store readings of which none is there yet. Raises ``psycopg.errors.UniqueViolation`` at the first repeat."""
    rows = np.empty(len(readings), _COPY_ROW)
    rows["fields"] = 5
    for name in ("point_id", "time", "received_at", "value", "quality"):
        rows[f"{name}_size"] = _COPY_ROW[name].itemsize
    rows["point_id"] = readings.point_id
    rows["time"] = readings.time - POSTGRES_EPOCH
    rows["received_at"] = readings.received_at - POSTGRES_EPOCH
    rows["value"] = readings.value
    rows["quality"] = readings.quality
    with cursor.copy(sql.SQL(_COPY).format(sql.Identifier(table))) as copy:
        copy.write(_COPY_HEADER)
        copy.write(rows.tobytes())
        copy.write(_COPY_TRAILER)


def write_absent(cursor: psycopg.Cursor, readings: Readings) -> Readings:
    """Store those readings that are not there yet, and give them back, in no particular order."""
    cursor.execute(_INSERT_ABSENT, _columns(readings))
    stored = cursor.fetchall()
    if len(stored) == len(readings):
        return readings
    if not stored:
        return Readings.empty()
    wanted = np.array(stored, _KEY)
    keys = np.empty(len(readings), _KEY)
    keys["point_id"], keys["time"] = readings.point_id, readings.time
    return readings.take(np.isin(keys, wanted))


def write_newest(cursor: psycopg.Cursor, readings: Readings) -> None:
    """Move each point's newest reading forward, where ``readings`` (sorted by point and time) holds a newer one.

    Sorted by point, so that two processes that move the same points wait for each other instead of deadlocking.
    """
    last_of_point = np.empty(len(readings), np.bool_)
    last_of_point[:-1] = readings.point_id[1:] != readings.point_id[:-1]
    last_of_point[-1:] = True
    cursor.execute(_UPSERT_NEWEST, _columns(readings.take(last_of_point)))


def enqueue(cursor: psycopg.Cursor, readings: Readings) -> None:
    """Put one row into the evaluation queue and wake its readers when the transaction commits."""
    cursor.execute(_ENQUEUE, (len(readings), readings.pack()))
    cursor.execute(_WAKE)


def sorted_once(readings: Readings) -> Readings:
    """``readings`` sorted by point and time, each (point, time) once: the first that came counts."""
    order = np.lexsort((readings.time, readings.point_id))
    ordered = readings.take(order)
    first = np.empty(len(ordered), np.bool_)
    first[:1] = True
    first[1:] = (ordered.point_id[1:] != ordered.point_id[:-1]) | (ordered.time[1:] != ordered.time[:-1])
    return ordered if first.all() else ordered.take(first)


def _columns(readings: Readings) -> tuple[Array, ...]:
    return (
        Array(readings.point_id, *INT4),
        Array(readings.time - POSTGRES_EPOCH, *TIMESTAMPTZ),
        Array(readings.received_at - POSTGRES_EPOCH, *TIMESTAMPTZ),
        Array(readings.value, *FLOAT8),
        Array(readings.quality, *INT2),
    )
