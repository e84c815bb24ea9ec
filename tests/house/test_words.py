"""Documents that a test can read: settings, commands, variables."""

from __future__ import annotations

import importlib
import re

import click
import pytest

from lifeline.settings import PREFIX, Settings
from services.cli import COMMANDS
from tests.house.test_map import ROOT, ours

TEST_ONLY = {"LIFELINE_TEST_DATABASE_URL"}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description, f"say in lifeline/settings.py what {name} means"
    assert len(description) > 20
    assert description.rstrip().endswith((".", ")"))


def test_every_setting_is_in_the_documents() -> None:
    documents = {path: (ROOT / path).read_text(encoding="utf-8") for path in ours() if path.suffix == ".md"}
    table = [text for text in documents.values() if "LIFELINE_DATABASE_URL" in text and "LIFELINE_SPOOL_DIR" in text]
    assert table, "no document lists the settings"
    missing = [name for name in Settings.model_fields if not any(PREFIX + name.upper() in text for text in table)]
    assert missing == []


def test_every_variable_named_anywhere_is_a_setting() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known} | TEST_ONLY
    unknown = {}
    for path in ours():
        if path.suffix in {".py", ".md", ".yaml", ".yml", ".sh", ".toml"} and path.parts[0] != "tests":
            named = re.findall(r"\bLIFELINE_[A-Z0-9_]*[A-Z0-9]\b(?!_)", (ROOT / path).read_text(encoding="utf-8"))
            if strangers := set(named) - known:
                unknown[path.as_posix()] = strangers
    assert unknown == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_says_what_it_does(name: str) -> None:
    place, line = COMMANDS[name]
    module, attribute = place.split(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.help
    assert line.endswith(".")
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"lifeline {name} {option.opts[0]} needs a help text"
