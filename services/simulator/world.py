"""The prefecture at work: what each point shows at each time. Pure but for the scenarios on its stage."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.simulator.chance import Floats
from services.simulator.faults import Faults
from services.simulator.prefecture import SIGNAL_NAMES, Prefecture
from services.simulator.scenarios import Stage
from services.simulator.signals import SIGNALS, Scene
from services.simulator.signals.scene import Indices
from services.simulator.weather import Weather

_SIGNALS = tuple(SIGNALS[name] for name in SIGNAL_NAMES)
_BOOLEAN = np.array([signal.boolean for signal in _SIGNALS])
_DECIMALS = np.array([signal.decimals for signal in _SIGNALS])


class World:
    """Makes readings of a prefecture; ``fault_share`` is the expected share of points at fault at any time."""

    def __init__(self, prefecture: Prefecture, stage: Stage, fault_share: float = 0.002) -> None:
        self.prefecture = prefecture
        self.stage = stage
        self.weather = Weather(prefecture.seed)
        self.faults = Faults(prefecture.seed, fault_share)
        self.boolean: NDArray[np.bool_] = _BOOLEAN[prefecture.signal]
        self.decimals: NDArray[np.int64] = _DECIMALS[prefecture.signal]

    def values(self, point: Indices, times: Floats) -> Floats:
        """What the points show at ``times`` (seconds since the epoch, one per point index), rounded as sensors do."""
        if point.size == 0:
            return np.zeros(0)
        prefecture = self.prefecture
        shown = self._held(point, times)
        scene = Scene(
            prefecture.seed,
            self.weather,
            self.stage,
            shown,
            point,
            prefecture.point_site[point],
            prefecture.point_county[point],
            prefecture.setting[point],
            prefecture.offset[point],
        )
        signal = prefecture.signal[point]
        order = np.argsort(signal, kind="stable")
        starts = np.flatnonzero(np.diff(signal[order], prepend=-1))
        result = np.empty(point.size)
        for first, last in zip(starts, [*starts[1:], point.size], strict=True):
            chosen = order[first:last]
            one = _SIGNALS[signal[chosen[0]]]
            result[chosen] = np.round(one.values(scene.take(chosen)), one.decimals)
        if self.faults.share <= 0:
            return result
        low, high = prefecture.valid_min[point], prefecture.valid_max[point]
        spoilt = self.faults.spoil(result, point, times, low, high)
        return np.where(self.boolean[point], result, np.round(spoilt, 5))

    def _held(self, point: Indices, times: Floats) -> Floats:
        if self.faults.share <= 0:
            return times
        prefecture = self.prefecture
        air = self.weather.air(prefecture.point_county[point], times)
        return self.faults.held_times(point, times, prefecture.outdoors[point], air)
