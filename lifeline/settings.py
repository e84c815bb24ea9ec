"""Every variable Lifeline reads: its name, type, default and meaning.

Read once in each ``__main__`` by :func:`load` and passed down; nothing else reads the environment.
Each variable is ``LIFELINE_<FIELD>``; ``LIFELINE_<FIELD>_FILE`` names a file that holds the value instead,
so that secrets need not stand in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

PREFIX = "LIFELINE_"


class SettingsError(Exception):
    """The environment holds a value that cannot be used; the text names the variable and what to do."""


class Settings(BaseModel):
    """The settings of one process. Field names are the variable names without ``LIFELINE_``, in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: SecretStr = Field(
        SecretStr("postgresql://lifeline@localhost/lifeline"),
        description="PostgreSQL or TimescaleDB, as a libpq URL: postgresql://user:password@host:port/database.",
    )
    timeseries: Literal["auto", "timescaledb", "plain"] = Field(
        "auto",
        description="Home of readings when the schema is first made; auto: TimescaleDB where the server has it.",
    )
    readings_retention_days: int = Field(
        7305, ge=1, description="Readings older than this are dropped (default 20 years, as too_old_days)."
    )
    evaluation_retention_days: int = Field(
        7, ge=1, description="Evaluated batches, and batches nobody evaluated, are dropped after this."
    )
    timezone: str = Field("Asia/Shanghai", description="The zone whose midnight begins a calendar day.")

    mqtt_url: SecretStr = Field(
        SecretStr("mqtt://localhost:1883"),
        description="The broker: mqtt://user:password@host:port, or mqtts:// for TLS.",
    )
    mqtt_protocol: Literal["5", "3.1.1"] = Field("5", description="The MQTT version to speak.")
    mqtt_share_group: str = Field(
        "lifeline-ingest",
        pattern=r"^[^/+#]*$",
        description="Shared-subscription group of the ingest processes; empty: each process takes everything.",
    )
    mqtt_client_id: str | None = Field(
        None,
        min_length=1,
        description="Stem of the MQTT client ids, a slot number is added; default: a name kept in LIFELINE_SPOOL_DIR.",
    )
    mqtt_ca_file: Path | None = Field(
        None, description="CA certificates that sign the broker's (default: the system's)."
    )
    mqtt_cert_file: Path | None = Field(None, description="Client certificate for the broker, PEM.")
    mqtt_key_file: Path | None = Field(None, description="Key of the client certificate, PEM.")
    mqtt_keepalive_s: int = Field(30, ge=5, le=600, description="Seconds of silence after which the broker is pinged.")
    mqtt_receive_maximum: int = Field(65535, ge=1, le=65535, description="Messages that may be unacknowledged at once.")
    mqtt_session_expiry_s: int = Field(
        7 * 86400, ge=60, description="How long the broker keeps messages for an ingest process that is away."
    )
    sparkplug: bool = Field(True, description="Whether ingest also takes Sparkplug B from spBv1.0/#.")
    sparkplug_host: str = Field(
        "lifeline", pattern=r"^[^/+#]+$", description="Our host application id, in spBv1.0/STATE/{host}."
    )

    spool_dir: Path = Field(
        Path("spool"), description="Where ingest keeps messages on disk while the database is away."
    )
    spool_limit_mb: int = Field(
        2048,
        ge=1,
        description="Largest spool of one ingest process, MiB; when full, nothing more is acknowledged.",
    )
    ingest_queue_mb: int = Field(32, ge=1, description="Most MiB of messages that ingest holds in memory.")
    database_timeout_s: float = Field(
        20, gt=0, le=300, description="A commit that takes longer counts as lost: the messages go to the spool."
    )
    ingest_batch_readings: int = Field(50_000, ge=1, le=1_000_000, description="Most readings in one commit.")
    too_old_days: int = Field(7305, ge=1, description="A reading older than this is refused as too_old.")
    future_limit_s: int = Field(
        600, ge=0, description="A reading this far ahead of the server is refused as future_time."
    )
    registry_poll_s: float = Field(2.0, gt=0, le=5, description="How often ingest looks whether the registry changed.")

    metrics_host: str = Field("127.0.0.1", description="Address on which ingest and alerts serve /metrics.")
    metrics_port: int = Field(9101, ge=0, le=65535, description="Port of /metrics; 0 takes a free one.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="json: one line per event; text: for people; auto: text on a terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe event logged."
    )

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{value!r} is no time zone of the IANA database, such as Asia/Shanghai") from error
        return value

    @field_validator("mqtt_url")
    @classmethod
    def _is_mqtt(cls, value: SecretStr) -> SecretStr:
        return _checked(value, ("mqtt", "mqtts"), "mqtt://user:password@host:1883, or mqtts:// for TLS")

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        schemes = ("postgresql", "postgres", "postgresql+psycopg")
        return _checked(value, schemes, "postgresql://user:password@host:5432/database")

    @model_validator(mode="after")
    def _retention_covers_what_is_accepted(self) -> Settings:
        if self.readings_retention_days < self.too_old_days:
            raise ValueError(
                f"readings_retention_days ({self.readings_retention_days}) is less than too_old_days "
                f"({self.too_old_days}): readings would be accepted and dropped at once; lower too_old_days too"
            )
        return self


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment (``os.environ`` unless given).

    Raises :class:`SettingsError` for an unknown ``LIFELINE_`` variable's value, an unreadable ``_FILE``,
    or a variable given both ways; the text names each variable and never shows a secret.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    for field in Settings.model_fields:
        name = PREFIX + field.upper()
        by_file = environ.get(f"{name}_FILE")
        if by_file is not None and name in environ:
            raise SettingsError(f"{name} and {name}_FILE are both set; keep one of them")
        if by_file is not None:
            try:
                values[field] = Path(by_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{name}_FILE: cannot read {by_file}: {error}") from error
        elif name in environ:
            values[field] = environ[name]
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = (_explain(item["loc"], item["msg"].removeprefix("Value error, ")) for item in error.errors())
        raise SettingsError("\n".join(problems)) from None


def _checked(value: SecretStr, schemes: tuple[str, ...], example: str) -> SecretStr:
    """``value`` if it is a URL of one of ``schemes``; the error does not repeat it, for it holds a password."""
    try:
        parts = urlsplit(value.get_secret_value())
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in schemes:
        raise ValueError(f"is no such URL; write {example}")
    return value


def _explain(location: tuple[int | str, ...], message: str) -> str:
    name = PREFIX + str(location[0]).upper() if location else "settings"
    return f"{name}: {message}"
