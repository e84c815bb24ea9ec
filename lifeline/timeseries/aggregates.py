"""Aggregates of readings, kept current: by TimescaleDB's policies, or here on plain PostgreSQL.

On plain PostgreSQL a reader of the evaluation queue, named ``aggregates``, adds what each batch brings to
``reading_1m``, ``reading_1h`` and ``reading_1d``. A batch holds readings that were new when it was committed, each
exactly once, so a late one needs nothing special.
"""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from lifeline.readings import BAD, PackError, Readings
from lifeline.timeseries.arrays import FLOAT8, INT4, INT8, POSTGRES_EPOCH, TIMESTAMPTZ, Array, register
from lifeline.timeseries.homes import Home, home, outside_transaction

if TYPE_CHECKING:
    import psycopg
    from numpy.typing import NDArray

_log = structlog.get_logger()

READER = "aggregates"
ROUND_READINGS = 100_000
"""Readings taken in one round, about: 26 bytes each, some 150 while they are grouped and sent."""

ROUND_BATCHES = 1000
REFRESH_TIMEOUT_S = 60.0
SUM_CLIP = 1e290
"""Values beyond it, which nothing physical reaches, count as it in sums: a sum that overflows is an error."""

_MINUTE = 60_000_000

# The reader's place, held until the transaction ends; no row: another process is at work.
_TAKE_PLACE = "SELECT xid, batch_id FROM evaluation_reader WHERE name = %s FOR UPDATE SKIP LOCKED"

# The batches after a place, in an order that no commit can slip past: a transaction that is still open has an xid
# that is not below the snapshot's xmin, and so have all that began after it.
_NEXT_BATCHES = """
SELECT xid, id, packed
FROM (
    SELECT xid, id, packed, sum(readings) OVER (ORDER BY xid, id) - readings AS before
    FROM (
        SELECT xid, id, packed, readings
        FROM evaluation_batch
        WHERE (xid, id) > (%(xid)s, %(id)s)
          AND xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        ORDER BY xid, id
        LIMIT %(batches)s
    ) AS next
) AS counted
WHERE before < %(readings)s
ORDER BY xid, id
"""

_MOVE_PLACE = "UPDATE evaluation_reader SET xid = %s, batch_id = %s, moved_at = clock_timestamp() WHERE name = %s"

# Add the changes of some minutes to all three tables. Days begin at midnight of the calendar's zone.
_ADD = """
WITH change AS MATERIALIZED (
    SELECT point_id, bucket, count, sum, nullif(min, 'NaN') AS min, nullif(max, 'NaN') AS max, bad
    FROM unnest(
        %(point_id)s::int4[], %(bucket)s::timestamptz[], %(count)s::int8[], %(sum)s::float8[], %(min)s::float8[],
        %(max)s::float8[], %(bad)s::int8[]
    ) AS change (point_id, bucket, count, sum, min, max, bad)
),
minutes AS (
    INSERT INTO reading_1m AS kept (point_id, bucket, count, sum, min, max, bad)
    SELECT point_id, bucket, count, sum, min, max, bad FROM change
    ON CONFLICT (point_id, bucket) DO UPDATE
    SET count = kept.count + excluded.count, sum = kept.sum + excluded.sum, min = least(kept.min, excluded.min),
        max = greatest(kept.max, excluded.max), bad = kept.bad + excluded.bad
),
hours AS (
    INSERT INTO reading_1h AS kept (point_id, bucket, count, sum, min, max, bad)
    SELECT point_id, date_trunc('hour', bucket, 'UTC'), sum(count), sum(sum), min(min), max(max), sum(bad)
    FROM change GROUP BY 1, 2
    ON CONFLICT (point_id, bucket) DO UPDATE
    SET count = kept.count + excluded.count, sum = kept.sum + excluded.sum, min = least(kept.min, excluded.min),
        max = greatest(kept.max, excluded.max), bad = kept.bad + excluded.bad
)
INSERT INTO reading_1d AS kept (point_id, bucket, count, sum, min, max, bad)
SELECT point_id, date_trunc('day', bucket, (SELECT timezone FROM calendar)), sum(count), sum(sum), min(min), max(max),
       sum(bad)
FROM change GROUP BY 1, 2
ON CONFLICT (point_id, bucket) DO UPDATE
SET count = kept.count + excluded.count, sum = kept.sum + excluded.sum, min = least(kept.min, excluded.min),
    max = greatest(kept.max, excluded.max), bad = kept.bad + excluded.bad
"""

# The last batch committed so far.
_LAST_BATCH = "SELECT xid, id FROM evaluation_batch ORDER BY xid DESC, id DESC LIMIT 1"

_PLACE = "SELECT xid, batch_id FROM evaluation_reader WHERE name = %s"

# The policies that keep the continuous aggregates current, finest first. Run now, they bring in every range that
# changed; what is newer than their end is computed when it is read.
_REFRESH_JOBS = """
SELECT job_id FROM timescaledb_information.jobs
WHERE proc_name = 'policy_refresh_continuous_aggregate'
  AND hypertable_name IN ('reading_1m', 'reading_1h', 'reading_1d')
ORDER BY (config ->> 'end_offset')::interval
"""

_RUN_JOB = "CALL run_job(%s)"


@dataclass(frozen=True, slots=True)
class MinuteChange:
    """What some readings add to the minutes they lie in: arrays of one length, ordered by point and minute.

    ``bucket`` is microseconds since 1970; ``sum``, ``min``, ``max`` are over readings that are not bad, ``min`` and
    ``max`` NaN where ``count`` is 0.
    """

    point_id: NDArray[np.int32]
    bucket: NDArray[np.int64]
    count: NDArray[np.int64]
    sum: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    bad: NDArray[np.int64]


def by_minute(readings: Readings) -> MinuteChange:
    """Group readings, of which there must be at least one, by point and minute."""
    minute = readings.time // _MINUTE * _MINUTE
    order = np.lexsort((minute, readings.point_id))
    point_id, minute = readings.point_id[order], minute[order]
    value, is_bad = readings.value[order], readings.quality[order] >= BAD
    first = np.concatenate(([True], (point_id[1:] != point_id[:-1]) | (minute[1:] != minute[:-1])))
    start = np.flatnonzero(first)
    good = np.add.reduceat((~is_bad).astype(np.int64), start)
    clipped = np.where(is_bad, 0.0, np.clip(value, -SUM_CLIP, SUM_CLIP))
    lowest = np.minimum.reduceat(np.where(is_bad, np.inf, value), start)
    highest = np.maximum.reduceat(np.where(is_bad, -np.inf, value), start)
    return MinuteChange(
        point_id=point_id[start],
        bucket=minute[start],
        count=good,
        sum=np.add.reduceat(clipped, start),
        min=np.where(good > 0, lowest, np.nan),
        max=np.where(good > 0, highest, np.nan),
        bad=np.add.reduceat(is_bad.astype(np.int64), start),
    )


def aggregate_round(connection: psycopg.Connection) -> int:
    """On plain PostgreSQL, add the next batches to the aggregates; how many readings that were.

    0 where there is nothing to do, or another process is at it. One transaction; bounded memory.
    """
    with connection.transaction():
        place = connection.execute(_TAKE_PLACE, (READER,)).fetchone()
        if place is None:
            return 0
        batches = connection.execute(
            _NEXT_BATCHES,
            {"xid": place[0], "id": place[1], "batches": ROUND_BATCHES, "readings": ROUND_READINGS},
            binary=True,
        ).fetchall()
        if not batches:
            return 0
        readings = Readings.concatenate([_unpack(batch_id, packed) for _, batch_id, packed in batches])
        if len(readings):
            _add(connection, by_minute(readings))
        connection.execute(_MOVE_PLACE, (batches[-1][0], batches[-1][1], READER))
        return len(readings)


def refresh(connection: psycopg.Connection, *, timeout_s: float = REFRESH_TIMEOUT_S) -> None:
    """Bring the aggregates up to all that is committed now.

    Must not be called in a transaction. On plain PostgreSQL raises :class:`TimeoutError` where a transaction older
    than the newest batch stays open for ``timeout_s`` seconds.
    """
    outside_transaction(connection)
    if home(connection) is Home.TIMESCALEDB:
        _refresh_timescale(connection)
    else:
        _catch_up(connection, timeout_s)


def _unpack(batch_id: int, packed: bytes) -> Readings:
    try:
        return Readings.unpack(packed)
    except PackError as error:  # waiting would stop the aggregates of every point for good
        _log.error("aggregates pass over a damaged batch", batch=batch_id, error=str(error))
        return Readings.empty()


def _add(connection: psycopg.Connection, change: MinuteChange) -> None:
    register(connection)
    columns: dict[str, Any] = {
        "point_id": Array(change.point_id, *INT4),
        "bucket": Array(change.bucket - POSTGRES_EPOCH, *TIMESTAMPTZ),
        "count": Array(change.count, *INT8),
        "sum": Array(change.sum, *FLOAT8),
        "min": Array(change.min, *FLOAT8),
        "max": Array(change.max, *FLOAT8),
        "bad": Array(change.bad, *INT8),
    }
    connection.execute(_ADD, columns)


def _refresh_timescale(connection: psycopg.Connection) -> None:
    was = connection.autocommit
    connection.autocommit = True  # the procedure commits in between and refuses a transaction around it
    try:
        for (job,) in connection.execute(_REFRESH_JOBS).fetchall():
            connection.execute(_RUN_JOB, (job,))
    finally:
        connection.autocommit = was


def _catch_up(connection: psycopg.Connection, timeout_s: float) -> None:
    until = clock.monotonic() + timeout_s
    with connection.transaction():
        last = connection.execute(_LAST_BATCH).fetchone()
    while last is not None:
        while aggregate_round(connection):
            pass
        with connection.transaction():
            place = connection.execute(_PLACE, (READER,)).fetchone()
        if place is None or place >= last:
            return
        if clock.monotonic() > until:
            raise TimeoutError(
                f"the aggregates could not be brought up to date within {timeout_s:.0f} s: a transaction that writes "
                "has been open longer than that; look for it in pg_stat_activity (xact_start), then try again"
            )
        clock.sleep(0.02)
