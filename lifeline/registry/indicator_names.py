"""Indicators by what people call them: 供水管网压力, "Water supply pressure", or the short 供水压力."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from lifeline.indicators import catalogue
from lifeline.registry.document import Row
from lifeline.registry.problems import shown
from lifeline.registry.rows import code_text, label

_BRACKETS = re.compile(r"\([^()]{0,60}\)\Z")  # after NFKC, which makes full-width ones of these
_CANDIDATES = 5


class IndicatorNames:
    """The names of the database's indicators, of those a document brings along, and the catalogue's short ones."""

    def __init__(self, connection: psycopg.Connection[Any], brought: Iterable[Row]) -> None:
        named: dict[str, Mapping[str, object]] = dict(connection.execute("SELECT code, name FROM indicator").fetchall())
        self.codes = set(named)
        """Of the database."""
        for row in brought:
            name, code = row.fields.get("name"), row.fields.get("code")
            if isinstance(name, Mapping):
                # A bad row's name is known too, lest what refers to it be called unknown.
                named[code_text(code) or label(code) or "?"] = name
        short = {indicator.code: indicator.also for indicator in catalogue()}
        self._titles: dict[str, str] = {}
        self._by_name: dict[str, set[str]] = {}
        for code, name in named.items():
            texts = [text for text in name.values() if isinstance(text, str)]
            self._titles[code] = next((text for text in (name.get("zh"), *texts) if isinstance(text, str)), code)
            for text in (*texts, *short.get(code, ())):
                for form in _forms(text):
                    self._by_name.setdefault(form, set()).add(code)
        self.find = functools.cache(self._find)
        self._near = functools.cache(self._find_near)

    def _find(self, text: str) -> list[str]:
        """The codes of the indicators of that name, in any of their languages."""
        return sorted(self._by_name.get(_plain(text), ()))

    def unknown(self, text: str, found: list[str], *, suggest: bool) -> str:
        """Why ``text``, the name of all of ``found``, names no one indicator, and which may be meant."""
        if found:
            return f"{shown(text)} is the name of several indicators: {self._listed(found)}; write the code"
        reason = f"there is no indicator {shown(text)}"
        if not suggest:
            return reason
        near = difflib.get_close_matches(text, self.codes, 1, cutoff=0.8) if code_text(text) is not None else []
        if near:
            return f"{reason}; did you mean '{near[0]}'?"
        candidates = self._near(text)
        if candidates:
            return f"{reason}; did you mean {self._listed(candidates)}?"
        return f"{reason}; write an indicator's code or full name, as `lifeline registry export` lists them"

    def _find_near(self, text: str) -> list[str]:
        plain = _plain(text)
        names = sorted(name for name in self._by_name if plain and plain in name)
        names += difflib.get_close_matches(plain, self._by_name, _CANDIDATES)
        codes = [code for name in names for code in sorted(self._by_name[name])]
        return list(dict.fromkeys(codes))[:_CANDIDATES]

    def _listed(self, codes: list[str]) -> str:
        return ", ".join(f"{code} ({self._titles[code]})" for code in codes)


def _forms(text: str) -> set[str]:
    """A name as written, and without what stands in brackets at its end."""
    plain = _plain(text)
    return {form for form in (plain, _BRACKETS.sub("", plain)) if form}


def _plain(text: str) -> str:
    """Without spaces, capitals and full-width letters, which people set as they like."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).casefold())
