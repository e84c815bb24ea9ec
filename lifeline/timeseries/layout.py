"""Whether readings and their aggregates lie in the database as this program expects, said in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lifeline.timeseries import partitions
from lifeline.timeseries.homes import Home, home

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from lifeline.settings import Settings

AGGREGATES = ("reading_1m", "reading_1h", "reading_1d")

_READING = {
    "point_id": "integer not null",
    "time": "timestamp with time zone not null",
    "received_at": "timestamp with time zone not null",
    "value": "double precision not null",
    "quality": "smallint not null",
}
_AGGREGATE = {
    "point_id": "integer",
    "bucket": "timestamp with time zone",
    "count": "bigint",
    "sum": "double precision",
    "min": "double precision",
    "max": "double precision",
    "bad": "bigint",
}
_NULLABLE = ("min", "max")

# Columns of a table or view on the search path.
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""

# Indexes of a table, by what they say after the table's name.
_INDEXES = """
SELECT indexrelid::regclass::text, regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (.*)INDEX .* USING', '\\1USING')
FROM pg_index WHERE indrelid = to_regclass(%s)
"""

_TIMEZONE = "SELECT timezone FROM calendar"

_PARTITION_KEY = "SELECT pg_get_partkeydef(to_regclass('reading'))"

_AGGREGATE_READER = "SELECT EXISTS (SELECT FROM evaluation_reader WHERE name = 'aggregates')"

# The hypertable's one dimension.
_CHUNK_INTERVAL = """
SELECT column_name, time_interval = INTERVAL '1 day'
FROM timescaledb_information.dimensions WHERE hypertable_name = 'reading'
"""

_COLUMNSTORE = """
SELECT segmentby = 'point_id' AND orderby IN ('time', '"time"')
FROM timescaledb_information.hypertable_columnstore_settings WHERE hypertable = to_regclass('reading')
"""

# Each continuous aggregate, and whether it computes what is not stored yet.
_CONTINUOUS = "SELECT view_name, NOT materialized_only FROM timescaledb_information.continuous_aggregates"

# Policies that run, each with whether the age it acts at, where the setting says one, is that.
_POLICIES = """
SELECT proc_name, hypertable_name,
       CASE WHEN proc_name = 'policy_retention'
            THEN (config ->> 'drop_after')::interval = make_interval(days => %(days)s)
            WHEN proc_name = 'policy_compression' THEN true
            WHEN hypertable_name = 'reading_1m'
            THEN (config ->> 'start_offset')::interval IS NOT DISTINCT FROM make_interval(days => %(days)s)
            ELSE config ->> 'start_offset' IS NULL END
FROM timescaledb_information.jobs
WHERE scheduled AND proc_name IN ('policy_retention', 'policy_compression', 'policy_refresh_continuous_aggregate')
"""


def layout_differences(connection: psycopg.Connection, settings: Settings) -> list[str]:
    """What differs from the layout of the home at hand, one line each; nothing where all is well.

    Raises :class:`~lifeline.timeseries.homes.HomeError` where there is no home.
    """
    where = home(connection)
    with connection.transaction():
        found = [*_columns(connection, "reading", _READING), *_key(connection, "reading", '(point_id, "time")')]
        found += _calendar(connection, settings)
        found += _timescaledb(connection, settings) if where is Home.TIMESCALEDB else _plain(connection)
    return found


def _columns(connection: psycopg.Connection, table: str, expected: dict[str, str]) -> Iterator[str]:
    there: dict[str, str] = dict(connection.execute(_COLUMNS, (table,)).fetchall())
    if not there:
        yield f"{table} is missing"
        return
    for name in expected.keys() - there.keys():
        yield f"{table}.{name} is missing"
    for name in there.keys() - expected.keys():
        yield f"{table}.{name} is not expected"
    for name in expected.keys() & there.keys():
        if expected[name] != there[name]:
            yield f"{table}.{name} is {there[name]}, expected {expected[name]}"


def _key(connection: psycopg.Connection, table: str, key: str) -> Iterator[str]:
    there: dict[str, str] = dict(connection.execute(_INDEXES, (table,)).fetchall())
    if there.pop(f"{table}_pkey", None) != f"UNIQUE USING btree {key}":
        yield f"{table} does not have its key {key}"
    for name, definition in there.items():
        yield f"{table} has an index that is not expected and slows ingest: {name} ({definition})"


def _calendar(connection: psycopg.Connection, settings: Settings) -> Iterator[str]:
    row = connection.execute(_TIMEZONE).fetchone()
    if row is None:
        yield "calendar has no row: the daily aggregates do not know when a day begins"
    elif row[0] != settings.timezone:
        yield (
            f"the daily aggregates begin their days in {row[0]}, LIFELINE_TIMEZONE says {settings.timezone}: "
            f"set LIFELINE_TIMEZONE={row[0]}, or load the readings into a new database"
        )


def _plain(connection: psycopg.Connection) -> Iterator[str]:
    key = connection.execute(_PARTITION_KEY).fetchone()
    if key is None or key[0] != 'RANGE ("time")':
        yield f"reading is not partitioned by range of time but by {key[0] if key else 'nothing'}"
    month = partitions.month_of(datetime.now(UTC))
    missing = {month, month + 1} - partitions.attached(connection)
    for name in sorted(map(partitions.partition_name, missing)):
        yield f"partition {name} is missing: ingest makes it when it runs; lifeline db upgrade makes it now"
    expected = {name: kind + ("" if name in _NULLABLE else " not null") for name, kind in _AGGREGATE.items()}
    for table in AGGREGATES:
        yield from _columns(connection, table, expected)
        yield from _key(connection, table, "(point_id, bucket)")
    row = connection.execute(_AGGREGATE_READER).fetchone()
    if row is None or not row[0]:
        yield "evaluation_reader has no row 'aggregates': the aggregates are not kept current"


def _timescaledb(connection: psycopg.Connection, settings: Settings) -> Iterator[str]:
    if connection.execute(_CHUNK_INTERVAL).fetchall() != [("time", True)]:
        yield "the hypertable reading is not cut by time into chunks of 1 day"
    if connection.execute(_COLUMNSTORE).fetchone() != (True,):
        yield "the columnstore of reading is not segmented by point_id and ordered by time"
    continuous: dict[str, bool] = dict(connection.execute(_CONTINUOUS).fetchall())
    for view in AGGREGATES:
        yield from _columns(connection, view, _AGGREGATE)
        if view not in continuous:
            yield f"{view} is no continuous aggregate"
        elif not continuous[view]:
            yield f"{view} shows stored buckets only; expected: with materialized_only off, also what is newer"
    yield from _policies(connection, settings)


def _policies(connection: psycopg.Connection, settings: Settings) -> Iterator[str]:
    rows = connection.execute(_POLICIES, {"days": settings.readings_retention_days}).fetchall()
    there = {(kind, table): right for kind, table, right in rows}
    for kind, table, words in (
        ("policy_retention", "reading", "old readings are not dropped"),
        ("policy_compression", "reading", "old readings do not go to the columnstore"),
        ("policy_compression", "reading_1m", "old minutes do not go to the columnstore"),
        ("policy_compression", "reading_1h", "old hours do not go to the columnstore"),
        *(("policy_refresh_continuous_aggregate", view, "it is not kept current") for view in AGGREGATES),
    ):
        if (kind, table) not in there:
            yield f"{table} has no running {kind}: {words}"
        elif not there[kind, table]:
            yield (
                f"{kind} of {table} does not reach back as LIFELINE_READINGS_RETENTION_DAYS says: "
                "run lifeline db upgrade"
            )
