"""YAML documents, read event by event: no tags, no anchors, no nesting beyond a row's, and every line known.

Values stay as written, so that a code such as ``010`` or ``1e3`` is what the person sees; only an unquoted ``null``,
``~`` or nothing is null, and numbers are made by the row's own check.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from lifeline.registry.csv_file import decode
from lifeline.registry.document import Document, Noun
from lifeline.registry.objects import KNOWN_NOUNS, Marked, add_list
from lifeline.registry.problems import Problem, RegistryRefusedError, shown

_DEEPEST = 8
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml where PyYAML was built with it: ten times as fast


def read(content: bytes, noun: Noun | None = None) -> Document:
    """The document in a YAML file: lists under ``sites``, ``devices``, …, or one list of ``noun``.

    Raises :class:`RegistryRefusedError`.
    """
    try:
        written = _build(decode(content))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else None
        raise RegistryRefusedError([Problem(f"this is no YAML: {reason}", line=line)]) from error
    if isinstance(written, list) and noun is not None:
        written = {noun: written}
    if not isinstance(written, dict):
        raise RegistryRefusedError([Problem(f"expected lists of {KNOWN_NOUNS}, found {shown(written)}; or say --noun")])
    document = Document()
    for name, items in written.items():
        add_list(document, name, items)
    return document


def _build(text: str) -> object:
    events = yaml.parse(text, Loader=_LOADER)
    for event in events:
        if isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            continue
        if isinstance(event, yaml.StreamEndEvent):
            return None
        built = _value(event, events, 0)
        for rest in events:
            if isinstance(rest, yaml.DocumentStartEvent):
                raise RegistryRefusedError([Problem("holds several documents (---); make it one", line=_line(rest))])
        return built
    return None


def _value(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> object:
    if depth > _DEEPEST:
        raise RegistryRefusedError([Problem(f"nested deeper than {_DEEPEST}", line=_line(event))])
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise RegistryRefusedError(
            [Problem("anchors and aliases (& and *) are not taken; write it out", line=_line(event))]
        )
    if isinstance(event, yaml.ScalarEvent):
        is_null = not event.style and event.value in ("", "~", "null", "Null", "NULL")
        return None if is_null else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[object] = []
        for inner in events:
            if isinstance(inner, yaml.SequenceEndEvent):
                break
            items.append(_value(inner, events, depth + 1))
        return items
    return _mapping(event, events, depth)


def _mapping(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Marked:
    mapping = Marked()
    mapping.line = _line(event)
    for inner in events:
        if isinstance(inner, yaml.MappingEndEvent):
            break
        if not isinstance(inner, yaml.ScalarEvent):
            raise RegistryRefusedError([Problem("a field's name must be plain text", line=_line(inner))])
        if inner.value in mapping:
            fault = f"{shown(inner.value)} is written twice"
            if depth == 0:
                raise RegistryRefusedError([Problem(fault, line=_line(inner))])
            mapping.fault = mapping.fault or f"{fault}, again in line {_line(inner)}"
        mapping[inner.value] = _value(next(events), events, depth + 1)
    return mapping


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0
