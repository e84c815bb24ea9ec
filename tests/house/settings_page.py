"""docs/settings.md, made from ``lifeline/settings.py``: ``python -m tests.house.settings_page`` writes it anew."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from lifeline.settings import PREFIX, Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"

SECTIONS = {
    "Database and storage": "database_url",
    "Broker": "mqtt_url",
    "Ingest": "spool_dir",
    "Metrics and logs": "metrics_host",
}
"""Heading: the first setting under it."""

_HEAD = """\
# Settings

<!-- Made by `python -m tests.house.settings_page` from lifeline/settings.py; a test fails where the two differ. -->

Every process reads its settings from the environment, once, when it starts; a change needs a restart. `lifeline demo`
sets what its processes need by itself.

* **A secret in a file.** Each variable can be given as `NAME_FILE`, the path of a file that holds the value (white
  space around it is dropped): `LIFELINE_DATABASE_URL_FILE=/run/secrets/database`. Giving both is an error.
* **A value that cannot be used** ends the process with exit status 2 and a line that names the variable.
* **Yes and no** are `true` and `false` (also `1`, `0`, `yes`, `no`, `on`, `off`).
* **Special characters in a URL's user name or password** are percent-encoded: `p@ss` is `p%40ss`.
"""

_NAMES = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path", SecretStr: "URL, secret"}


def page() -> str:
    """The whole page."""
    starts = {first: heading for heading, first in SECTIONS.items()}
    lines = [_HEAD.rstrip()]
    for field, info in Settings.model_fields.items():
        if field in starts:
            lines += [f"\n## {starts[field]}\n", "| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
        name = f"`{PREFIX}{field.upper()}`"
        lines.append(f"| {name} | {_type(info)} | {_default(info.default)} | {_cell(info.description or '')} |")
    return "\n".join(lines) + "\n"


def _type(info: FieldInfo) -> str:
    kind: Any = info.annotation
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    named = [_NAMES[part] for part in get_args(kind) or (kind,) if part is not NoneType]
    limits = {name: getattr(rule, name) for rule in info.metadata for name in ("ge", "gt", "le") if hasattr(rule, name)}
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}"}
    return " ".join([*named, *(words[name].format(_number(value)) for name, value in limits.items())])


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{_number(value)}`" if isinstance(value, float) else f"`{value}`"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
