"""Gas: regulating stations and the valve wells beside them."""

from __future__ import annotations

import numpy as np

from services.simulator.chance import Floats
from services.simulator.signals.scene import Scene, Signal, of_day

_HOURS = (0, 4, 6, 7.5, 9, 11.5, 13, 16, 18.5, 20, 22)
_COOKING = (0.18, 0.12, 0.5, 1.5, 0.7, 1.9, 0.9, 0.6, 2.1, 1.2, 0.5)


def demand(scene: Scene) -> Floats:
    """Gas drawn at a site over its mean: meals, and boilers in the cold."""
    boilers = 0.022 * np.clip(16 - scene.air, 0, None)
    cooking = of_day(scene, _HOURS, _COOKING) * (1 + 0.06 * scene.site_wander(1500, "gas"))
    result: Floats = 0.75 * cooking + boilers
    return result


def _flow(scene: Scene) -> Floats:
    """Nm³/h; ``setting`` is the mean."""
    return scene.setting * (demand(scene) + 0.5 * scene.stress("gas-leak")) * (1 + scene.noise(0.008))


def _pressure(scene: Scene) -> Floats:
    """In the point's unit; ``setting`` is the regulator's set-point, held within 4 %; a leak pulls it down by 14 %."""
    droop = 0.012 * (demand(scene) - 1)
    held = 1 + 0.012 * scene.offset - droop - 0.14 * scene.stress("gas-leak") + scene.noise(0.0015)
    return scene.setting * held


def _methane_in_well(scene: Scene) -> Floats:
    """%VOL in a valve well: traces, until a leak seeps in."""
    traces = np.clip(0.02 + 0.02 * scene.wander(3600) + scene.noise(0.006), 0, None)
    result: Floats = traces + 3.4 * scene.stress("gas-leak") * (0.8 + 0.2 * scene.wander(400, "seep"))
    return result


SIGNALS = {
    "gas.flow": Signal(_flow, 2),
    "gas.pressure": Signal(_pressure, 4),
    "gas.methane": Signal(_methane_in_well, 3),
}
