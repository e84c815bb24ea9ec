"""Checking a document by itself: every row's fields, and codes written twice. Pure; the database comes later."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from lifeline.counties import counties
from lifeline.registry.document import NOUNS, Document, Noun, Row
from lifeline.registry.problems import Problem, place, shown
from lifeline.registry.rows import (
    ROWS,
    RegistryRow,
    SiteRow,
    code_text,
    faults,
    label,
    plain_text,
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

    @property
    def number(self) -> int:
        """The same from 1, as problems say it."""
        return self.position + 1

    @property
    def key(self) -> tuple[str, ...]:
        """What names the row: its code, and for a point its device's before it."""
        found = written_key(self.row.noun, self.place)
        assert found is not None, "the row is right by itself"
        return found

    def problem(self, field: str | None, reason: str) -> Problem:
        """A problem of this row."""
        return problem_at(self.row.noun, self.position, self.place, field, reason)


CheckedDocument = dict[Noun, list[Checked]]


def check(document: Document, progress: Progress = lambda _: None) -> tuple[CheckedDocument, list[Problem]]:
    """The rows that are right by themselves, and what is wrong with the others and with the document's form."""
    checked: CheckedDocument = {}
    problems = list(document.problems)
    for noun in NOUNS:
        rows = document.get(noun)
        if not rows:
            continue
        progress(f"checking {len(rows):,} {noun}")
        checked[noun], found = _check_rows(noun, rows)
        repeats = _repeats(noun, rows)
        problems += found + repeats
        if noun == "points":
            repeated = {problem.index for problem in repeats}
            problems += _repeated_names(rows, repeated)
    return checked, problems


def damaged(noun: Noun, position: int, row: Row) -> Checked:
    """A bad row with those of its fields that are right, the others None: what they refer to can be checked."""
    model = ROWS[noun]
    values: dict[str, Any] = dict.fromkeys(model.model_fields)
    for name, adapter in _adapters(noun).items():
        try:
            if name in row.fields:
                values[name] = adapter.validate_python(row.fields[name])
        except ValidationError:
            continue  # told with the row
    return Checked(position, row, model.model_construct(**values))


@functools.cache
def _adapters(noun: Noun) -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(info.rebuild_annotation()) for name, info in ROWS[noun].model_fields.items()}


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


def problem_at(noun: Noun, position: int, row: Row, field: str | None, reason: str) -> Problem:
    """A problem of the row at ``position`` (from 0) of its noun."""
    return Problem(reason, noun, position + 1, row.line, row.sheet, field, _called(noun, row))


def written_key(noun: Noun, row: Row) -> tuple[str, ...] | None:
    """What names the row, right or not: its code, and for a point its device's before it; None where one is none."""
    names = ("device", "code") if noun == "points" else ("code",)
    codes = [code_text(row.fields.get(name)) for name in names]
    return tuple(code for code in codes if code is not None) if None not in codes else None


def _called(noun: Noun, row: Row) -> str | None:
    """The same as far as it can be read, for people to find the row by."""
    code = label(row.fields.get("code"))
    if noun != "points":
        return code
    device = label(row.fields.get("device"))
    return f"{device or '?'}/{code or '?'}" if device or code else None


def _check_rows(noun: Noun, rows: list[Row]) -> tuple[list[Checked], list[Problem]]:
    model = ROWS[noun]
    checked: list[Checked] = []
    problems: list[Problem] = []
    for position, row in enumerate(rows):
        found: list[tuple[str | None, str]] = [(None, row.fault)] if row.fault is not None else []
        try:
            item = Checked(position, row, model.model_validate(row.fields))
        except ValidationError as error:
            found += faults(error, model, partial=row.partial)
        else:
            if row.fault is None:
                checked.append(item)
        problems += [problem_at(noun, position, row, field, reason) for field, reason in found]
    return checked, problems


def _repeats(noun: Noun, rows: list[Row]) -> list[Problem]:
    first: dict[tuple[str, ...], int] = {}
    problems = []
    for position, row in enumerate(rows):
        key = written_key(noun, row)
        earlier = first.setdefault(key, position) if key is not None else position
        if key is not None and earlier != position:
            reason = f"'{'/'.join(key)}' is already written at {_place(rows, earlier)}"
            problems.append(problem_at(noun, position, row, "code", reason))
    return problems


def _repeated_names(rows: list[Row], repeated: set[int | None]) -> list[Problem]:
    """Points of one device that the document itself gives one name: by source_name, or by code where that is null.

    A row that does not mention source_name keeps the stored one, which only the database knows.
    """
    first: dict[tuple[str, str], int] = {}
    problems = []
    for position, row in enumerate(rows):
        key = written_key("points", row)
        if key is None or "source_name" not in row.fields or position + 1 in repeated:
            continue
        heard = plain_text(row.fields["source_name"]) if row.fields["source_name"] is not None else key[1]
        if heard is None:
            continue
        earlier = first.setdefault((key[0], heard), position)
        if earlier != position:
            other = label(rows[earlier].fields["code"])
            reason = f"{shown(heard)} names point '{other}' of this device already, at {_place(rows, earlier)}"
            problems.append(problem_at("points", position, row, "source_name", reason))
    return problems


def _place(rows: list[Row], position: int) -> str:
    return place(position + 1, rows[position].line, rows[position].sheet)
