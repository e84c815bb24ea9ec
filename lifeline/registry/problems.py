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
    """Position among the document's rows of this noun, from 0."""
    line: int | None = None
    """Line of the file, or row of the sheet, as an editor counts them, from 1; None where unknown."""
    sheet: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        where = self.noun or ""
        if self.sheet is not None:
            where = f"{where} sheet {self.sheet}"
        if self.line is not None:
            where = f"{where} {'row' if self.sheet is not None else 'line'} {self.line}"
        elif self.index is not None:
            where = f"{where}[{self.index}]"
        what = f"{self.field}: {self.reason}" if self.field else self.reason
        return f"{where.strip()}: {what}" if where.strip() else what

    def as_dict(self) -> dict[str, Any]:
        """For JSON: only what is known."""
        found = {name: getattr(self, name) for name in ("noun", "sheet", "index", "line", "field", "reason")}
        return {name: value for name, value in found.items() if value is not None}


class RegistryRefusedError(Exception):
    """Nothing was written, because of ``problems`` (at least one)."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems[:10]))
        self.problems = problems


def shown(value: object) -> str:
    """A refused value, quoted, made printable and cut."""
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of very many digits"  # which Python would refuse to write
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return ascii(text) if not text.isprintable() else f"'{text}'"
