"""Writing a checked document into the database: all or nothing, many rows at a time, nothing for what is unchanged.

Rows go by COPY into a temporary table; one statement finds which are new and which differ; then at most one INSERT
and one UPDATE per table. The registry's version counts statements, so a document that changes nothing must run none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from lifeline.indicators import catalogue
from lifeline.registry.check import Checked, Progress, check, outside_county
from lifeline.registry.document import NOUNS, Document, Noun
from lifeline.registry.problems import Problem, RegistryRefusedError
from lifeline.registry.references import References, unit_fault
from lifeline.registry.upsert import TARGETS, Counts, differing, stage, write

_LOCK = 0x6C69_6665_0002
"""Advisory lock: one writer of the registry at a time, so that two imports wait for each other and never deadlock."""
_LOCK_TIMEOUT_S = 120


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
        references = References(connection, document, checked)
        problems += references.problems()
        for noun in NOUNS:
            if problems:
                references.stand_in(noun, problems)
            rows = references.sound(noun, problems)
            if rows:
                progress(f"{'checking further' if problems else 'writing'} {len(rows):,} {noun}")
                stage(connection, TARGETS[noun], [item.row for item in rows])
                untried = references.untried_points(problems) if noun == "points" else set()
                counts, faults = _faults_of_staged(connection, noun, rows, untried)
                imported.counts[noun] = counts
                imported.warnings += [
                    rows[row].problem("unit", reason) for row, reason in _changed_units(connection, noun)
                ]
                found = [rows[row].problem(name, reason) for row, name, reason in faults]
                told = {(problem.noun, problem.index, problem.field) for problem in problems}
                problems += [item for item in found if (item.noun, item.index, item.field) not in told]
                if noun != "points" or not problems:  # nothing refers to points: tried, they need not be written
                    write(connection, TARGETS[noun], counts)
        if problems:  # what was written only showed what else is wrong; it is rolled back
            raise RegistryRefusedError(sorted(problems, key=_document_order))
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


def _faults_of_staged(
    connection: psycopg.Connection[Any], noun: Noun, rows: list[Checked], untried: set[tuple[str, ...]]
) -> tuple[Counts, list[tuple[int, str, str]]]:
    """How many staged rows are new or differ, and (row, field, reason) of those at fault, which are staged no more.

    ``untried``: keys of points that are not staged, so that their stored names count for nothing.
    """
    counts = differing(connection, TARGETS[noun], len(rows))
    faults: list[tuple[int, str, str]] = []
    if counts.created or counts.changed:
        faults += _faults_of_merged(connection, noun)
        if noun == "points":
            faults += _ambiguous_names(connection, rows, untried)
    if faults:
        connection.execute("DELETE FROM wanted WHERE row = ANY(%s)", [[row for row, _, _ in faults]])
    return counts, faults


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
    for row, unit, indicator, expected in connection.execute(_KEPT_UNITS):
        reason = unit_fault(unit, indicator, expected)
        if reason:
            yield row, "unit", reason


def _ambiguous_names(
    connection: psycopg.Connection[Any], rows: list[Checked], untried: set[tuple[str, ...]]
) -> Iterable[tuple[int, str, str]]:
    """(row, field, reason) of points whose name leads to another point of their device too."""
    for row, heard, codes in connection.execute(_AMBIGUOUS_NAMES):
        device, own = rows[row].key
        others = sorted(code for code in codes if code != own and (device, code) not in untried)
        if others:
            reason = f"'{heard}' names point '{others[0]}' of this device too (as source_name, or as code)"
            yield row, "source_name", reason


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
    SELECT row, device_id, code, COALESCE(source_name, code) AS heard FROM wanted
    UNION ALL
    SELECT NULL, p.device_id, p.code, COALESCE(p.source_name, p.code)
    FROM point p
    WHERE p.device_id IN (SELECT device_id FROM wanted WHERE is_new OR is_changed)
      AND NOT EXISTS (SELECT FROM wanted w WHERE w.device_id = p.device_id AND w.code = p.code)
), counted AS (
    SELECT device_id, heard, array_agg(code) AS codes FROM after GROUP BY 1, 2 HAVING count(*) > 1
)
SELECT row, heard, codes FROM after JOIN counted USING (device_id, heard) WHERE row IS NOT NULL ORDER BY row
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
