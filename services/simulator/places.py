"""The five counties as the simulator needs them: towns with their weight, altitude, names of roads and waters.

Positions are WGS-84 degrees, rounded to about a kilometre; outlines come from ``lifeline/data/counties.geojson``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import resources

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Town:
    """A town or township: ``share`` of its county's sites, ``spread_km`` the deviation of their distance from it."""

    name: str
    lon: float
    lat: float
    share: float
    spread_km: float


@dataclass(frozen=True, slots=True)
class CountyPlace:
    """A county: ``share`` of the prefecture's sites, ``warmer_k`` its air against Gonghe's by altitude."""

    code: str
    name: str
    slug: str
    share: float
    warmer_k: float
    towns: tuple[Town, ...]
    river: str
    reservoir: str
    bridges: tuple[str, ...]
    tunnels: tuple[str, ...]
    sources: tuple[str, ...]


ROADS = (
    "团结路", "民族路", "迎宾路", "滨河路", "环城东路", "黄河路", "北大街", "南大街", "文化路", "建设路",
    "幸福路", "东大街", "西大街", "绿洲路", "振兴路", "民主路",
)  # fmt: skip
ESTATES = ("幸福小区", "滨河家园", "民族小区", "阳光小区", "和谐家园", "团结小区", "草原明珠", "黄河人家", "安康小区")

COUNTIES = (
    CountyPlace(
        "632521", "共和县", "gonghe", 0.36, 0.0,
        (
            Town("恰卜恰镇", 100.620, 36.284, 0.72, 1.6),
            Town("倒淌河镇", 100.975, 36.395, 0.08, 0.7),
            Town("龙羊峡镇", 100.895, 36.130, 0.08, 0.7),
            Town("塘格木镇", 100.150, 36.370, 0.06, 0.7),
            Town("江西沟镇", 100.300, 36.600, 0.06, 0.6),
        ),
        "恰卜恰河", "龙羊峡水库",
        ("恰卜恰河大桥", "龙羊峡黄河大桥", "滨河路桥"), ("过境公路隧道", "龙羊峡专用公路隧道"),
        ("恰卜恰水源地", "龙羊峡取水口"),
    ),
    CountyPlace(
        "632522", "同德县", "tongde", 0.14, -2.5,
        (
            Town("尕巴松多镇", 100.578, 35.254, 0.80, 1.1),
            Town("唐谷镇", 100.680, 35.130, 0.12, 0.6),
            Town("巴沟乡", 100.450, 35.300, 0.08, 0.6),
        ),
        "巴曲河", "巴曲水库",
        ("巴曲河桥", "巴沟黄河大桥"), ("同德北隧道",), ("尕巴松多水源地", "巴曲取水口"),
    ),
    CountyPlace(
        "632523", "贵德县", "guide", 0.22, 4.0,
        (
            Town("河阴镇", 101.433, 36.040, 0.70, 1.3),
            Town("河西镇", 101.390, 36.035, 0.12, 0.7),
            Town("常牧镇", 101.450, 35.880, 0.09, 0.6),
            Town("拉西瓦镇", 101.190, 36.100, 0.09, 0.6),
        ),
        "黄河贵德段", "拉西瓦水库",
        ("贵德黄河大桥", "西河桥", "东河桥"), ("拉脊山南隧道", "拉西瓦隧道"), ("河阴水源地", "东河取水口"),
    ),
    CountyPlace(
        "632524", "兴海县", "xinghai", 0.14, -2.5,
        (
            Town("子科滩镇", 99.988, 35.589, 0.76, 1.1),
            Town("河卡镇", 99.990, 35.880, 0.14, 0.6),
            Town("唐乃亥乡", 100.150, 35.500, 0.10, 0.6),
        ),
        "大河坝河", "羊曲水库",
        ("大河坝河桥", "曲什安河大桥"), ("河卡山隧道", "鄂拉山隧道"), ("子科滩水源地", "大河坝取水口"),
    ),
    CountyPlace(
        "632525", "贵南县", "guinan", 0.14, -1.5,
        (
            Town("茫曲镇", 100.748, 35.587, 0.78, 1.1),
            Town("过马营镇", 101.080, 35.790, 0.12, 0.6),
            Town("森多镇", 100.990, 35.520, 0.10, 0.6),
        ),
        "茫拉河", "茫拉水库",
        ("茫拉河大桥", "沙沟河桥"), ("贵南东隧道",), ("茫曲水源地", "茫拉取水口"),
    ),
)  # fmt: skip

COUNTY_CODES = tuple(county.code for county in COUNTIES)


class OutlineError(Exception):
    """The county outlines cannot be read; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The rings of one county, each an array (n, 2) of lon, lat; even-odd rule, so holes need no marking."""

    rings: tuple[Floats, ...] = field(repr=False)

    def contains(self, lon: Floats, lat: Floats) -> NDArray[np.bool_]:
        """Whether each position lies inside (ray casting to the east)."""
        inside = np.zeros(lon.shape, dtype=bool)
        for ring in self.rings:
            x1, y1 = ring[:-1, 0], ring[:-1, 1]
            x2, y2 = ring[1:, 0], ring[1:, 1]
            slope = (x2 - x1) / np.where(y2 == y1, 1e-12, y2 - y1)
            crosses = (y1 > lat[:, None]) != (y2 > lat[:, None])
            east = lon[:, None] < x1 + (lat[:, None] - y1) * slope
            inside ^= (np.count_nonzero(crosses & east, axis=1) % 2).astype(bool)
        return inside


def load_outlines(text: str | None = None) -> dict[str, Outline]:
    """Outlines by county code, from GeoJSON ``text`` or the product's own file. Raises :class:`OutlineError`."""
    if text is None:
        source = resources.files("lifeline").joinpath("data", "counties.geojson")
        if not source.is_file():
            raise OutlineError("lifeline/data/counties.geojson is missing: reinstall lifeline")
        text = source.read_text(encoding="utf-8")
    outlines: dict[str, Outline] = {}
    for feature in json.loads(text)["features"]:
        properties, geometry = feature["properties"], feature["geometry"]
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        rings = tuple(np.array(ring, dtype=np.float64)[:, :2] for polygon in polygons for ring in polygon)
        outlines[str(properties.get("adcode", properties.get("code")))] = Outline(rings)
    missing = set(COUNTY_CODES) - set(outlines)
    if missing:
        raise OutlineError(f"the county outlines lack {', '.join(sorted(missing))}")
    return outlines


def scatter(rng: np.random.Generator, outline: Outline, towns: list[Town]) -> tuple[Floats, Floats]:
    """A position around each of ``towns`` (one site each), drawn again until it lies inside the outline."""
    centre_lon = np.array([town.lon for town in towns])
    centre_lat = np.array([town.lat for town in towns])
    spread = np.array([town.spread_km for town in towns])
    lon, lat = centre_lon.copy(), centre_lat.copy()
    todo = np.arange(len(towns))
    for _ in range(20):
        lat[todo] = centre_lat[todo] + rng.normal(size=len(todo)) * spread[todo] / 111.2
        degrees_per_km = 1 / (111.2 * np.cos(np.radians(centre_lat[todo])))
        lon[todo] = centre_lon[todo] + rng.normal(size=len(todo)) * spread[todo] * degrees_per_km
        todo = todo[~outline.contains(lon[todo], lat[todo])]
        if len(todo) == 0:
            break
    lon[todo], lat[todo] = centre_lon[todo], centre_lat[todo]
    return np.round(lon, 6), np.round(lat, 6)
