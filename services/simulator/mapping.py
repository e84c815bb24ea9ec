"""Mapping files: which column of a CSV is which point of which device, and how its times are written (YAML)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lifeline.indicators import catalogue
from lifeline.tables import SECTORS
from services.simulator.prefecture import Device, Point, Site

_CODE = r"^[A-Za-z0-9._-]{1,64}$"


class MappingError(ValueError):
    """The mapping cannot be used; the text names every field at fault."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TimeColumn(_Strict):
    """The column of times. ``format`` is strptime's (``%d/%m/%y %H``), or one of the words."""

    column: str = Field(min_length=1)
    format: str = "iso"
    timezone: str = "Asia/Shanghai"

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{value!r} is no time zone of the IANA database, such as Asia/Shanghai") from error
        return value

    def reader(self) -> Callable[[str], int]:
        """A function from a cell to milliseconds since the epoch; it raises ``ValueError`` for what it cannot read."""
        factor = {"epoch_s": 1000, "epoch_ms": 1}.get(self.format)
        if factor is not None:
            return lambda cell: round(float(cell) * factor)
        zone, form = ZoneInfo(self.timezone), self.format

        def read(cell: str) -> int:
            moment = datetime.fromisoformat(cell) if form == "iso" else datetime.strptime(cell, form)  # noqa: DTZ007
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=zone)
            return round(moment.astimezone(UTC).timestamp() * 1000)

        return read


class SiteOfMapping(_Strict):
    """A site the registry document is to have."""

    code: str = Field(pattern=_CODE)
    name: str = Field(min_length=1)
    sector: Literal[SECTORS]  # type: ignore[valid-type]
    lon: float = Field(ge=-180, le=180)
    lat: float = Field(ge=-90, le=90)
    county: str | None = Field(default=None, pattern=r"^\d{6}$")
    address: str | None = None
    organisation: str | None = None


class DeviceOfMapping(_Strict):
    """A device; ``site`` and ``county`` are the mapping's where left out."""

    site: str | None = None
    county: str | None = Field(default=None, pattern=r"^\d{6}$")
    name: str | None = None
    model: str | None = None


class ColumnOfMapping(_Strict):
    """A column: the point it is, and how its numbers become the point's: ``value × scale + offset``."""

    device: str = Field(pattern=_CODE)
    point: str = Field(pattern=_CODE)
    indicator: str | None = None
    name: str | None = None
    unit: str | None = None
    scale: float = 1.0
    offset: float = 0.0
    boolean: bool = False
    interval_s: float | None = Field(None, gt=0)
    valid_min: float | None = None
    valid_max: float | None = None


class Mapping(_Strict):
    """The whole mapping file."""

    county: str = Field(pattern=r"^\d{6}$")
    delimiter: str = Field(",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ("", "NA", "NaN", "nan", "null", "NULL", "-", "--")
    time: TimeColumn
    sites: tuple[SiteOfMapping, ...] = ()
    devices: dict[str, DeviceOfMapping] = Field(default_factory=dict)
    columns: dict[str, ColumnOfMapping] = Field(min_length=1)
    ignore: tuple[str, ...] = ()

    @field_validator("columns", "devices", mode="before")
    @classmethod
    def _keys_are_text(cls, value: object) -> object:
        odd = [key for key in value if not isinstance(key, str)] if isinstance(value, dict) else []
        if odd:
            # YAML reads an unquoted on, off, yes, no as a boolean, and 1 as a number.
            raise ValueError(f"put the names read as {', '.join(map(str, odd))} in quotes (as on, yes, no and numbers)")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Mapping:
        faults = []
        taken: dict[tuple[str, str], str] = {}
        for name, column in self.columns.items():
            former = taken.setdefault((column.device, column.point), name)
            if former != name:
                faults.append(f"columns {former!r} and {name!r} are both {column.device}/{column.point}")
        if self.time.column in self.columns:
            faults.append(f"column {self.time.column!r} is the time and a point")
        codes = {site.code for site in self.sites}
        faults += [
            f"devices.{code}.site: {device.site!r} is none of sites"
            for code, device in self.devices.items()
            if device.site is not None and codes and device.site not in codes
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def county_of(self, device: str) -> str:
        """The county in the device's topic: its own, its site's, or the mapping's."""
        described = self.devices.get(device)
        if described is None:
            return self.county
        site = next((site for site in self.sites if site.code == described.site), None)
        return described.county or (site.county if site is not None else None) or self.county

    def document(self) -> dict[str, Any]:
        """A registry document of the sites, devices and points. Raises :class:`MappingError` for what is missing."""
        if not self.sites:
            raise MappingError("sites: name at least one site, for the registry document")
        known = {indicator.code for indicator in catalogue()}
        faults = [
            f"columns.{name}.indicator: "
            + ("is missing" if column.indicator is None else f"{column.indicator!r} is not in the catalogue")
            for name, column in self.columns.items()
            if column.indicator not in known
        ]
        if faults:
            raise MappingError("\n".join(faults))
        import msgspec  # for this rare way only

        devices = dict.fromkeys(column.device for column in self.columns.values())
        return {
            "organisations": [],
            "sites": msgspec.to_builtins([self._site(site) for site in self.sites]),
            "devices": msgspec.to_builtins([self._device(code) for code in devices]),
            "points": msgspec.to_builtins([_point(name, column) for name, column in self.columns.items()]),
        }

    def _site(self, site: SiteOfMapping) -> Site:
        fields = site.model_dump(exclude={"county"})
        return Site(**fields, county=site.county or self.county)

    def _device(self, code: str) -> Device:
        described = self.devices.get(code) or DeviceOfMapping()
        return Device(code, described.site or self.sites[0].code, described.name, described.model)


def _point(header: str, column: ColumnOfMapping) -> Point:
    assert column.indicator is not None  # document() has seen to it
    return Point(
        device=column.device,
        code=column.point,
        indicator=column.indicator,
        name=column.name or header,
        unit=column.unit,
        interval_s=column.interval_s,
        valid_min=column.valid_min,
        valid_max=column.valid_max,
    )


def load_mapping(path: Path) -> Mapping:
    """The mapping in a YAML file. Raises :class:`MappingError`, which names the fields at fault."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MappingError(f"{path}: cannot be read: {error}") from error
    try:
        return Mapping.model_validate(content)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, item['loc'])) or 'mapping'}: {item['msg']}" for item in error.errors()]
        raise MappingError(f"{path}:\n" + "\n".join(lines)) from None
