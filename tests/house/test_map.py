"""The house is as its map says: what lies where, how large, and who may know whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {"__pycache__", "node_modules", "dist", "build"}
GENERATED = re.compile(r"_pb2\.pyi?$|(^|/)(uv\.lock|package-lock\.json|CHANGELOG\.md)$|\.gen\.ts$")
SOURCE = {".py", ".pyi", ".ts", ".js", ".css", ".sql", ".proto", ".md"}
LONGEST = 500
SWALLOWERS = {"utils", "util", "common", "core", "helpers", "helper", "manager", "managers", "misc"}


def ours() -> list[Path]:
    """Every file that we wrote, relative to the root; found without git, for copies of the tree."""
    found: list[Path] = []
    folders = [ROOT]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_dir():
                hidden = path.name.startswith(".") and path.name != ".ci"
                if not hidden and path.name not in NOT_OURS and not path.name.endswith(".egg-info"):
                    folders.append(path)
            else:
                found.append(path.relative_to(ROOT))
    return found


def python_modules(*roots: str) -> list[Path]:
    return [path for path in ours() if path.suffix == ".py" and path.parts[0] in roots and not generated(path)]


def generated(path: Path) -> bool:
    return GENERATED.search(path.as_posix()) is not None


def mapped(readme: Path) -> set[str]:
    """The names at the left edge of the README's map: the fenced block that has a line for ``lifeline/``."""
    for block in re.findall(r"^```\w*\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        names = re.findall(r"^([\w.-]+/?)(?= {2,}|$)", block, re.MULTILINE)
        if "lifeline/" in names:
            return set(names)
    return set()


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_map_names_what_lies_at_the_root(name: str) -> None:
    there = {path.parts[0] + ("/" if len(path.parts) > 1 else "") for path in ours()}
    visible = {entry for entry in there if not entry.startswith(".") and not entry.endswith("/.gitkeep")}
    assert mapped(ROOT / name) == visible


def test_no_room_swallows_the_house() -> None:
    names = {part.lower() for path in ours() for part in (*path.parts[:-1], path.stem)}
    assert names & SWALLOWERS == set()


def test_no_file_is_too_long() -> None:
    long = {}
    for path in ours():
        if path.suffix in SOURCE and not generated(path):
            lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
            if lines > LONGEST:
                long[path.as_posix()] = lines
    assert long == {}, f"past {LONGEST} lines, look for the second noun"


def test_every_module_says_what_it_is() -> None:
    silent = [
        path.as_posix()
        for path in python_modules("lifeline", "services", "migrations", "benchmarks")
        if not ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_import_contracts_hold() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_connections_are_made_in_one_place() -> None:
    # The demonstration sets up its own server as the superuser, before there is a database to name.
    allowed = {"lifeline/db.py", "services/demo/postgres.py"}
    makes = re.compile(r"\b(create_engine|psycopg\.connect)\(")
    makers = {
        path.as_posix()
        for path in python_modules("lifeline", "services", "migrations")
        if makes.search((ROOT / path).read_text(encoding="utf-8"))
    }
    assert makers <= allowed


def test_the_product_reads_nothing_outside_its_tree() -> None:
    outside = re.compile(r"\.\./shared")
    readers = [
        path.as_posix()
        for path in ours()
        if path.parts[0] in {"lifeline", "services", "migrations", "deploy", "dashboard", "Makefile", ".ci"}
        and path.suffix in {*SOURCE, "", ".yaml", ".yml", ".toml"}
        and outside.search((ROOT / path).read_text(encoding="utf-8", errors="replace"))
    ]
    assert readers == []
