"""Migrations build what the tables say, in both homes; drift is seen; upgrades run one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine

import lifeline.db
from lifeline.settings import Settings
from lifeline.tables import Base
from migrations.check import differences
from migrations.upgrade import UPGRADE_LOCK, UpgradeError, newest, upgrade
from services.commands.db import db
from tests.integration.storage_fixtures import HOMES, HomeName, fresh, settings_for
from tests.servers import Databases, wait_for

READING_TABLES = "'^(reading($|_)|alembic_version)'"

# All that tells one table from another, of the tables that do not hold readings.
CATALOGUE = f"""
SELECT 'column', relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity::text,
       pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
     LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname !~ {READING_TABLES}
      AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'constraint', relname, conname, pg_get_constraintdef(pg_constraint.oid), convalidated, '', '', ''
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname !~ {READING_TABLES}
UNION ALL
SELECT 'index', tablename, indexname, indexdef, true, '', '', '' FROM pg_indexes
WHERE schemaname = 'public' AND tablename !~ {READING_TABLES}
UNION ALL
SELECT 'options', relname, reloptions::text, '', true, '', '', '' FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname !~ {READING_TABLES}
"""


@pytest.fixture(params=HOMES)
def migrated(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Settings]:
    home: HomeName = request.param
    with fresh(databases, home) as settings:
        if home == "timescaledb":  # running, as the check expects them
            _run(settings, "SELECT alter_job(job_id, scheduled => true) FROM timescaledb_information.jobs")
        yield settings


@pytest.fixture
def plain(databases: Databases) -> Iterator[Settings]:
    with fresh(databases, "plain") as settings:
        yield settings


def _run(settings: Settings, statement: str) -> None:
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        connection.execute(statement)


def test_a_fresh_schema_has_no_differences_and_a_second_upgrade_does_nothing(migrated: Settings) -> None:
    assert differences(migrated) == []
    lines: list[str] = []
    assert upgrade(migrated, lines.append) == []
    assert lines == ["nothing to do: the database is up to date"]
    assert differences(migrated) == []


def test_migrations_build_exactly_what_the_tables_say(databases: Databases, plain: Settings) -> None:
    from_tables = databases.create_empty()
    engine = create_engine(from_tables.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    engine.dispose()
    seen = []
    for url in (plain.database_url.get_secret_value(), from_tables):
        with psycopg.connect(url) as connection:
            seen.append({tuple(row) for row in connection.execute(CATALOGUE)})
    databases.drop(from_tables)
    assert len(seen[0]) > 80
    assert seen[0] == seen[1]


DRIFT = (
    ("ALTER TABLE site ADD COLUMN floor integer", "column site.floor is not expected"),
    ("ALTER TABLE device DROP COLUMN model", "column device.model is missing"),
    ("ALTER TABLE point ALTER COLUMN valid_min TYPE real", "column point.valid_min: type is"),
    ("ALTER TABLE site ALTER COLUMN name DROP NOT NULL", "column site.name: nullable is True, expected False"),
    ("ALTER TABLE evaluation_batch ALTER COLUMN xid SET DEFAULT 7", "column evaluation_batch.xid: default is 7"),
    ("DROP INDEX device_site_id_idx", "index device_site_id_idx of device is missing"),
    ("ALTER TABLE site DROP CONSTRAINT site_sector_check", "check constraint site_sector_check of site is missing"),
    ("ALTER TABLE point DROP CONSTRAINT point_device_id_code_key", "point_device_id_code_key of point is missing"),
    ("ALTER TABLE device_status DROP CONSTRAINT device_status_pkey", "the primary key of device_status is (missing)"),
    ("DROP TABLE sparkplug_node", "table sparkplug_node is missing"),
    ("CREATE TABLE stray (id integer)", "table stray is not expected"),
    ("DROP TRIGGER point_registry_changed ON point", "trigger point_registry_changed is missing"),
    ("ALTER TABLE site DISABLE TRIGGER site_registry_changed", "trigger site_registry_changed is missing"),
    ("CREATE INDEX slow ON reading (time)", "index that is not expected and slows ingest: slow"),
    ("UPDATE calendar SET timezone = 'Europe/Paris'", "begin their days in Europe/Paris"),
)
DRIFT_OF_PLAIN = (
    *DRIFT,
    ("ALTER TABLE reading ADD COLUMN note text", "reading.note is not expected"),
    ("ALTER TABLE reading_1h DROP COLUMN bad", "reading_1h.bad is missing"),
    ("DELETE FROM evaluation_reader", "evaluation_reader has no row 'aggregates'"),
    (
        "DO $$ BEGIN EXECUTE 'DROP TABLE reading_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'); END $$",
        "lifeline db upgrade makes it now",
    ),
)
SHORTEN_MINUTES = """
SELECT alter_job(job_id, config => config || '{"start_offset": "9 days"}') FROM timescaledb_information.jobs
WHERE hypertable_name = 'reading_1m' AND proc_name = 'policy_refresh_continuous_aggregate'
"""
DRIFT_OF_TIMESCALEDB = (
    *DRIFT,
    (SHORTEN_MINUTES, "of reading_1m does not reach back as LIFELINE_READINGS_RETENTION_DAYS says"),
    ("SELECT remove_retention_policy('reading')", "reading has no running policy_retention"),
    ("SELECT remove_compression_policy('reading_1m')", "reading_1m has no running policy_compression"),
    ("ALTER MATERIALIZED VIEW reading_1m SET (timescaledb.materialized_only = true)", "reading_1m shows stored"),
    ("SELECT set_chunk_time_interval('reading', INTERVAL '7 days')", "chunks of 1 day"),
)


def test_drift_is_told_in_words(migrated: Settings) -> None:
    drift = DRIFT_OF_PLAIN if migrated.timeseries == "plain" else DRIFT_OF_TIMESCALEDB
    known: set[str] = set()
    for statement, words in drift:
        _run(migrated, statement)
        found = set(differences(migrated))
        (told,) = found - known
        assert words in told
        known = found
    assert len(known) == len(drift)


def test_check_says_what_to_do_with_an_empty_a_newer_and_an_old_database(databases: Databases, plain: Settings) -> None:
    empty = settings_for(databases.create_empty())
    assert differences(empty) == ["the database has no schema yet; run: lifeline db upgrade"]
    _run(plain, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UpgradeError, match="version 9999, which this program does not know"):
        differences(plain)
    with pytest.raises(UpgradeError, match="install the newer program"):
        upgrade(plain)


def test_the_command_line_ends_with_1_and_a_sentence(databases: Databases, plain: Settings) -> None:
    _run(plain, "DROP TABLE sparkplug_node")
    ended = _cli(plain.database_url.get_secret_value(), "check")
    assert ended.exit_code == 1
    assert "table sparkplug_node is missing" in ended.output
    assert "differences found: 1" in ended.output
    ended = _cli(databases.create_empty(), "upgrade")
    assert ended.exit_code == 0
    assert f"{newest()} " in ended.output
    ended = _cli("postgresql://nobody@127.0.0.1:1/none", "upgrade")
    assert ended.exit_code == 1
    assert "cannot be reached: check LIFELINE_DATABASE_URL" in ended.output


def _cli(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(db, list(arguments), env={"LIFELINE_DATABASE_URL": url, "LIFELINE_TIMESERIES": "plain"})


def test_two_upgrades_at_once_run_one_after_the_other(databases: Databases) -> None:
    settings = settings_for(databases.create_empty(), "plain")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: upgrade(settings), range(2)))
    assert sorted(done) == [[], [newest()]]
    assert differences(settings) == []


def test_an_upgrade_waits_while_another_runs(databases: Databases) -> None:
    settings = settings_for(databases.create_empty(), "plain")
    lines: list[str] = []
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (UPGRADE_LOCK,))
        thread = threading.Thread(target=upgrade, args=(settings, lines.append))
        thread.start()
        wait_for(lambda: "another upgrade is running; waiting for it" in lines)
        assert len(lines) == 1
        other.execute("SELECT pg_advisory_unlock(%s)", (UPGRADE_LOCK,))
        thread.join(30)
    assert f"{newest()} " in lines[-1]


def test_a_lock_that_stays_held_ends_the_upgrade_with_a_sentence(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline.db, "LOCK_TIMEOUT_S", 1)
    url = databases.create_empty()
    with psycopg.connect(url) as other:
        other.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        other.commit()
        other.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        ended = _cli(url, "upgrade")
    assert ended.exit_code == 1
    assert "stayed locked by another session" in ended.output
    assert upgrade(settings_for(url, "plain")) == [newest()]


def test_a_missing_permission_ends_the_upgrade_with_a_sentence(databases: Databases) -> None:
    url = databases.create_empty()
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        if row == (True,):
            pytest.skip("needs a test role that is no superuser")
        connection.execute("REVOKE ALL ON SCHEMA public FROM pg_database_owner")
    ended = _cli(url, "upgrade")
    assert ended.exit_code == 1
    assert "the database user may not do this" in ended.output


def test_asking_for_timescaledb_where_it_is_not_says_what_to_do(databases: Databases) -> None:
    url = databases.create_empty()
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone()
    if row != (0,):
        pytest.skip("needs a server without TimescaleDB")
    with pytest.raises(UpgradeError, match="set LIFELINE_TIMESERIES=plain"):
        upgrade(settings_for(url, "timescaledb"))
    assert upgrade(settings_for(url, "auto")) == [newest()]


def test_five_counties_are_there_and_every_change_of_the_registry_counts(plain: Settings) -> None:
    with psycopg.connect(plain.database_url.get_secret_value(), autocommit=True) as connection:
        names = connection.execute("SELECT code || (name ->> 'zh') FROM county ORDER BY code").fetchall()
        assert names == [("632521共和县",), ("632522同德县",), ("632523贵德县",), ("632524兴海县",), ("632525贵南县",)]
        connection.execute("LISTEN lifeline_registry")
        versions = [_version(connection)]
        for statement in (
            "INSERT INTO organisation (code, name) VALUES ('water', '水务公司')",
            "INSERT INTO site (code, name, sector, county, lon, lat) VALUES ('s', '站', 'drainage', '632521', 100, 36)",
            "INSERT INTO indicator (code, name, sector) VALUES ('drainage.level', '{}', 'drainage')",
            "INSERT INTO device (code, site_id) SELECT 'd', id FROM site",
            "INSERT INTO point (device_id, code, indicator) SELECT id, 'p', 'drainage.level' FROM device",
            "UPDATE point SET valid_max = 3",
            "DELETE FROM point",
            "UPDATE county SET name = name",
            "TRUNCATE point",
        ):
            connection.execute(statement)
            versions.append(_version(connection))
        assert versions == list(range(versions[0], versions[0] + 10))
        told = [int(notice.payload) for notice in connection.notifies(timeout=5, stop_after=9)]
        assert told == versions[1:]


def _version(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT version FROM registry_version").fetchone()
    assert row is not None
    return int(row[0])
