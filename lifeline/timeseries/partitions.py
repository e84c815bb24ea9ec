"""Partitions of plain PostgreSQL: one per calendar month in UTC, named ``reading_YYYY_MM``.

A month is counted from 1970-01: 0 is January 1970, 671 is December 2025.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from psycopg import sql
from psycopg.pq import TransactionStatus

from lifeline.readings import from_micros
from lifeline.timeseries.homes import Home, home

if TYPE_CHECKING:
    import psycopg
    from numpy.typing import NDArray

PARTITION_LOCK = 0x1FE11E02
"""Advisory lock under which partitions are made, so that two processes do not make the same one."""

_NAME = re.compile(r"reading_(\d{4})_(\d{2})")

# The partitions there are.
_ATTACHED = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'reading'::regclass
"""

# One at a time makes partitions; held until the transaction ends.
_LOCK = "SELECT pg_advisory_xact_lock(%s)"

# A month's table, made apart: CREATE TABLE … PARTITION OF would lock all of `reading` against writers and readers.
_CREATE = """
CREATE TABLE {partition} (LIKE reading INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING COMMENTS)
"""

# Hang it in; takes SHARE UPDATE EXCLUSIVE on `reading`, which lets reads and writes go on.
_ATTACH = "ALTER TABLE reading ATTACH PARTITION {partition} FOR VALUES FROM ({start}) TO ({end})"

_DROP = "DROP TABLE {partition}"

_known: WeakKeyDictionary[psycopg.Connection, set[int]] = WeakKeyDictionary()


def ensure_partitions(connection: psycopg.Connection, first: int, last: int) -> None:
    """Make sure that readings of every month from ``first`` to ``last`` have a place.

    ``first`` and ``last`` are microseconds since 1970-01-01T00:00Z, both included. Free of cost where there is
    nothing to do, as the months known to a connection are remembered; does nothing on TimescaleDB. Call it outside a
    transaction, or as the first thing in one: it waits for other processes that make partitions.
    """
    ensure_months(connection, range(_month(first), _month(last) + 1))


def ensure_partitions_at(connection: psycopg.Connection, times: NDArray[np.int64]) -> None:
    """As :func:`ensure_partitions`, for the months in which ``times`` (microseconds since 1970) lie and no others.

    A batch with one reading of last year then makes one partition, not twelve.
    """
    if not len(times):
        return
    first, last = _month(int(times.min())), _month(int(times.max()))
    if last - first > 1:
        months = np.unique(times.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64))
        ensure_months(connection, [int(month) for month in months])
    else:
        ensure_months(connection, (first, last))


def ensure_months(connection: psycopg.Connection, months: range | list[int] | tuple[int, ...]) -> list[int]:
    """Make the partitions of ``months`` that are missing; the months made."""
    known = _known.setdefault(connection, set())
    if known.issuperset(months):
        return []
    if home(connection) is Home.TIMESCALEDB:
        known.update(months)
        return []
    ours_to_commit = connection.info.transaction_status == TransactionStatus.IDLE
    with connection.transaction():
        connection.execute(_LOCK, (PARTITION_LOCK,))
        there = attached(connection)
        missing = sorted(set(months).difference(there))
        for month in missing:
            _make(connection, month)
    known.clear()
    known.update(there)
    if ours_to_commit:  # else the caller may yet roll them back
        known.update(missing)
    return missing


def attached(connection: psycopg.Connection) -> set[int]:
    """The months that have a partition."""
    matches = (_NAME.fullmatch(name) for (name,) in connection.execute(_ATTACHED))
    return {(int(match[1]) - 1970) * 12 + int(match[2]) - 1 for match in matches if match}


def drop_partition(connection: psycopg.Connection, month: int) -> None:
    """Drop the readings of ``month``. Locks all of ``reading`` for a moment; set a short lock time-out before."""
    connection.execute(sql.SQL(_DROP).format(partition=sql.Identifier(partition_name(month))))
    _known.pop(connection, None)


def month_of(moment: datetime) -> int:
    """The month in which ``moment`` (aware) lies in UTC."""
    moment = moment.astimezone(UTC)
    return (moment.year - 1970) * 12 + moment.month - 1


def month_start(month: int) -> datetime:
    """The first moment of ``month``, UTC."""
    return datetime(1970 + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def partition_name(month: int) -> str:
    """The table that holds the readings of ``month``."""
    return f"reading_{1970 + month // 12:04}_{month % 12 + 1:02}"


def _month(micros: int) -> int:
    return month_of(from_micros(micros))


def _make(connection: psycopg.Connection, month: int) -> None:
    partition = sql.Identifier(partition_name(month))
    connection.execute(sql.SQL(_CREATE).format(partition=partition))
    connection.execute(
        sql.SQL(_ATTACH).format(
            partition=partition, start=sql.Literal(month_start(month)), end=sql.Literal(month_start(month + 1))
        )
    )
