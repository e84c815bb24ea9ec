"""The prefecture: organisations, sites, devices and points, the same for the same seed and size, in columns.

The registry document of it is what ``lifeline registry import`` takes (contract, "REST", ``/registry/import``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from lifeline.indicators import catalogue
from services.simulator.blueprints import OPERATORS, SITE_PLANS, SMALLEST, PointPlan, SitePlan, Style
from services.simulator.chance import Floats
from services.simulator.places import COUNTIES, ESTATES, ROADS, CountyPlace, Town, load_outlines, scatter
from services.simulator.signals import SIGNALS
from services.simulator.signals.scene import Indices

SIGNAL_NAMES = tuple(SIGNALS)
_SIGNAL_INDEX = {name: index for index, name in enumerate(SIGNAL_NAMES)}
EVENT_INTERVAL_S = 900.0
"""How often a point repeats its state where the catalogue expects events only (a door contact)."""
EDGE_AT = "boil"
"""The kind of site whose first in each county houses the Sparkplug edge node."""
_ORDINALS = "一二三四五六七八九十"


class Site(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the document's ``sites``."""

    code: str
    name: str
    sector: str
    county: str
    lon: float
    lat: float
    address: str | None = None
    organisation: str | None = None


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the document's ``devices``."""

    code: str
    site: str
    name: str | None = None
    model: str | None = None


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of the document's ``points``; what is left out is the indicator's."""

    device: str
    code: str
    indicator: str
    source_name: str | None = None
    name: str | None = None
    unit: str | None = None
    interval_s: float | None = None
    valid_min: float | None = None
    valid_max: float | None = None


@dataclass
class Prefecture:
    """Rows as the registry knows them, and beside them columns as signals need them.

    Arrays of length sites: ``site_county``, ``site_plan``. Of length devices: ``device_site``. Of length points:
    ``point_device``, ``point_site``, ``point_county``, ``signal``, ``setting``, ``offset`` in [-1, 1], ``interval_s``
    by the catalogue, ``valid_min`` and ``valid_max`` (NaN where none), ``outdoors``.
    """

    seed: int
    organisations: list[dict[str, str]] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    styles: list[Style] = field(default_factory=list)
    site_county: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    site_plan: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    device_site: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    point_device: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    point_site: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    point_county: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    signal: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    setting: Floats = field(default_factory=lambda: np.zeros(0))
    offset: Floats = field(default_factory=lambda: np.zeros(0))
    interval_s: Floats = field(default_factory=lambda: np.zeros(0))
    valid_min: Floats = field(default_factory=lambda: np.zeros(0))
    valid_max: Floats = field(default_factory=lambda: np.zeros(0))
    outdoors: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    def document(self) -> dict[str, Any]:
        """The registry document: plain lists and dictionaries."""
        return {
            "organisations": self.organisations,
            "sites": msgspec.to_builtins(self.sites),
            "devices": msgspec.to_builtins(self.devices),
            "points": msgspec.to_builtins(self.points),
        }


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write a registry document as JSON or YAML by the ending of ``path``; ``ValueError`` for another ending."""
    if path.suffix == ".json":
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))
    elif path.suffix in (".yaml", ".yml"):
        dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text = yaml.dump(document, Dumper=dumper, allow_unicode=True, sort_keys=False)
        path.write_text(text, encoding="utf-8")
    else:
        raise ValueError(f"{path.name}: the registry document is written as .json, .yaml or .yml; use such an ending")


def build(seed: int, points: int) -> Prefecture:
    """A prefecture of about ``points`` points (never fewer than :data:`SMALLEST`), all of it drawn from ``seed``."""
    rng = np.random.default_rng(seed & 0xFFFFFFFFFFFFFFFF)
    prefecture = Prefecture(seed)
    prefecture.organisations.append({"code": "632500-emergency", "name": "海南州应急管理局"})
    columns = _Columns()
    outlines = load_outlines()
    for index, county in enumerate(COUNTIES):
        for operator, ending in OPERATORS.items():
            prefecture.organisations.append(
                {"code": f"{county.code}-{operator}", "name": county.name + ending, "county": county.code}
            )
        for plan_index, (plan, count) in enumerate(zip(SITE_PLANS, _counts(county, points), strict=True)):
            towns = _towns(rng, county, plan, count)
            lon, lat = scatter(rng, outlines[county.code], towns)
            names = _Names(county, plan)
            for number, town in enumerate(towns):
                columns.site_county.append(index)
                columns.site_plan.append(plan_index)
                _add_site(prefecture, columns, rng, plan, names.site(number, town, lon[number], lat[number]))
                if plan.slug == EDGE_AT and number == 0:
                    _add_edge_node(prefecture, columns, county.code)
    columns.fill(prefecture, rng)
    return prefecture


def _counts(county: CountyPlace, points: int) -> list[int]:
    """Sites of each plan in one county: one of each first, the rest by share."""
    spare = max(0, points - SMALLEST) * county.share
    total_share = sum(plan.share for plan in SITE_PLANS)
    counts, carried = [], 0.0
    for plan in SITE_PLANS:
        wanted = spare * plan.share / total_share + carried
        extra = round(wanted / plan.points)
        # What rounding gives or takes here is made up by the next kind, so that the county's total stays true.
        carried = wanted - extra * plan.points
        counts.append(1 + max(0, extra))
    return counts


def _towns(rng: np.random.Generator, county: CountyPlace, plan: SitePlan, count: int) -> list[Town]:
    """Where ``count`` sites of a plan stand: the seat first, then by share; bridges and waters farther out."""
    shares = np.array([town.share for town in county.towns])
    chosen = np.concatenate([[0], rng.choice(len(county.towns), size=count - 1, p=shares / shares.sum())])
    wider = 2.0 if plan.named in ("river", "reservoir", "bridge", "tunnel", "source") else 1.0
    return [
        Town(town.name, town.lon, town.lat, town.share, town.spread_km * wider)
        for town in (county.towns[int(index)] for index in chosen)
    ]


class _Names:
    """Names for the sites of one plan in one county, none twice."""

    def __init__(self, county: CountyPlace, plan: SitePlan) -> None:
        self.county, self.plan = county, plan
        self._used: dict[str, int] = {}

    def site(self, number: int, town: Town, lon: float, lat: float) -> Site:
        road = ROADS[(number * 7 + len(self.plan.slug)) % len(ROADS)]
        return Site(
            code=f"{self.county.code}-{self.plan.slug}-{number + 1:04d}",
            name=self._unique(self._name(number, town, road)),
            sector=self.plan.sector,
            county=self.county.code,
            lon=float(lon),
            lat=float(lat),
            address=f"青海省海南藏族自治州{self.county.name}{town.name}{road}",
            organisation=f"{self.county.code}-{self.plan.operator}",
        )

    def _name(self, number: int, town: Town, road: str) -> str:
        county, noun = self.county, self.plan.noun
        own = {"bridge": county.bridges, "tunnel": county.tunnels, "source": county.sources}.get(self.plan.named)
        if own is not None:
            return (own[number] if number < len(own) else own[number % len(own)]) + noun
        stems = {
            "street": town.name + road,
            "estate": town.name + ESTATES[number % len(ESTATES)],
            "river": county.river,
            "reservoir": county.reservoir,
            "town": town.name,
        }
        return stems[self.plan.named] + noun

    def _unique(self, name: str) -> str:
        count = self._used[name] = self._used.get(name, 0) + 1
        if count == 1:
            return name
        stem = name.removesuffix(self.plan.noun)
        if self.plan.named == "town" and count <= len(_ORDINALS):
            return f"{stem}第{_ORDINALS[count - 1]}{self.plan.noun}"
        return f"{stem}{count}号{self.plan.noun}"


class _Columns:
    """The columns while they grow."""

    def __init__(self) -> None:
        self.site_county: list[int] = []
        self.site_plan: list[int] = []
        self.device_site: list[int] = []
        self.point_device: list[int] = []
        self.signal: list[int] = []
        self.setting: list[float] = []
        self.interval_s: list[float] = []
        self.valid: list[tuple[float, float]] = []
        self.outdoors: list[bool] = []
        self.indicators = {indicator.code: indicator for indicator in catalogue()}

    def fill(self, prefecture: Prefecture, rng: np.random.Generator) -> None:
        prefecture.site_county = np.array(self.site_county, np.int64)
        prefecture.site_plan = np.array(self.site_plan, np.int64)
        prefecture.device_site = np.array(self.device_site, np.int64)
        prefecture.point_device = np.array(self.point_device, np.int64)
        prefecture.point_site = prefecture.device_site[prefecture.point_device]
        prefecture.point_county = prefecture.site_county[prefecture.point_site]
        prefecture.signal = np.array(self.signal, np.int64)
        prefecture.setting = np.array(self.setting)
        prefecture.offset = rng.uniform(-1, 1, len(self.setting))
        prefecture.interval_s = np.array(self.interval_s)
        valid = np.array(self.valid)
        prefecture.valid_min, prefecture.valid_max = valid[:, 0], valid[:, 1]
        prefecture.outdoors = np.array(self.outdoors)


def _add_site(prefecture: Prefecture, columns: _Columns, rng: np.random.Generator, plan: SitePlan, site: Site) -> None:
    prefecture.sites.append(site)
    for device_plan in plan.devices:
        device = Device(f"{site.code}-{device_plan.slug}", site.code, device_plan.name, device_plan.model)
        columns.device_site.append(len(prefecture.sites) - 1)
        prefecture.devices.append(device)
        prefecture.styles.append(device_plan.style)
        settings = rng.random(len(device_plan.points))
        for point_plan, share in zip(device_plan.points, settings, strict=True):
            _add_point(prefecture, columns, device, device_plan.style, point_plan, share=float(share))


def _add_edge_node(prefecture: Prefecture, columns: _Columns, county: str) -> None:
    prefecture.devices.append(Device(f"{county}-edge", prefecture.sites[-1].code, "供热边缘网关", "EDGE"))
    prefecture.styles.append("edge")
    columns.device_site.append(len(prefecture.sites) - 1)


def _add_point(
    prefecture: Prefecture, columns: _Columns, device: Device, style: Style, plan: PointPlan, *, share: float
) -> None:
    low, high = plan.setting
    setting = round(low + (high - low) * share, 3)
    valid = (0.0, setting) if plan.valid == "setting" else plan.valid
    indicator = columns.indicators[plan.indicator]
    prefecture.points.append(
        Point(
            device=device.code,
            code=plan.code,
            indicator=plan.indicator,
            source_name=_source_name(style, device.code, plan.code),
            name=plan.name,
            valid_min=None if valid is None else valid[0],
            valid_max=None if valid is None else valid[1],
        )
    )
    own = valid or (indicator.valid_min, indicator.valid_max)
    columns.point_device.append(len(prefecture.devices) - 1)
    columns.signal.append(_SIGNAL_INDEX[plan.signal])
    columns.setting.append(setting)
    columns.interval_s.append(indicator.interval_s or EVENT_INTERVAL_S)
    columns.valid.append((np.nan if own[0] is None else own[0], np.nan if own[1] is None else own[1]))
    columns.outdoors.append(indicator.sector in ("drainage", "river", "waterlogging", "bridge", "weather"))


def _source_name(style: Style, device: str, point: str) -> str | None:
    """What the device itself calls the point: a SenML name is a URN, a PLC's metric a path."""
    if style == "senml":
        return f"urn:dev:ops:{device}:{point}"
    if style == "plc":
        return "PLC/" + "".join(word.capitalize() for word in point.split("_"))
    return None
