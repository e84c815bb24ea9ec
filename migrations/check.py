"""Whether a database has the schema this program expects: versions, tables, layout of readings; said in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Column, Connection, inspect, text

from lifeline import timeseries
from lifeline.db import make_engine
from lifeline.tables import Base
from migrations.upgrade import behind, current, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifeline.settings import Settings

_BY_HOME = ("reading", "reading_1m", "reading_1h", "reading_1d")
_REGISTRY = ("county", "organisation", "site", "indicator", "device", "point")

# Tables whose statements are counted by registry_version, with what the trigger fires on (pg_trigger.tgtype: after,
# statement, insert 4, delete 8, update 16, truncate 32).
_TRIGGERS = """
SELECT tgrelid::regclass::text FROM pg_trigger
WHERE tgname = tgrelid::regclass || '_registry_changed' AND tgtype = 60 AND tgenabled = 'O'
"""


def differences(settings: Settings) -> list[str]:
    """Where the database of ``settings`` differs from what this program expects, one line each.

    A database that lacks versions is told just that, as the rest follows from it. Raises
    :class:`~migrations.upgrade.UpgradeError` where it cannot be looked at.
    """
    engine = make_engine(settings, "db")
    try:
        with in_words(), engine.connect() as connection:
            revision = current(connection)
            if revision is None:
                return ["the database has no schema yet; run: lifeline db upgrade"]
            if lacking := behind(revision):
                return [
                    f"the database is at version {revision} and lacks {', '.join(lacking)}; run: lifeline db upgrade"
                ]
            found = [*_tables(connection), *_checks(connection), *_triggers(connection)]
            connection.rollback()
            bare = connection.connection.driver_connection
            assert isinstance(bare, psycopg.Connection)
            return found + timeseries.layout_differences(bare, settings)
    finally:
        engine.dispose()


def _tables(connection: Connection) -> Iterator[str]:
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_name": _is_ours,
            "include_object": _is_here,
        },
    )
    for entry in compare_metadata(context, Base.metadata):
        for difference in entry if isinstance(entry, list) else [entry]:
            yield _say(*difference)


def _is_ours(name: str | None, kind: str, parents: Any) -> bool:  # noqa: ARG001 (Alembic's signature)
    """Whether a table in the database is compared here; readings are compared by the layout of their home."""
    return kind != "table" or name is None or not (name == "reading" or name.startswith("reading_"))


def _is_here(obj: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:  # noqa: ARG001
    return kind != "table" or name not in _BY_HOME


def _say(kind: str, *rest: Any) -> str:
    """One difference of Alembic's list (``alembic.autogenerate.compare_metadata``) in words."""
    what = rest[-1]
    if kind in {"add_table", "remove_table"}:
        return f"table {what.name} is {'missing' if kind == 'add_table' else 'not expected'}"
    if kind in {"add_column", "remove_column"}:
        assert isinstance(what, Column)
        return f"column {rest[1]}.{what.name} is {'missing' if kind == 'add_column' else 'not expected'}"
    if kind.startswith("modify_"):
        _, table, column, _, there, expected = rest
        if kind == "modify_default":
            there, expected = _default(there), _default(expected)
        return f"column {table}.{column}: {kind.removeprefix('modify_')} is {there}, expected {expected}"
    if kind.startswith(("add_", "remove_")):
        verb, noun = kind.split("_", 1)
        table = getattr(getattr(what, "table", None), "name", "?")
        noun = {"fk": "foreign key"}.get(noun, noun).replace("_", " ")
        return f"{noun} {what.name} of {table} is {'missing' if verb == 'add' else 'not expected'}"
    return f"{kind}: {rest}"


def _default(default: Any) -> str:
    argument = getattr(default, "arg", default)
    return "none" if argument is None else str(getattr(argument, "text", argument))


def _checks(connection: Connection) -> Iterator[str]:
    """Check constraints and primary keys, which Alembic does not compare."""
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    for table in Base.metadata.sorted_tables:
        if table.name in _BY_HOME or table.name not in present:
            continue
        expected = {str(each.name) for each in table.constraints if isinstance(each, CheckConstraint)}
        there = {str(each["name"]) for each in inspector.get_check_constraints(table.name)}
        for name in sorted(expected - there):
            yield f"check constraint {name} of {table.name} is missing"
        for name in sorted(there - expected):
            yield f"check constraint {name} of {table.name} is not expected"
        key = inspector.get_pk_constraint(table.name)["constrained_columns"]
        if key != [column.name for column in table.primary_key.columns]:
            yield f"the primary key of {table.name} is ({', '.join(key) or 'missing'})"


def _triggers(connection: Connection) -> Iterator[str]:
    there = set(connection.scalars(text(_TRIGGERS)))
    for table in _REGISTRY:
        if table not in there:
            yield f"trigger {table}_registry_changed is missing or off: ingest would not see changes of {table}"
