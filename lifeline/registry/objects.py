"""From objects with fields (JSON, YAML, a REST body) to rows of a document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lifeline.registry import headings
from lifeline.registry.document import NOUNS, Document, Noun, Row
from lifeline.registry.problems import Problem, RegistryRefusedError, shown
from lifeline.registry.rows import code_text

KNOWN_NOUNS = ", ".join(f"{noun} ({headings.NOUN_NAMES[noun][0]})" for noun in NOUNS)
_MOST_CACHED = 1_000


class Marked(dict[str, object]):
    """An object of a file, with what its reader noticed."""

    line: int | None = None
    fault: str | None = None


def from_mapping(written: object) -> Document:
    """The document of a parsed JSON body such as ``{"sites": […], "devices": […], "points": […]}``.

    Names of lists and fields may be Chinese, as in tables. Raises :class:`RegistryRefusedError` where ``written`` is
    no object at all; everything else that is wrong is kept in the document and told with its rows' problems.
    """
    if not isinstance(written, Mapping):
        raise RegistryRefusedError([Problem(f"expected an object with lists of {KNOWN_NOUNS}, found {shown(written)}")])
    document = Document()
    for name, items in written.items():
        add_list(document, name, items)
    return document


def add_list(document: Document, name: object, items: object, line: int | None = None) -> None:
    """Add what stands under ``name`` at the top of a document; ``line``: where the name stands."""
    noun = add_noun(document, name, line)
    if noun is None:
        document.lost.update(_codes(items))
    elif isinstance(items, list):
        add_rows(document, noun, ((item, None) for item in items))
    elif items is not None:
        document.problems.append(Problem(f"expected a list, found {shown(items)}", noun, line=line))


def add_noun(document: Document, name: object, line: int | None = None) -> Noun | None:
    """The noun that the name of a list means, begun in ``document``; None, with a problem, where it means none."""
    noun = headings.noun_of(name)
    if noun is None:
        reason = f"{shown(name)} is no part of a registry document; known are {KNOWN_NOUNS}"
        document.problems.append(Problem(reason, line=line))
    elif noun in document:
        reason = f"{shown(name)} is a second list of {noun}; put all {noun} into one"
        document.problems.append(Problem(reason, noun, line=line))
    else:
        document[noun] = []
    return noun


def add_rows(document: Document, noun: Noun, items: Iterable[tuple[object, int | None]]) -> None:
    """Append ``(item, line)`` pairs as rows of ``noun``; an item that is no object becomes a row with that fault."""
    rows = document.setdefault(noun, [])
    fields: dict[str, str] = {name: name for name in headings.fields_known(noun)}
    for item, line in items:
        if isinstance(item, Mapping):
            found, fault = _fields(item, noun, fields)
            rows.append(Row(found, getattr(item, "line", None) or line, fault=fault))
        else:
            fault = f"expected an object with fields, found {shown(item)}"
            rows.append(Row({}, line, fault=fault, partial=True))


def _fields(item: Mapping[Any, object], noun: Noun, known: dict[str, str]) -> tuple[dict[str, Any], str | None]:
    """An object's fields by our names, and what is wrong with its form."""
    fault: str | None = getattr(item, "fault", None)
    found: dict[str, Any] = {}
    for name, value in item.items():
        text = name if isinstance(name, str) else repr(name)
        field = known.get(text)
        if field is None:
            field = _field(text, noun)
            if len(known) < _MOST_CACHED:
                known[text] = field
        if field == headings.IGNORED:
            continue
        if field == "name_zh" and isinstance(value, Mapping):
            field = "name"
        if field in found:
            fault = fault or f"{shown(text)} is a second {field}"
            continue
        found[field] = value
        fault = fault or getattr(value, "fault", None)
    if "name" in found and any(name.startswith("name_") for name in found):
        return found, fault
    return headings.fields_of(found, noun), fault


def _field(name: str, noun: Noun) -> str:
    """Our name for a field; what means nothing keeps its own, and the row's check refuses it by that."""
    if headings.is_remark(name):
        return headings.IGNORED
    field = headings.field_of(name, noun) or name
    # JSON can write halves of surrogate pairs, which no terminal takes.
    return field if field.isprintable() else ascii(field)


def _codes(items: object) -> Iterable[str]:
    """The codes among ``items`` of a noun that is not known."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping):
            codes = (code_text(value) for name, value in item.items() if headings.is_code(name))
            yield from (code for code in codes if code is not None)
