"""Sensor faults: impossible values, flat lines, spikes, and sensors that freeze in bitter cold.

A fault is an episode of a point within a window of six hours, drawn from seed, point and window alone, so that a
reading sent twice or late shows the same fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.simulator.chance import Floats, key, uniform
from services.simulator.signals.scene import Indices

WINDOW_S = 21600.0
SHORTEST_S, LONGEST_S = 600.0, 3000.0
FREEZING_C = -14.0
_MEAN_SHARE_OF_WINDOW = (SHORTEST_S + LONGEST_S) / 2 / WINDOW_S
_IMPOSSIBLE, _FLAT = 0.45, 0.85
"""Of ten episodes, between four and five show impossible values, four a flat line, the rest single spikes."""


class Episodes(NamedTuple):
    """For each reading: whether its point is at fault, since when, and how."""

    at_fault: NDArray[np.bool_]
    since: Floats
    kind: Floats


@dataclass(frozen=True)
class Faults:
    """``share``: the expected share of points that are at fault at any time."""

    seed: int
    share: float

    def episodes(self, point: Indices, times: Floats) -> Episodes:
        window = np.floor(times / WINDOW_S)
        chosen = uniform(self.seed, key("fault"), point, window) < self.share / _MEAN_SHARE_OF_WINDOW
        lasting = SHORTEST_S + (LONGEST_S - SHORTEST_S) * uniform(self.seed, key("fault-lasting"), point, window)
        begin = window * WINDOW_S + (WINDOW_S - lasting) * uniform(self.seed, key("fault-begin"), point, window)
        kind = uniform(self.seed, key("fault-kind"), point, window)
        return Episodes(chosen & (times >= begin) & (times < begin + lasting), begin, kind)

    def held_times(self, point: Indices, times: Floats, outdoors: NDArray[np.bool_], air: Floats) -> Floats:
        """The times whose values sensors show: earlier ones for flat lines and for what froze."""
        episodes = self.episodes(point, times)
        flat = episodes.at_fault & (episodes.kind >= _IMPOSSIBLE) & (episodes.kind < _FLAT)
        night = np.floor(times / WINDOW_S)
        freezes = uniform(self.seed, key("freeze"), point, night) < 5 * self.share
        frozen = outdoors & (air < FREEZING_C) & freezes
        held: Floats = np.where(flat, episodes.since, np.where(frozen, night * WINDOW_S, times))
        return held

    def spoil(self, values: Floats, point: Indices, times: Floats, low: Floats, high: Floats) -> Floats:
        """``values`` with impossible ones where a fault makes them; points without a valid range are spared."""
        episodes = self.episodes(point, times)
        span = np.where(np.isfinite(high - low), high - low, 0.0)
        spikes = uniform(self.seed, key("spike"), point, np.round(times * 1000)) < 0.25
        impossible = episodes.at_fault & (episodes.kind < _IMPOSSIBLE)
        spiked = episodes.at_fault & (episodes.kind >= _FLAT) & spikes
        below = np.where(np.floor(episodes.kind * 1000) % 2 == 0, low - 0.1 * span - 9.9, high + 0.5 * span)
        wrong = (impossible | spiked) & (span > 0)
        return np.where(wrong, below, values)
