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

from services.demo.services import fetch
from tests.servers import Process, wait_for

FIRST_START_S, LATER_START_S = 60.0, 10.0
BACK_WITHIN_S = 1.5
COUNT = "SELECT count(*) FROM reading"
COUNTIES_HEARD = """
SELECT count(DISTINCT site.county) FROM newest_reading
JOIN point ON point.id = point_id JOIN device ON device.id = device_id JOIN site ON site.id = site_id
"""


class Demo(NamedTuple):
    """A demonstration that is running, and how long its start took."""

    process: Process
    directory: Path
    took_s: float

    def is_ready(self) -> bool:
        """Whether demo.json is there, and not an earlier one's that was killed."""
        assert self.process.is_alive(), self.process.output()
        try:
            return bool(self.json()["pid"] == self.process.pid)
        except FileNotFoundError:
            return False

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
        demo = Demo(process, directory, 0.0)
        wait_for(demo.is_ready, limit_s, "demo.json")
        yield demo._replace(took_s=time.monotonic() - began)
        if ends:
            assert process.terminate(40) == 0, process.output()
    finally:
        process.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_start_kill_each_process_stop_and_start_again(directory: Path) -> None:
    with running(directory) as demo:
        assert demo.took_s <= FIRST_START_S
        first = demo.json()
        assert set(first["pids"]) == {"postgres", "broker", "ingest", "simulator"}
        assert stat.S_IMODE((directory / "demo.json").stat().st_mode) == 0o600
        wait_for(lambda: demo.count(COUNTIES_HEARD) == 5, 30, "readings from all five counties")
        assert [path for path in _files(directory) if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
        # Ingest named itself after its folder, so that any other process on it finds its session.
        assert (directory / "spool" / "slot-0" / "identity").exists()
        for name in [*first["pids"], *["ingest"] * 5]:
            _kill_and_see_it_back(demo, name)
        heard = demo.count(COUNT)
        wait_for(lambda: demo.count(COUNT) > heard, 30, "new readings after every process was killed")
        stored = demo.count(COUNT)
        family = demo.family()
    assert not (directory / "demo.json").exists()
    assert [process for process in family if process.is_running()] == []

    with running(directory, limit_s=LATER_START_S) as demo:
        assert demo.took_s <= LATER_START_S
        again = demo.json()
        for name in ("mqtt_url", "database_url", "metrics"):
            assert again[name] == first[name]
        assert demo.count(COUNT) >= stored


def _kill_and_see_it_back(demo: Demo, name: str) -> None:
    old = demo.json()["pids"][name]
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: bool(demo.json()["pids"][name] != old), BACK_WITHIN_S, f"a new {name}")
    assert psutil.Process(demo.json()["pids"][name]).is_running()
    if name == "postgres":
        wait_for(lambda: _connects(demo.json()["database_url"]), 5 * BACK_WITHIN_S, "the database")
    if name == "ingest":
        wait_for(lambda: "lifeline_ingest" in fetch(demo.json()["metrics"]["ingest"]), 5 * BACK_WITHIN_S, "metrics")


def test_two_at_once_and_one_of_them_killed(tmp_path: Path) -> None:
    alone = ("--broker", "amqtt", "--no-simulator")
    with running(tmp_path / "b", *alone) as other:
        with running(tmp_path / "a", "--broker", "amqtt", ends=False) as one:
            for name in ("mqtt_url", "database_url", "metrics"):
                assert one.json()[name] != other.json()[name]
            wait_for(lambda: one.count(COUNT) > 0, 30, "readings by way of amqtt")

            third = Process(["demo", "--data-dir", str(one.directory)], {}, tmp_path / "third.out")
            assert third.wait() == 1
            assert f"process {one.process.pid}" in third.output()
            assert "--data-dir" in third.output()

            family = one.family()
            assert len(family) > 4
            psutil.Process(one.process.pid).kill()
            _, left = psutil.wait_procs(family, timeout=10)
            assert left == []
        with running(tmp_path / "a", *alone, limit_s=LATER_START_S) as one:
            assert one.took_s <= LATER_START_S
            assert one.count(COUNT) > 0
        assert other.process.is_alive()
        assert other.count(COUNT) == 0
        assert "amqtt: " in other.process.output()
        assert "mosquitto is not on this machine" not in other.process.output()


def test_a_taken_port_is_told_by_its_option(tmp_path: Path, directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(["demo", "--data-dir", str(directory), "--mqtt-port", str(port)], {}, tmp_path / "out")
        assert process.wait() == 1
    assert f"--mqtt-port {port}" in process.output()
    assert "Traceback" not in process.output()


def _files(directory: Path) -> list[Path]:
    """Those that others could read: what servers keep is behind a closed folder of their own."""
    open_to_others = [path for path in directory.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o001]
    return [path for path in directory.iterdir() if path.is_file()] + open_to_others


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
