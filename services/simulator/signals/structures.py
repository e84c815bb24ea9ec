"""Trenches, bridges and tunnels."""

from __future__ import annotations

import numpy as np

from services.simulator.chance import Floats
from services.simulator.signals.scene import Scene, Signal, of_day

_HOURS = (0, 4, 6.5, 8, 10, 12.5, 15, 17.5, 19, 21)
_TRAFFIC = (0.15, 0.10, 0.5, 1.35, 1.0, 1.1, 0.95, 1.5, 1.0, 0.5)


def traffic(scene: Scene) -> Floats:
    """Vehicles at a site over their mean."""
    result: Floats = of_day(scene, _HOURS, _TRAFFIC) * (1 + 0.12 * scene.site_wander(900, "traffic"))
    return result


def _trench_temperature(scene: Scene) -> Floats:
    """°C underground: about 14, with a little of the year; heating pipes keep it from freezing."""
    return 14 + 3.5 * scene.season + 1.2 * scene.offset + 0.5 * scene.site_wander(21600) + scene.noise(0.05)


def _trench_humidity(scene: Scene) -> Floats:
    return 62 + 5 * scene.offset + 5 * scene.site_wander(28800) + 4 * scene.season + scene.noise(0.3)


def _trench_oxygen(scene: Scene) -> Floats:
    """%VOL; gas takes its place."""
    return 20.7 + 0.12 * scene.wander(10800) - 1.9 * scene.stress("trench-leak") + scene.noise(0.03)


def _trench_methane(scene: Scene) -> Floats:
    """%LEL; a leak into the trench is swept along by the ventilation and comes in waves."""
    traces = 0.6 + 0.4 * scene.offset + 0.3 * scene.wander(3600) + scene.noise(0.08)
    waves = 0.88 + 0.12 * scene.wander(150, "waves")
    result: Floats = np.clip(traces + 36 * scene.stress("trench-leak") * waves, 0, 100)
    return result


def _trench_h2s(scene: Scene) -> Floats:
    result: Floats = np.clip(0.5 + 0.4 * scene.wander(7200) + scene.noise(0.05), 0, None)
    return result


def _sump(scene: Scene) -> Floats:
    """m in the drainage sump: fills for hours, is pumped out; rain gets in."""
    tooth = (scene.times / 9000 + scene.site_chance("sump")) % 1.0
    return 0.15 + 0.25 * tooth + 0.012 * scene.rain.runoff + scene.noise(0.003)


def _intrusion(scene: Scene) -> Floats:
    """A door contact; nobody goes in."""
    return np.zeros(scene.times.shape)


def _load(scene: Scene) -> Floats:
    """What vehicles do to a bridge over what it was designed for: some 0.3 by day, 1.3 under a convoy too heavy."""
    result: Floats = 0.10 + 0.16 * traffic(scene) + 1.05 * scene.stress("overload")
    return result


def _deflection(scene: Scene) -> Floats:
    """mm; ``setting`` is the design value. Temperature bends it a little, too."""
    share = _load(scene) + 0.04 * np.cos(2 * np.pi * (scene.hour - 16) / 24)
    return scene.setting * share * (1 + 0.06 * scene.offset) + scene.noise(0.15)


def _strain(scene: Scene) -> Floats:
    """µε; ``setting`` is the design value."""
    return scene.setting * _load(scene) * (1 + 0.08 * scene.offset) + scene.noise(1.5)


def _crack(scene: Scene) -> Floats:
    """mm: opens in the cold and under load."""
    opened = -0.012 * scene.season + 0.05 * scene.stress("overload")
    return 0.10 + 0.03 * scene.offset + opened + scene.noise(0.0015)


def _tilt(scene: Scene) -> Floats:
    return 0.03 * scene.offset + 0.01 * scene.wander(86400) + 0.06 * scene.stress("overload") + scene.noise(0.001)


def _settlement(scene: Scene) -> Floats:
    """mm since the sensor was set."""
    return 2.5 + 1.5 * scene.offset + 0.4 * scene.season + scene.noise(0.05)


def _vibration(scene: Scene) -> Floats:
    """m/s², root mean square of a minute."""
    result: Floats = 0.02 + 0.06 * traffic(scene) * (1 + 0.2 * scene.wander(240)) + 0.36 * scene.stress("overload")
    return np.clip(result + scene.noise(0.004), 0, None)


def _tunnel_co(scene: Scene) -> Floats:
    """ppm: with the traffic."""
    result: Floats = np.clip(6 + 16 * traffic(scene) + 2 * scene.wander(600) + scene.noise(0.5), 0, None)
    return result


def _extinction(scene: Scene) -> Floats:
    """1/m: visibility as an extinction coefficient, 0.003 clear to 0.007 in dense traffic."""
    result: Floats = np.clip(0.0022 + 0.0013 * traffic(scene) + 0.0004 * scene.wander(900), 0.0002, None)
    return result + scene.noise(0.00005)


def _convergence(scene: Scene) -> Floats:
    """mm of the lining since the pins were set."""
    return 1.6 + 1.2 * scene.offset + 0.3 * scene.season + scene.noise(0.03)


SIGNALS = {
    "trench.temperature": Signal(_trench_temperature, 2),
    "trench.humidity": Signal(_trench_humidity, 1),
    "trench.oxygen": Signal(_trench_oxygen, 2),
    "trench.methane": Signal(_trench_methane, 2),
    "trench.h2s": Signal(_trench_h2s, 2),
    "trench.sump": Signal(_sump, 3),
    "trench.intrusion": Signal(_intrusion, 0, boolean=True),
    "bridge.deflection": Signal(_deflection, 2),
    "bridge.strain": Signal(_strain, 1),
    "bridge.crack": Signal(_crack, 4),
    "bridge.tilt": Signal(_tilt, 4),
    "bridge.settlement": Signal(_settlement, 2),
    "bridge.vibration": Signal(_vibration, 4),
    "tunnel.co": Signal(_tunnel_co, 1),
    "tunnel.extinction": Signal(_extinction, 5),
    "tunnel.convergence": Signal(_convergence, 2),
}
