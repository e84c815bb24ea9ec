"""From a table with a heading row (a CSV file, a sheet) to rows of a document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lifeline.registry import headings
from lifeline.registry.document import NOUNS, Document, Noun, Row
from lifeline.registry.problems import Problem, shown
from lifeline.registry.rows import code_text

MOST_COLUMNS = 64
MOST_ROWS = 1_000_000
_TITLE_ROWS = 10
"""A heading row is looked for in so many rows: sheets often begin with a title."""


class Line(NamedTuple):
    """One line of a table: cells, empty ones None."""

    number: int
    """Line of the file or row of the sheet, from 1."""
    cells: Sequence[object]


def read_table(document: Document, lines: Iterable[Line], noun: Noun | None, sheet: str | None = None) -> bool:
    """Add a table's rows to ``document``; ``noun`` None: told by a noun column or by the headings.

    What is wrong with the headings is kept in the document, and the columns that are right are read nevertheless.
    Returns whether the table was recognised at all (False: nothing was read).
    """
    stream = iter(lines)
    heading = _find_heading(stream, noun)
    if heading is None:
        return False
    by_column = _noun_column(heading.cells)
    if noun is None and by_column is None:
        noun = headings.recognise(heading.cells)
        if noun is None:
            return False
    if noun is None:
        assert by_column is not None
        _read_mixed(document, stream, heading, by_column, sheet)
        return True
    fields, problems = headings.columns(heading.cells, noun, heading.number, sheet)
    document.problems += problems
    document.cut |= bool(problems) and "code" not in fields
    document.setdefault(noun, [])
    for line in stream:
        _add(document, noun, fields, line, sheet, partial=bool(problems))
    return True


def _read_mixed(document: Document, lines: Iterator[Line], heading: Line, column: int, sheet: str | None) -> None:
    """Rows of several nouns, told by a column; each noun takes the columns it knows, the others must be empty there."""
    known: dict[Noun, list[str | None]] = {
        noun: [headings.field_of(cell, noun) for cell in heading.cells] for noun in NOUNS
    }
    unknown = {
        position for position in range(len(heading.cells)) if all(fields[position] is None for fields in known.values())
    }
    for position in sorted(unknown):
        reason = f"the heading {shown(heading.cells[position])} is no field of any noun"
        document.problems.append(Problem(reason, None, None, heading.number, sheet))
    document.cut |= bool(unknown) and not any(map(headings.is_code, heading.cells))
    for line in lines:
        cells = _padded(line.cells, len(heading.cells))
        noun = headings.noun_of(cells[column])
        if noun is None:
            written = cells[column]
            reason = "is missing" if written is None else f"{shown(written)} is none of {', '.join(NOUNS)}"
            document.problems.append(Problem(reason, None, None, line.number, sheet, "noun"))
            named = zip(heading.cells, cells, strict=True)
            codes = (code_text(cell) for title, cell in named if headings.is_code(title))
            document.lost.update(code for code in codes if code is not None)
            continue
        # An empty cell of a shared table means "does not concern this noun", never "clear". A filled one that this
        # noun does not know keeps its heading, and the row's check refuses it by that name.
        fields = [
            headings.IGNORED if cell is None or position in unknown else str(title) if field is None else field
            for position, (field, cell, title) in enumerate(zip(known[noun], cells, heading.cells, strict=True))
        ]
        _add(document, noun, fields, line, sheet, partial=bool(unknown))


def _add(
    document: Document, noun: Noun, fields: Sequence[str], line: Line, sheet: str | None, *, partial: bool
) -> None:
    rows = document.setdefault(noun, [])
    if len(rows) >= MOST_ROWS:
        if not document.cut:
            reason = f"more than {MOST_ROWS:,} rows; import it in parts"
            document.problems.append(Problem(reason, noun, None, line.number, sheet))
        document.cut = True
        return
    cells = dict(zip(fields, _padded(line.cells, len(fields)), strict=True))
    cells.pop(headings.IGNORED, None)
    surplus = [cell for cell in line.cells[len(fields) :] if cell is not None]
    if surplus:
        fault = f"{shown(surplus[0])} stands beyond the last heading; is a comma or a quotation mark too many?"
        # Which cells have moved is not known: to judge them would only add noise.
        kept: dict[str, object] = {name: cells[name] for name in ("device", "code") if name in cells}
        rows.append(Row(kept, line.number, sheet, fault, partial=True))
    elif any(cell is not None for cell in cells.values()):
        rows.append(Row(headings.fields_of(cells, noun), line.number, sheet, partial=partial))


def _find_heading(lines: Iterator[Line], noun: Noun | None) -> Line | None:
    """The heading row: the first one that a table could have; with a noun given, one that names two of its fields."""
    first: Line | None = None
    for count, line in enumerate(lines):
        cells = _trimmed(line.cells)
        if not cells:
            continue
        first = first or Line(line.number, cells)
        if noun is not None and sum(bool(headings.field_of(cell, noun)) for cell in cells) >= 2:
            return Line(line.number, cells)
        if noun is None and (_noun_column(cells) is not None or headings.recognise(cells) is not None):
            return Line(line.number, cells)
        if count >= _TITLE_ROWS:
            break
    return first if noun is not None else None


def _noun_column(cells: Sequence[object]) -> int | None:
    return next((position for position, cell in enumerate(cells) if headings.is_noun_column(cell)), None)


def _trimmed(cells: Sequence[object]) -> list[object]:
    """Without the empty cells at the end."""
    kept = list(cells)
    while kept and (kept[-1] is None or kept[-1] == ""):
        kept.pop()
    return kept


def _padded(cells: Sequence[object], width: int) -> list[object]:
    return [*cells[:width], *[None] * (width - len(cells))]
