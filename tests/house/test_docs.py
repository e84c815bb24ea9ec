"""The words of the house: a document that can be read by a test is held to what it describes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from lifeline.settings import load
from lifeline.tables import Base
from services.cli import COMMANDS
from services.ingest.formats.model import Reason
from services.ingest.metrics import Metrics
from tests.house import settings_page
from tests.house.test_map import GENERATED, ROOT, ours

READMES = ("README.md", "README.zh-CN.md")
FAILURES = ("docs/failures.md", "docs/failures.zh-CN.md")
PICTURES = ("docs/reading.svg", "docs/reading.zh-CN.svg")
FAULT_TESTS = "tests/integration/test_ingest_faults.py"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HAN = "[\u3400-\u9fff]"


def text_of(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def documents() -> list[str]:
    return sorted(path.as_posix() for path in ours() if path.suffix == ".md")


def prose(name: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text_of(name))


def fences(name: str, language: str) -> list[str]:
    return [body for kind, body in _FENCE.findall(text_of(name)) if kind == language]


def heading_levels(name: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(name), re.MULTILINE)]


def first_cells(name: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", text_of(name), re.MULTILINE)


def code_spans(name: str) -> list[str]:
    return sorted(re.findall(r"`([^`\n]+)`", prose(name)))


def anchors(name: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def rooms(readme: str) -> dict[str, set[str]]:
    """The README's map: for each folder at the left edge, the names that stand indented below it."""
    found: dict[str, set[str]] = {}
    (block,) = [body for body in fences(readme, "") if re.search("^lifeline/", body, re.MULTILINE)]
    below: set[str] = set()
    for line in block.splitlines():
        name = line.split()[0]
        if line.startswith("  "):
            below.add(name)
        else:
            below = found[name] = set()
    return found


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.parametrize("folder", ["lifeline/", "services/"])
def test_the_map_names_what_lies_in_a_folder(readme: str, folder: str) -> None:
    inside = [path for path in ours() if path.parts[0] + "/" == folder]
    there = {path.parts[1] + ("/" if len(path.parts) > 2 else "") for path in inside if path.name != "__init__.py"}
    # A .proto stands behind the module of its name.
    expected = {name for name in there if not GENERATED.search(name) and not name.endswith(".proto")}
    assert rooms(readme)[folder] == expected


@pytest.mark.parametrize("readme", READMES)
def test_the_map_names_the_rooms_of_tests(readme: str) -> None:
    there = {path.parts[1] + "/" for path in ours() if path.parts[0] == "tests" and len(path.parts) > 2}
    assert rooms(readme)["tests/"] == there


def test_both_readmes_have_the_same_shape() -> None:
    english, chinese = READMES
    assert heading_levels(chinese) == heading_levels(english)
    assert fences(chinese, "sh") == fences(english, "sh")
    assert rooms(chinese) == rooms(english)
    assert first_cells(chinese) == first_cells(english)


@pytest.mark.parametrize("readme", READMES)
def test_every_command_is_in_the_table(readme: str) -> None:
    cells = first_cells(readme)
    for name in COMMANDS:
        assert any(cell == f"lifeline {name}" or cell.startswith(f"lifeline {name} ") for cell in cells), name
    targets = re.search(r"^\.PHONY: (.+)$", text_of("Makefile"), re.MULTILINE)
    assert targets is not None
    for target in {"demo", "test", "check", "bench"} & set(targets[1].split()):
        assert f"make {target}" in cells


@pytest.mark.parametrize("name", documents())
def test_every_relative_link_leads_somewhere(name: str) -> None:
    broken = []
    for link in _LINK.findall(prose(name)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        if not path.exists() or (anchor and anchor not in anchors(path.relative_to(ROOT).as_posix())):
            broken.append(link)
    assert broken == []


def test_the_page_of_settings_is_current() -> None:
    assert text_of("docs/settings.md") == settings_page.page(), "run: python -m tests.house.settings_page"


def test_every_metric_is_explained() -> None:
    families = {family.name: family for family in Metrics().registry.collect() if family.name.startswith("lifeline_")}
    served = {name + ("_total" if family.type == "counter" else "") for name, family in families.items()}
    assert {cell.partition("{")[0] for cell in first_cells("docs/metrics.md")} == served


@pytest.mark.parametrize("name", documents())
def test_no_document_names_a_metric_that_is_not_served(name: str) -> None:
    served = {cell.partition("{")[0] for cell in first_cells("docs/metrics.md")}
    named = set(re.findall(r"lifeline_ingest_\w+", text_of(name)))
    named |= {f"lifeline_ingest_{short}" for short in re.findall(r"…_([a-z_]+)`", text_of(name)) if name in FAILURES}
    assert named <= served


def test_every_reason_of_refusal_has_cause_and_remedy() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", text_of("docs/mqtt.md"), re.MULTILINE)
    explained = [reason for reason, cause, remedy in rows if cause.strip() and remedy.strip()]
    assert sorted(explained) == sorted(get_args(Reason))


def test_every_table_is_in_the_page_of_storage() -> None:
    named = set(re.findall(r"`(\w+)`", text_of("docs/storage.md")))
    assert set(Base.metadata.tables) - named == set()


@pytest.mark.parametrize("name", FAILURES)
def test_the_tests_that_show_a_failure_exist(name: str) -> None:
    for row in re.findall(r"^\|.*`test_\w+`.*\|$", text_of(name), re.MULTILINE):
        last = row.rstrip(" |").rpartition(" | ")[2]
        spans = re.findall(r"`([^`]+)`", last)
        file = next((span for span in spans if span.endswith(".py")), FAULT_TESTS)
        for test in (span for span in spans if span.startswith("test_")):
            assert re.search(rf"^def {test}\(", text_of(file), re.MULTILINE), row


def test_every_test_of_faults_is_in_the_page_of_failures() -> None:
    there = set(re.findall(r"^def (test_\w+)\(", text_of(FAULT_TESTS), re.MULTILINE))
    absorbed_everywhere = {"test_repeats_are_absorbed_whatever_their_value"}
    named = set(re.findall(r"`(test_\w+)`", text_of("docs/failures.md")))
    assert there - named == absorbed_everywhere


def test_both_pages_of_failures_say_the_same() -> None:
    english, chinese = FAILURES
    assert heading_levels(chinese) == heading_levels(english)
    assert code_spans(chinese) == code_spans(english)
    assert len(re.findall("^\\|", text_of(chinese), re.MULTILINE)) == len(
        re.findall("^\\|", text_of(english), re.MULTILINE)
    )


@pytest.mark.parametrize("name", FAILURES)
def test_events_named_as_logged_are_logged(name: str) -> None:
    source = "".join(text_of(path) for path in ours() if path.parts[:2] == ("services", "ingest"))
    rows = re.findall(r"(?:[Ll]og|日志):([^|]+?)\|", text_of(name).replace("\uff1a", ":"))
    phrases = [phrase for row in rows for phrase in re.findall(r"`([a-z][a-z ,]+ [a-z]+)`", row.partition("·")[0])]
    assert len(phrases) > 10
    assert [phrase for phrase in phrases if f'"{phrase}' not in source] == []


@pytest.mark.parametrize(("readme", "picture"), list(zip(READMES, PICTURES, strict=True)))
def test_each_readme_shows_its_picture(readme: str, picture: str) -> None:
    assert re.search(rf"^!\[[^\]]+\]\({re.escape(picture)}\)$", text_of(readme), re.MULTILINE)


def test_both_pictures_have_the_same_shapes() -> None:
    english, chinese = (re.sub(r">[^<]*</(text|tspan|title|desc)>", "></>", text_of(name)) for name in PICTURES)
    assert chinese == english


@pytest.mark.parametrize("name", [*READMES[1:], *FAILURES[1:], *PICTURES[1:]])
def test_chinese_is_set_with_chinese_punctuation(name: str) -> None:
    text = re.sub(r"`[^`\n]*`|\]\([^)\n]*\)", "", prose(name))
    assert re.findall(rf"{_HAN}[,;:!?()]|[,;!?(]{_HAN}", text) == []


def test_a_setting_named_in_a_document_can_be_set() -> None:
    assert load({"LIFELINE_MQTT_SHARE_GROUP": ""}).mqtt_share_group == ""  # as docs/broker.md says
