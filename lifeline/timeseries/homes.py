"""The two homes of readings: a TimescaleDB hypertable, or partitions of plain PostgreSQL.

The home is chosen once, when the schema is made; afterwards the catalogue tells which one it is.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    import psycopg


class Home(enum.Enum):
    """Where readings live."""

    TIMESCALEDB = "timescaledb"
    PLAIN = "plain"


class HomeError(Exception):
    """The database has no home for readings, or cannot be given the one asked for; the text says what to do."""


# What `reading` is: 'p' a partitioned table, 'r' an ordinary one or a hypertable; null: there is none.
_WHAT_IS_READING = """
SELECT (SELECT relkind FROM pg_class WHERE oid = to_regclass('reading')),
       EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
"""

# Whether `reading`, found on the search path, is a hypertable.
_IS_HYPERTABLE = """
SELECT EXISTS (
    SELECT FROM timescaledb_information.hypertables
    WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = to_regclass('reading')
)
"""

# Whether this database can be a TimescaleDB: installed here already, or on the server and preloaded. The setting is
# defined by the preloaded library and shows to every role, which shared_preload_libraries does not.
_TIMESCALEDB_STATE = """
SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb'),
       EXISTS (SELECT FROM pg_settings WHERE name = 'timescaledb.max_background_workers')
"""

_known: WeakKeyDictionary[psycopg.Connection, Home] = WeakKeyDictionary()


def home(connection: psycopg.Connection) -> Home:
    """The home of readings in the database of ``connection``; asked of the catalogue once per connection.

    Raises :class:`HomeError` where the schema has not been made.
    """
    found = _known.get(connection)
    if found is None:
        found = _known[connection] = _ask(connection)
    return found


def choose_home(connection: psycopg.Connection, wish: Literal["auto", "timescaledb", "plain"]) -> Home:
    """The home to make in a database that has none yet, for the setting ``LIFELINE_TIMESERIES``.

    Raises :class:`HomeError` where TimescaleDB is asked for and the server does not have it ready.
    """
    if wish == "plain":
        return Home.PLAIN
    with connection.transaction():
        row = connection.execute(_TIMESCALEDB_STATE).fetchone()
    assert row is not None
    available, preloaded = row
    if available and preloaded:
        return Home.TIMESCALEDB
    if wish == "auto":
        return Home.PLAIN
    if not available:
        raise HomeError(
            "LIFELINE_TIMESERIES is timescaledb, but this server has no such extension: install TimescaleDB on it, "
            "or set LIFELINE_TIMESERIES=plain"
        )
    raise HomeError(
        "LIFELINE_TIMESERIES is timescaledb, but the server does not load it at start: add timescaledb to "
        "shared_preload_libraries and restart the server, or set LIFELINE_TIMESERIES=plain"
    )


def _ask(connection: psycopg.Connection) -> Home:
    with connection.transaction():  # leaves no transaction open behind
        row = connection.execute(_WHAT_IS_READING).fetchone()
        assert row is not None
        kind, has_extension = row
        if kind == "p":
            return Home.PLAIN
        if kind == "r" and has_extension:
            answer = connection.execute(_IS_HYPERTABLE).fetchone()
            if answer is not None and answer[0]:
                return Home.TIMESCALEDB
    if kind is None:
        raise HomeError("the database has no table for readings yet; run: lifeline db upgrade")
    raise HomeError("the table reading is neither partitioned nor a hypertable; run: lifeline db check")


def outside_transaction(connection: psycopg.Connection) -> None:
    """Raise :class:`ValueError` where ``connection`` is in a transaction, for work that commits by itself."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("the connection is in a transaction; commit it first")
