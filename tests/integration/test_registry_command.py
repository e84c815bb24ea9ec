"""``lifeline registry`` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg

from tests.servers import run_cli

SITES = "站点编码,站点名称,行业,区县,经度,纬度\nGH-01,恰卜恰水厂,供水,共和县,100.62,36.284\n"
DEVICES = "设备编码,站点编码\ngh-01-plc,GH-01\n"
POINTS = "设备编码,测点编码,指标编码,单位\ngh-01-plc,pressure,water_supply.pressure,兆帕\n"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="gb18030")
    return str(path)


def test_import_export_and_import_again(database_url: str, tmp_path: Path) -> None:
    environ = {"LIFELINE_DATABASE_URL": database_url}
    for name, text in (("sites.csv", SITES), ("devices.csv", DEVICES), ("points.csv", POINTS)):
        ended = run_cli("registry", "import", write(tmp_path / name, text), environ=environ)
        assert ended.returncode == 0, ended.stderr
        assert f"{name.removesuffix('.csv')}: 1 created, 0 changed, 0 unchanged" in ended.stdout
    for ending in ("xlsx", "json", "yaml"):
        file = str(tmp_path / f"all.{ending}")
        assert run_cli("registry", "export", file, environ=environ).returncode == 0
        ended = run_cli("registry", "import", "--json", file, environ=environ)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        counts = json.loads(ended.stdout)["counts"]
        assert all(count["created"] == count["changed"] == 0 for count in counts.values()), (ending, counts)
        assert counts["points"]["unchanged"] == 1
        assert counts["indicators"]["unchanged"] > 50


def test_problems_are_printed_and_nothing_is_written(database_url: str, tmp_path: Path) -> None:
    environ = {"LIFELINE_DATABASE_URL": database_url}
    file = write(tmp_path / "sites.csv", SITES + "GH-02,二厂,供水,共和县,200,36\n" + "坏,x,y,z,1,1\n" * 60)
    ended = run_cli("registry", "import", file, environ=environ)
    assert ended.returncode == 1
    assert "sites #2 (GH-02), line 3: lon: 200 is no longitude: -180 to 180 degrees (WGS-84)" in ended.stderr
    assert "and 11 more rows (--json prints all)" in ended.stderr
    assert "nothing was written: 181 problems" in ended.stderr
    ended_in_text = ended
    ended = run_cli("registry", "import", "--json", file, environ=environ)
    assert ended.returncode == 1
    problems = json.loads(ended.stdout)["problems"]
    assert len(problems) == 181
    assert problems[0].items() >= {"noun": "sites", "index": 2, "key": "GH-02", "line": 3, "field": "lon"}.items()
    assert "sites #3 (坏), line 4:\n  code: '坏' is no code" in ended_in_text.stderr
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM site").fetchall() == [(0,)]


def test_dry_run_seed_and_template(database_url: str, tmp_path: Path) -> None:
    environ = {"LIFELINE_DATABASE_URL": database_url}
    file = write(tmp_path / "sites.csv", SITES)
    ended = run_cli("registry", "import", "--dry-run", file, environ=environ)
    assert (ended.returncode, "dry run: nothing was written" in ended.stdout) == (0, True)
    assert "53 created" in run_cli("registry", "seed", environ=environ).stdout
    assert "0 created" in run_cli("registry", "seed", environ=environ).stdout
    template = str(tmp_path / "template.xlsx")
    assert run_cli("registry", "template", template, environ=environ).returncode == 0
    ended = run_cli("registry", "import", template, environ=environ)
    assert ended.returncode == 0, ended.stderr


def test_without_a_schema_or_a_database_it_says_what_to_do(empty_database_url: str, tmp_path: Path) -> None:
    file = write(tmp_path / "sites.csv", SITES)
    ended = run_cli("registry", "import", file, environ={"LIFELINE_DATABASE_URL": empty_database_url})
    assert (ended.returncode, "lifeline db upgrade" in ended.stderr) == (1, True)
    ended = run_cli("registry", "import", file, environ={"LIFELINE_DATABASE_URL": "postgresql://x@127.0.0.1:1/x"})
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "nothing was written" in ended.stderr
