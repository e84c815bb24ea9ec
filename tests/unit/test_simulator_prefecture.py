"""The simulated prefecture: the same for the same seed, whole in every county, and large in good time."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml

from lifeline.indicators import catalogue
from lifeline.tables import CODE_PATTERN, SECTORS
from services.simulator.blueprints import SITE_PLANS, SMALLEST
from services.simulator.places import COUNTY_CODES, load_outlines
from services.simulator.prefecture import build, write_document
from services.simulator.scenarios import Stage
from services.simulator.signals import SIGNALS
from services.simulator.world import World

NOON = 1_784_000_000.0


def test_the_same_seed_makes_the_same_prefecture_and_readings() -> None:
    first, second, other = build(5, 1000), build(5, 1000), build(6, 1000)
    assert msgspec.json.encode(first.document()) == msgspec.json.encode(second.document())
    assert msgspec.json.encode(first.document()) != msgspec.json.encode(other.document())
    points = np.arange(len(first.points))
    times = np.full(points.size, NOON)
    shown = World(first, Stage(first)).values(points, times)
    assert np.array_equal(shown, World(second, Stage(second)).values(points, times))


def test_readings_do_not_depend_on_what_else_is_asked_for() -> None:
    prefecture = build(1, 1000)
    world = World(prefecture, Stage(prefecture), 0.04)
    points = np.tile(np.arange(len(prefecture.points)), 2)
    times = np.repeat([NOON, NOON + 7200.5], len(prefecture.points))
    together = world.values(points, times)
    order = np.random.default_rng(0).permutation(points.size)
    assert np.array_equal(world.values(points[order], times[order]), together[order])
    assert world.values(points[:1], times[:1])[0] == together[0]
    assert world.values(points[:0], times[:0]).size == 0


def test_every_sector_stands_in_every_county_and_gonghe_has_most() -> None:
    prefecture = build(1, 1000)
    found = {(site.county, site.sector) for site in prefecture.sites}
    assert found == {(county, sector) for county in COUNTY_CODES for sector in SECTORS}
    per_county = np.bincount(prefecture.point_county)
    assert per_county.argmax() == COUNTY_CODES.index("632521")
    assert {point.indicator for point in prefecture.points} == {indicator.code for indicator in catalogue()}


@pytest.mark.parametrize("wanted", [1, 500, 1000, 5000])
def test_about_as_many_points_as_asked_for(wanted: int) -> None:
    assert len(build(3, wanted).points) == pytest.approx(max(wanted, SMALLEST), rel=0.03)


def test_sites_stand_inside_their_county_and_near_a_town() -> None:
    prefecture = build(2, 5000)
    outlines = load_outlines()
    for county in COUNTY_CODES:
        here = [site for site in prefecture.sites if site.county == county]
        lon, lat = np.array([site.lon for site in here]), np.array([site.lat for site in here])
        assert outlines[county].contains(lon, lat).all()
    assert not outlines["632521"].contains(np.array([101.8]), np.array([36.6])).any(), "Xining is not in Gonghe"


def test_codes_are_legal_and_nothing_is_named_twice() -> None:
    prefecture = build(1, 3000)
    codes = [site.code for site in prefecture.sites] + [device.code for device in prefecture.devices]
    codes += [point.code for point in prefecture.points] + [one["code"] for one in prefecture.organisations]
    assert all(re.fullmatch(CODE_PATTERN, code) for code in codes)
    for names in (
        [device.code for device in prefecture.devices],
        [(site.county, site.name) for site in prefecture.sites],
        [(point.device, point.code) for point in prefecture.points],
        [(point.device, point.source_name) for point in prefecture.points if point.source_name],
    ):
        assert len(names) == len(set(names))
    organisations = {one["code"] for one in prefecture.organisations}
    assert {site.organisation for site in prefecture.sites} <= organisations


def test_blueprints_use_what_there_is() -> None:
    plans = [point for plan in SITE_PLANS for device in plan.devices for point in device.points]
    assert {point.signal for point in plans} == set(SIGNALS)
    open_ended = {one.code for one in catalogue() if one.valid_max is None and one.value_type == "number"}
    assert [point.code for point in plans if point.indicator in open_ended and point.valid is None] == []


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_the_registry_document_is_written(tmp_path: Path, ending: str) -> None:
    document = build(1, 400).document()
    path = tmp_path / f"registry.{ending}"
    write_document(document, path)
    text = path.read_text(encoding="utf-8")
    read = json.loads(text) if ending == "json" else yaml.safe_load(text)
    assert read == document
    assert set(read) == {"organisations", "sites", "devices", "points"}
    with pytest.raises(ValueError, match=r"\.json, \.yaml"):
        write_document(document, tmp_path / "registry.csv")


def test_a_hundred_thousand_points(capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.perf_counter()
    prefecture = build(1, 100_000)
    built = time.perf_counter()
    world = World(prefecture, Stage(prefecture))
    points = np.arange(len(prefecture.points))
    tracemalloc.start()
    begin_tick = time.perf_counter()
    values = world.values(points, np.full(points.size, NOON))
    tick = time.perf_counter() - begin_tick
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    with capsys.disabled():
        print(f"\n{points.size} points: built in {built - begin:.2f} s, a tick {tick:.2f} s and {peak / 2**20:.0f} MiB")
    assert points.size == pytest.approx(100_000, rel=0.01)
    assert np.isfinite(values).all()
    assert built - begin < 20
    assert tick < 5
    assert peak < 400 * 2**20
