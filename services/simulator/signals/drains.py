"""Drainage, waterlogging, rivers: what falls as rain passes through manholes, pumps, hollows and rivers in turn."""

from __future__ import annotations

import numpy as np

from services.simulator.chance import Floats
from services.simulator.signals.scene import Scene, Signal
from services.simulator.signals.water import demand

_PUMP_CYCLE_S = 1500.0
_FILLING_SHARE = 0.62
"""Share of a dry-weather cycle in which the well fills; in the rest the pump empties it."""
_LOW_M, _HIGH_M = 0.8, 1.7


def _manhole_level(scene: Scene) -> Floats:
    """m of water; ``setting`` is the burial depth. A tenth to a fifth full in dry weather, to the cover in a storm."""
    dry = 0.10 + 0.06 * demand(scene) + 0.02 * scene.offset
    wet = (0.036 + 0.010 * scene.offset) * scene.rain.runoff
    share = np.clip(dry + wet + 0.01 * scene.wander(1800), 0.02, 0.985)
    result: Floats = np.clip(scene.setting * share + scene.noise(0.003), 0, scene.setting)
    return result


def _flow(scene: Scene) -> Floats:
    """m³/h; ``setting`` is the mean of sewage; rain gets in."""
    return scene.setting * (0.25 + 0.75 * demand(scene) + 0.16 * scene.rain.runoff) * (1 + scene.noise(0.012))


def _cod(scene: Scene) -> Floats:
    """mg/L: thinned by rain."""
    strength = 290 + 45 * scene.offset + 40 * scene.wander(14400) + 35 * (demand(scene) - 1)
    return strength / (1 + 0.12 * scene.rain.runoff) + scene.noise(4)


def _h2s(scene: Scene) -> Floats:
    """mg/m³: more in the warmth, flushed by rain."""
    usual = 1.6 + 0.8 * scene.offset + 0.9 * scene.wander(9000) + 0.6 * scene.season
    result: Floats = np.clip(usual / (1 + 0.1 * scene.rain.runoff) + scene.noise(0.08), 0, None)
    return result


def _co(scene: Scene) -> Floats:
    """mg/m³."""
    result: Floats = np.clip(3.2 + 1.4 * scene.offset + 1.3 * scene.wander(9000) + scene.noise(0.15), 0, None)
    return result


def _cover_tilt(scene: Scene) -> Floats:
    """Degrees; covers lie still, rattle a little under traffic, and lift where the drain is full."""
    lifted = 9 * np.clip(scene.rain.runoff - 24, 0, 1)
    result: Floats = np.clip(1.2 + 0.9 * scene.offset + lifted + scene.noise(0.15), 0, 90)
    return result


def _cycle(scene: Scene) -> tuple[Floats, Floats]:
    """A pump well's cycle: its place in [0, 1), and how far rain has filled it beyond (m)."""
    share = scene.times / (_PUMP_CYCLE_S * (0.8 + 0.4 * scene.site_chance("pump-cycle")))
    phase = (share + scene.site_chance("pump-phase")) % 1.0
    surge: Floats = np.clip(0.07 * (scene.rain.runoff - 3), 0, 2.6)
    return phase, surge


def _well_level(scene: Scene) -> Floats:
    """m in the wet well: a saw-tooth between the switching levels; a storm holds it above them."""
    phase, surge = _cycle(scene)
    filling = phase / _FILLING_SHARE
    emptying = (1 - phase) / (1 - _FILLING_SHARE)
    tooth = np.where(phase < _FILLING_SHARE, filling, emptying)
    result: Floats = _LOW_M + (_HIGH_M - _LOW_M) * tooth + surge + scene.noise(0.004)
    return result


def _pump_running(scene: Scene) -> Floats:
    """``setting`` 1: the duty pump, running while the well empties and always in a storm; 2: the standby, which joins
    it when rain has filled the well by 0.5 m more."""
    phase, surge = _cycle(scene)
    duty = (phase >= _FILLING_SHARE) | (surge > 0.1)
    result: Floats = np.where(scene.setting < 1.5, duty, surge > 0.5).astype(np.float64)
    return result


def _waterlogging(scene: Scene) -> Floats:
    """cm of water in a hollow; ``setting`` is cm per mm of runoff beyond what the gullies take (4 mm)."""
    runoff = scene.rain.runoff
    pond = scene.setting * np.clip(runoff - 4, 0, None)
    film = 0.35 * np.clip(runoff - 0.5, 0, 4)
    wet = pond + film
    result: Floats = np.where(wet > 0.05, np.clip(wet + scene.noise(0.15), 0, 299), 0.0)
    return result


def _rain_five(scene: Scene) -> Floats:
    return scene.rain.five_minutes


def _rain_hour(scene: Scene) -> Floats:
    return scene.rain.hour


def _river_level(scene: Scene) -> Floats:
    """m over the gauge; ``setting`` is the year's mean; snow melt and rain in summer, runoff within the hour."""
    wave = 0.075 * (1 + 0.3 * scene.offset) * scene.rain.runoff
    return scene.setting + 0.35 * scene.season + 0.08 * scene.site_wander(43200) + wave + scene.noise(0.006)


def _reservoir_level(scene: Scene) -> Floats:
    """m; ``setting`` is the usual level. Slow: a day's rain raises it by centimetres."""
    slow = 1.6 * scene.season + 0.25 * scene.site_wander(5 * 86400) + 0.004 * scene.rain.runoff
    return scene.setting + slow + scene.noise(0.004)


SIGNALS = {
    "drain.level": Signal(_manhole_level, 3),
    "drain.flow": Signal(_flow, 2),
    "drain.cod": Signal(_cod, 1),
    "drain.h2s": Signal(_h2s, 2),
    "drain.co": Signal(_co, 2),
    "drain.tilt": Signal(_cover_tilt, 2),
    "pump.well_level": Signal(_well_level, 3),
    "pump.running": Signal(_pump_running, 0, boolean=True),
    "waterlogging.depth": Signal(_waterlogging, 1),
    "rain.five": Signal(_rain_five, 1),
    "rain.hour": Signal(_rain_hour, 1),
    "river.level": Signal(_river_level, 3),
    "reservoir.level": Signal(_reservoir_level, 3),
}
