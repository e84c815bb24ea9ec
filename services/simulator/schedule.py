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
"""Within this time after the start every device reports once, so that nothing is blank."""


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
    """When which point of ``prefecture`` is sampled and sent; ``interval_s`` per point, ``start`` in epoch seconds."""

    def __init__(self, prefecture: Prefecture, interval_s: Floats, start: float) -> None:
        devices = len(prefecture.devices)
        self.seed = prefecture.seed
        self.interval = interval_s
        self.device = prefecture.point_device
        counts = np.bincount(self.device, minlength=devices)
        self._first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self._counts = counts
        shortest = np.full(devices, np.inf)
        np.minimum.at(shortest, self.device, self.interval)
        numbers = np.arange(devices)
        self.nb: NDArray[np.bool_] = np.array([style == "nb" for style in prefecture.styles])
        self._speaks = counts > 0
        longest = np.zeros(devices)
        np.maximum.at(longest, self.device, self.interval)
        self._phase = np.where(self._speaks, uniform(self.seed, key("phase"), numbers) * longest, 0.0)
        self._report_every = np.where(self._speaks, shortest * BATCH_SAMPLES, np.inf)
        self._boot = start + BOOT_S * uniform(self.seed, key("boot"), numbers)
        self._wired_points = np.flatnonzero(~self.nb[self.device])

    def due(self, since: float, until: float) -> list[Due]:
        """What is to be published for the stretch (``since``, ``until``]; what comes late stands in a part after."""
        wired = self._samples(self._wired_points, np.float64(since), np.float64(until))
        parts = [self._boots(since, until), wired, *self._reports(since, until)]
        return [self._ordered(part) for part in parts if part.point.size]

    def history(self, since: float, until: float) -> Due:
        """All samples of (``since``, ``until``]."""
        return self._ordered(self._samples(np.arange(self.device.size), np.float64(since), np.float64(until)))

    def booting(self, since: float, until: float) -> Indices:
        """Devices that come online in (``since``, ``until``]."""
        return np.flatnonzero((self._boot > since) & (self._boot <= until))

    def _boots(self, since: float, until: float) -> Due:
        points = self._points_of(self.booting(since, until))
        return Due(points, np.floor(self._boot[self.device[points]] * 1000) / 1000)

    def _reports(self, since: float, until: float) -> list[Due]:
        now = np.floor((until - self._phase) / self._report_every)
        due = np.flatnonzero(self.nb & self._speaks & (now > np.floor((since - self._phase) / self._report_every)))
        number = now[due]
        missed = due[self._is_late(due, number - 2)]
        current = self._report(due[~self._is_late(due, number)], now, 0)
        return [current, self._report(missed, now, 2)]

    def _is_late(self, device: Indices, number: Floats) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = uniform(self.seed, key("late"), device, number) < LATE_SHARE
        return result

    def _report(self, devices: Indices, now: Floats, back: int) -> Due:
        """The samples of report ``now - back`` of each device."""
        points = self._points_of(devices)
        device = self.device[points]
        until = self._phase[device] + (now[device] - back) * self._report_every[device]
        return self._samples(points, until - self._report_every[device], until)

    def _points_of(self, devices: Indices) -> Indices:
        counts = self._counts[devices]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        result: Indices = np.repeat(self._first[devices], counts) + within
        return result

    def _samples(self, points: Indices, since: Floats | np.float64, until: Floats | np.float64) -> Due:
        """The sampling times of each point within its stretch (``since``, ``until``]."""
        phase, interval = self._phase[self.device[points]], self.interval[points]
        before = np.floor((since - phase) / interval)
        counts = np.maximum(np.floor((until - phase) / interval) - before, 0).astype(np.int64)
        which = np.repeat(np.arange(points.size), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        times = phase[which] + (before[which] + 1 + within) * interval[which]
        return Due(points[which], np.round(times, 3))

    def _ordered(self, due: Due) -> Due:
        order = np.lexsort((due.point, due.times, self.device[due.point]))
        return Due(due.point[order], due.times[order])
