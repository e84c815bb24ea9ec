"""JSON documents, item by item, so that a problem can name the line its row begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lifeline.registry import headings
from lifeline.registry.csv_file import decode
from lifeline.registry.document import Document, Noun
from lifeline.registry.objects import Marked, add_list, add_noun, add_rows, from_mapping
from lifeline.registry.problems import Problem, RegistryRefusedError, shown

_MOST_DIGITS = 400
_BLANK = re.compile(r"[ \t\r\n]*")


def read(content: bytes, noun: Noun | None = None) -> Document:
    """The document in a JSON file, as the REST import takes it, or one list of ``noun``.

    Raises :class:`RegistryRefusedError`; what is wrong with a row is kept with it.
    """
    reader = _Reader(decode(content))
    try:
        return reader.document(noun)
    except RecursionError as error:
        raise RegistryRefusedError([Problem("nested too deep")]) from error
    except ValueError as error:
        position = getattr(error, "pos", None)
        reason = getattr(error, "msg", str(error))
        line = reader.line_at(position) if position is not None else None
        raise RegistryRefusedError([Problem(f"this is no JSON: {reason}", line=line)]) from error


class _Reader:
    """Walks the outer object and its lists by hand and leaves each item to the json module."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)  # position, line: lines are counted on from here
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)

    def document(self, noun: Noun | None) -> Document:
        document = Document()
        if noun is not None and self._peek() == "[":
            add_rows(document, noun, self._items())
        elif self._peek() == "{":
            self._lists(document)
        else:
            return from_mapping(self._value())
        if self._peek():
            raise json.JSONDecodeError("something stands after the end", self._text, self._at)
        return document

    def line_at(self, position: int) -> int:
        start, line = self._counted if self._counted[0] <= position else (0, 1)
        self._counted = (position, line + self._text.count("\n", start, position))
        return self._counted[1]

    def _lists(self, document: Document) -> None:
        for _ in self._between("{", "}"):
            line = self.line_at(self._at)
            name = self._value()
            self._expect(":")
            if headings.noun_of(name) is None or self._peek() != "[":
                add_list(document, name, self._value(), line)
            else:
                noun = add_noun(document, name, line)
                assert noun is not None
                add_rows(document, noun, self._items())

    def _items(self) -> Iterator[tuple[object, int]]:
        for _ in self._between("[", "]"):
            line = self.line_at(self._at)
            yield self._value(), line

    def _between(self, opening: str, closing: str) -> Iterator[None]:
        """Stops before each member of a list or object; the caller reads it in full."""
        self._expect(opening)
        if self._peek() == closing:
            self._expect(closing)
            return
        while True:
            self._peek()
            yield
            if self._peek() == ",":
                self._expect(",")
            else:
                self._expect(closing)
                return

    def _value(self) -> object:
        self._peek()
        value, self._at = self._decoder.raw_decode(self._text, self._at)
        return value

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        blank = _BLANK.match(self._text, self._at)
        assert blank is not None
        self._at = blank.end()
        return self._text[self._at : self._at + 1]

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise json.JSONDecodeError(f"expected '{mark}'", self._text, self._at)
        self._at += 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = Marked(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        found.fault = f"{shown(twice)} is written twice in one object"
    return found


def _integer(digits: str) -> float:
    """Python refuses to read integers of more than 4,300 digits; as infinity the row's check names them."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)
