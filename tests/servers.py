"""Real servers for tests: made in a temporary directory, killed and restarted at will, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from services.demo import launch, ports
from services.demo.broker import Broker, Kind
from services.demo.postgres import Postgres
from services.demo.supervisor import Child

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parent.parent
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "128MB"}
"""Settings of a server whose data nobody needs after a power cut."""


def need_mosquitto() -> str:
    """The path of mosquitto. Without it the test skips, and says what to install; in CI it fails."""
    program = launch.find_program("mosquitto")
    if program is None:
        reason = "needs mosquitto: install the package mosquitto (apt-get install mosquitto)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program


class Server:
    """A server under test; ``url`` stays the same over every restart."""

    def __init__(self, child: Child, url: str) -> None:
        self._child = child
        self.url = url

    @property
    def pid(self) -> int:
        return self._child.pid

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._child.start_ready()

    def stop(self) -> None:
        """Stop it cleanly."""
        self._child.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it is gone."""
        self._child.kill()

    def signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP and SIGCONT."""
        self._child.signal(number)

    def restart(self) -> None:
        self.stop()
        self.start()


class PostgresServer(Server):
    """A private PostgreSQL; ``url`` is a role that may create databases and is no superuser."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.server = Postgres(
            directory / "postgres",
            ports.free_port(),
            superuser_password="super",
            password="secret",
            log=directory / "postgres.log",
            account=launch.server_account(),
            settings=settings,
        )
        self.server.initialise()
        super().__init__(Child(self.server.program()), self.server.url)


class BrokerServer(Server):
    """A private broker; ``url`` may publish and subscribe everything."""

    def __init__(self, directory: Path, kind: Kind = "mosquitto") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.broker = Broker(
            kind,
            directory / "broker",
            ports.free_port(),
            password="secret",
            log=directory / "broker.log",
            account=launch.server_account(),
        )
        super().__init__(Child(self.broker.program()), self.broker.url)


class Process:
    """A ``lifeline`` command running beside the test."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [PYTHON, "-m", "services.cli", *arguments],
                cwd=ROOT,
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def output(self) -> str:
        """All it has written so far, both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def wait(self, limit_s: float = 30.0) -> int:
        """Wait for its end; the exit status (negative: the signal). Raises ``subprocess.TimeoutExpired``."""
        return self._popen.wait(limit_s)

    def terminate(self, limit_s: float = 30.0) -> int:
        """SIGTERM, then wait; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def kill(self) -> None:
        """SIGKILL to it and to what it left in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(10)


def wait_for(condition: Callable[[], bool], limit_s: float = 15.0, what: str = "the condition") -> None:
    """Wait until ``condition()`` holds; fails after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {limit_s} s"
        time.sleep(0.02)


def run_cli(*arguments: str, environ: Mapping[str, str], limit_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a ``lifeline`` command to its end."""
    return subprocess.run(
        [PYTHON, "-m", "services.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


class Databases:
    """Databases made and dropped on one server; migrated ones are cloned from a template where that is possible."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._made = 0
        self._template: str | None = None

    def create_empty(self) -> str:
        """The URL of a new empty database."""
        return self._create(None)

    def create_migrated(self) -> str:
        """The URL of a new database with Lifeline's schema."""
        if self._template is None:
            url = self._create(None)
            self._migrate(url)
            self._template = self._name_of(url)
            self._quieten(url)
        return self._create(self._template)

    def drop(self, url: str) -> None:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self._name_of(url)))

        def dropped() -> bool:
            # A role that is no superuser may not end an autovacuum worker; it goes by itself.
            with (
                contextlib.suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectInUse),
                self._admin() as c,
            ):
                c.execute(drop)
                return True
            return False

        wait_for(dropped, 30, f"dropping {url}")

    def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            self.drop(self._with_name(self._template))

    def _create(self, template: str | None) -> str:
        self._made += 1
        name = f"{self._prefix}_{self._made}"
        with self._admin() as connection:
            copied = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + copied)
        return self._with_name(name)

    def _migrate(self, url: str) -> None:
        ended = run_cli("db", "upgrade", environ={"LIFELINE_DATABASE_URL": url})
        assert ended.returncode == 0, f"lifeline db upgrade failed:\n{ended.stdout}{ended.stderr}"

    def _quieten(self, url: str) -> None:
        """A template can be copied only while nobody is connected to it: TimescaleDB's workers must leave for good."""
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute("SELECT to_regproc('_timescaledb_functions.stop_background_workers')").fetchone()
            if row is not None and row[0] is not None:
                connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
        name = self._name_of(url)
        with self._admin() as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
            sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            wait_for(lambda: connection.execute(sessions, [name]).fetchone() == (0,), what="a template nobody uses")

    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(self._url, autocommit=True, connect_timeout=10)

    def _with_name(self, name: str) -> str:
        head, _, tail = self._url.partition("://")
        authority, _, rest = tail.partition("/")
        _, mark, query = rest.partition("?")
        return f"{head}://{authority}/{name}{mark}{query}"

    @staticmethod
    def _name_of(url: str) -> str:
        return url.partition("://")[2].partition("/")[2].partition("?")[0]
