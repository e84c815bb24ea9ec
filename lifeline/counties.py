"""The counties' names and outlines, from ``data/counties.geojson`` (WGS-84; origin named in the file).

The database's ``county`` table is what the service goes by; this is the geography beside it, for checking positions
and for simulating a prefecture.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

Ring = tuple[tuple[float, float], ...]
"""A closed line of (lon, lat), degrees."""


@dataclass(frozen=True, slots=True)
class County:
    """One county; ``polygons`` as in GeoJSON: each an outer ring and its holes."""

    code: str
    name: dict[str, str]
    seat: tuple[float, float]
    """(lon, lat) of the county town, approximate."""
    polygons: tuple[tuple[Ring, ...], ...]

    def contains(self, lon: float, lat: float) -> bool:
        """Whether the position lies inside the outline (even-odd rule over all rings)."""
        crossings = sum(_crosses(edge, lon, lat) for edge in self._edges())
        return crossings % 2 == 1

    def distance(self, lon: float, lat: float) -> float:
        """Degrees of latitude from the position to the outline's nearest edge, inside or outside of it."""
        squeeze = 0.81  # cosine of 36° N: a degree of longitude in degrees of latitude, good to 2 % in the prefecture
        return min(_distance(edge, lon, lat, squeeze) for edge in self._edges())

    def _edges(self) -> Iterable[tuple[tuple[float, float], tuple[float, float]]]:
        for polygon in self.polygons:
            for ring in polygon:
                yield from itertools.pairwise(ring)


@functools.cache
def counties() -> dict[str, County]:
    """The five counties by GB/T 2260 code."""
    text = resources.files("lifeline").joinpath("data/counties.geojson").read_text(encoding="utf-8")
    return {feature["properties"]["code"]: _county(feature) for feature in json.loads(text)["features"]}


def _county(feature: dict[str, object]) -> County:
    properties, geometry = feature["properties"], feature["geometry"]
    assert isinstance(properties, dict)
    assert isinstance(geometry, dict)
    polygons = tuple(
        tuple(tuple((lon, lat) for lon, lat in ring) for ring in polygon) for polygon in geometry["coordinates"]
    )
    seat = properties["seat"]
    return County(properties["code"], properties["name"], (seat["lon"], seat["lat"]), polygons)


def _crosses(edge: tuple[tuple[float, float], tuple[float, float]], lon: float, lat: float) -> bool:
    """Whether a ray eastwards from the position crosses the edge."""
    (x1, y1), (x2, y2) = edge
    return (y1 > lat) != (y2 > lat) and lon < x1 + (x2 - x1) * (lat - y1) / (y2 - y1)


def _distance(edge: tuple[tuple[float, float], tuple[float, float]], lon: float, lat: float, squeeze: float) -> float:
    (x1, y1), (x2, y2) = edge
    dx, dy = (x2 - x1) * squeeze, y2 - y1
    px, py = (lon - x1) * squeeze, lat - y1
    length = dx * dx + dy * dy
    share = 0.0 if length == 0 else max(0.0, min(1.0, (px * dx + py * dy) / length))
    return float(((px - share * dx) ** 2 + (py - share * dy) ** 2) ** 0.5)
