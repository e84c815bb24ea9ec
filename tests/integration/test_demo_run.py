"""`lifeline demo` as a person starts it: ready in time, the same data next time, back after any death, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg
import pytest

from services.demo import launch
from services.demo.services import fetch
from tests.conftest import NO_MOSQUITTO
from tests.servers import Process, wait_for

FIRST_START_S, LATER_START_S = 60.0, 10.0
BACK_WITHIN_S = 2.0
COUNTIES_HEARD = """
SELECT count(DISTINCT site.county) FROM newest_reading
JOIN point ON point.id = point_id JOIN device ON device.id = device_id JOIN site ON site.id = site_id
"""


class Demo(NamedTuple):
    """A demonstration that is running, and how long its start took."""

    process: Process
    directory: Path
    took_s: float

    def json(self) -> Any:
        return json.loads((self.directory / "demo.json").read_text())

    def family(self) -> list[psutil.Process]:
        """Its process and all below it."""
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    def count(self, query: str) -> int:
        with psycopg.connect(self.json()["database_url"]) as connection:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return int(row[0])


@contextlib.contextmanager
def running(directory: Path, *options: str, limit_s: float = FIRST_START_S, ends: bool = True) -> Iterator[Demo]:
    began = time.monotonic()
    log = directory.with_name(f"{directory.name}.out")
    arguments = ["demo", "--data-dir", str(directory), "--api-port", "0", "--mqtt-port", "0", *options]
    process = Process(arguments, {}, log)
    try:
        wait_for((directory / "demo.json").exists, limit_s, f"demo.json of {log.read_text()}")
        yield Demo(process, directory, time.monotonic() - began)
        if ends:
            assert process.terminate(40) == 0, process.output()
    finally:
        process.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_first_start_then_the_same_data_again(directory: Path) -> None:
    with running(directory) as demo:
        assert demo.took_s <= FIRST_START_S
        first = demo.json()
        assert set(first["pids"]) == {"postgres", "broker", "ingest", "simulator"}
        assert stat.S_IMODE((directory / "demo.json").stat().st_mode) == 0o600
        assert "lifeline_ingest_messages_total" in fetch(first["metrics"]["ingest"])
        wait_for(lambda: demo.count(COUNTIES_HEARD) == 5, 30, "readings from all five counties")
        stored = demo.count("SELECT count(*) FROM reading")
        family = demo.family()
    assert not (directory / "demo.json").exists()
    assert [p for p in family if p.is_running()] == []

    with running(directory, limit_s=LATER_START_S) as demo:
        assert demo.took_s <= LATER_START_S
        again = demo.json()
        assert {name: again[name] for name in ("mqtt_url", "database_url", "metrics")} == {
            name: first[name] for name in ("mqtt_url", "database_url", "metrics")
        }
        assert demo.count("SELECT count(*) FROM reading") >= stored


def test_a_killed_process_is_back_within_two_seconds(directory: Path) -> None:
    with running(directory, "--no-simulator") as demo:
        for name, pid in demo.json()["pids"].items():
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            wait_for(lambda name=name, pid=pid: demo.json()["pids"][name] != pid, BACK_WITHIN_S, f"a new {name}")
            assert psutil.pid_exists(demo.json()["pids"][name])
            if name == "postgres":
                wait_for(lambda: _connects(demo.json()["database_url"]), BACK_WITHIN_S, "the database")
            if name == "ingest":
                wait_for(lambda: bool(fetch(demo.json()["metrics"]["ingest"])), 5 * BACK_WITHIN_S, "ingest's metrics")
            print(f"{name} back after {time.monotonic() - began:.2f} s")
        assert demo.process.is_alive()


def test_two_demonstrations_do_not_disturb_each_other(tmp_path: Path) -> None:
    with running(tmp_path / "a", "--no-simulator") as one, running(tmp_path / "b", "--no-simulator") as other:
        for name in ("mqtt_url", "database_url", "metrics"):
            assert one.json()[name] != other.json()[name]
        third = Process(["demo", "--data-dir", str(tmp_path / "a")], {}, tmp_path / "third.out")
        assert third.wait() == 1
        assert f"process {one.process.pid}" in third.output()
        assert "--data-dir" in third.output()


def test_a_taken_port_is_told_by_its_option(tmp_path: Path, directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(["demo", "--data-dir", str(directory), "--mqtt-port", str(port)], {}, tmp_path / "out")
        assert process.wait() == 1
    assert f"--mqtt-port {port}" in process.output()
    assert "Traceback" not in process.output()


def test_nothing_outlives_a_killed_demonstration(directory: Path) -> None:
    with running(directory, "--no-simulator", ends=False) as demo:
        family = demo.family()
        assert len(family) > 3
        psutil.Process(demo.process.pid).kill()
        _, left = psutil.wait_procs(family, timeout=10)
        assert left == []
    with running(directory, "--no-simulator", limit_s=LATER_START_S) as demo:
        assert demo.took_s <= LATER_START_S


@pytest.mark.parametrize("kind", ["amqtt", "mosquitto"])
def test_both_brokers_carry_readings(directory: Path, kind: str) -> None:
    if kind == "mosquitto" and launch.find_program("mosquitto") is None:
        pytest.skip(NO_MOSQUITTO)
    with running(directory, "--broker", kind) as demo:
        wait_for(lambda: demo.count("SELECT count(*) FROM newest_reading") > 0, 30, "a reading")


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
