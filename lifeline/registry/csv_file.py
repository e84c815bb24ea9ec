"""CSV as Excel in China and everybody else writes it: UTF-8 with or without a mark, GB18030, UTF-16; , ; or tab."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from lifeline.registry.document import Document, Noun
from lifeline.registry.problems import Problem, RegistryRefusedError
from lifeline.registry.tabular import Line, read_table

_GUARD = "'"
"""Before a cell that a spreadsheet would run as a formula; put there by our export, taken off here."""


def read(content: bytes, noun: Noun | None = None) -> Document:
    """The document in a CSV file. ``noun`` None: told by a noun column or by the headings.

    Raises :class:`RegistryRefusedError`; lines are counted from 1, a record by the line it begins on.
    """
    document = Document()
    recognised = read_table(document, _lines(document, decode(content)), noun)
    if not recognised and not document.problems:
        reason = (
            "the headings tell neither sites, devices, points, organisations nor indicators; "
            "name the columns as in the template, or say which with --noun"
        )
        raise RegistryRefusedError([Problem(reason)])
    return document


def decode(content: bytes) -> str:
    """The text of a file, by its byte order mark, else UTF-8, else GB18030. Raises :class:`RegistryRefusedError`."""
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "gb18030"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise RegistryRefusedError([Problem("the text is neither UTF-8 nor GB18030; save it as CSV UTF-8")])


def _lines(document: Document, text: str) -> Iterator[Line]:
    """The records; one that cannot be read ends them, with a problem of the document."""
    head = text[:10_000].split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    begun = 1
    try:
        for record in reader:
            yield Line(begun, [_cell(cell) for cell in record])
            begun = reader.line_num + 1
    except csv.Error as error:
        reason = f"this is no readable CSV: {error}; nothing from here on was read"
        document.problems.append(Problem(reason, line=begun))
        document.cut = True


def _cell(text: str) -> str | None:
    text = text.strip()
    if text.startswith(_GUARD) and text[1:2] in set("=+-@\t"):
        text = text[1:]
    return text or None
