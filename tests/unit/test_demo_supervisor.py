"""The demonstration's supervisor: what is restarted when; ports and passwords that are remembered."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from lifeline.settings import load
from services.demo import __main__ as command
from services.demo import broker, launch, logs, ports
from services.demo.broker import password_line
from services.demo.directory import DemoDirectory, DirectoryError
from services.demo.services import environment
from services.demo.status import Figures, Teller, cut
from services.demo.supervisor import SETTLED_S, TELL_EVERY_S, Child, NotReadyError, Program, Supervisor

BACK_WITHIN_S = 1.5


def program(*argv: str, **options: object) -> Program:
    return Program(
        name="p",
        start=lambda: launch.start(argv, output=subprocess.DEVNULL),
        is_ready=lambda: False,
        log="p.log",
        **options,  # type: ignore[arg-type]
    )


def died(child: Child) -> None:
    child.kill()
    assert not child.is_alive()


def test_the_first_death_is_mended_at_once_and_repeated_ones_later_but_in_time() -> None:
    child = Child(program("sleep", "60"))
    now = time.monotonic()
    child.start(now)
    pauses = []
    for restarts in range(1, 13):
        died(child)
        began = now
        while child.restarts < restarts:
            child.revive(now)
            now += 0.05
        pauses.append(now - began - 0.05)
        now += 4  # as somebody who kills it again and again
    child.kill()
    assert pauses[0] == pytest.approx(0, abs=0.01)
    assert pauses[3] > pauses[1] > 0
    assert pauses[-1] < BACK_WITHIN_S - 0.7, "the rest is for noticing and starting"


def test_one_that_keeps_dying_is_told_now_and_then() -> None:
    child = Child(program("sleep", "60"))
    began = now = time.monotonic()
    child.start(now)
    told = []
    while now < began + 120:
        if child.is_alive():
            died(child)
        told.append(child.revive(now))
        now += 0.2
    child.kill()
    lines = [text for text in told if text is not None]
    assert 5 <= len(lines) <= 5 + 120 / TELL_EVERY_S
    assert child.restarts > 100
    assert "times before this" in lines[-1]


def test_a_program_that_ran_for_long_is_mended_at_once_again() -> None:
    child = Child(program("sleep", "60"))
    child.start()
    now = time.monotonic()
    for _ in range(6):
        died(child)
        while not child.is_alive():
            child.revive(now)
            now += 0.05
    died(child)
    assert child.revive(now + SETTLED_S + 1) is not None
    child.kill()


def test_a_start_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.symlink_to("/bin/sleep")
    child = Child(program(str(tool), "60"))
    child.start()
    died(child)
    tool.unlink()
    now = time.monotonic()
    told = child.revive(now)
    assert told is not None
    assert "could not be started again" in told
    assert not child.is_alive()
    tool.symlink_to("/bin/sleep")
    assert child.revive(now + 60) is not None
    assert child.is_alive()
    child.kill()


def test_a_program_that_ends_before_it_is_ready_is_named_with_its_log() -> None:
    child = Child(program("false"))
    child.start()
    with pytest.raises(NotReadyError, match=r"p ended before it was ready \(exit status 1\); see p.log"):
        child.wait_ready()


def test_one_that_ignores_the_signal_is_killed_after_its_limit() -> None:
    child = Child(program("sh", "-c", "trap '' TERM; while :; do sleep 1; done", stop_limit_s=0.5))
    child.start()
    time.sleep(0.2)
    assert 0.4 < child.stop() < 3
    assert not child.is_alive()


def test_all_stop_in_reverse_order() -> None:
    supervisor = Supervisor()
    for name in "abc":
        made = program("sleep", "60")
        supervisor.add(Program(name, made.start, made.is_ready, made.log, stop_signal=signal.SIGKILL))
    order: list[str] = []
    supervisor.stop(lambda name, _seconds: order.append(name))
    assert order == ["c", "b", "a"]


def test_passwords_and_ports_are_remembered(tmp_path: Path) -> None:
    first = DemoDirectory(tmp_path / "d")
    password, port = first.secret("x"), first.port("x", 0, 1883, "--x-port")
    first.close()
    again = DemoDirectory(tmp_path / "d")
    assert again.secret("x") == password
    assert again.port("x", 0, 1883, "--x-port") == port
    assert again.port("x", None, 1883, "--x-port") == port
    again.close()
    assert json.loads((tmp_path / "d" / "state.json").read_text())["port.x"] == port
    assert (tmp_path / "d" / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_taken_port_is_an_error_only_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.demo.directory.PORT_WAIT_S", 0.2)
    directory = DemoDirectory(tmp_path / "d")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DirectoryError, match=f"--mqtt-port {port}: another program"):
            directory.port("mqtt", port, 1883, "--mqtt-port")
        with pytest.raises(DirectoryError, match="--mqtt-port"):
            directory.port("mqtt", None, port, "--mqtt-port")
        directory.remember("port.mqtt", port)
        assert directory.port("mqtt", 0, 1883, "--mqtt-port") != port
        directory.remember("port.database", port)
        assert directory.port("database", None, 0, "--database-port") != port
    directory.close()


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    DemoDirectory(tmp_path / "d").close()
    (tmp_path / "d" / "state.json").write_text("{")
    with pytest.raises(DirectoryError, match=r"state\.json is damaged"):
        DemoDirectory(tmp_path / "d")


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < ports.free_port() < lowest for _ in range(20))


def test_a_file_variable_that_would_contradict_ours_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFELINE_DATABASE_URL_FILE", "/somewhere")
    monkeypatch.setenv("LIFELINE_TIMEZONE", "Asia/Urumqi")
    made = environment({"LIFELINE_DATABASE_URL": "postgresql://x"})
    assert "LIFELINE_DATABASE_URL_FILE" not in made
    assert made["LIFELINE_TIMEZONE"] == "Asia/Urumqi"


def test_a_log_is_cut_while_its_program_goes_on_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(logs, "KEPT_BYTES", 100)
    path = tmp_path / "x.log"
    with logs.open_log(path) as file:
        file.write(b"a" * 2000)
        file.flush()
        logs.trim(path)
        file.write(b"end")
    assert path.read_bytes() == b"a" * 100 + b"end"


def test_paths_are_told_without_detours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    directory = DemoDirectory(tmp_path / "a" / ".." / "d")
    assert directory.path == (tmp_path / "d").resolve()
    directory.close()


def test_a_broker_that_is_missing_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = launch.find_program
    monkeypatch.setattr(launch, "find_program", lambda name: None if name == "mosquitto" else find(name))
    monkeypatch.setattr(command, "_on_signals", lambda _handler: None)
    options = ["--data-dir", str(tmp_path / "d"), "--broker", "mosquitto", "--mqtt-port", "0"]
    ended = CliRunner().invoke(command.main, options)
    assert ended.exit_code == 1
    assert "install the package mosquitto, or use --broker amqtt" in ended.output
    assert "PostgreSQL" not in ended.output
    assert not (tmp_path / "d" / "postgres").exists()
    assert broker.choose("auto") == "amqtt"


def test_a_database_that_hangs_holds_nobody_up(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://x:x@127.0.0.1:{silent.getsockname()[1]}/x"
        figures = Figures(Teller(), load({"LIFELINE_DATABASE_URL": url}))
        began = time.monotonic()
        figures.tick(began)
        assert time.monotonic() - began < 0.2
    told = ""
    while "does not answer" not in told:
        assert time.monotonic() - began < 10
        time.sleep(0.05)
        figures.tick(time.monotonic())
        told += capsys.readouterr().out


def test_mosquitto_reads_our_password_hash() -> None:
    # Field by field as mosquitto_passwd writes it: $7$iterations$salt$hash.
    user, _, rest = password_line("u", "pass").partition(":")
    _, kind, iterations, salt, digest = rest.strip().split("$")
    expected = hashlib.pbkdf2_hmac("sha512", b"pass", base64.b64decode(salt), int(iterations))
    assert (user, kind, base64.b64decode(digest)) == ("u", "7", expected)


def test_private_files_are_whole_and_closed_to_others(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        launch.write_private(tmp_path / "s", "secret")
    finally:
        os.umask(old_mask)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_live_line_fits_the_terminal() -> None:
    assert cut("共和县 12", 20) == "共和县 12"
    assert cut("共和县 12", 6) == "共和县"
    assert cut("共和县 12", 5) == "共和"
