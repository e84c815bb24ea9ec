"""The first schema: registry, readings with their aggregates, evaluation queue, refusals and device status.

Written out in full and depending on nothing that may change later. ``home`` (``timescaledb`` or ``plain``) and
``timezone`` are handed over by :mod:`migrations.upgrade`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

CODE = "code ~ '^[A-Za-z0-9._-]{1,64}$'"
SECTOR = (
    "sector IN ('water_source', 'water_supply', 'gas', 'heating', 'drainage', 'waterlogging', 'river', 'trench', "
    "'bridge', 'tunnel', 'weather')"
)

# GB/T 2260 code: names. A Tibetan name is given where its spelling is settled; the prefecture fills in the other.
COUNTIES = {
    "632521": {"zh": "共和县", "en": "Gonghe", "bo": "གསེར་ཆེན་རྫོང་"},
    "632522": {"zh": "同德县", "en": "Tongde", "bo": "འབའ་རྫོང་"},
    "632523": {"zh": "贵德县", "en": "Guide", "bo": "ཁྲི་ཀ་རྫོང་"},
    "632524": {"zh": "兴海县", "en": "Xinghai"},
    "632525": {"zh": "贵南县", "en": "Guinan", "bo": "མང་ར་རྫོང་"},
}

REGISTRY = ("county", "organisation", "site", "indicator", "device", "point")

# Counts registry_version up; statement-level, so that an import of a thousand points counts a few.
COUNT_REGISTRY_UP = """
CREATE FUNCTION registry_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    now_at bigint;
BEGIN
    UPDATE registry_version SET version = version + 1 RETURNING version INTO now_at;
    PERFORM pg_notify('lifeline_registry', now_at::text);
    RETURN NULL;
END
$$
"""

READING = """
CREATE TABLE reading (
    point_id integer NOT NULL,
    time timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    value double precision NOT NULL,
    quality smallint NOT NULL,
    CONSTRAINT reading_pkey PRIMARY KEY (point_id, time)
)
"""

# Both homes' aggregates: one row per point and bucket that holds a reading; count, sum, min and max over those that
# are not bad, bad counts the others. Sums clip values beyond 1e290 (nothing physical), as a sum that overflows is an
# error in PostgreSQL and would stop the aggregates for good.
TIMESCALE_MINUTE = """
CREATE MATERIALIZED VIEW reading_1m
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.chunk_interval = '10 days') AS
SELECT point_id,
       time_bucket(INTERVAL '1 minute', time) AS bucket,
       count(*) FILTER (WHERE quality < 2) AS count,
       coalesce(
           sum(greatest(least(value, double precision '1e290'), double precision '-1e290')) FILTER (WHERE quality < 2),
           0
       ) AS sum,
       min(value) FILTER (WHERE quality < 2) AS min,
       max(value) FILTER (WHERE quality < 2) AS max,
       count(*) FILTER (WHERE quality >= 2) AS bad
FROM reading
GROUP BY 1, 2
WITH NO DATA
"""

TIMESCALE_COARSER = """
CREATE MATERIALIZED VIEW {name}
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.chunk_interval = '{chunk}') AS
SELECT point_id,
       time_bucket({width}, bucket) AS bucket,
       sum(count)::bigint AS count,
       sum(sum) AS sum,
       min(min) AS min,
       max(max) AS max,
       sum(bad)::bigint AS bad
FROM {source}
GROUP BY 1, 2
WITH NO DATA
"""

# From the beginning of time (minutes: from as far back as readings are kept, which is set after each upgrade): only
# ranges that changed are computed again, however old. The newest bucket stays out, as it is computed when it is read,
# until it is complete. A batch spans a chunk of what it reads: the default, ten buckets, needs 52,560 transactions for
# a late year of minutes.
TIMESCALE_REFRESH = """
SELECT add_continuous_aggregate_policy(
    '{name}', start_offset => NULL, end_offset => INTERVAL '{width}', schedule_interval => INTERVAL '1 minute',
    buckets_per_batch => {batch}
)
"""

PLAIN_AGGREGATE = """
CREATE TABLE {name} (
    point_id integer NOT NULL,
    bucket timestamptz NOT NULL,
    count bigint NOT NULL,
    sum double precision NOT NULL,
    min double precision,
    max double precision,
    bad bigint NOT NULL,
    CONSTRAINT {name}_pkey PRIMARY KEY (point_id, bucket)
) WITH (fillfactor = 80)
"""


def upgrade() -> None:
    attributes = context.config.attributes
    home, timezone = attributes["home"], attributes["timezone"]
    if home == "timescaledb":
        op.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    _tables()
    _registry()
    # Packed readings are compressed already.
    op.execute("ALTER TABLE evaluation_batch ALTER COLUMN packed SET STORAGE EXTERNAL")
    op.execute(sa.text("INSERT INTO calendar (timezone) VALUES (:timezone)").bindparams(timezone=timezone))
    if home == "timescaledb":
        _timescaledb(timezone)
    else:
        _plain()
    op.execute("COMMENT ON COLUMN reading.quality IS '0 good, 1 uncertain, 2 bad'")


def _registry() -> None:
    op.execute("INSERT INTO registry_version DEFAULT VALUES")
    counties = json.dumps([{"code": code, "name": name} for code, name in COUNTIES.items()], ensure_ascii=False)
    op.execute(
        sa.text(
            "INSERT INTO county (code, name) SELECT code, name "
            "FROM jsonb_to_recordset(CAST(:counties AS jsonb)) AS county (code text, name jsonb)"
        ).bindparams(counties=counties)
    )
    op.execute(COUNT_REGISTRY_UP)
    for table in REGISTRY:
        op.execute(
            f"CREATE TRIGGER {table}_registry_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION registry_changed()"
        )


def _timescaledb(timezone: str) -> None:
    op.execute(READING)
    # The key serves all queries; TimescaleDB's own index on time would only slow ingest.
    op.execute(
        "SELECT create_hypertable('reading', by_range('time', INTERVAL '1 day'), create_default_indexes => false)"
    )
    op.execute(
        "ALTER TABLE reading SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'point_id', "
        "timescaledb.orderby = 'time')"
    )
    op.execute("CALL add_columnstore_policy('reading', after => INTERVAL '7 days')")
    op.execute(TIMESCALE_MINUTE)
    op.execute(
        TIMESCALE_COARSER.format(name="reading_1h", source="reading_1m", width="INTERVAL '1 hour'", chunk="90 days")
    )
    # A day of a zone that is off by half an hour is not made of hours.
    source = "reading_1h" if _whole_hours(timezone) else "reading_1m"
    op.execute(
        TIMESCALE_COARSER.replace(
            "time_bucket({width}, bucket)", "time_bucket(INTERVAL '1 day', bucket, '{zone}')"
        ).format(name="reading_1d", source=source, zone=timezone, chunk="1825 days")
    )
    for name, width, batch in (
        ("reading_1m", "1 minute", 1440),
        ("reading_1h", "1 hour", 240),
        ("reading_1d", "1 day", 90),
    ):
        op.execute(TIMESCALE_REFRESH.format(name=name, width=width, batch=batch))
    # A bucket takes more room than a compressed reading; uncompressed, minutes would outgrow what they sum up.
    for name, after in (("reading_1m", "14 days"), ("reading_1h", "180 days")):
        op.execute(
            f"ALTER MATERIALIZED VIEW {name} SET (timescaledb.enable_columnstore, "
            "timescaledb.segmentby = 'point_id', timescaledb.orderby = 'bucket')"
        )
        op.execute(f"CALL add_columnstore_policy('{name}', after => INTERVAL '{after}')")


def _whole_hours(timezone: str) -> bool:
    zone = ZoneInfo(timezone)
    moments = (datetime(year, month, 1, tzinfo=UTC) for year in range(2000, 2051) for month in range(1, 13))
    offsets = (moment.astimezone(zone).utcoffset() for moment in moments)
    return all(offset is not None and offset.total_seconds() % 3600 == 0 for offset in offsets)


def _plain() -> None:
    op.execute(READING.rstrip() + " PARTITION BY RANGE (time)")
    for name in ("reading_1m", "reading_1h", "reading_1d"):
        op.execute(PLAIN_AGGREGATE.format(name=name))
    op.execute("INSERT INTO evaluation_reader (name) VALUES ('aggregates')")


def _tables() -> None:
    op.create_table(
        "calendar",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.CheckConstraint("single", name="calendar_single_check"),
        sa.PrimaryKeyConstraint("single", name="calendar_pkey"),
    )
    op.create_table(
        "county",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", postgresql.JSONB(), nullable=False, comment="zh, en, bo"),
        sa.CheckConstraint("code ~ '^[0-9]{6}$'", name="county_code_check"),
        sa.PrimaryKeyConstraint("code", name="county_pkey"),
    )
    op.create_table(
        "dead_letter",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="at most 64 KiB of it"),
        sa.Column("payload_size", sa.Integer(), nullable=False, comment="bytes before the cut"),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="dead_letter_pkey"),
    )
    op.create_index(
        "dead_letter_open_idx",
        "dead_letter",
        ["reason", "received_at"],
        postgresql_where=sa.text("replayed_at IS NULL"),
    )
    op.create_index("dead_letter_received_at_idx", "dead_letter", ["received_at"])
    op.create_table(
        "evaluation_batch",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "xid", sa.BigInteger(), server_default=sa.text("(pg_current_xact_id()::text)::bigint"), nullable=False
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("readings", sa.Integer(), nullable=False, comment="how many"),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="evaluation_batch_pkey"),
    )
    op.create_index("evaluation_batch_xid_id_idx", "evaluation_batch", ["xid", "id"])
    op.create_table(
        "evaluation_reader",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("batch_id", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("moved_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="evaluation_reader_pkey"),
    )
    op.create_table(
        "indicator",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", postgresql.JSONB(), nullable=False, comment="zh, en, bo"),
        sa.Column("sector", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=True, comment="UCUM; null for booleans"),
        sa.Column("valid_min", sa.Float(), nullable=True),
        sa.Column("valid_max", sa.Float(), nullable=True),
        sa.Column("interval_s", sa.Float(), nullable=True, comment="expected seconds between readings"),
        sa.Column("basis", sa.Text(), nullable=True),
        sa.CheckConstraint(CODE, name="indicator_code_check"),
        sa.CheckConstraint(SECTOR, name="indicator_sector_check"),
        sa.CheckConstraint("interval_s > 0", name="indicator_interval_check"),
        sa.CheckConstraint("valid_min <= valid_max", name="indicator_valid_range_check"),
        sa.PrimaryKeyConstraint("code", name="indicator_pkey"),
    )
    op.create_table(
        "newest_reading",
        sa.Column("point_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("point_id", name="newest_reading_pkey"),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "registry_version",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("single", name="registry_version_single_check"),
        sa.PrimaryKeyConstraint("single", name="registry_version_pkey"),
    )
    op.create_table(
        "ingest_session",
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("broker", sa.Text(), nullable=False, comment="host:port"),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="ingest_session_pkey"),
    )
    op.create_table(
        "sparkplug_node",
        sa.Column("key", sa.Text(), nullable=False, comment="group/node"),
        sa.Column("state", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="sparkplug_node_pkey"),
    )
    op.create_table(
        "organisation",
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("county", sa.Text(), nullable=True, comment="null: the whole prefecture"),
        sa.CheckConstraint(CODE, name="organisation_code_check"),
        sa.ForeignKeyConstraint(["county"], ["county.code"], name="organisation_county_fkey"),
        sa.PrimaryKeyConstraint("code", name="organisation_pkey"),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sector", sa.Text(), nullable=False),
        sa.Column("county", sa.Text(), nullable=False),
        sa.Column("lon", sa.Float(), nullable=False),
        sa.Column("lat", sa.Float(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("organisation", sa.Text(), nullable=True),
        sa.CheckConstraint(CODE, name="site_code_check"),
        sa.CheckConstraint(SECTOR, name="site_sector_check"),
        sa.CheckConstraint("lon BETWEEN -180 AND 180 AND lat BETWEEN -90 AND 90", name="site_position_check"),
        sa.ForeignKeyConstraint(["county"], ["county.code"], name="site_county_fkey"),
        sa.ForeignKeyConstraint(["organisation"], ["organisation.code"], name="site_organisation_fkey"),
        sa.PrimaryKeyConstraint("id", name="site_pkey"),
        sa.UniqueConstraint("code", name="site_code_key"),
    )
    op.create_index("site_county_sector_idx", "site", ["county", "sector"])
    op.create_table(
        "device",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("site_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.CheckConstraint(CODE, name="device_code_check"),
        sa.ForeignKeyConstraint(["site_id"], ["site.id"], name="device_site_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="device_pkey"),
        sa.UniqueConstraint("code", name="device_code_key"),
    )
    op.create_index("device_site_id_idx", "device", ["site_id"])
    op.create_table(
        "device_status",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("battery", sa.Float(), nullable=True),
        sa.Column("rssi", sa.Float(), nullable=True),
        sa.Column("firmware", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name="device_status_device_id_fkey", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("device_id", name="device_status_pkey"),
    )
    op.create_table(
        "point",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("indicator", sa.Text(), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=True, comment="SenML name or Sparkplug metric; null: the code"),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("interval_s", sa.Float(), nullable=True),
        sa.Column("valid_min", sa.Float(), nullable=True),
        sa.Column("valid_max", sa.Float(), nullable=True),
        sa.CheckConstraint(CODE, name="point_code_check"),
        sa.CheckConstraint("interval_s > 0", name="point_interval_check"),
        sa.CheckConstraint("valid_min <= valid_max", name="point_valid_range_check"),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name="point_device_id_fkey"),
        sa.ForeignKeyConstraint(["indicator"], ["indicator.code"], name="point_indicator_fkey"),
        sa.PrimaryKeyConstraint("id", name="point_pkey"),
        sa.UniqueConstraint("device_id", "code", name="point_device_id_code_key"),
        sa.UniqueConstraint("device_id", "source_name", name="point_device_id_source_name_key"),
    )
    op.create_index("point_indicator_idx", "point", ["indicator"])
