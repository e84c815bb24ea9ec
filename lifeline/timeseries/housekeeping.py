"""What keeps the store of readings in order: room ahead, aggregates, retention, spent batches."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from psycopg import errors

from lifeline.timeseries import partitions
from lifeline.timeseries.aggregates import aggregate_round
from lifeline.timeseries.homes import Home, home, outside_transaction

if TYPE_CHECKING:
    import psycopg

    from lifeline.settings import Settings

MONTHS_AHEAD = 3
RETENTION_EVERY = timedelta(minutes=10)
DROP_LOCK_TIMEOUT_MS = 200
"""How long dropping a partition may wait, and so make readers and writers wait behind it."""

BATCHES_AT_ONCE = 2000

# Whether the retention policy of TimescaleDB acts at the age set; no row: there is none.
_RETENTION_POLICY = """
SELECT (config ->> 'drop_after')::interval = make_interval(days => %s)
FROM timescaledb_information.jobs
WHERE proc_name = 'policy_retention' AND hypertable_name = 'reading'
"""

_REMOVE_RETENTION = "SELECT remove_retention_policy('reading')"
_ADD_RETENTION = "SELECT add_retention_policy('reading', drop_after => make_interval(days => %s))"

# Minutes are computed again no further back than readings are kept: dropping readings counts as a change of their
# range, and computed again from nothing the aggregates would go with them. Hours and days follow the minutes.
_LIMIT_MINUTES = """
SELECT alter_job(job_id, config => jsonb_set(config, '{start_offset}', to_jsonb(make_interval(days => %(days)s)::text)))
FROM timescaledb_information.jobs
WHERE proc_name = 'policy_refresh_continuous_aggregate' AND hypertable_name = 'reading_1m'
  AND (config ->> 'start_offset')::interval IS DISTINCT FROM make_interval(days => %(days)s)
"""

# The oldest batch of the queue, if it may go: all readers there are have passed it, or it is too old.
_OLDEST_MAY_GO = """
SELECT created_at < %(expired)s
       OR coalesce((xid, id) <= (SELECT xid, batch_id FROM evaluation_reader ORDER BY xid, batch_id LIMIT 1), false)
FROM evaluation_batch ORDER BY xid, id LIMIT 1
"""

# Of the oldest batches, those that may go; what another process is deleting is left to it.
_DELETE_BATCHES = """
WITH slowest AS (SELECT xid, batch_id FROM evaluation_reader ORDER BY xid, batch_id LIMIT 1),
     oldest AS (
         SELECT id, xid, created_at FROM evaluation_batch ORDER BY xid, id LIMIT %(most)s FOR UPDATE SKIP LOCKED
     )
DELETE FROM evaluation_batch USING oldest LEFT JOIN slowest ON true
WHERE evaluation_batch.id = oldest.id
  AND (oldest.created_at < %(expired)s
       OR coalesce((oldest.xid, oldest.id) <= (slowest.xid, slowest.batch_id), false))
"""

_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"


@dataclass(frozen=True, slots=True)
class Kept:
    """What one round of :func:`keep` did."""

    partitions_made: int = 0
    readings_aggregated: int = 0
    partitions_dropped: int = 0
    batches_deleted: int = 0


_retention_seen: WeakKeyDictionary[psycopg.Connection, datetime] = WeakKeyDictionary()


def keep(connection: psycopg.Connection, settings: Settings, now: datetime, *, budget_s: float = 1.0) -> Kept:
    """Do what is due at ``now`` (aware), for about ``budget_s`` seconds at most; the rest is done by the next call.

    Cheap where nothing is due: three small queries on plain PostgreSQL, one on TimescaleDB, whose own jobs do the
    rest. Several processes may call it. ``connection`` must not be in a transaction. Raises ``psycopg.Error``.
    """
    outside_transaction(connection)
    until = clock.monotonic() + budget_s
    made = aggregated = dropped = 0
    if home(connection) is Home.PLAIN:
        made = _make_room(connection, now)
        while round_ := aggregate_round(connection):
            aggregated += round_
            if clock.monotonic() > until:
                break
        if _retention_due(connection, now):
            dropped = _drop_expired(connection, now - timedelta(days=settings.readings_retention_days))
    deleted = _delete_batches(connection, now - timedelta(days=settings.evaluation_retention_days), until)
    return Kept(made, aggregated, dropped, deleted)


def apply_settings(connection: psycopg.Connection, settings: Settings) -> None:
    """Bring what the database itself keeps of the settings up to date; after each upgrade."""
    if home(connection) is Home.PLAIN:
        _make_room(connection, datetime.now().astimezone())
        return
    days = settings.readings_retention_days
    with connection.transaction():
        connection.execute(_LIMIT_MINUTES, {"days": days})
        policy = connection.execute(_RETENTION_POLICY, (days,)).fetchone()
        if policy is not None and policy[0]:
            return
        if policy is not None:
            connection.execute(_REMOVE_RETENTION)
        connection.execute(_ADD_RETENTION, (days,))


def _make_room(connection: psycopg.Connection, now: datetime) -> int:
    month = partitions.month_of(now)
    return len(partitions.ensure_months(connection, range(month, month + MONTHS_AHEAD + 1)))


def _retention_due(connection: psycopg.Connection, now: datetime) -> bool:
    seen = _retention_seen.get(connection)
    if seen is not None and seen <= now < seen + RETENTION_EVERY:
        return False
    _retention_seen[connection] = now
    return True


def _drop_expired(connection: psycopg.Connection, cutoff: datetime) -> int:
    """Drop the months that ended by ``cutoff``. One that is in use is left for the next time."""
    dropped = 0
    with connection.transaction():
        expired = sorted(
            month for month in partitions.attached(connection) if partitions.month_start(month + 1) <= cutoff
        )
    for month in expired:
        try:
            with connection.transaction():
                connection.execute(_LOCK_TIMEOUT, (f"{DROP_LOCK_TIMEOUT_MS}ms",))
                partitions.drop_partition(connection, month)
        except errors.LockNotAvailable:
            break
        except errors.UndefinedTable:  # another process was quicker
            continue
        dropped += 1
    return dropped


def _delete_batches(connection: psycopg.Connection, expired: datetime, until: float) -> int:
    deleted = 0
    while True:
        with connection.transaction():
            may_go = connection.execute(_OLDEST_MAY_GO, {"expired": expired}).fetchone()
            if may_go is None or not may_go[0]:
                return deleted
            deleted += connection.execute(_DELETE_BATCHES, {"expired": expired, "most": BATCHES_AT_ONCE}).rowcount
        if clock.monotonic() > until:
            return deleted
