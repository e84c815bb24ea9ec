"""What points show: within their ranges, quiet against the seed limits, and bound to each other as in the field."""

from __future__ import annotations

import numpy as np
import pytest

from lifeline.indicators import catalogue
from services.simulator.faults import Faults
from services.simulator.prefecture import SIGNAL_NAMES, Prefecture, build
from services.simulator.scenarios import Stage
from services.simulator.weather import Weather, accumulate
from services.simulator.world import World

DAYS = {"winter": "2026-01-15", "spring": "2026-04-20", "summer": "2026-07-15", "autumn": "2026-11-23"}


def epoch(day: str) -> float:
    """Midnight UTC of a day, seconds since the epoch."""
    return float(np.datetime64(day, "s").astype(np.int64))


def day_of(world: World, day: str, step_s: float = 900.0) -> tuple[np.ndarray, np.ndarray]:
    """(times, values of shape (times, points)) of a day."""
    times = np.arange(epoch(day), epoch(day) + 86400, step_s)
    points = np.arange(len(world.prefecture.points))
    shown = world.values(np.tile(points, times.size), np.repeat(times, points.size))
    return times, shown.reshape(times.size, points.size)


@pytest.fixture(scope="module")
def prefecture() -> Prefecture:
    return build(1, 1000)


def of_signal(prefecture: Prefecture, name: str) -> np.ndarray:
    return np.flatnonzero(prefecture.signal == SIGNAL_NAMES.index(name))


def standing_alarms(prefecture: Prefecture, values: np.ndarray) -> np.ndarray:
    """How many points stand beyond a seed limit, or outside their range, at each time."""
    limits: dict[str, list[tuple[str, float]]] = {}
    for indicator in catalogue():
        for limit in indicator.seed_limits:
            if limit.of == "value" and limit.levels and indicator.value_type == "number":
                numbers = list(limit.levels.values())
                direction: str = limit.direction
                limits.setdefault(indicator.code, []).append(
                    (direction, max(numbers) if direction == "below" else min(numbers))
                )
    alarm = (values < prefecture.valid_min) | (values > prefecture.valid_max)
    for column, point in enumerate(prefecture.points):
        for direction, number in limits.get(point.indicator, []):
            shown = values[:, column]
            alarm[:, column] |= shown <= number if direction == "below" else shown >= number
    return alarm


@pytest.mark.parametrize("day", DAYS.values(), ids=DAYS)
def test_without_faults_nothing_leaves_its_range_and_no_seed_limit_is_reached(prefecture: Prefecture, day: str) -> None:
    _, values = day_of(World(prefecture, Stage(prefecture), 0.0), day)
    alarm = standing_alarms(prefecture, values)
    loud = {prefecture.points[point].indicator for point in np.flatnonzero(alarm.any(axis=0))}
    assert loud == set()


@pytest.mark.parametrize("day", DAYS.values(), ids=DAYS)
def test_with_faults_fewer_than_five_alarms_stand(prefecture: Prefecture, day: str) -> None:
    _, values = day_of(World(prefecture, Stage(prefecture)), day)
    alarm = standing_alarms(prefecture, values)
    assert alarm.sum(axis=1).mean() < 5
    outside = (values < prefecture.valid_min) | (values > prefecture.valid_max)
    assert 0 < outside.mean() < 0.004


def test_faults_are_impossible_values_and_flat_lines(prefecture: Prefecture) -> None:
    world = World(prefecture, Stage(prefecture), 0.04)
    _, values = day_of(world, DAYS["summer"], 120.0)
    _, clean = day_of(World(prefecture, Stage(prefecture), 0.0), DAYS["summer"], 120.0)
    outside = (values < prefecture.valid_min) | (values > prefecture.valid_max)
    assert outside.any(axis=0).sum() > 20
    # A pressure never repeats to four decimals for ten minutes, unless the sensor hangs.
    pressures = of_signal(prefecture, "water.pressure")
    same = (np.diff(values[:, pressures], axis=0) == 0) & ~outside[1:, pressures]
    runs = np.array([np.convolve(column, np.ones(5), "valid").max() for column in same.T])
    assert (runs == 5).any()
    healthy = np.diff(clean[:, pressures], axis=0) == 0
    assert max(np.convolve(column, np.ones(5), "valid").max() for column in healthy.T) < 5


def test_the_expected_share_is_at_fault() -> None:
    faults = Faults(3, 0.01)
    points = np.repeat(np.arange(2000), 24)
    times = np.tile(np.arange(24) * 3600.0 + 1.78e9, 2000)
    assert faults.episodes(points, times).at_fault.mean() == pytest.approx(0.01, rel=0.25)


def test_pressure_falls_as_flow_rises_at_the_same_site(prefecture: Prefecture) -> None:
    _, values = day_of(World(prefecture, Stage(prefecture), 0.0), DAYS["summer"])
    for flow in of_signal(prefecture, "water.flow")[:10]:
        site = prefecture.point_site[flow]
        pressure = next(p for p in of_signal(prefecture, "water.pressure") if prefecture.point_site[p] == site)
        assert np.corrcoef(values[:, flow], values[:, pressure])[0, 1] < -0.9


def test_heat_follows_the_cold_and_stops_in_summer(prefecture: Prefecture) -> None:
    world = World(prefecture, Stage(prefecture), 0.0)
    supply, back = of_signal(prefecture, "heating.supply"), of_signal(prefecture, "heating.return")
    station = prefecture.point_county[supply[0]]
    times, winter = day_of(world, DAYS["winter"])
    air = world.weather.air(np.full(times.size, station), times)
    assert np.corrcoef(air, winter[:, supply[0]])[0, 1] < -0.9
    assert (winter[:, supply] > winter[:, back] + 5).all()
    assert winter[:, supply].max() < 90, "water boils near 90 °C up here"
    _, summer = day_of(world, DAYS["summer"])
    assert summer[:, supply].max() < 25


def test_the_duty_pump_runs_while_the_well_empties(prefecture: Prefecture) -> None:
    world = World(prefecture, Stage(prefecture), 0.0)
    times, values = day_of(world, DAYS["autumn"], 60.0)
    level = of_signal(prefecture, "pump.well_level")[0]
    pumps = [
        p for p in of_signal(prefecture, "pump.running") if prefecture.point_site[p] == prefecture.point_site[level]
    ]
    duty = next(p for p in pumps if prefecture.setting[p] == 1)
    change = np.diff(values[:, level])
    running = values[1:, duty] == 1
    steady = running == (values[:-1, duty] == 1)
    assert (change[running & steady] < 0.01).mean() > 0.95
    assert (change[~running & steady] > -0.01).mean() > 0.95
    assert set(np.unique(values[:, pumps])) == {0.0, 1.0}
    assert times.size == 1440


def test_the_climate_is_that_of_the_plateau() -> None:
    weather = Weather(11)
    times = np.arange(epoch("2026-01-01"), epoch("2027-01-01"), 1800.0)
    gonghe = np.zeros(times.size, np.int64)
    air = weather.air(gonghe, times)
    assert -27 < air.min() < -17
    assert 20 < air.max() < 32
    july = (times > epoch("2026-07-01")) & (times < epoch("2026-08-01"))
    assert 12 < air[july].mean() < 20
    rain = weather.rain(gonghe, times)
    assert 60 < rain.hour.sum() / 2 < 700, "mm a year"
    assert rain.hour.max() < 8, "a natural shower stays below the first limit"


def test_all_points_of_a_county_share_its_weather(prefecture: Prefecture) -> None:
    _, values = day_of(World(prefecture, Stage(prefecture), 0.0), DAYS["summer"])
    stations = [p for p in of_signal(prefecture, "weather.air") if prefecture.point_county[p] == 0]
    assert len(stations) > 1
    assert np.ptp(values[:, stations], axis=1).max() < 2


def test_rain_adds_up() -> None:
    rain = accumulate(np.r_[np.zeros(10), np.full(60, 30.0), np.zeros(200)])
    assert rain.hour.max() == pytest.approx(30)
    assert rain.five_minutes.max() == pytest.approx(2.5)
    assert rain.hour[-1] == pytest.approx(0, abs=1e-9)
    assert 0 < rain.runoff[-1] < 0.2
    assert rain.runoff.max() == pytest.approx(0.5 * 35 * (1 - np.exp(-60 / 35)), rel=0.03)
