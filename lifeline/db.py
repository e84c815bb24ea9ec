"""The only place where engines and connections to PostgreSQL are made.

Every connection names its process to the server (``application_name``), speaks UTC, and has limits on connecting,
on waiting for locks and on statements, so that no wait is endless.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from lifeline.settings import Settings

CONNECT_TIMEOUT_S = 3
LOCK_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 60


def _parameters(process: str, statement_timeout_s: float) -> dict[str, Any]:
    limits = {
        "statement_timeout": f"{int(statement_timeout_s * 1000)}",
        "lock_timeout": f"{LOCK_TIMEOUT_S * 1000}",
        "idle_in_transaction_session_timeout": "60000",
        "timezone": "UTC",
    }
    return {
        "application_name": f"lifeline-{process}",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
    }


def make_engine(
    settings: Settings, process: str, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S, pool_size: int = 5
) -> Engine:
    """An engine on the database of ``settings`` for the process named ``process`` (``ingest``, ``api``, …)."""
    from sqlalchemy import create_engine, make_url  # 20 MB that ingest does without

    url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql+psycopg")
    return create_engine(
        url,
        connect_args=_parameters(process, statement_timeout_s),
        pool_size=pool_size,
        pool_pre_ping=True,
        pool_timeout=CONNECT_TIMEOUT_S,
    )


def connect(
    settings: Settings, process: str, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S, autocommit: bool = False
) -> psycopg.Connection:
    """A bare psycopg connection, for COPY, LISTEN and advisory locks. Raises ``psycopg.OperationalError``."""
    # SQLAlchemy's spelling, with the driver in the scheme, is welcome too.
    url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", settings.database_url.get_secret_value())
    return psycopg.connect(url, autocommit=autocommit, **_parameters(process, statement_timeout_s))


def cut(connection: psycopg.Connection) -> None:
    """Shut our end of ``connection`` down, so that whoever waits on it gets an ``OperationalError``. Any thread may."""
    with contextlib.suppress(OSError, psycopg.Error):
        _shut_down(connection.pgconn.socket)


def _shut_down(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as ours:
        ours.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def deadline(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Break ``connection`` if the block takes longer than ``seconds``.

    libpq waits for ever on a server that is stopped but still holds its sockets; shutting our end down turns that
    into an ``OperationalError`` the caller already handles.
    """
    # A number of our own: were the connection closed meanwhile, its number could be somebody else's by then.
    descriptor = os.dup(connection.pgconn.socket)

    def expire() -> None:
        with contextlib.suppress(OSError):
            _shut_down(descriptor)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        os.close(descriptor)
