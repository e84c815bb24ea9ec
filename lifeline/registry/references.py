"""What rows refer to, in the document or the database; and which rows can be tried although others are bad."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import sql

from lifeline import units
from lifeline.registry.check import Checked, CheckedDocument, damaged, written_key
from lifeline.registry.document import NOUNS, Document, Noun
from lifeline.registry.indicator_names import IndicatorNames
from lifeline.registry.problems import Problem
from lifeline.registry.rows import IndicatorRow, PointRow

_SUGGESTED = 50
"""Only so many problems get a "did you mean": finding the nearest of many codes is slow."""

# Field of a row: (noun of the document that may bring the code along, table, what to call it).
_REFERENCES: dict[Noun, dict[str, tuple[Noun | None, str]]] = {
    "organisations": {"county": (None, "county")},
    "sites": {"county": (None, "county"), "organisation": ("organisations", "organisation")},
    "devices": {"site": ("sites", "site")},
    "points": {"device": ("devices", "device"), "indicator": ("indicators", "indicator")},
}
_HARMLESS = ("unit", "source_name")
"""Fields of points whose problems do not keep the row from being tried for others."""

_STAND_INS: dict[Noun, str] = {
    "organisations": (
        "INSERT INTO organisation (code, name) SELECT c, c FROM unnest(%s::text[]) c ON CONFLICT DO NOTHING"
    ),
    "sites": (
        "INSERT INTO site (code, name, sector, county, lon, lat) "
        "SELECT c, c, 'gas', (SELECT min(code) FROM county), 100, 36 FROM unnest(%s::text[]) c ON CONFLICT DO NOTHING"
    ),
    "devices": (
        "INSERT INTO device (code, site_id) SELECT c, (SELECT min(id) FROM site) FROM unnest(%s::text[]) c "
        "ON CONFLICT DO NOTHING"
    ),
}


class References:
    """What the rows of one document refer to. Points that give their indicator by name have its code afterwards."""

    def __init__(self, connection: psycopg.Connection[Any], document: Document, checked: CheckedDocument) -> None:
        self._connection = connection
        self._document = document
        self._checked = checked
        self._damaged = {noun: _damaged(noun, document, checked) for noun in NOUNS}
        keys = {noun: [written_key(noun, row) for row in document.get(noun, [])] for noun in NOUNS}
        self._point_keys = {key for key in keys["points"] if key is not None}
        self._brought = {noun: document.lost | {key[-1] for key in keys[noun] if key is not None} for noun in NOUNS}
        """Codes the document brings along, those of refused rows too: one mistake, one problem."""

    def problems(self) -> list[Problem]:
        """Rows that refer to what neither the database nor the document has, and units that do not convert."""
        problems = self._name_indicators()
        for noun, references in _REFERENCES.items():
            for name, (brought_by, table) in references.items():
                told = {problem.index for problem in problems if (problem.noun, problem.field) == (noun, name)}
                rows = [item for item in self._legible(noun) if item.number not in told]
                problems += self._dangling(rows, name, brought_by, table)
        return problems + self._bad_units(problems)

    def _legible(self, noun: Noun) -> list[Checked]:
        """All rows of ``noun``, the bad ones with their right fields only."""
        return self._checked.get(noun, []) + self._damaged[noun]

    def sound(self, noun: Noun, problems: Iterable[Problem]) -> list[Checked]:
        """The rows of ``noun`` that can be written, if only to see what else is wrong, although ``problems`` exist."""
        told = {problem.index for problem in problems if problem.noun == noun and problem.field not in _HARMLESS}
        rows = [item for item in self._checked.get(noun, []) if item.number not in told]
        if noun != "points":
            return rows
        unsure = self._unsure_indicators(problems)
        return [item for item in rows if _point(item).indicator not in unsure]

    def untried_points(self, problems: list[Problem]) -> set[tuple[str, ...]]:
        """(device, code) of the document's points whose source_name in the end is not known, or is told already."""
        told = {problem.index for problem in problems if (problem.noun, problem.field) == ("points", "source_name")}
        tried = {
            (_point(item).device, _point(item).code)
            for item in self.sound("points", problems)
            if item.number not in told
        }
        return self._point_keys - tried

    def stand_in(self, noun: Noun, problems: list[Problem]) -> None:
        """Put something in the place of each bad row of ``noun``, so that what refers to it can be tried.

        Only for a transaction that is rolled back. A bad indicator has no stand-in: its unit and range would judge.
        """
        if noun not in _STAND_INS:
            return
        sound = {getattr(item.row, "code", None) for item in self.sound(noun, problems)}
        codes = sorted(self._brought[noun] - sound)
        if not codes:
            return
        if noun == "devices":  # each needs some site
            self._connection.execute(_STAND_INS["sites"].encode(), [codes[:1]])
        self._connection.execute(_STAND_INS[noun].encode(), [codes])

    def _name_indicators(self) -> list[Problem]:
        """Make codes of the names that points give their indicators by; the problems are names of none or several."""
        lists = [points for points in (self._checked.get("points"), self._damaged["points"]) if points]
        if not lists:
            return []
        names = IndicatorNames(self._connection, self._document.get("indicators", []))
        return [problem for points in lists for problem in self._name_each(points, names)]

    def _name_each(self, points: list[Checked], names: IndicatorNames) -> list[Problem]:
        problems: list[Problem] = []
        known = names.codes | self._brought["indicators"]
        for position, item in enumerate(points):
            row = _point(item)
            if row.indicator is None or row.indicator in known:
                continue
            found = names.find(row.indicator)
            if len(found) == 1:
                points[position] = item._replace(row=row.model_copy(update={"indicator": found[0]}))
            elif not self._document.cut or found:
                reason = names.unknown(row.indicator, found, suggest=len(problems) < _SUGGESTED)
                problems.append(item.problem("indicator", reason))
        return problems

    def _dangling(self, rows: list[Checked], name: str, brought_by: Noun | None, table: str) -> list[Problem]:
        wanted = {code for item in rows if (code := getattr(item.row, name)) is not None}
        missing = wanted - (self._brought[brought_by] if brought_by else set())
        missing -= self._present(table, missing)
        if brought_by and self._document.cut:  # it may stand in the part that could not be read
            self._brought[brought_by] |= missing
            return []
        return self._name_missing(rows, name, table, missing) if missing else []

    def _present(self, table: str, codes: set[str]) -> set[str]:
        if not codes:
            return set()
        query = sql.SQL("SELECT code FROM {} WHERE code = ANY(%s)").format(sql.Identifier(table))
        return {code for (code,) in self._connection.execute(query, [list(codes)])}

    def _name_missing(self, rows: list[Checked], name: str, table: str, missing: set[str]) -> list[Problem]:
        query = sql.SQL("SELECT code FROM {} ORDER BY code LIMIT 5000").format(sql.Identifier(table))
        known = [code for (code,) in self._connection.execute(query)]
        problems: list[Problem] = []
        for item in rows:
            code = getattr(item.row, name)
            if code in missing:
                near = difflib.get_close_matches(code, known, 1) if len(problems) < _SUGGESTED else []
                hint = ""
                if near:
                    hint = f"; did you mean '{near[0]}'?"
                elif 0 < len(known) < 8:
                    hint = f"; known are {', '.join(known)}"
                problems.append(item.problem(name, f"there is no {table} '{code}'{hint}"))
        return problems

    def _unsure_indicators(self, problems: Iterable[Problem]) -> set[str]:
        """Codes of indicators that the document brings along badly: nothing is known of their units and ranges."""
        sound = {getattr(item.row, "code", None) for item in self.sound("indicators", problems)}
        return self._brought["indicators"] - sound

    def _bad_units(self, problems: list[Problem]) -> list[Problem]:
        """Points whose own unit does not convert to their indicator's."""
        given = {row.code: row.unit for item in self._checked.get("indicators", []) if (row := _indicator(item))}
        stored = dict(self._connection.execute("SELECT code, unit FROM indicator").fetchall())
        known: Mapping[str, str | None] = stored | given
        unsure = self._unsure_indicators(problems)
        found: list[Problem] = []
        for item in self._legible("points"):
            point = _point(item)
            if point.unit is not None and point.indicator in known and point.indicator not in unsure:
                reason = unit_fault(point.unit, point.indicator, known[point.indicator])
                if reason:
                    found.append(item.problem("unit", reason))
        return found


def unit_fault(unit: str, indicator: str, expected: str | None) -> str | None:
    """Why a point of ``indicator``, whose unit is ``expected``, cannot be in ``unit``; None where it can."""
    if expected is None:
        return f"'{unit}' is given, but {indicator} is true or false and has no unit; leave it out"
    if units.conversion(unit, expected) is None:
        return f"'{unit}' does not convert to '{expected}', the unit of {indicator}"
    return None


def _damaged(noun: Noun, document: Document, checked: CheckedDocument) -> list[Checked]:
    whole = {item.position for item in checked.get(noun, [])}
    rows = enumerate(document.get(noun, []))
    return [damaged(noun, position, row) for position, row in rows if position not in whole]


def _point(item: Checked) -> PointRow:
    assert isinstance(item.row, PointRow)
    return item.row


def _indicator(item: Checked) -> IndicatorRow:
    assert isinstance(item.row, IndicatorRow)
    return item.row
