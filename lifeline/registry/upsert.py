"""Upserting many rows of one registry table: COPY into a temporary table, find what differs, INSERT and UPDATE that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from lifeline.registry.document import Noun
from lifeline.registry.rows import ROWS, RegistryRow


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows of one noun."""

    created: int
    changed: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class Target:
    """One registry table and how rows reach it."""

    table: str
    fields: tuple[str, ...]
    """Of the row, in the order of staging."""
    key: tuple[str, ...]
    """Columns of the table that name a row."""
    parent: tuple[str, str, str] | None = None
    """(row field, table, column): the field holds a code of that table, the column its id."""

    @property
    def stored(self) -> tuple[str, ...]:
        """Columns of the table that an import writes, in the order of ``fields``."""
        if self.parent is None:
            return self.fields
        return tuple(self.parent[2] if name == self.parent[0] else name for name in self.fields)


def _target(
    noun: Noun, table: str, key: tuple[str, ...] = ("code",), parent: tuple[str, str, str] | None = None
) -> Target:
    return Target(table, tuple(ROWS[noun].model_fields), key, parent)


TARGETS: dict[Noun, Target] = {
    "organisations": _target("organisations", "organisation"),
    "indicators": _target("indicators", "indicator"),
    "sites": _target("sites", "site"),
    "devices": _target("devices", "device", parent=("site", "site", "site_id")),
    "points": _target("points", "point", ("device_id", "code"), ("device", "device", "device_id")),
}
# Names may move between points of a device: free those that do, or the unique key would see two owners.
_FREE_NAMES = """
UPDATE point t SET source_name = NULL FROM wanted w
WHERE w.device_id = t.device_id AND w.code = t.code AND w.is_changed
  AND t.source_name IS NOT NULL AND t.source_name IS DISTINCT FROM w.source_name
"""
_NUMBERS = {"lon", "lat", "valid_min", "valid_max", "interval_s"}


def stage(connection: psycopg.Connection[Any], target: Target, rows: Sequence[RegistryRow]) -> None:
    """Make the temporary table ``wanted``: what each row shall be, beside whether it is new or differs.

    ``row`` is the position in ``rows``. Fields a row does not mention take the stored value. Everything a row refers
    to must exist.
    """
    connection.execute("DROP TABLE IF EXISTS pg_temp.staged, pg_temp.wanted")
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(_kind(target, name))) for name in target.fields
    )
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE staged (row integer, given integer, {}) ON COMMIT DROP").format(columns)
    )
    names = target.fields
    bits = {name: 1 << position for position, name in enumerate(names)}
    with connection.cursor() as cursor, cursor.copy("COPY staged FROM STDIN") as copy:
        for position, row in enumerate(rows):
            given = sum(bits[name] for name in row.model_fields_set)
            copy.write_row((position, given, *(_stored(getattr(row, name)) for name in names)))
    connection.execute("ANALYZE staged")
    connection.execute(_wanted(target, bits))


def differing(connection: psycopg.Connection[Any], target: Target, rows: int) -> Counts:
    """How many of the ``rows`` staged rows are new, differ from what is stored, or do not."""
    query = "SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE is_changed), count(*) FROM wanted"
    found = connection.execute(query).fetchone()
    assert found is not None
    created, changed, staged = found
    assert staged == rows, f"{rows - staged} rows of {target.table} refer to nothing"
    return Counts(created, changed, rows - created - changed)


def write(connection: psycopg.Connection[Any], target: Target, counts: Counts) -> None:
    """Put what is new or differs in ``wanted`` into the table; no statement runs where there is nothing to do."""
    table = sql.Identifier(target.table)
    same_key = _all_equal(target.key, "t", "w")
    columns = sql.SQL(", ").join(map(sql.Identifier, target.stored))
    if counts.changed:
        if target.table == "point":
            connection.execute(_FREE_NAMES)
        changes = sql.SQL(", ").join(
            sql.SQL("{0} = w.{0}").format(sql.Identifier(name)) for name in target.stored if name not in target.key
        )
        connection.execute(
            sql.SQL("UPDATE {} t SET {} FROM wanted w WHERE {} AND w.is_changed").format(table, changes, same_key)
        )
    if counts.created:
        connection.execute(
            sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM wanted WHERE is_new ORDER BY row").format(table, columns)
        )


def _wanted(target: Target, bits: dict[str, int]) -> sql.Composed:
    """CREATE ``wanted`` from ``staged``, the table and its parent."""
    chosen: list[sql.Composable] = []
    for name, column in zip(target.fields, target.stored, strict=True):
        stored = sql.SQL("t.{}").format(sql.Identifier(column))
        if target.parent is not None and name == target.parent[0]:
            chosen.append(sql.SQL("x.id AS {}").format(sql.Identifier(column)))
        elif column in target.key:
            chosen.append(sql.SQL("s.{}").format(sql.Identifier(column)))
        else:
            chosen.append(
                sql.SQL("CASE WHEN s.given & {bit} <> 0 THEN s.{name} ELSE {stored} END AS {name}").format(
                    bit=sql.Literal(bits[name]), name=sql.Identifier(name), stored=stored
                )
            )
    parent: sql.Composable = sql.SQL("")
    keyed: sql.Composable = _all_equal(target.key, "t", "s")
    if target.parent is not None:
        field, table, column = target.parent
        parent = sql.SQL("JOIN {} x ON x.code = s.{}").format(sql.Identifier(table), sql.Identifier(field))
        if column in target.key:
            rest = tuple(name for name in target.key if name != column)
            keyed = sql.SQL("t.{} = x.id AND {}").format(sql.Identifier(column), _all_equal(rest, "t", "s"))
    whole = sql.SQL(", ").join
    return sql.SQL(
        """
        CREATE TEMPORARY TABLE wanted ON COMMIT DROP AS
        SELECT w.*, t.{first} IS NULL AS is_new,
               t.{first} IS NOT NULL AND ({ours}) IS DISTINCT FROM ({theirs}) AS is_changed
        FROM (SELECT s.row, {chosen} FROM staged s {parent} LEFT JOIN {table} t ON {keyed}) w
        LEFT JOIN {table} t ON {again}
        """
    ).format(
        first=sql.Identifier(target.key[0]),
        ours=whole(sql.SQL("w.{}").format(sql.Identifier(name)) for name in target.stored),
        theirs=whole(sql.SQL("t.{}").format(sql.Identifier(name)) for name in target.stored),
        chosen=whole(chosen),
        parent=parent,
        table=sql.Identifier(target.table),
        keyed=keyed,
        again=_all_equal(target.key, "t", "w"),
    )


def _all_equal(columns: Sequence[str], one: str, other: str) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("{0}.{2} = {1}.{2}").format(sql.SQL(one), sql.SQL(other), sql.Identifier(name)) for name in columns
    )


def _kind(target: Target, name: str) -> str:
    if name in _NUMBERS:
        return "float8"
    return "jsonb" if (target.table, name) == ("indicator", "name") else "text"


def _stored(value: object) -> object:
    return Jsonb(value) if isinstance(value, dict) else value
