"""The tables, in glossary order. Migrations build the same; ``lifeline db check`` compares the two.

Readings and their aggregates differ between TimescaleDB and plain PostgreSQL; their shape is given here once and
:mod:`lifeline.timeseries` lays it out for the home at hand.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SECTORS = (
    "water_source",
    "water_supply",
    "gas",
    "heating",
    "drainage",
    "waterlogging",
    "river",
    "trench",
    "bridge",
    "tunnel",
    "weather",
)
CODE_PATTERN = "^[A-Za-z0-9._-]{1,64}$"
"""Codes of devices, points, sites and organisations (contract, MQTT)."""

_SECTOR_CHECK = "sector IN (" + ", ".join(f"'{sector}'" for sector in SECTORS) + ")"
_CODE_CHECK = f"code ~ '{CODE_PATTERN}'"

Moment = DateTime(timezone=True)


class Base(DeclarativeBase):
    """All tables, with predictable constraint names so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )
    type_annotation_map = {datetime: Moment, str: Text, dict[str, Any]: JSONB}  # noqa: RUF012 (SQLAlchemy reads it)


class County(Base):
    """A county of the prefecture, by its GB/T 2260 code."""

    __tablename__ = "county"
    __table_args__ = (CheckConstraint("code ~ '^[0-9]{6}$'", name="code"),)

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[dict[str, Any]] = mapped_column(comment="zh, en, bo")


class Organisation(Base):
    """Who runs sites and answers for incidents: an operator, a bureau, a county government."""

    __tablename__ = "organisation"
    __table_args__ = (CheckConstraint(_CODE_CHECK, name="code"),)

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    county: Mapped[str | None] = mapped_column(ForeignKey("county.code"), comment="null: the whole prefecture")


class Site(Base):
    """A place that is watched, in one sector and one county; WGS-84 degrees."""

    __tablename__ = "site"
    __table_args__ = (
        CheckConstraint(_CODE_CHECK, name="code"),
        CheckConstraint(_SECTOR_CHECK, name="sector"),
        CheckConstraint("lon BETWEEN -180 AND 180 AND lat BETWEEN -90 AND 90", name="position"),
        Index(None, "county", "sector"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    sector: Mapped[str]
    county: Mapped[str] = mapped_column(ForeignKey("county.code"))
    lon: Mapped[float] = mapped_column(Float)
    lat: Mapped[float] = mapped_column(Float)
    address: Mapped[str | None]
    organisation: Mapped[str | None] = mapped_column(ForeignKey("organisation.code"))


class Indicator(Base):
    """What can be measured: unit (UCUM), valid range, expected interval, and where the figures come from."""

    __tablename__ = "indicator"
    __table_args__ = (
        CheckConstraint(_CODE_CHECK, name="code"),
        CheckConstraint(_SECTOR_CHECK, name="sector"),
        CheckConstraint("valid_min <= valid_max", name="valid_range"),
        CheckConstraint("interval_s > 0", name="interval"),
    )

    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[dict[str, Any]] = mapped_column(comment="zh, en, bo")
    sector: Mapped[str]
    unit: Mapped[str | None] = mapped_column(comment="UCUM; null for booleans")
    valid_min: Mapped[float | None] = mapped_column(Float)
    valid_max: Mapped[float | None] = mapped_column(Float)
    interval_s: Mapped[float | None] = mapped_column(Float, comment="expected seconds between readings")
    basis: Mapped[str | None]


class Device(Base):
    """What publishes; its code is unique in the prefecture and is the topic's fourth level."""

    __tablename__ = "device"
    __table_args__ = (CheckConstraint(_CODE_CHECK, name="code"),)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    site_id: Mapped[int] = mapped_column(ForeignKey("site.id"), index=True)
    name: Mapped[str | None]
    model: Mapped[str | None]


class Point(Base):
    """One indicator on one device. Nulls take the indicator's value."""

    __tablename__ = "point"
    __table_args__ = (
        CheckConstraint(_CODE_CHECK, name="code"),
        CheckConstraint("valid_min <= valid_max", name="valid_range"),
        CheckConstraint("interval_s > 0", name="interval"),
        UniqueConstraint("device_id", "code"),
        UniqueConstraint("device_id", "source_name"),
        Index(None, "indicator"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id"))
    code: Mapped[str]
    indicator: Mapped[str] = mapped_column(ForeignKey("indicator.code"))
    source_name: Mapped[str | None] = mapped_column(comment="SenML name or Sparkplug metric; null: the code")
    name: Mapped[str | None]
    unit: Mapped[str | None]
    interval_s: Mapped[float | None] = mapped_column(Float)
    valid_min: Mapped[float | None] = mapped_column(Float)
    valid_max: Mapped[float | None] = mapped_column(Float)


class RegistryVersion(Base):
    """One row, counted up by triggers on every change of the registry; ingest polls it."""

    __tablename__ = "registry_version"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    version: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class Calendar(Base):
    """One row: the zone whose midnight begins a day in the stored daily aggregates, set when the schema is made."""

    __tablename__ = "calendar"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    timezone: Mapped[str]


class Reading(Base):
    """One value of a point. ``time`` is the device's, ``received_at`` ours. Laid out by the time-series home."""

    __tablename__ = "reading"

    point_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(primary_key=True)
    received_at: Mapped[datetime]
    value: Mapped[float] = mapped_column(Float)
    quality: Mapped[int] = mapped_column(SmallInteger, comment="0 good, 1 uncertain, 2 bad")


class NewestReading(Base):
    """The newest reading of each point by its own time; late data never moves it back."""

    __tablename__ = "newest_reading"
    # Rows are updated in place all day: room on each page keeps the updates heap-only.
    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)

    point_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    time: Mapped[datetime]
    received_at: Mapped[datetime]
    value: Mapped[float] = mapped_column(Float)
    quality: Mapped[int] = mapped_column(SmallInteger)


class EvaluationBatch(Base):
    """One commit's new readings, packed (see :mod:`lifeline.timeseries`), waiting for the readers of this queue.

    ``xid`` lets a reader take rows in an order that no concurrent commit can slip past: only those below
    ``pg_snapshot_xmin(pg_current_snapshot())``.
    """

    __tablename__ = "evaluation_batch"
    __table_args__ = (Index(None, "xid", "id"),)  # the order in which readers take rows

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    xid: Mapped[int] = mapped_column(BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    readings: Mapped[int] = mapped_column(Integer, comment="how many")
    packed: Mapped[bytes] = mapped_column(LargeBinary)


class EvaluationReader(Base):
    """How far each reader of the evaluation queue has come; batches all readers passed may go."""

    __tablename__ = "evaluation_reader"

    name: Mapped[str] = mapped_column(primary_key=True)
    xid: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    batch_id: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    moved_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DeadLetter(Base):
    """What ingest refused: one row per reading, or per message where the whole is unreadable."""

    __tablename__ = "dead_letter"
    __table_args__ = (
        Index("dead_letter_open_idx", "reason", "received_at", postgresql_where=text("replayed_at IS NULL")),
        Index(None, "received_at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    received_at: Mapped[datetime]
    topic: Mapped[str]
    reason: Mapped[str]
    detail: Mapped[str]
    payload: Mapped[bytes] = mapped_column(LargeBinary, comment="at most 64 KiB of it")
    payload_size: Mapped[int] = mapped_column(Integer, comment="bytes before the cut")
    replayed_at: Mapped[datetime | None]


class DeviceStatus(Base):
    """What a device last said of itself on its status topic, by will, or by Sparkplug birth and death."""

    __tablename__ = "device_status"

    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True)
    online: Mapped[bool]
    time: Mapped[datetime]
    received_at: Mapped[datetime]
    battery: Mapped[float | None] = mapped_column(Float)
    rssi: Mapped[float | None] = mapped_column(Float)
    firmware: Mapped[str | None]


class IngestSession(Base):
    """The MQTT session of an ingest process; one that is not held for a while is emptied and ended by another."""

    __tablename__ = "ingest_session"

    client_id: Mapped[str] = mapped_column(primary_key=True)
    broker: Mapped[str] = mapped_column(comment="host:port")
    host: Mapped[str]
    seen_at: Mapped[datetime]


class SparkplugNode(Base):
    """What ingest must remember of a Sparkplug edge node between messages, and over a restart."""

    __tablename__ = "sparkplug_node"

    key: Mapped[str] = mapped_column(primary_key=True, comment="group/node")
    state: Mapped[dict[str, Any]]
