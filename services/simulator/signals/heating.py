"""District heating: boiler houses, substations, rooms. Everything follows the heating curve over the air outside."""

from __future__ import annotations

import numpy as np

from services.simulator.chance import Floats
from services.simulator.signals.scene import Scene, Signal
from services.simulator.weather import DAY_S

_FIRST_DAY, _LAST_DAY = 288, 105
"""The heating season on the plateau: 15 October to 15 April (days of the year)."""
_RAMP_DAYS = 3.0


def heat_on(scene: Scene) -> Floats:
    """1 in the heating season, 0 in summer, a ramp of some days between."""
    day = (scene.times / DAY_S) % 365.2425
    starting = np.clip((day - _FIRST_DAY) / _RAMP_DAYS, 0, 1)
    ending = np.clip((_LAST_DAY - day) / _RAMP_DAYS, 0, 1)
    result: Floats = np.maximum(starting, ending)
    return result


def _load(scene: Scene) -> Floats:
    """Degrees the air is below 18 °C, K, as a controller with some inertia sees them."""
    result: Floats = np.clip(18 - scene.air, 0, 45)
    return result


def _curve(scene: Scene) -> Floats:
    """Supply temperature the curve asks for, °C; ``setting`` is that at an outside of 18 °C (about 50 at a boiler
    house, 32 at a substation), rising by 0.9 K per kelvin of cold, below what boils at this altitude."""
    result: Floats = np.minimum(scene.setting + 0.9 * _load(scene), 88)
    return result


def _supply(scene: Scene) -> Floats:
    lost = 22 * scene.stress("heat-loss")
    warm = _curve(scene) + 0.6 * scene.offset + 0.7 * scene.site_wander(2400, "boiler") - lost
    on = heat_on(scene)
    return on * warm + (1 - on) * (19 + 2 * scene.season) + scene.noise(0.12)


def _return(scene: Scene) -> Floats:
    """°C: a third of the lift over the room is given off on the way."""
    lost = 20 * scene.stress("heat-loss")
    warm = 21 + 0.62 * (_curve(scene) - 21) + 0.7 * scene.site_wander(2400, "boiler") - lost
    on = heat_on(scene)
    return on * warm + (1 - on) * (18.5 + 2 * scene.season) + 0.4 * scene.offset + scene.noise(0.12)


def _pressure(scene: Scene) -> Floats:
    """MPa; ``setting`` is the pressure of rest."""
    lost = 0.22 * scene.stress("heat-loss")
    return scene.setting + 0.02 * heat_on(scene) + 0.008 * scene.site_wander(3600) - lost + scene.noise(0.0015)


def _make_up(scene: Scene) -> Floats:
    """% of the circulation."""
    usual = 0.35 + 0.12 * scene.offset + 0.1 * scene.wander(5400)
    result: Floats = np.clip(heat_on(scene) * usual + 4.6 * scene.stress("heat-loss") + scene.noise(0.02), 0, 10)
    return result


def _room(scene: Scene) -> Floats:
    """°C indoors: held in winter, by stoves out of season; cools over an hour once heat is lost."""
    sun = 0.5 * np.cos(2 * np.pi * (scene.hour - 16) / 24)
    heated = 21.4 + 0.9 * scene.offset + sun + 0.4 * scene.wander(7200)
    on = heat_on(scene)
    unheated = np.maximum(19.4 + 2.5 * scene.season, 0.35 * scene.air + 13) + sun
    cooled = 8.5 * scene.stress("rooms-cool")
    return on * heated + (1 - on) * unheated - cooled + scene.noise(0.08)


def _soil(scene: Scene) -> Floats:
    """°C beside a buried pipe at 1.5 m; a leak warms it."""
    ground = 7 + 6 * np.cos(2 * np.pi * ((scene.times / DAY_S) % 365.2425 - 235) / 365.2425)
    warmed = 6 * heat_on(scene) + 21 * scene.stress("heat-loss")
    return ground + warmed + 0.8 * scene.offset + scene.noise(0.1)


SIGNALS = {
    "heating.supply": Signal(_supply, 2),
    "heating.return": Signal(_return, 2),
    "heating.pressure": Signal(_pressure, 4),
    "heating.make_up": Signal(_make_up, 3),
    "heating.room": Signal(_room, 2),
    "heating.soil": Signal(_soil, 2),
}
