"""Checking a document by itself: every row's fields, and codes written twice. Pure; the database comes later."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pydantic import ValidationError

from lifeline.counties import counties
from lifeline.registry.document import NOUNS, Document, Noun, Row
from lifeline.registry.problems import Problem
from lifeline.registry.rows import (
    ROWS,
    DeviceRow,
    IndicatorRow,
    OrganisationRow,
    PointRow,
    RegistryRow,
    SiteRow,
    faults,
)

OUTSIDE_DEGREES = 0.02
"""How far (about 2 km) a site may lie outside its county's simplified outline before we wonder."""

Progress = Callable[[str], None]


class Checked(NamedTuple):
    """One row that is right by itself, with where it stood."""

    position: int
    """Among the document's rows of this noun, from 0."""
    place: Row
    row: RegistryRow

    def problem(self, field: str | None, reason: str) -> Problem:
        """A problem of this row."""
        return problem_at(self.row.noun, self.position, self.place, field, reason)


CheckedDocument = dict[Noun, list[Checked]]


def check(document: Document, progress: Progress = lambda _: None) -> tuple[CheckedDocument, list[Problem]]:
    """The rows that are right by themselves, and what is wrong with the others."""
    checked: CheckedDocument = {}
    problems: list[Problem] = []
    for noun in NOUNS:
        if not document.get(noun):
            continue
        progress(f"checking {len(document[noun]):,} {noun}")
        checked[noun], found = _check_rows(noun, document[noun])
        problems += found + _repeats(checked[noun])
    return checked, problems


def outside_county(site: Checked) -> Problem | None:
    """A warning where the site lies well outside of its county, else None."""
    row = site.row
    assert isinstance(row, SiteRow)
    county = counties().get(row.county)
    if county is None or county.contains(row.lon, row.lat) or county.distance(row.lon, row.lat) <= OUTSIDE_DEGREES:
        return None
    reason = f"{row.lon:g}, {row.lat:g} is outside of {county.name['en']} ({county.name['zh']})"
    others = [other for other in counties().values() if other.contains(row.lon, row.lat)]
    if others:
        reason += f", in {others[0].name['en']} ({others[0].name['zh']})"
    elif county.contains(row.lat, row.lon):
        reason += "; longitude and latitude are swapped"
    return site.problem("lon", reason + "; positions are WGS-84")


def problem_at(noun: Noun, index: int, place: Row, field: str | None, reason: str) -> Problem:
    return Problem(reason, noun, index, place.line, place.sheet, field)


def key(row: RegistryRow) -> tuple[str, ...]:
    """What names the row: its code, and for a point its device's before it."""
    match row:
        case PointRow():
            return (row.device, row.code)
        case SiteRow() | DeviceRow() | IndicatorRow() | OrganisationRow():
            return (row.code,)
    raise AssertionError(row)


def _check_rows(noun: Noun, rows: list[Row]) -> tuple[list[Checked], list[Problem]]:
    model = ROWS[noun]
    checked: list[Checked] = []
    problems: list[Problem] = []
    for index, place in enumerate(rows):
        try:
            checked.append(Checked(index, place, model.model_validate(place.fields)))
        except ValidationError as error:
            problems += [problem_at(noun, index, place, field, reason) for field, reason in faults(error, model)]
    return checked, problems


def _repeats(rows: list[Checked]) -> list[Problem]:
    first: dict[tuple[str, ...], Checked] = {}
    problems = []
    for item in rows:
        earlier = first.setdefault(key(item.row), item)
        if earlier is not item:
            where = f"line {earlier.place.line}" if earlier.place.line is not None else f"index {earlier.position}"
            sheet = f" of sheet {earlier.place.sheet}" if earlier.place.sheet is not None else ""
            problems.append(item.problem("code", f"'{'/'.join(key(item.row))}' is already written at {where}{sheet}"))
    return problems
