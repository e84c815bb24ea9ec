"""Scenarios: each has a beginning, a course and an end, and shows in the points it should."""

from __future__ import annotations

import numpy as np
import pytest

from services.simulator.prefecture import SIGNAL_NAMES, Prefecture, build
from services.simulator.scenarios import (
    DEFAULT_COUNTY,
    SCENARIOS,
    Order,
    ScenarioError,
    Stage,
    describe,
    parse_order,
)
from services.simulator.world import World

WINTER_NIGHT = 1_795_453_200.0
"""2026-11-24 01:00 in Beijing."""
DRY_SUMMER_NOON = 1_784_606_400.0
"""2026-07-21 12:00 in Beijing."""


@pytest.fixture(scope="module")
def prefecture() -> Prefecture:
    return build(1, 1000)


class Play:
    """A scenario played in a quiet world; times are its minutes."""

    def __init__(self, prefecture: Prefecture, order: str, speed: float = 1.0, *, start: float = WINTER_NIGHT) -> None:
        self.start = start
        self.prefecture = prefecture
        self.stage = Stage(prefecture, speed)
        self.world = World(prefecture, self.stage, 0.0)
        self.speed = speed
        self.quiet = World(prefecture, Stage(prefecture), 0.0)
        self.stage.begin(parse_order(order))
        self.stage.move(start)

    def show(self, signal: str, minute: float, *, quiet: bool = False, county: int = 0) -> np.ndarray:
        points = np.flatnonzero(
            (self.prefecture.signal == SIGNAL_NAMES.index(signal)) & (self.prefecture.point_county == county)
        )
        times = np.full(points.size, self.start + minute * 60 / self.speed)
        return (self.quiet if quiet else self.world).values(points, times)


@pytest.mark.parametrize("speed", [1.0, 20.0])
def test_a_storm_fills_hollows_drains_and_rivers_of_its_county_alone(prefecture: Prefecture, speed: float) -> None:
    play = Play(prefecture, "storm", speed)
    assert play.show("waterlogging.depth", 45).max() > 40, "red"
    assert play.show("waterlogging.depth", 45).max() < 300
    assert play.show("waterlogging.depth", 45, county=1).max() < 1
    assert play.show("rain.hour", 45).max() > 35
    assert (play.show("drain.level", 45) > 0.6 * play.show("drain.level", 45, quiet=True) + 0.8).mean() > 0.9
    assert play.show("pump.running", 40).all(), "every pump runs"
    assert (play.show("river.level", 40) - play.show("river.level", 40, quiet=True)).max() > 1
    assert play.show("weather.air", 30).min() > 5, "rain, not snow"
    assert play.show("waterlogging.depth", 235).max() < 15, "it has drained away"


def test_a_storm_in_summer_stays_in_its_county_too(prefecture: Prefecture) -> None:
    play = Play(prefecture, "storm:632524", start=DRY_SUMMER_NOON)
    assert play.show("waterlogging.depth", 45, county=3).max() > 40
    for county in (0, 1, 2, 4):
        assert play.show("rain.hour", 45, county=county).max() < 8
        assert np.array_equal(
            play.show("drain.level", 45, county=county), play.show("drain.level", 45, quiet=True, county=county)
        )


def test_a_burst_lowers_the_pressure_at_once_and_raises_the_flow(prefecture: Prefecture) -> None:
    play = Play(prefecture, "pipe_burst")
    drop = play.show("water.pressure", 0) - play.show("water.pressure", 5)
    assert drop.max() > 0.12
    assert 0 < (drop > 0.03).mean() < 0.8, "around it, not everywhere"
    assert play.show("water.pressure", 12).min() < 0.25
    assert (play.show("water.flow", 12) / play.show("water.flow", 12, quiet=True)).max() > 1.8
    assert play.show("water.leak_noise", 12).max() > 50
    assert np.array_equal(play.show("water.pressure", 37), play.show("water.pressure", 37, quiet=True))


def test_gas_in_a_trench_crosses_its_limits(prefecture: Prefecture) -> None:
    play = Play(prefecture, "gas_leak_trench")
    assert play.show("trench.methane", 1).max() < 15
    assert play.show("trench.methane", 12).max() > 25
    assert (play.show("trench.methane", 12) > 20).sum() == 1, "one trench"
    assert play.show("gas.methane", 20).max() > 2.5
    assert play.show("trench.oxygen", 12).min() < 19.5
    assert play.show("trench.methane", 46).max() < 3


def test_lost_heat_shows_at_the_source_then_in_the_rooms(prefecture: Prefecture) -> None:
    play = Play(prefecture, "heating_loss_cold_night")
    assert play.show("heating.make_up", 12).max() > 4
    assert (play.show("heating.supply", 30, quiet=True) - play.show("heating.supply", 30)).max() > 10
    assert play.show("heating.room", 8).min() > 16, "houses cool slowly"
    assert play.show("heating.room", 60).min() < 14
    assert (play.show("heating.room", 60) > 18).any(), "not everybody is on this main"
    assert (play.show("weather.air", 30, quiet=True) - play.show("weather.air", 30)).min() > 7
    assert play.show("heating.room", 121).min() > 18


def test_an_overloaded_bridge_goes_beyond_its_design(prefecture: Prefecture) -> None:
    play = Play(prefecture, "bridge_overload")
    points = np.flatnonzero((prefecture.signal == SIGNAL_NAMES.index("bridge.strain")) & (prefecture.point_county == 0))
    share = play.show("bridge.strain", 5) / prefecture.setting[points]
    assert share.max() > 1.0
    assert 1 <= (share > 0.8).sum() <= 2, "one bridge with two strain gauges"
    assert play.show("bridge.vibration", 5).max() > 0.315
    assert play.show("bridge.vibration", 14).max() < 0.2


def test_devices_fall_silent_and_speak_again(prefecture: Prefecture) -> None:
    stage = Play(prefecture, "devices_silent:632523").stage
    devices = np.arange(len(prefecture.devices))

    def silent(minute: float) -> np.ndarray:
        return stage.silent(devices, np.full(devices.size, WINTER_NIGHT + minute * 60))

    here = prefecture.site_county[prefecture.device_site] == 2
    assert silent(1).sum() == round(0.1 * here.sum())
    assert not silent(1)[~here].any()
    assert not silent(21).any()


def test_a_clock_jumps_to_2036_and_back(prefecture: Prefecture) -> None:
    stage = Play(prefecture, "clock_2036").stage
    devices = np.arange(len(prefecture.devices))
    times = np.full(devices.size, WINTER_NIGHT + 60)
    shown = stage.clocks(devices, times)
    assert (shown != times).sum() == 1
    assert np.datetime64(int(shown.max()), "s").astype(str).startswith("2036-02-07")
    assert np.array_equal(stage.clocks(devices, times + 600), times + 600)


def test_a_scenario_waits_for_its_delay_and_leaves_the_stage(prefecture: Prefecture) -> None:
    stage = Stage(prefecture, 60.0)
    stage.begin(Order("bridge_overload", DEFAULT_COUNTY, 30))
    started, _ = stage.move(1000.0)
    assert [one.started for one in started] == [1030.0]
    assert stage.move(1035.0) == ([], [])
    _, ended = stage.move(1030 + SCENARIOS["bridge_overload"].minutes + 0.1)
    assert [one.scenario.name for one in ended] == ["bridge_overload"]
    assert stage.running == []
    stage.begin(Order("storm", DEFAULT_COUNTY, 0))
    stage.move(2000.0)
    stage.begin(Order("storm", DEFAULT_COUNTY, 0))
    stage.move(2001.0)
    assert [one.started for one in stage.running] == [2001.0], "asked for again, it begins again"


def test_the_same_places_are_chosen_each_time(prefecture: Prefecture) -> None:
    first, second = (Play(prefecture, "pipe_burst").stage.running[0] for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first.weights, second.weights, strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_begins_and_ends_in_calm(prefecture: Prefecture, name: str) -> None:
    scenario = SCENARIOS[name]
    for course in (scenario.rain, scenario.cold, *(stress.course for stress in scenario.stresses)):
        if course:
            assert course[0] == (0, 0)
            assert course[-1][1] == 0
            assert course[-1][0] <= scenario.minutes
    assert name in describe()
    play = Play(prefecture, name)
    assert play.stage.move(WINTER_NIGHT + scenario.minutes * 60 + 1)[1] != []


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("storm", Order("storm", "632521", 0)),
        ("storm@30", Order("storm", "632521", 30)),
        ("pipe_burst:632523@1.5", Order("pipe_burst", "632523", 1.5)),
    ],
)
def test_orders_are_read(text: str, order: Order) -> None:
    assert parse_order(text) == order


@pytest.mark.parametrize(
    "text", ["", "flood", "storm@", "storm@-1", "storm:6325", "storm:110000", "storm@nan", "STORM"]
)
def test_orders_that_cannot_be_read_say_why(text: str) -> None:
    with pytest.raises(ScenarioError):
        parse_order(text)
