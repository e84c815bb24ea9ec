"""Scenarios: what goes wrong on demand, where, and with which course of minutes from beginning to end."""

from __future__ import annotations

import functools
import re
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from services.simulator.blueprints import SITE_PLANS
from services.simulator.chance import Floats
from services.simulator.places import COUNTIES, COUNTY_CODES
from services.simulator.prefecture import Prefecture
from services.simulator.signals.scene import Indices
from services.simulator.weather import Rain, accumulate

Course = tuple[tuple[float, float], ...]
"""(minute, strength) pairs; straight between, 0 outside."""

DEFAULT_COUNTY = "632521"
STORM_WARMTH_C = 9.0
"""A storm brings rain, not snow: the county's air is at least this warm while it lasts."""
ERA_2036_S = 2_085_978_496.0
"""2036-02-07T06:28:16Z, where the 32-bit seconds of NTP begin again: what a clock set by a bad server shows."""


class Stress(NamedTuple):
    """What acts on some sites of the county: ``share`` of the sites of the named plans, at least one."""

    name: str
    plans: tuple[str, ...]
    share: float
    course: Course


@dataclass(frozen=True)
class Scenario:
    """A named course of events in one county. ``silent`` and ``clock``: shares of the county's devices."""

    name: str
    title: str
    help: str
    stresses: tuple[Stress, ...] = ()
    rain: Course = ()
    cold: Course = ()
    silent: float = 0.0
    clock: int = 0
    minutes: float = 30.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "pipe_burst", "供水管爆裂",
            "A main bursts: flow doubles and pressure falls within 2 min at the place, less around; repaired after 30.",
            (
                Stress("burst", ("net",), 0.0, ((0, 0), (2, 0.9), (12, 1), (30, 1), (34, 0))),
                Stress("burst-near", ("net", "dma"), 0.35, ((0, 0), (3, 0.8), (12, 1), (30, 1), (36, 0))),
            ),
            minutes=36,
        ),
        Scenario(
            "gas_leak_trench", "燃气泄漏进入管沟",
            "Gas seeps into a trench (over 25 %LEL after 8 min) and the wells beside it; shut off and aired after 25.",
            (
                Stress("trench-leak", ("tre",), 0.0, ((0, 0), (4, 0.3), (8, 0.8), (12, 1), (25, 1), (40, 0))),
                Stress("gas-leak", ("gwl", "reg"), 0.10, ((0, 0), (5, 0.3), (14, 1), (25, 1), (45, 0))),
            ),
            minutes=45,
        ),
        Scenario(
            "heating_loss_cold_night", "寒夜供热中断",
            "A heating main breaks in bitter cold: make-up above 4 %, supply 20 K below the curve, rooms below 14 °C.",
            (
                Stress("heat-loss", ("boil",), 0.0, ((0, 0), (6, 0.8), (10, 1), (60, 1), (80, 0))),
                Stress("heat-loss", ("sub",), 0.5, ((0, 0), (10, 0.7), (18, 1), (60, 1), (85, 0))),
                Stress("rooms-cool", ("room",), 0.5, ((0, 0), (15, 0.25), (40, 0.8), (60, 1), (75, 0.9), (120, 0))),
                Stress("heat-loss", ("room",), 0.1, ((0, 0), (10, 0.6), (25, 1), (60, 1), (100, 0))),
            ),
            cold=((0, 0), (5, -9), (100, -9), (120, 0)),
            minutes=120,
        ),
        Scenario(
            "storm", "暴雨内涝",
            "A storm of an hour over one county: 60 mm/h at its height, hollows under 40 cm of water, drains full, "
            "every pump running, the river up by more than a metre.",
            rain=((0, 0), (5, 25), (12, 60), (35, 60), (50, 12), (65, 0)),
            minutes=240,
        ),
        Scenario(
            "bridge_overload", "桥梁超载",
            "A convoy too heavy crosses a bridge: deflection and strain over the design value, strong vibration.",
            (
                Stress(
                    "overload", ("brg",), 0.0,
                    ((0, 0), (1, 0.7), (2, 0.95), (6, 1), (7, 0.3), (8, 0.95), (11, 1), (13, 0)),
                ),
            ),
            minutes=13,
        ),
        Scenario(
            "devices_silent", "设备离线",
            "A base station fails: a tenth of a county's devices fall silent (will: offline) for 20 min.",
            silent=0.10,
            minutes=20,
        ),
        Scenario(
            "clock_2036", "设备时钟错误",
            "One device's clock jumps to February 2036 for 10 min: its readings must be refused, not believed.",
            clock=1,
            minutes=10,
        ),
    )
}  # fmt: skip


class ScenarioError(ValueError):
    """A scenario that does not exist, or is written wrongly; the text says what may stand there."""


class Order(NamedTuple):
    """A scenario asked for: ``NAME[:COUNTY][@DELAY]``, delay in seconds."""

    name: str
    county: str
    delay_s: float


def parse_order(text: str) -> Order:
    """Read ``NAME[:COUNTY][@DELAY]``, as ``storm:632523@30``. Raises :class:`ScenarioError`."""
    match = re.fullmatch(r"([a-z0-9_]+)(?::(\d{6}))?(?:@(\d{1,7}(?:\.\d{1,6})?))?", text)
    if match is None:
        raise ScenarioError(f"{text!r} is not NAME[:COUNTY][@SECONDS], as storm:632523@30")
    name, county, delay = match[1], match[2] or DEFAULT_COUNTY, float(match[3] or 0)
    if name not in SCENARIOS:
        raise ScenarioError(f"there is no scenario {name!r}; choose from {', '.join(SCENARIOS)}")
    if county not in COUNTY_CODES:
        raise ScenarioError(f"there is no county {county!r}; choose from {', '.join(COUNTY_CODES)}")
    return Order(name, county, delay)


def _strength(course: Course, minutes: Floats) -> Floats:
    result: Floats = np.interp(minutes, [x for x, _ in course], [y for _, y in course], left=0.0, right=0.0)
    return result


@functools.cache
def _storm_grid(course: Course, minutes: float) -> Rain:
    """A scenario's rain for each of its minutes."""
    return accumulate(_strength(course, np.arange(0.0, minutes + 1)))


@dataclass(frozen=True)
class Running:
    """A scenario at work: ``started`` in seconds since the epoch, its minutes passing ``speed`` times as fast.

    ``weights`` holds, per stress, 1 for each site it acts on; ``devices`` those silent or with a wrong clock.
    """

    scenario: Scenario
    county: int
    started: float
    speed: float
    weights: tuple[Floats, ...]
    devices: Indices

    def minutes(self, times: Floats) -> Floats:
        result: Floats = (times - self.started) * self.speed / 60
        return result

    def over(self, now: float) -> bool:
        return (now - self.started) * self.speed / 60 > self.scenario.minutes

    def active(self, times: Floats) -> NDArray[np.bool_]:
        minutes = self.minutes(times)
        return (minutes >= 0) & (minutes <= self.scenario.minutes)


def start(scenario: Scenario, county: str, prefecture: Prefecture, now: float, speed: float) -> Running:
    """Choose where ``scenario`` acts: the same places each time for the same prefecture."""
    index = COUNTY_CODES.index(county)
    rng = np.random.default_rng((prefecture.seed & 0xFFFFFFFFFFFFFFFF, *scenario.name.encode(), index))
    weights = tuple(_choose_sites(rng, stress, index, prefecture) for stress in scenario.stresses)
    devices = np.flatnonzero(prefecture.site_county[prefecture.device_site] == index)
    count = scenario.clock or (max(1, round(scenario.silent * devices.size)) if scenario.silent else 0)
    return Running(scenario, index, now, speed, weights, np.sort(rng.choice(devices, count, replace=False)))


def _choose_sites(rng: np.random.Generator, stress: Stress, county: int, prefecture: Prefecture) -> Floats:
    weights = np.zeros(len(prefecture.sites))
    for plan_index, plan in enumerate(SITE_PLANS):
        if plan.slug in stress.plans:
            sites = np.flatnonzero((prefecture.site_plan == plan_index) & (prefecture.site_county == county))
            weights[rng.choice(sites, max(1, round(stress.share * sites.size)), replace=False)] = 1.0
    return weights


@dataclass
class Stage:
    """The scenarios at work in one prefecture, and what they do to sites, air and clocks (``scene.Stresses``).

    ``begin`` may be called from any thread; the rest belongs to the thread that makes readings.
    """

    prefecture: Prefecture
    speed: float = 1.0
    running: list[Running] = field(default_factory=list)
    _waiting: list[Order] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, order: Order) -> None:
        """Ask for a scenario; its delay counts from the next :meth:`move`."""
        with self._lock:
            self._waiting.append(order)

    def move(self, now: float) -> tuple[list[Running], list[Running]]:
        """Start what was asked for and drop what is over: (started, ended). A repeat of one at work restarts it."""
        with self._lock:
            orders, self._waiting = self._waiting, []
        started = [
            start(SCENARIOS[order.name], order.county, self.prefecture, now + order.delay_s, self.speed)
            for order in orders
        ]
        replaced = {(one.scenario.name, one.county) for one in started}
        ended = [one for one in self.running if one.over(now) or (one.scenario.name, one.county) in replaced]
        self.running = [one for one in self.running if one not in ended] + started
        return started, ended

    def strength(self, name: str, site: Indices, times: Floats) -> Floats:
        total = np.zeros(times.shape)
        for one in self.running:
            for stress, weights in zip(one.scenario.stresses, one.weights, strict=True):
                if stress.name == name:
                    total = np.maximum(total, weights[site] * _strength(stress.course, one.minutes(times)))
        return total

    def storm(self, county: Indices, times: Floats) -> Rain:
        parts = [np.zeros(times.shape) for _ in Rain._fields]
        for one in self.running:
            if not one.scenario.rain:
                continue
            grid = _storm_grid(one.scenario.rain, one.scenario.minutes)
            minutes, here = one.minutes(times), county == one.county
            added = (np.interp(minutes, np.arange(column.size), column, left=0.0, right=0.0) for column in grid)
            parts = [part + here * more for part, more in zip(parts, added, strict=True)]
        return Rain(*parts)

    def air_shift(self, county: Indices, times: Floats, air: Floats) -> Floats:
        for one in self.running:
            here = county == one.county
            if one.scenario.cold:
                air = air + here * _strength(one.scenario.cold, one.minutes(times))
            if one.scenario.rain:
                air = np.where(here & one.active(times), np.maximum(air, STORM_WARMTH_C), air)
        return air

    def silent(self, device: Indices, times: Floats) -> NDArray[np.bool_]:
        """Whether each device says nothing at its time."""
        result = np.zeros(device.shape, bool)
        for one in self.running:
            if one.scenario.silent:
                result |= np.isin(device, one.devices) & one.active(times)
        return result

    def clocks(self, device: Indices, times: Floats) -> Floats:
        """What each device's clock shows at each true time."""
        shown = times.copy()
        for one in self.running:
            if one.scenario.clock:
                wrong = np.isin(device, one.devices) & one.active(times)
                shown[wrong] = ERA_2036_S + (times[wrong] - one.started)
        return shown


def describe() -> str:
    """The list for ``--list-scenarios``."""
    lines = [f"{one.name:24} {one.title}  ({one.minutes:g} min)\n    {one.help}" for one in SCENARIOS.values()]
    counties = ", ".join(f"{county.code} {county.name}" for county in COUNTIES)
    return "\n".join([*lines, f"\nCounties: {counties}; {DEFAULT_COUNTY} unless named, as storm:632523@30."])
