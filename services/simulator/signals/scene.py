"""What a signal sees: some readings to be made, in columns, with the weather and the stresses on their sites."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from services.simulator.chance import Floats, drift, key, normal, uniform
from services.simulator.weather import BEIJING_OFFSET_S, DAY_S, Rain, Weather

Indices = NDArray[np.int64]


class Stresses(Protocol):
    """What running scenarios do to sites and counties; quiet where none runs."""

    def strength(self, name: str, site: Indices, times: Floats) -> Floats:
        """How strongly stress ``name`` acts on each site at each time: 0 not at all, 1 fully."""
        ...

    def storm(self, county: Indices, times: Floats) -> Rain:
        """Rain that scenarios add."""
        ...

    def air_shift(self, county: Indices, times: Floats, air: Floats) -> Floats:
        """Air temperature after scenarios, °C."""
        ...


@dataclass(frozen=True)
class Scene:
    """Readings to be made, one element per reading.

    ``times`` seconds since the epoch; ``point``, ``site``, ``county`` indices; ``setting`` the point's own figure
    (a set-point, a depth, a gain: the signal says which); ``offset`` the point's stable deviation in [-1, 1].
    """

    seed: int
    weather: Weather
    stresses: Stresses
    times: Floats
    point: Indices
    site: Indices
    county: Indices
    setting: Floats
    offset: Floats

    def take(self, chosen: NDArray[np.bool_] | Indices) -> Scene:
        return Scene(
            self.seed,
            self.weather,
            self.stresses,
            self.times[chosen],
            self.point[chosen],
            self.site[chosen],
            self.county[chosen],
            self.setting[chosen],
            self.offset[chosen],
        )

    @functools.cached_property
    def hour(self) -> Floats:
        """Hour of the day in Beijing time, by which people live."""
        result: Floats = ((self.times + BEIJING_OFFSET_S) % DAY_S) / 3600
        return result

    @functools.cached_property
    def weekend(self) -> NDArray[np.bool_]:
        """Saturday or Sunday in Beijing time (1970-01-01 was a Thursday)."""
        result: NDArray[np.bool_] = (np.floor((self.times + BEIJING_OFFSET_S) / DAY_S) + 3) % 7 >= 5
        return result

    @functools.cached_property
    def season(self) -> Floats:
        """1 in mid-July, -1 in mid-January."""
        return self.weather.season(self.times)

    @functools.cached_property
    def air(self) -> Floats:
        """Air temperature, °C."""
        return self.stresses.air_shift(self.county, self.times, self.weather.air(self.county, self.times))

    @functools.cached_property
    def rain(self) -> Rain:
        natural = self.weather.rain(self.county, self.times)
        storm = self.stresses.storm(self.county, self.times)
        # Frozen precipitation neither runs off nor fills a gauge; a storm scenario warms the air first.
        liquid = np.clip((self.air + 1) / 3, 0, 1)
        return Rain(*((first + second) * liquid for first, second in zip(natural, storm, strict=True)))

    def stress(self, name: str) -> Floats:
        return self.stresses.strength(name, self.site, self.times)

    def noise(self, scale: float, name: str = "") -> Floats:
        """Each reading's own noise, within ±3.5 × ``scale``."""
        return scale * normal(self.seed, key("noise" + name), self.point, np.round(self.times * 1000))

    def wander(self, period_s: float, name: str = "") -> Floats:
        """Smooth wandering of each point in [-1, 1]."""
        return drift(self.seed, key("point" + name) * 1_000_003 + self.point, self.times, period_s)

    def site_wander(self, period_s: float, name: str = "") -> Floats:
        """Smooth wandering in [-1, 1] that all points of a site share."""
        return drift(self.seed, key("site" + name) * 1_000_003 + self.site, self.times, period_s)

    def site_chance(self, name: str) -> Floats:
        """A stable number of each site in [0, 1)."""
        return uniform(self.seed, key(name), self.site)


class Signal(NamedTuple):
    """How one kind of point behaves: its values, the decimals its sensor resolves, and whether it is a switch."""

    values: Callable[[Scene], Floats]
    decimals: int
    boolean: bool = False


def of_day(scene: Scene, hours: tuple[float, ...], values: tuple[float, ...]) -> Floats:
    """A daily curve through (hour, value), the same every day."""
    result: Floats = np.interp(scene.hour, hours, values, period=24)
    return result
