"""What is wrong with a registry document, said so that the person who wrote the file can mend it."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

_SHOWN = 40
"""Characters shown of a value that is refused."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or, among the warnings, doubtful."""

    reason: str
    """What is wrong with which value, and what would be right."""
    noun: str | None = None
    """``sites``, ``devices``, …; None: the file as a whole."""
    index: int | None = None
    """Which of the document's rows of this noun, from 1; None: the noun's list or table as a whole."""
    line: int | None = None
    """Line of the file, or row of the sheet, as an editor counts them, from 1; None where unknown."""
    sheet: str | None = None
    field: str | None = None
    key: str | None = None
    """What the row calls itself: its code, for a point ``device/code``; None where it has none."""

    def __str__(self) -> str:
        what = f"{self.field}: {self.reason}" if self.field else self.reason
        return f"{self.where}: {what}" if self.where else what

    @property
    def where(self) -> str:
        """The place in words, such as ``points #2 (gh-01-plc/flow), line 7``; empty for the file as a whole."""
        row = place(self.index, self.line, self.sheet)
        if self.key is not None:
            number, comma, rest = row.partition(",")
            row = f"{number} ({self.key}){comma}{rest}"
        return f"{self.noun or ''} {row}".strip()

    def as_dict(self) -> dict[str, Any]:
        """For JSON: only what is known."""
        found = {name: getattr(self, name) for name in ("noun", "sheet", "index", "key", "line", "field", "reason")}
        return {name: value for name, value in found.items() if value is not None}


class RegistryRefusedError(Exception):
    """Nothing was written, because of ``problems`` (at least one)."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems[:10]))
        self.problems = problems


def place(index: int | None, line: int | None, sheet: str | None) -> str:
    """A row's place, such as ``#2, line 7`` or ``#2, sheet 站点 row 7``; what is None is left out."""
    parts = [f"sheet {sheet}"] if sheet is not None else []
    if line is not None:
        parts.append(f"{'row' if sheet is not None else 'line'} {line}")
    within = " ".join(parts)
    return ", ".join(part for part in (f"#{index}" if index is not None else "", within) if part)


def shown(value: object) -> str:
    """A refused value, quoted, made printable and cut."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of very many digits"  # which Python would refuse to write
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return ascii(text) if not text.isprintable() else f"'{text}'"
