"""A registry document before it is checked: rows by noun, each with the place it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from lifeline.registry.problems import Problem

Noun = Literal["organisations", "indicators", "sites", "devices", "points"]
NOUNS: tuple[Noun, ...] = ("organisations", "indicators", "sites", "devices", "points")
"""In the order of writing: each refers only to those before it (and to counties)."""


class Row(NamedTuple):
    """One organisation, indicator, site, device or point as it was written."""

    fields: Mapping[str, Any]
    line: int | None = None
    """Line of the file or row of the sheet, from 1."""
    sheet: str | None = None
    fault: str | None = None
    """What is wrong with the row's form; its fields are checked nevertheless."""
    partial: bool = False
    """Some of it could not be read, which is told elsewhere: a missing field is no fault of the row."""


class Document(dict[Noun, list[Row]]):
    """Rows by noun, and what stands in the way of reading all of it; an import with any problem writes nothing."""

    def __init__(self, rows: Mapping[Noun, list[Row]] | Iterable[tuple[Noun, list[Row]]] = ()) -> None:
        super().__init__(rows)
        self.problems: list[Problem] = []
        """Of the document's form: headings and lists that mean nothing, a file that breaks off."""
        self.lost: set[str] = set()
        """Codes of rows whose noun is not known: what refers to them does not dangle."""
        self.cut = False
        """Rows are missing whose codes are not known: nothing can be said to dangle."""
