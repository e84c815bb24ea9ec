"""The weather all sites of a county share: air, rain and what runs off, as pure functions of seed, county and time.

Air: a year's and a day's cosine around the climate of Qiabuqia (2,835 m; January mean about -10 °C with nights of
-20 °C, July mean about 15 °C), wandering by a few kelvin from day to day. Rain: showers drawn per county and day, many
in summer, almost none in winter, weak enough that no seed limit of domain.md is reached; a storm is a scenario.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.simulator.chance import drift, key
from services.simulator.places import COUNTIES, COUNTY_CODES, Floats

DAY_S = 86400.0
SUN_OFFSET_S = 24240.0
"""Local solar time at 101° E, ahead of UTC; Beijing time is 28,800 s ahead."""
BEIJING_OFFSET_S = 28800.0
RUNOFF_MEMORY_MIN = 240
RUNOFF_TIME_MIN = 35.0
"""Minutes in which a gully's stored rain falls to 1/e."""


class Rain(NamedTuple):
    """Rain at some moments: intensity mm/h; sums of the last 5 and 60 minutes, mm; ``runoff`` mm still to drain."""

    intensity: Floats
    five_minutes: Floats
    hour: Floats
    runoff: Floats


def accumulate(intensity: Floats) -> Rain:
    """What a series of rain intensity (mm/h, one value a minute on the last axis) adds up to at each of its minutes."""
    per_minute = intensity / 60
    total = np.concatenate([np.zeros((*per_minute.shape[:-1], 1)), np.cumsum(per_minute, axis=-1)], axis=-1)

    def last(minutes: int) -> Floats:
        earlier = np.concatenate([np.zeros((*total.shape[:-1], minutes)), total], axis=-1)[..., : total.shape[-1]]
        window: Floats = (total - earlier)[..., 1:]
        return window

    kernel = np.exp(-np.arange(RUNOFF_MEMORY_MIN) / RUNOFF_TIME_MIN)
    flat = per_minute.reshape(-1, per_minute.shape[-1])
    runoff = np.stack([np.convolve(row, kernel)[: row.size] for row in flat]).reshape(per_minute.shape)
    return Rain(intensity, last(5), last(60), runoff)


@dataclass(frozen=True)
class Weather:
    """The weather of the prefecture for one seed. Times are seconds since the epoch, counties indices of COUNTIES."""

    seed: int

    def season(self, times: Floats) -> Floats:
        """1 in mid-July, -1 in mid-January."""
        day_of_year = (times / DAY_S) % 365.2425
        result: Floats = -np.cos(2 * np.pi * (day_of_year - 15) / 365.2425)
        return result

    def air(self, county: NDArray[np.integer], times: Floats) -> Floats:
        """Air temperature, °C."""
        warmer = np.array([place.warmer_k for place in COUNTIES])[county]
        hour = ((times + SUN_OFFSET_S) % DAY_S) / 3600
        daily = -7.5 * np.cos(2 * np.pi * (hour - 3.0) / 24)
        synoptic = 3.5 * drift(self.seed, key("air"), times, 2.3 * DAY_S)
        local = 0.8 * drift(self.seed, key("air-county") + county, times, 0.4 * DAY_S)
        result: Floats = 3.0 + warmer + 13.0 * self.season(times) + daily + synoptic + local
        return result

    def humidity(self, county: NDArray[np.integer], times: Floats) -> Floats:
        """Relative humidity outdoors, %."""
        hour = ((times + SUN_OFFSET_S) % DAY_S) / 3600
        daily = 14 * np.cos(2 * np.pi * (hour - 4) / 24)
        wandering = 9 * drift(self.seed, key("humidity") + county, times, 0.5 * DAY_S)
        result: Floats = np.clip(47 + 9 * self.season(times) + daily + wandering, 8, 98)
        return result

    def wind(self, county: NDArray[np.integer], times: Floats) -> Floats:
        """Wind speed, m/s: strongest on spring afternoons."""
        hour = ((times + SUN_OFFSET_S) % DAY_S) / 3600
        daily = 1.6 * np.clip(np.cos(2 * np.pi * (hour - 15.5) / 24), 0, None)
        gusts = 0.7 * drift(self.seed, key("gust") + county, times, 180)
        result: Floats = np.clip(
            2.2 + daily + 1.2 * drift(self.seed, key("wind") + county, times, 0.3 * DAY_S) + gusts, 0, 20
        )
        return result

    def rain(self, county: NDArray[np.integer], times: Floats) -> Rain:
        """Natural rain at each (county, time), read from a grid of minutes around the times asked for."""
        if times.size == 0:
            empty = np.zeros(0)
            return Rain(empty, empty, empty, empty)
        minute = np.floor(times / 60).astype(np.int64)
        first = int(minute.min()) - RUNOFF_MEMORY_MIN
        grid = _rain_grid(self.seed, first - first % 60, int(minute.max()) // 60 * 60 + 60)
        at = minute - (first - first % 60)
        return Rain(*(column[county, at] for column in grid))


@functools.lru_cache(maxsize=4)
def _rain_grid(seed: int, first_minute: int, end_minute: int) -> Rain:
    """Rain of all counties, shape (counties, minutes), from ``first_minute`` since the epoch up to ``end_minute``."""
    minutes = np.arange(first_minute, end_minute, dtype=np.float64)
    intensity = np.zeros((len(COUNTIES), minutes.size))
    for row in range(len(COUNTIES)):
        for day in range(int(first_minute // 1440) - 1, int(end_minute // 1440) + 1):
            for peak_minute, half_width, peak in _showers(seed, row, day):
                shape = np.clip(1 - np.abs(minutes - peak_minute) / half_width, 0, None)
                intensity[row] += peak * shape
    return accumulate(intensity)


@functools.lru_cache(maxsize=4096)
def _showers(seed: int, county: int, day: int) -> tuple[tuple[float, float, float], ...]:
    """The showers of one county and day: (peak, minutes since the epoch; half width, minutes; peak, mm/h)."""
    rng = np.random.default_rng((seed & 0xFFFFFFFF, key(COUNTY_CODES[county]), day))
    warmth = 0.5 - 0.5 * np.cos(2 * np.pi * (day % 365.2425 - 15) / 365.2425)
    showers = []
    for _ in range(int(rng.poisson(0.06 + 1.9 * warmth**2))):
        peak_minute = day * 1440 + float(rng.uniform(300, 900))
        showers.append((peak_minute, float(rng.uniform(15, 60)), float(rng.uniform(0.4, 3.2))))
    return tuple(showers)
