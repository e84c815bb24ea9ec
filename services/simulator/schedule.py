"""Which readings are due when: live points one by one, NB-IoT devices in batches, some of them late.

Everything follows from seed and clock, nothing is remembered: a point is sampled at ``phase + k × interval`` of its
device, so a restarted simulator goes on where the old one stopped and repeats at most what the database absorbs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.simulator.chance import Floats, key, uniform
from services.simulator.prefecture import Prefecture
from services.simulator.signals.scene import Indices

SHORTEST_S = 1.0
BATCH_SAMPLES = 6
"""Samples of its fastest point that an NB-IoT device sends at once."""
LATE_SHARE = 0.04
"""Share of NB-IoT batches that do not get through and come two batches later, after newer ones."""
BOOT_S = 10.0
"""Within this time after the start every device reports once, so that nothing is blank..."""
BOOT_POINTS_PER_S = 3000.0
"""... but no faster than this, or the first seconds of a large prefecture would fill the backlog."""


class Due(NamedTuple):
    """Readings to publish in one go, ordered by device and time: point indices and sampling times (epoch seconds)."""

    point: Indices
    times: Floats


def live_intervals(catalogue_s: Floats, rate: float) -> Floats:
    """Intervals that give ``rate`` readings/s together, seconds.

    They grow with the square root of the catalogue's, so that in a demonstration a point of once a day shows life
    within minutes while one of once a minute does not take all the rate.
    """
    relative = np.sqrt(catalogue_s / 60)
    scale = np.sum(1 / relative) / rate
    # Those held at the shortest interval take less than their share; a few rounds give the rest to the others.
    for _ in range(20):
        intervals = np.maximum(relative * scale, SHORTEST_S)
        found = np.sum(1 / intervals)
        if abs(found / rate - 1) < 1e-3:
            break
        scale *= found / rate
    result: Floats = np.maximum(relative * scale, SHORTEST_S)
    return result


class Schedule:
    """When which point of ``prefecture`` is sampled and sent; ``interval_s`` per point, ``start`` in epoch seconds.

    Inside, time is whole milliseconds: with fractions, a sample on the edge of two stretches would be in both or none.
    """

    def __init__(self, prefecture: Prefecture, interval_s: Floats, start: float) -> None:
        devices = len(prefecture.devices)
        numbers = np.arange(devices)
        self.seed = prefecture.seed
        self.device = prefecture.point_device
        self._interval = np.maximum(np.round(interval_s * 1000), 1).astype(np.int64)
        self._counts = np.bincount(self.device, minlength=devices)
        self._first = np.cumsum(self._counts) - self._counts
        self.nb: NDArray[np.bool_] = np.array([style == "nb" for style in prefecture.styles]) & (self._counts > 0)
        shortest = np.full(devices, np.iinfo(np.int64).max // BATCH_SAMPLES)
        np.minimum.at(shortest, self.device, self._interval)
        longest = np.zeros(devices, np.int64)
        np.maximum.at(longest, self.device, self._interval)
        self._phase = (uniform(self.seed, key("phase"), numbers) * longest).astype(np.int64)
        self._report_every = shortest * BATCH_SAMPLES
        booting_s = max(BOOT_S, self.device.size / BOOT_POINTS_PER_S)
        after = (booting_s * 1000 * uniform(self.seed, key("boot"), numbers)).astype(np.int64)
        self._boot = _milliseconds(start) + after
        self._wired_points = np.flatnonzero(~self.nb[self.device])

    def due(self, since: float, until: float) -> list[Due]:
        """What is to be published for the stretch (``since``, ``until``]; what comes late stands in a part after."""
        begin, end = _milliseconds(since), _milliseconds(until)
        wired = self._samples(self._wired_points, begin, end)
        parts = [self._boots(begin, end), wired, *self._reports(begin, end)]
        return [self._ordered(part) for part in parts if part.point.size]

    def history(self, since: float, until: float) -> Due:
        """All samples of (``since``, ``until``]."""
        return self._ordered(self._samples(np.arange(self.device.size), _milliseconds(since), _milliseconds(until)))

    def booting(self, since: float, until: float) -> Indices:
        """Devices that come online in (``since``, ``until``]."""
        return self._booting(_milliseconds(since), _milliseconds(until))

    def _booting(self, begin: int, end: int) -> Indices:
        return np.flatnonzero((self._boot > begin) & (self._boot <= end))

    def _boots(self, begin: int, end: int) -> Due:
        points = self._points_of(self._booting(begin, end))
        return Due(points, self._boot[self.device[points]] / 1000)

    def _reports(self, begin: int, end: int) -> list[Due]:
        now = (end - self._phase) // self._report_every
        due = np.flatnonzero(self.nb & (now > (begin - self._phase) // self._report_every))
        number = now[due]
        missed = due[self._is_late(due, number - 2)]
        current = self._report(due[~self._is_late(due, number)], now)
        return [current, self._report(missed, now - 2)]

    def _is_late(self, device: Indices, number: Indices) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = uniform(self.seed, key("late"), device, number) < LATE_SHARE
        return result

    def _report(self, devices: Indices, number: Indices) -> Due:
        """The samples of each device's report ``number[device]``."""
        points = self._points_of(devices)
        device = self.device[points]
        until = self._phase[device] + number[device] * self._report_every[device]
        return self._samples(points, until - self._report_every[device], until)

    def _points_of(self, devices: Indices) -> Indices:
        counts = self._counts[devices]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        result: Indices = np.repeat(self._first[devices], counts) + within
        return result

    def _samples(self, points: Indices, since: Indices | int, until: Indices | int) -> Due:
        """The sampling times of each point within its stretch (``since``, ``until``], milliseconds."""
        phase, interval = self._phase[self.device[points]], self._interval[points]
        before = (since - phase) // interval
        counts = np.maximum((until - phase) // interval - before, 0)
        which = np.repeat(np.arange(points.size), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        times = phase[which] + (before[which] + 1 + within) * interval[which]
        return Due(points[which], times / 1000)

    def _ordered(self, due: Due) -> Due:
        order = np.lexsort((due.point, due.times, self.device[due.point]))
        return Due(due.point[order], due.times[order])


def _milliseconds(seconds: float) -> int:
    return int(np.floor(seconds * 1000))
