"""JSON documents, item by item, so that a problem can name the line its row begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lifeline.registry.csv_file import decode
from lifeline.registry.document import Document, Noun, add_rows, find_noun, from_mapping
from lifeline.registry.problems import Problem, RegistryRefusedError, shown

_BLANK = re.compile(r"[ \t\r\n]*")


def read(content: bytes, noun: Noun | None = None) -> Document:
    """The document in a JSON file, as the REST import takes it, or one list of ``noun``.

    Raises :class:`RegistryRefusedError`; NaN, Infinity and keys written twice are refused.
    """
    reader = _Reader(decode(content))
    try:
        return reader.document(noun)
    except RecursionError as error:
        raise RegistryRefusedError([Problem("nested too deep")]) from error
    except ValueError as error:  # JSONDecodeError, and numbers with too many digits
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
        self._decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)

    def document(self, noun: Noun | None) -> Document:
        document: Document = {}
        problems: list[Problem] = []
        if noun is not None and self._peek() == "[":
            problems = add_rows(document, noun, self._items())
        elif self._peek() == "{":
            problems = self._lists(document)
        else:
            return from_mapping(self._value())
        if self._peek():
            raise json.JSONDecodeError("something stands after the end", self._text, self._at)
        if problems:
            raise RegistryRefusedError(problems)
        return document

    def line_at(self, position: int) -> int:
        start, line = self._counted if self._counted[0] <= position else (0, 1)
        self._counted = (position, line + self._text.count("\n", start, position))
        return self._counted[1]

    def _lists(self, document: Document) -> list[Problem]:
        problems: list[Problem] = []
        for _ in self._between("{", "}"):
            line = self.line_at(self._at)
            name = self._value()
            self._expect(":")
            noun = find_noun(name)
            if noun is None or self._peek() != "[":
                written = self._value()
                if noun is None:
                    problems.append(Problem(f"{shown(name)} is no part of a registry document", line=line))
                elif written is not None:
                    problems.append(Problem(f"expected a list, found {shown(written)}", noun, line=line))
            elif noun in document:
                raise json.JSONDecodeError(f"{noun} is written twice", self._text, self._at)
            else:
                problems += add_rows(document, noun, self._items())
        return problems

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
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is written twice in one object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
