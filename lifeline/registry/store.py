"""Writing a checked document into the database: all or nothing, many rows at a time, nothing for what is unchanged.

Rows go by COPY into a temporary table; one statement finds which are new and which differ; then at most one INSERT
and one UPDATE per table. The registry's version counts statements, so a document that changes nothing must run none.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from lifeline import units
from lifeline.indicators import catalogue
from lifeline.registry.check import Checked, CheckedDocument, Progress, check, key, outside_county
from lifeline.registry.document import NOUNS, Document, Noun
from lifeline.registry.problems import Problem, RegistryRefusedError
from lifeline.registry.upsert import TARGETS, Counts, differing, stage, write

_LOCK = 0x6C69_6665_0002
"""Advisory lock: one writer of the registry at a time, so that two imports wait for each other and never deadlock."""
_LOCK_TIMEOUT_S = 120
_SUGGESTED = 50
"""Only so many problems get a "did you mean": finding the nearest of many codes is slow."""


@dataclass(slots=True)
class Imported:
    """What an import did (or, as a dry run, would do)."""

    counts: dict[Noun, Counts] = field(default_factory=dict)
    """By noun of the document."""
    catalogue: int = 0
    """Indicators that were missing and were copied from the catalogue."""
    warnings: list[Problem] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return self.catalogue > 0 or any(count.created or count.changed for count in self.counts.values())


def import_document(
    connection: psycopg.Connection[Any],
    document: Document,
    *,
    dry_run: bool = False,
    progress: Progress = lambda _: None,
) -> Imported:
    """Upsert ``document`` by code, all or nothing; missing catalogue indicators are put in on the way.

    Runs in a transaction of its own, or as a savepoint of the caller's. A field that a row does not mention keeps its
    value. With ``dry_run`` everything is tried and rolled back. Raises :class:`RegistryRefusedError` with every
    problem found; ``psycopg.errors.LockNotAvailable`` where another import ran for over two minutes.
    """
    checked, problems = check(document, progress)
    imported = Imported()
    with connection.transaction(force_rollback=dry_run):
        lock(connection)
        imported.catalogue = _insert_catalogue(connection)
        problems += _dangling(connection, document, checked)
        problems += _bad_units(connection, checked)
        if problems:
            raise RegistryRefusedError(sorted(problems, key=_document_order))
        for noun in NOUNS:
            rows = checked.get(noun)
            if rows:
                progress(f"writing {len(rows):,} {noun}")
                imported.counts[noun] = _write_noun(connection, noun, rows, imported.warnings)
    imported.warnings += filter(None, map(outside_county, checked.get("sites", [])))
    return imported


def seed_catalogue(connection: psycopg.Connection[Any]) -> int:
    """Insert the catalogue's indicators that the database lacks; edited ones stay. Returns how many were inserted."""
    with connection.transaction():
        lock(connection)
        return _insert_catalogue(connection)


def lock(connection: psycopg.Connection[Any]) -> None:
    """Make this transaction the registry's only writer until it ends; every writer of the registry takes this first."""
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_LOCK_TIMEOUT_S}s"])
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def _insert_catalogue(connection: psycopg.Connection[Any]) -> int:
    present = {code for (code,) in connection.execute("SELECT code FROM indicator")}
    missing = [indicator for indicator in catalogue() if indicator.code not in present]
    if missing:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO indicator (code, name, sector, unit, valid_min, valid_max, interval_s, basis) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (i.code, Jsonb(dict(i.name)), i.sector, i.unit, i.valid_min, i.valid_max, i.interval_s, i.basis)
                    for i in missing
                ],
            )
    return len(missing)


# Field of a row: (noun of the document that may bring the code along, table, what to call it).
_REFERENCES: dict[Noun, dict[str, tuple[Noun | None, str]]] = {
    "organisations": {"county": (None, "county")},
    "indicators": {},
    "sites": {"county": (None, "county"), "organisation": ("organisations", "organisation")},
    "devices": {"site": ("sites", "site")},
    "points": {"device": ("devices", "device"), "indicator": ("indicators", "indicator")},
}


def _dangling(connection: psycopg.Connection[Any], document: Document, checked: CheckedDocument) -> list[Problem]:
    """Rows that refer to what neither the database nor the document has."""
    problems: list[Problem] = []
    for noun, references in _REFERENCES.items():
        for name, (brought_by, table) in references.items():
            rows = [item for item in checked.get(noun, []) if getattr(item.row, name) is not None]
            wanted = {getattr(item.row, name) for item in rows}
            missing = wanted - (_brought(document, checked, brought_by) if brought_by else set())
            missing -= _present(connection, table, missing)
            if missing:
                problems += _name_missing(connection, rows, name, table, missing)
    return problems


def _brought(document: Document, checked: CheckedDocument, noun: Noun) -> set[str]:
    """Codes the document brings along, those of refused rows too: one mistake, one problem."""
    written = (row.fields.get("code") for row in document.get(noun, []))
    return {code for code in written if isinstance(code, str)} | {key(item.row)[-1] for item in checked.get(noun, [])}


def _present(connection: psycopg.Connection[Any], table: str, codes: set[str]) -> set[str]:
    if not codes:
        return set()
    query = sql.SQL("SELECT code FROM {} WHERE code = ANY(%s)").format(sql.Identifier(table))
    return {code for (code,) in connection.execute(query, [list(codes)])}


def _name_missing(
    connection: psycopg.Connection[Any], rows: list[Checked], name: str, table: str, missing: set[str]
) -> list[Problem]:
    query = sql.SQL("SELECT code FROM {} ORDER BY code LIMIT 5000").format(sql.Identifier(table))
    known = [code for (code,) in connection.execute(query)]
    problems: list[Problem] = []
    for item in rows:
        code = getattr(item.row, name)
        if code in missing:
            near = difflib.get_close_matches(code, known, 1) if len(problems) < _SUGGESTED else []
            hint = (
                f"; did you mean '{near[0]}'?"
                if near
                else f"; known are {', '.join(known)}"
                if 0 < len(known) < 8
                else ""
            )
            problems.append(item.problem(name, f"there is no {table} '{code}'{hint}"))
    return problems


def _bad_units(connection: psycopg.Connection[Any], checked: CheckedDocument) -> list[Problem]:
    """Points whose own unit does not convert to their indicator's."""
    given: dict[str, str | None] = {item.row.code: item.row.unit for item in checked.get("indicators", [])}  # type: ignore[attr-defined]
    known: Mapping[str, str | None] = dict(connection.execute("SELECT code, unit FROM indicator").fetchall()) | given
    problems: list[Problem] = []
    for item in checked.get("points", []):
        point: Any = item.row
        if point.unit is not None and point.indicator in known:
            reason = unit_fault(point.unit, point.indicator, known[point.indicator])
            if reason:
                problems.append(item.problem("unit", reason))
    return problems


def unit_fault(unit: str, indicator: str, expected: str | None) -> str | None:
    """Why a point of ``indicator``, whose unit is ``expected``, cannot be in ``unit``; None where it can."""
    if expected is None:
        return f"'{unit}' is given, but {indicator} is true or false and has no unit; leave it out"
    if units.conversion(unit, expected) is None:
        return f"'{unit}' does not convert to '{expected}', the unit of {indicator}"
    return None


def _write_noun(
    connection: psycopg.Connection[Any], noun: Noun, rows: list[Checked], warnings: list[Problem]
) -> Counts:
    target = TARGETS[noun]
    stage(connection, target, [item.row for item in rows])
    counts = differing(connection, target, len(rows))
    if counts.created or counts.changed:
        found = [rows[row].problem(name, reason) for row, name, reason in _faults_of_merged(connection, noun)]
        if found:
            raise RegistryRefusedError(sorted(found, key=_document_order))
        warnings += [rows[row].problem("unit", reason) for row, reason in _changed_units(connection, noun)]
        write(connection, target, counts)
    return counts


def _faults_of_merged(connection: psycopg.Connection[Any], noun: Noun) -> Iterable[tuple[int, str, str]]:
    """(row, field, reason) of what only shows when given and kept values meet: empty ranges, ambiguous names."""
    if noun == "indicators":
        rows = connection.execute("SELECT row, valid_min, valid_max FROM wanted WHERE valid_min > valid_max")
        for row, low, high in rows:
            yield row, "valid_min", f"valid_min {low:g} is above valid_max {high:g} (one of them is kept from before)"
    if noun != "points":
        return
    for row, low, high in connection.execute(_EMPTY_RANGES):
        yield (
            row,
            "valid_min",
            f"valid_min {low:g} is above valid_max {high:g} (one of them is kept, or the indicator's)",
        )
    for row, heard in connection.execute(_AMBIGUOUS_NAMES):
        yield row, "source_name", f"'{heard}' names another point of this device too (as source_name, or as code)"
    for row, unit, indicator, expected in connection.execute(_KEPT_UNITS):
        reason = unit_fault(unit, indicator, expected)
        if reason:
            yield row, "unit", reason


def _changed_units(connection: psycopg.Connection[Any], noun: Noun) -> Iterable[tuple[int, str]]:
    """(row, reason) where stored readings would mean something else from now on."""
    if noun == "points":
        for row, before, after in connection.execute(_CHANGED_UNITS):
            yield row, f"changes from {before} to {after}; readings already stored keep their numbers"
    elif noun == "indicators":
        for row, before, after, count in connection.execute(_CHANGED_INDICATOR_UNITS):
            yield row, f"changes from {before} to {after}; readings of {count} points already stored keep their numbers"


_EMPTY_RANGES = """
SELECT w.row, low, high
FROM wanted w JOIN indicator i ON i.code = w.indicator,
LATERAL (SELECT w.unit IS NULL OR w.unit IS NOT DISTINCT FROM i.unit AS inherits) same,
LATERAL (SELECT COALESCE(w.valid_min, CASE WHEN inherits THEN i.valid_min END) AS low,
                COALESCE(w.valid_max, CASE WHEN inherits THEN i.valid_max END) AS high) effective
WHERE low > high
"""

# A source names a point by source_name, or by code where none is set: within a device both must lead to one point.
_AMBIGUOUS_NAMES = """
WITH after AS (
    SELECT row, device_id, COALESCE(source_name, code) AS heard FROM wanted
    UNION ALL
    SELECT NULL, p.device_id, COALESCE(p.source_name, p.code)
    FROM point p
    WHERE p.device_id IN (SELECT device_id FROM wanted WHERE is_new OR is_changed)
      AND NOT EXISTS (SELECT FROM wanted w WHERE w.device_id = p.device_id AND w.code = p.code)
), counted AS (
    SELECT row, heard, count(*) OVER (PARTITION BY device_id, heard) AS times FROM after
)
SELECT row, heard FROM counted WHERE times > 1 AND row IS NOT NULL ORDER BY row
"""

_KEPT_UNITS = """
SELECT w.row, w.unit, w.indicator, i.unit
FROM wanted w JOIN indicator i ON i.code = w.indicator
WHERE w.is_changed AND w.unit IS NOT NULL AND w.unit IS DISTINCT FROM i.unit
"""

_CHANGED_UNITS = """
SELECT w.row, COALESCE(p.unit, j.unit, 'none'), COALESCE(w.unit, i.unit, 'none')
FROM wanted w
JOIN point p ON p.device_id = w.device_id AND p.code = w.code
JOIN indicator i ON i.code = w.indicator
JOIN indicator j ON j.code = p.indicator
WHERE w.is_changed AND COALESCE(p.unit, j.unit) IS DISTINCT FROM COALESCE(w.unit, i.unit)
  AND EXISTS (SELECT FROM newest_reading n WHERE n.point_id = p.id)
"""

_CHANGED_INDICATOR_UNITS = """
SELECT w.row, COALESCE(i.unit, 'none'), COALESCE(w.unit, 'none'), count(*)
FROM wanted w JOIN indicator i ON i.code = w.code JOIN point p ON p.indicator = i.code AND p.unit IS NULL
WHERE w.is_changed AND w.unit IS DISTINCT FROM i.unit
  AND EXISTS (SELECT FROM newest_reading n WHERE n.point_id = p.id)
GROUP BY w.row, i.unit, w.unit
"""


def _document_order(problem: Problem) -> tuple[int, int]:
    return (NOUNS.index(problem.noun) if problem.noun in NOUNS else -1, problem.index or 0)
