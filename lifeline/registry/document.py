"""A registry document before it is checked: rows by noun, each with the place it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from lifeline.registry.problems import Problem, RegistryRefusedError, shown

Noun = Literal["organisations", "indicators", "sites", "devices", "points"]
NOUNS: tuple[Noun, ...] = ("organisations", "indicators", "sites", "devices", "points")
"""In the order of writing: each refers only to those before it (and to counties)."""


class Row(NamedTuple):
    """One organisation, indicator, site, device or point as it was written."""

    fields: Mapping[str, Any]
    line: int | None = None
    """Line of the file or row of the sheet, from 1."""
    sheet: str | None = None


Document = dict[Noun, list[Row]]


def from_mapping(written: object) -> Document:
    """The document of a parsed JSON body such as ``{"sites": […], "devices": […], "points": […]}``.

    Raises :class:`RegistryRefusedError` where the outer shape is wrong; rows are checked later.
    """
    if not isinstance(written, Mapping):
        raise RegistryRefusedError([Problem(f"expected an object with lists of {_nouns()}, found {shown(written)}")])
    problems: list[Problem] = []
    document: Document = {}
    for name, items in written.items():
        noun = find_noun(name)
        if noun is None:
            problems.append(Problem(f"{shown(name)} is no part of a registry document; known are {_nouns()}"))
        elif not isinstance(items, list):
            problems.append(Problem(f"expected a list, found {shown(items)}", noun))
        else:
            problems += add_rows(document, noun, ((item, None) for item in items))
    if problems:
        raise RegistryRefusedError(problems)
    return document


def add_rows(document: Document, noun: Noun, items: Iterable[tuple[object, int | None]]) -> list[Problem]:
    """Append ``(item, line)`` pairs as rows of ``noun``; the problems are those items that are no objects."""
    rows = document.setdefault(noun, [])
    problems = []
    for index, (item, line) in enumerate(items, start=len(rows)):
        if isinstance(item, Mapping):
            rows.append(Row({_printable(name): value for name, value in item.items()}, line))
        else:
            problems.append(Problem(f"expected an object with fields, found {shown(item)}", noun, index, line))
    return problems


def _printable(name: object) -> str:
    """A field's name, safe to print and to hand on: JSON can write halves of surrogate pairs."""
    text = name if isinstance(name, str) else repr(name)
    return text if text.isprintable() else ascii(text)


def find_noun(name: object) -> Noun | None:
    """The noun of that exact name."""
    return next((noun for noun in NOUNS if noun == name), None)


def _nouns() -> str:
    return ", ".join(NOUNS)
