"""Bringing a database to the newest version: one at a time, under time-outs, told step by step."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import errors
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lifeline import timeseries
from lifeline.db import LOCK_TIMEOUT_S, make_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from lifeline.settings import Settings

UPGRADE_LOCK = 0x1FE11E01
"""Session advisory lock that one upgrade holds; a second one waits for it."""

HOME_NAMES = {timeseries.Home.TIMESCALEDB: "TimescaleDB", timeseries.Home.PLAIN: "plain PostgreSQL"}
STATEMENT_TIMEOUT_S = 900
OTHER_UPGRADE_TIMEOUT_S = 1800
"""How long to wait for another upgrade to end."""


class UpgradeError(Exception):
    """The database could not be brought to the newest version; the text says why and what to do."""


def upgrade(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """Run the versions the database lacks, in order, and give their names; none where it is up to date.

    Waits while another upgrade runs. Each version is one transaction, so that a failed one leaves nothing behind.
    ``tell`` is called with each line of progress. Raises :class:`UpgradeError`.
    """
    engine = make_engine(settings, "db", statement_timeout_s=STATEMENT_TIMEOUT_S)
    try:
        with in_words(), engine.connect() as connection:
            _wait_for_others(connection, tell)
            return _run(connection, settings, tell)
    finally:
        engine.dispose()


def script_config() -> Config:
    """Alembic's configuration: where the versions are, beside this file, in a checkout and in a wheel alike."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def newest() -> str:
    """The newest version this code knows."""
    head = ScriptDirectory.from_config(script_config()).get_current_head()
    assert head is not None
    return head


def current(connection: Connection) -> str | None:
    """The version the database is at; None where it has none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def behind(revision: str | None) -> list[str]:
    """The versions after ``revision``, oldest first. Raises :class:`UpgradeError` where this code does not know it."""
    script = ScriptDirectory.from_config(script_config())
    known = [step.revision for step in script.walk_revisions()][::-1]
    if revision is None:
        return known
    if revision not in known:
        raise UpgradeError(
            f"the database is at version {revision}, which this program does not know (its newest is {known[-1]}): "
            "install the newer program"
        )
    return known[known.index(revision) + 1 :]


def _run(connection: Connection, settings: Settings, tell: Callable[[str], None]) -> list[str]:
    pending = behind(current(connection))
    connection.commit()
    bare = _bare(connection)
    if pending:
        wanted = timeseries.choose_home(bare, settings.timeseries)
        tell(f"{len(pending)} to run: {', '.join(pending)}; readings live in {HOME_NAMES[wanted]}")
        started = time.monotonic()

        def applied(*, step: Any, **_: Any) -> None:
            title = step.up_revision.doc.rstrip(".")
            tell(f"{step.up_revision_id} {title}: done after {time.monotonic() - started:.1f} s")

        config = script_config()
        config.attributes.update(
            connection=connection, on_version_apply=applied, home=wanted.value, timezone=settings.timezone
        )
        command.upgrade(config, "head")
    else:
        tell("nothing to do: the database is up to date")
    timeseries.apply_settings(bare, settings)
    return pending


def _bare(connection: Connection) -> psycopg.Connection:
    bare = connection.connection.driver_connection
    assert isinstance(bare, psycopg.Connection)
    return bare


def _wait_for_others(connection: Connection, tell: Callable[[str], None]) -> None:
    """Take the upgrade lock until the session ends.

    Asked for again and again, as waiting in the server would run into the lock time-out.
    """
    deadline = time.monotonic() + OTHER_UPGRADE_TIMEOUT_S
    waiting = False
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": UPGRADE_LOCK}):
        connection.rollback()
        if not waiting:
            tell("another upgrade is running; waiting for it")
            waiting = True
        if time.monotonic() > deadline:
            raise UpgradeError(
                f"another upgrade has been running for {OTHER_UPGRADE_TIMEOUT_S // 60} minutes: see what it waits for "
                "in pg_stat_activity (application_name lifeline-db), then try again"
            )
        time.sleep(0.2)
    connection.commit()


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    try:
        yield
    except timeseries.HomeError as error:
        raise UpgradeError(str(error)) from error
    except DBAPIError as error:
        raise UpgradeError(explain(error.orig)) from error
    except psycopg.Error as error:
        raise UpgradeError(explain(error)) from error


def explain(error: BaseException | None) -> str:
    """What a database error means for the one who runs an upgrade, and what to do."""
    said = " ".join(str(error).split())
    if isinstance(error, errors.LockNotAvailable):
        return (
            f"a table stayed locked by another session for {LOCK_TIMEOUT_S} s, so the version was rolled back and "
            f"nothing was changed by it: look in pg_stat_activity for a long transaction, then try again ({said})"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return (
            "the database user may not do this: let the owner of the database run the upgrade, or grant the user "
            f"CREATE on the database and on its schema ({said})"
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return f"the database is read-only: connect to the primary server, not to a standby ({said})"
    if isinstance(error, errors.QueryCanceled):
        return (
            f"a step took longer than {STATEMENT_TIMEOUT_S} s and was rolled back; try again when it is quiet ({said})"
        )
    if isinstance(error, errors.FeatureNotSupported) and "license" in said:
        return (
            "this TimescaleDB is the edition without continuous aggregates and columnstore: install the community "
            f"edition, or set LIFELINE_TIMESERIES=plain ({said})"
        )
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return f"the database cannot be reached: check LIFELINE_DATABASE_URL and that the server runs ({said})"
    return said
