"""The registry as ingest needs it: from a topic's device and a reading's name to the point and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lifeline.units import conversion

if TYPE_CHECKING:
    import psycopg
    from numpy.typing import NDArray

# The version first, in the same snapshot, so that a change while reading is seen at the next poll.
_VERSION = "SELECT version FROM registry_version"

# Every device with its county.
_DEVICES = """
SELECT device.id, device.code, site.county FROM device JOIN site ON site.id = device.site_id
"""

# Every point with its unit and valid range, its own and its indicator's.
_POINTS = """
SELECT point.id, point.device_id, point.code, point.source_name, point.unit, point.valid_min, point.valid_max,
       indicator.unit, indicator.valid_min, indicator.valid_max
FROM point JOIN indicator ON indicator.code = point.indicator
"""


@dataclass(slots=True)
class Device:
    """One device. ``points`` (by code) and ``sources`` (by ``source_name``, or code without one) give rows of
    :class:`Points`."""

    id: int
    code: str
    county: str
    points: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Points:
    """All points of the registry at one version; rows of the arrays are what :class:`Device` refers to.

    ``point_id`` int32, ``valid_min`` and ``valid_max`` float64 (±inf where open), each of length n.
    """

    version: int
    devices: dict[str, Device]
    point_id: NDArray[np.int32]
    valid_min: NDArray[np.float64]
    valid_max: NDArray[np.float64]
    unit: list[str | None]

    def __len__(self) -> int:
        return len(self.point_id)


def version(connection: psycopg.Connection) -> int:
    """The registry's version; it counts up with every change."""
    row = connection.execute(_VERSION).fetchone()
    assert row is not None, "migrations make the row"
    return int(row[0])


def load(connection: psycopg.Connection) -> Points:
    """The whole registry in one snapshot; about 0.5 s and 40 MB for 100,000 points. Raises ``psycopg.Error``."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        at_version = version(connection)
        by_id: dict[int, Device] = {}
        for device_id, code, county in connection.execute(_DEVICES):
            by_id[device_id] = Device(device_id, code, county)
        with connection.cursor(name="points") as cursor:
            cursor.itersize = 5000
            return _collect(at_version, by_id, cursor.execute(_POINTS))


def _collect(at_version: int, by_id: dict[int, Device], rows: psycopg.ServerCursor) -> Points:
    point_ids: list[int] = []
    minima: list[float] = []
    maxima: list[float] = []
    units: list[str | None] = []
    shared: dict[str, str] = {}  # codes and units recur on thousands of devices: keep each text once
    for row, (point_id, device_id, code, source_name, *ranges) in enumerate(rows):
        device = by_id[device_id]
        device.points[shared.setdefault(code, code)] = row
        if source_name is None:
            device.sources.setdefault(shared[code], row)  # a point that asks for the name goes before
        else:
            device.sources[shared.setdefault(source_name, source_name)] = row
        unit, minimum, maximum = effective(*ranges)
        point_ids.append(point_id)
        minima.append(minimum)
        maxima.append(maximum)
        units.append(None if unit is None else shared.setdefault(unit, unit))
    for device in by_id.values():
        if device.sources == device.points:
            device.sources = device.points
    return Points(
        at_version,
        {device.code: device for device in by_id.values()},
        np.array(point_ids, np.int32),
        np.array(minima, np.float64),
        np.array(maxima, np.float64),
        units,
    )


def effective(
    unit: str | None,
    valid_min: float | None,
    valid_max: float | None,
    indicator_unit: str | None,
    indicator_min: float | None,
    indicator_max: float | None,
) -> tuple[str | None, float, float]:
    """A point's unit and valid range (±inf where open): its own, else its indicator's, in the point's unit."""
    if unit is not None and indicator_unit is not None and unit != indicator_unit:
        factor = conversion(indicator_unit, unit)
        if factor is not None:
            indicator_min = None if indicator_min is None else indicator_min * factor.scale + factor.offset
            indicator_max = None if indicator_max is None else indicator_max * factor.scale + factor.offset
    lowest = indicator_min if valid_min is None else valid_min
    highest = indicator_max if valid_max is None else valid_max
    return unit or indicator_unit, -np.inf if lowest is None else lowest, np.inf if highest is None else highest
