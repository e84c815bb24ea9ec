"""Fixtures that give tests real servers.

``database_url`` · ``settings`` · ``broker`` are shared servers with a fresh database; ``own_postgres`` and
``own_broker`` may be stopped and killed; ``lifeline_process`` starts commands and sees to their end.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from lifeline.settings import Settings, load
from tests.servers import FAST, BrokerServer, Databases, PostgresServer, Process, Server, need_mosquitto

StartProcess = Callable[..., Process]
AnyServer = TypeVar("AnyServer", bound=Server)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A role that may create databases: LIFELINE_TEST_DATABASE_URL where that is set, else on a server of our own."""
    given = os.environ.get("LIFELINE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    server = PostgresServer(tmp_path_factory.mktemp("postgres"), FAST)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    """Makes databases for tests that need several, or an empty one."""
    made = Databases(postgres_url, f"lifeline_test_{uuid.uuid4().hex[:8]}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A fresh database with Lifeline's schema, for one test."""
    url = databases.create_migrated()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A fresh database without any table, for one test."""
    url = databases.create_empty()
    yield url
    databases.drop(url)


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a process on a fresh database; no broker (``model_copy(update={"mqtt_url": …})``)."""
    return load(
        {
            "LIFELINE_DATABASE_URL": database_url,
            "LIFELINE_SPOOL_DIR": str(tmp_path / "spool"),
            "LIFELINE_METRICS_PORT": "0",
            "LIFELINE_LOG_FORMAT": "text",
        }
    )


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """A mosquitto that tests share: use topics and client ids of your own, and leave it running."""
    need_mosquitto()
    yield from _running(BrokerServer(tmp_path_factory.mktemp("broker")))


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[BrokerServer]:
    """A mosquitto for one test, which may stop, kill and start it."""
    need_mosquitto()
    yield from _running(BrokerServer(tmp_path / "own_broker"))


def _running(server: AnyServer) -> Iterator[AnyServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL for one test, empty, which may be stopped, killed and started; commits are durable as in life."""
    yield from _running(PostgresServer(tmp_path / "own_postgres", {"shared_buffers": "64MB"}))


@pytest.fixture
def lifeline_process(tmp_path: Path) -> Iterator[StartProcess]:
    """``lifeline_process("ingest", environ={…})`` starts a command as a process of its own, ended with the test."""
    started: list[Process] = []

    def start(*arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        log = tmp_path / f"{arguments[0]}-{len(started)}.log"
        started.append(Process(arguments, environ or {}, log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
