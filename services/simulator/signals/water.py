"""Water sources and water supply. Pressure falls as the flow of the same site rises; both follow one demand."""

from __future__ import annotations

import numpy as np

from services.simulator.chance import Floats
from services.simulator.signals.scene import Scene, Signal, of_day

_HOURS = (0, 3, 5, 6.5, 7.5, 9, 12, 14, 17, 19, 21, 23)
_DEMAND = (0.42, 0.32, 0.42, 0.95, 1.45, 1.15, 1.35, 0.95, 1.10, 1.55, 1.20, 0.65)


def demand(scene: Scene) -> Floats:
    """Water drawn at a site over its mean: 0.3 at night to 1.7 in the evening."""
    weekend = np.where(scene.weekend, 1.06, 1.0)
    wandering = 1 + 0.06 * scene.site_wander(1800, "demand") + 0.02 * scene.site_wander(120, "taps")
    result: Floats = of_day(scene, _HOURS, _DEMAND) * weekend * wandering * (1 + 0.08 * scene.season)
    return result


def _flow(scene: Scene) -> Floats:
    """m³/h; ``setting`` is the mean flow. A burst draws most of another mean flow."""
    return scene.setting * (demand(scene) + 0.9 * scene.stress("burst")) * (1 + scene.noise(0.01))


def _night_minimum(scene: Scene) -> Floats:
    """m³/h, of the night before; ``setting`` is the mean flow of the metered area."""
    usual = 0.33 + 0.02 * scene.offset + 0.015 * scene.wander(2 * 86400)
    return scene.setting * (usual + 0.25 * scene.stress("burst")) * (1 + scene.noise(0.004))


def _pressure(scene: Scene) -> Floats:
    """MPa; ``setting`` is the pressure without flow. Losses grow with the square of the flow."""
    loss = 0.028 * demand(scene) ** 2
    lost_to_burst = 0.17 * scene.stress("burst") + 0.07 * scene.stress("burst-near")
    return scene.setting + 0.008 * scene.offset - loss - lost_to_burst + scene.noise(0.0015)


def _leak_noise(scene: Scene) -> Floats:
    """dB; a burst nearby is heard."""
    louder = 38 * scene.stress("burst") + 14 * scene.stress("burst-near")
    return 26 + 5 * scene.offset + 2 * scene.wander(43200) + louder + scene.noise(0.8)


def _chlorine(scene: Scene) -> Floats:
    """mg/L; ``setting`` is the usual residual: about 0.6 at the works, 0.4 at the network's end."""
    return scene.setting * (1 + 0.08 * scene.wander(7200)) + scene.noise(0.006)


def _turbidity(scene: Scene) -> Floats:
    """NTU; a burst stirs the pipe."""
    stirred = 2.2 * scene.stress("burst") + 0.7 * scene.stress("burst-near")
    return 0.30 + 0.08 * scene.offset + 0.08 * scene.wander(10800) + stirred + scene.noise(0.01)


def _ph(scene: Scene) -> Floats:
    return 7.6 + 0.15 * scene.offset + 0.12 * scene.wander(21600) + scene.noise(0.015)


def _source_level(scene: Scene) -> Floats:
    """m; ``setting`` is the usual level over the gauge; fuller in summer, lower after the evening's draw."""
    drawn = 0.10 * np.cos(2 * np.pi * (scene.hour - 5) / 24)
    return scene.setting + 0.5 * scene.season + drawn + 0.15 * scene.site_wander(86400) + scene.noise(0.004)


def _ammonia(scene: Scene) -> Floats:
    return 0.16 + 0.05 * scene.offset + 0.05 * scene.wander(28800) + scene.noise(0.008)


def _conductivity(scene: Scene) -> Floats:
    """µS/cm: hard groundwater of the plateau."""
    return 520 + 90 * scene.offset + 25 * scene.wander(43200) - 30 * scene.season + scene.noise(2.5)


SIGNALS = {
    "water.flow": Signal(_flow, 2),
    "water.night_minimum": Signal(_night_minimum, 2),
    "water.pressure": Signal(_pressure, 4),
    "water.leak_noise": Signal(_leak_noise, 1),
    "water.chlorine": Signal(_chlorine, 3),
    "water.turbidity": Signal(_turbidity, 3),
    "water.ph": Signal(_ph, 2),
    "source.level": Signal(_source_level, 3),
    "source.ammonia": Signal(_ammonia, 3),
    "source.conductivity": Signal(_conductivity, 1),
}
