"""Fixtures of the tests of ingest: a rig on a fresh database or on one of its own, and a publisher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.ingest_rig import Publisher, Rig, register
from tests.servers import BrokerServer, PostgresServer, Process, run_cli


@pytest.fixture
def rig(lifeline_process: Callable[..., Process], database_url: str, own_broker: BrokerServer, tmp_path: Path) -> Rig:
    """Ingest between a broker of its own and a fresh database in which devices ``d1``… are registered."""
    register(database_url)
    return Rig(lifeline_process, database_url, own_broker.url, tmp_path)


@pytest.fixture
def own_rig(
    lifeline_process: Callable[..., Process], own_postgres: PostgresServer, own_broker: BrokerServer, tmp_path: Path
) -> Rig:
    """As ``rig``, on a PostgreSQL that the test may stop."""
    ended = run_cli("db", "upgrade", environ={"LIFELINE_DATABASE_URL": own_postgres.url})
    assert ended.returncode == 0, ended.stderr
    register(own_postgres.url)
    return Rig(lifeline_process, own_postgres.url, own_broker.url, tmp_path)


@pytest.fixture
def publisher(own_broker: BrokerServer) -> Iterator[Publisher]:
    """Publishes to ``own_broker``, over its restarts."""
    made = Publisher(own_broker.url)
    yield made
    made.close()
