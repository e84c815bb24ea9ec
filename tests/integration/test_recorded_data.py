"""Real recordings replayed over MQTT land in the database once, whatever fails on the way."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.ingest_rig import Rig, count, fetch, one
from tests.servers import ROOT, BrokerServer, PostgresServer, Process, run_cli, wait_for

SHARED = ROOT.parent / "shared" / "data"
MAPPINGS = ROOT / "tests" / "data"


def need(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {name}, which is not part of the product")
    return path


@pytest.fixture
def rig(
    lifeline_process: Callable[..., Process], own_postgres: PostgresServer, own_broker: BrokerServer, tmp_path: Path
) -> Rig:
    ended = run_cli("db", "upgrade", environ={"LIFELINE_DATABASE_URL": own_postgres.url})
    assert ended.returncode == 0, ended.stderr
    return Rig(lifeline_process, own_postgres.url, own_broker.url, tmp_path)


def replay_arguments(name: str, mapping: str) -> list[str]:
    return ["simulate", "--replay", str(need(name)), "--mapping", str(MAPPINGS / mapping)]


def test_ctown_attacks_with_ingest_killed_and_the_database_away(
    rig: Rig, own_postgres: PostgresServer, lifeline_process: Callable[..., Process], tmp_path: Path
) -> None:
    arguments = replay_arguments("ctown_attacks.csv", "ctown.mapping.yaml")
    rig.cli(*arguments, "--write-registry", str(tmp_path / "registry.json"))
    rig.cli("registry", "import", str(tmp_path / "registry.json"))
    ingest = rig.ingest()
    replay = lifeline_process(*arguments, "--batch", "1", environ=rig.environ)
    wait_for(lambda: count(rig.database_url) > 20_000, 60, "a part of the readings")
    ingest.signal(signal.SIGKILL)
    ingest.wait()
    ingest = rig.ingest()
    own_postgres.kill()
    time.sleep(2)
    own_postgres.start()
    assert replay.wait(120) == 0, replay.output()
    with need("ctown_attacks.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    cells = sum(1 for row in rows for cell in row[1:-1] if cell.strip())
    wait_for(lambda: count(rig.database_url) >= cells, 90, "all readings")
    assert (
        count(rig.database_url)
        == cells
        == one(rig.database_url, "SELECT count(*) FROM (SELECT DISTINCT point_id, time FROM reading) once")
    )
    assert one(rig.database_url, "SELECT count(*) FROM dead_letter") == 0
    # The file's own values, point by point.
    stored = one(
        rig.database_url,
        "SELECT round(sum(value)::numeric, 2)::float8 FROM reading JOIN point ON point.id = point_id "
        "JOIN device ON device.id = device_id WHERE device.code = 'ctown-T1' AND point.code = 'level'",
    )
    assert stored == pytest.approx(sum(float(row[1]) for row in rows), abs=0.1)


def test_heating_substation_newest_first_with_impossible_values(rig: Rig, tmp_path: Path) -> None:
    arguments = replay_arguments("heating_substation_L4.csv", "heating_substation.mapping.yaml")
    rig.cli(*arguments, "--write-registry", str(tmp_path / "registry.json"))
    rig.cli("registry", "import", str(tmp_path / "registry.json"))
    rig.ingest()
    rig.cli(*arguments)
    with need("heating_substation_L4.csv").open(encoding="utf-8") as file:
        recorded = list(csv.DictReader(file))
    cells = len(recorded) * 6
    wait_for(lambda: count(rig.database_url) >= cells, 60, "all readings")
    assert count(rig.database_url) == cells
    by_quality = dict(fetch(rig.database_url, "SELECT quality, count(*) FROM reading GROUP BY quality"))
    impossible = one(
        rig.database_url, "SELECT count(*) FROM reading JOIN point ON id = point_id WHERE value < -30 AND quality = 2"
    )
    assert by_quality[2] >= impossible == sum(1 for row in recorded for value in row.values() if value == "-39.9")
    assert impossible > 100
    # Newest first does no harm: the newest value is the newest of the file, and the aggregates hold every good one.
    newest = one(
        rig.database_url,
        "SELECT value FROM newest_reading JOIN point ON id = point_id WHERE code = 't_amb'",
    )
    assert newest == float(recorded[0]["t_amb"])
    rig.cli("db", "refresh")
    assert one(rig.database_url, "SELECT sum(count) FROM reading_1d") == by_quality[0]
    assert one(rig.database_url, "SELECT sum(bad) FROM reading_1d") == by_quality[2]
