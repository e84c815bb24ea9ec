"""Real recordings replayed over MQTT land in the database once, whatever fails on the way."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.ingest_rig import Rig, count, fetch, one
from tests.integration.recorded_files import MAPPINGS, need
from tests.servers import PostgresServer, Process, wait_for


def replay_arguments(name: str, mapping: str) -> list[str]:
    return ["simulate", "--replay", str(need(name)), "--mapping", str(MAPPINGS / mapping)]


def test_ctown_attacks_with_ingest_killed_and_the_database_away(
    own_rig: Rig, own_postgres: PostgresServer, lifeline_process: Callable[..., Process], tmp_path: Path
) -> None:
    arguments = replay_arguments("ctown_attacks.csv", "ctown.mapping.yaml")
    own_rig.cli(*arguments, "--write-registry", str(tmp_path / "registry.json"))
    own_rig.cli("registry", "import", str(tmp_path / "registry.json"))
    ingest = own_rig.ingest()
    replay = lifeline_process(*arguments, "--batch", "1", environ=own_rig.environ)
    wait_for(lambda: count(own_rig.database_url) > 20_000, 60, "a part of the readings")
    ingest.signal(signal.SIGKILL)
    ingest.wait()
    ingest = own_rig.ingest()
    own_postgres.kill()
    time.sleep(2)
    own_postgres.start()
    assert replay.wait(120) == 0, replay.output()
    with need("ctown_attacks.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    cells = sum(1 for row in rows for cell in row[1:-1] if cell.strip())
    wait_for(lambda: count(own_rig.database_url) >= cells, 90, "all readings")
    assert (
        count(own_rig.database_url)
        == cells
        == one(own_rig.database_url, "SELECT count(*) FROM (SELECT DISTINCT point_id, time FROM reading) once")
    )
    assert one(own_rig.database_url, "SELECT count(*) FROM dead_letter") == 0
    # The file's own values, point by point.
    stored = one(
        own_rig.database_url,
        "SELECT round(sum(value)::numeric, 2)::float8 FROM reading JOIN point ON point.id = point_id "
        "JOIN device ON device.id = device_id WHERE device.code = 'ctown-T1' AND point.code = 'level'",
    )
    assert stored == pytest.approx(sum(float(row[1]) for row in rows), abs=0.1)


def test_heating_substation_newest_first_with_impossible_values(own_rig: Rig, tmp_path: Path) -> None:
    arguments = replay_arguments("heating_substation_L4.csv", "heating_substation.mapping.yaml")
    own_rig.cli(*arguments, "--write-registry", str(tmp_path / "registry.json"))
    own_rig.cli("registry", "import", str(tmp_path / "registry.json"))
    own_rig.ingest()
    own_rig.cli(*arguments)
    with need("heating_substation_L4.csv").open(encoding="utf-8") as file:
        recorded = list(csv.DictReader(file))
    cells = len(recorded) * 6
    wait_for(lambda: count(own_rig.database_url) >= cells, 60, "all readings")
    assert count(own_rig.database_url) == cells
    by_quality = dict(fetch(own_rig.database_url, "SELECT quality, count(*) FROM reading GROUP BY quality"))
    impossible = one(
        own_rig.database_url,
        "SELECT count(*) FROM reading JOIN point ON id = point_id WHERE value < -30 AND quality = 2",
    )
    assert by_quality[2] >= impossible == sum(1 for row in recorded for value in row.values() if value == "-39.9")
    assert impossible > 100
    # Newest first does no harm: the newest value is the newest of the file, and the aggregates hold every good one.
    newest = one(
        own_rig.database_url,
        "SELECT value FROM newest_reading JOIN point ON id = point_id WHERE code = 't_amb'",
    )
    assert newest == float(recorded[0]["t_amb"])
    own_rig.cli("db", "refresh")
    assert one(own_rig.database_url, "SELECT sum(count) FROM reading_1d") == by_quality[0]
    assert one(own_rig.database_url, "SELECT sum(bad) FROM reading_1d") == by_quality[2]
