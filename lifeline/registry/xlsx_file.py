"""Excel workbooks: one sheet per noun, told by the sheet's name or its headings. Formulas are never run."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator
from datetime import date, time, timedelta
from typing import Any

from lifeline.registry import headings
from lifeline.registry.document import Document, Noun
from lifeline.registry.problems import Problem, RegistryRefusedError
from lifeline.registry.tabular import MOST_COLUMNS, Line, read_table

_MOST_UNPACKED = 400 << 20
_MOST_PARTS = 2_000
_MOST_ROWS = 1 << 20  # Excel's own limit


def read(content: bytes, noun: Noun | None = None) -> tuple[Document, list[Problem]]:
    """The document in a workbook, and warnings of sheets that were not read. ``noun``: what its only table holds.

    Raises :class:`RegistryRefusedError`.
    """
    import openpyxl

    _guard(content)
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        try:
            return _read_sheets(book.worksheets, noun)
        finally:
            book.close()
    except RegistryRefusedError:
        raise
    except Exception as error:  # what openpyxl raises on damaged files, no documentation tells
        raise RegistryRefusedError([Problem(f"this is no readable workbook: {_first_line(error)}")]) from error


def _read_sheets(sheets: list[Any], noun: Noun | None) -> tuple[Document, list[Problem]]:
    document = Document()
    warnings: list[Problem] = []
    for sheet in sheets:
        lines = _lines(sheet)
        first = next(lines, None)
        if first is None:
            continue  # a new workbook brings empty sheets along
        told = headings.noun_of(sheet.title) or (noun if len(sheets) == 1 else None)
        if not read_table(document, itertools.chain([first], lines), told, sheet.title):
            reason = "was not read: neither its name nor its headings tell what it holds"
            warnings.append(Problem(reason, sheet=sheet.title))
    if not document and not document.problems:
        reason = "no sheet holds sites, devices, points, organisations or indicators; see the template"
        raise RegistryRefusedError([Problem(reason)])
    return document, warnings


def _lines(sheet: Any) -> Iterator[Line]:
    sheet.reset_dimensions()  # what the file claims of its size is not to be trusted
    for number, row in enumerate(sheet.iter_rows(max_col=MOST_COLUMNS, values_only=True), start=1):
        if number > _MOST_ROWS:  # openpyxl fills the gap before a row numbered 10^12 with as many empty ones
            raise RegistryRefusedError([Problem(f"more than {_MOST_ROWS:,} rows", line=number, sheet=sheet.title)])
        cells = [_cell(value) for value in row] if row.count(None) < len(row) else []
        if any(cell is not None for cell in cells):
            yield Line(number, cells)


def _cell(value: object) -> object:
    """Text without blanks around it, numbers as they are, None for empty; dates as text, so that a code is refused."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, date | time | timedelta):
        return f"date {value}"
    return value


def _guard(content: bytes) -> None:
    """Refuse what unpacks to too much, and XML with a document type (the door to entities of any kind)."""
    try:
        reason = _danger(content)
    except Exception as error:  # zipfile raises half a dozen kinds on damaged archives
        raise RegistryRefusedError([Problem(f"this is no XLSX workbook: {_first_line(error)}")]) from error
    if reason is not None:
        raise RegistryRefusedError([Problem(reason)])


def _danger(content: bytes) -> str | None:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        parts = packed.infolist()
        if len(parts) > _MOST_PARTS or sum(part.file_size for part in parts) > _MOST_UNPACKED:
            return f"the workbook unpacks to more than {_MOST_UNPACKED >> 20} MiB; import it in parts"
        for part in parts:
            if part.filename.endswith((".xml", ".rels")):
                with packed.open(part) as stream:
                    head = stream.read(4096).replace(b"\0", b"")
                if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
                    return "the workbook's XML declares a document type; save it anew in Excel"
    return None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
