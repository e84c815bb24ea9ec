"""What a weather station shows of the weather all other signals follow."""

from __future__ import annotations

import numpy as np

from services.simulator.chance import Floats
from services.simulator.signals.scene import Scene, Signal
from services.simulator.weather import DAY_S


def _air(scene: Scene) -> Floats:
    return scene.air + 0.4 * scene.offset + scene.noise(0.08)


def _humidity(scene: Scene) -> Floats:
    wet = 30 * np.clip(scene.rain.intensity / 5, 0, 1)
    result: Floats = np.clip(scene.weather.humidity(scene.county, scene.times) + wet + scene.noise(0.5), 3, 99)
    return result


def _wind(scene: Scene) -> Floats:
    result: Floats = np.clip(scene.weather.wind(scene.county, scene.times) + scene.noise(0.25), 0, None)
    return result


def _pressure(scene: Scene) -> Floats:
    """hPa at the station; ``setting`` is the altitude's mean (about 720 at 2,835 m)."""
    return scene.setting + 4 * scene.site_wander(1.5 * DAY_S) + 2 * scene.season + scene.noise(0.05)


def _wind_direction(scene: Scene) -> Floats:
    """Degrees from north: westerlies most of the year."""
    result: Floats = (275 + 70 * scene.site_wander(14400) + 12 * scene.wander(120) + 5 * scene.offset) % 360
    return result


SIGNALS = {
    "weather.air": Signal(_air, 2),
    "weather.humidity": Signal(_humidity, 1),
    "weather.wind": Signal(_wind, 1),
    "weather.pressure": Signal(_pressure, 1),
    "weather.wind_direction": Signal(_wind_direction, 0),
}
