"""Registry documents against a real database: upsert, all or nothing, unchanged means untouched, two at once."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from lifeline import registry
from lifeline.indicators import catalogue
from lifeline.registry import Imported, RegistryRefusedError

SITE: dict[str, Any] = {
    "code": "GH-01",
    "name": "恰卜恰水厂",
    "sector": "water_supply",
    "county": "632521",
    "lon": 100.62,
    "lat": 36.284,
}
DEVICE: dict[str, Any] = {"code": "gh-01-plc", "site": "GH-01", "name": "PLC"}
POINT: dict[str, Any] = {"device": "gh-01-plc", "code": "pressure", "indicator": "water_supply.pressure"}


def document(**changes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {"sites": [SITE], "devices": [DEVICE], "points": [POINT]} | changes


def load(url: str, written: dict[str, Any], *, dry_run: bool = False) -> Imported:
    with psycopg.connect(url) as connection:
        return registry.import_document(connection, registry.from_mapping(written), dry_run=dry_run)


def refusals(url: str, written: dict[str, Any]) -> list[str]:
    with pytest.raises(RegistryRefusedError) as refused:
        load(url, written)
    return [str(problem) for problem in refused.value.problems]


def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def version(url: str) -> int:
    return int(query(url, "SELECT version FROM registry_version")[0][0])


def test_a_fresh_database_takes_a_document_and_the_catalogue(database_url: str) -> None:
    imported = load(database_url, document())
    assert {noun: count.created for noun, count in imported.counts.items()} == {"sites": 1, "devices": 1, "points": 1}
    assert imported.catalogue == len(catalogue())
    assert imported.warnings == []
    rows = query(
        database_url,
        "SELECT s.code, d.code, p.code FROM point p JOIN device d ON d.id = device_id JOIN site s ON s.id = site_id",
    )
    assert rows == [("GH-01", "gh-01-plc", "pressure")]
    stored = query(
        database_url, "SELECT code, unit, valid_min, valid_max, interval_s, name->>'zh' FROM indicator ORDER BY code"
    )
    assert stored == sorted((i.code, i.unit, i.valid_min, i.valid_max, i.interval_s, i.name["zh"]) for i in catalogue())


def test_importing_the_same_again_writes_nothing(database_url: str) -> None:
    load(database_url, document())
    before = version(database_url)
    imported = load(database_url, document())
    assert not imported.changed
    assert {noun: count.unchanged for noun, count in imported.counts.items()} == {"sites": 1, "devices": 1, "points": 1}
    assert version(database_url) == before


def test_a_change_is_counted_and_bumps_the_version(database_url: str) -> None:
    load(database_url, document())
    before = version(database_url)
    imported = load(database_url, document(sites=[SITE | {"name": "恰卜恰第一水厂"}]))
    assert imported.counts["sites"].changed == 1
    assert imported.counts["points"].unchanged == 1
    assert version(database_url) == before + 1


def test_only_what_differs_is_touched(database_url: str) -> None:
    """One statement per table that needs one, and unchanged rows keep their row version."""
    load(database_url, document(sites=[SITE, SITE | {"code": "GH-02"}]))
    before, rows = version(database_url), dict(query(database_url, "SELECT code, xmin::text FROM site"))
    load(database_url, document(sites=[SITE, SITE | {"code": "GH-02", "name": "二厂"}]))
    now = dict(query(database_url, "SELECT code, xmin::text FROM site"))
    assert now["GH-01"] == rows["GH-01"]
    assert now["GH-02"] != rows["GH-02"]
    assert version(database_url) == before + 1
    flow = POINT | {"code": "flow", "indicator": "water_supply.flow"}
    load(database_url, document(points=[POINT, flow]))
    assert version(database_url) == before + 2


def test_what_a_row_does_not_mention_stays_and_null_clears(database_url: str) -> None:
    load(database_url, document(sites=[SITE | {"address": "青海湖南大街"}]))
    assert load(database_url, {"sites": [SITE]}).counts["sites"].unchanged == 1
    assert query(database_url, "SELECT address FROM site") == [("青海湖南大街",)]
    assert load(database_url, {"sites": [SITE | {"address": None}]}).counts["sites"].changed == 1
    assert query(database_url, "SELECT address FROM site") == [(None,)]


def test_one_bad_row_and_nothing_is_written(database_url: str) -> None:
    before = version(database_url)
    points = [POINT, POINT | {"code": "flow", "indicator": "water_supply.flwo"}, POINT | {"code": "a b"}]
    found = refusals(database_url, document(points=points))
    meant = "did you mean 'water_supply.flow'?"
    assert found == [
        f"points #2 (gh-01-plc/flow): indicator: there is no indicator 'water_supply.flwo'; {meant}",
        "points #3 (gh-01-plc/a b): code: 'a b' is no code: 1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'",
    ]
    for table in ("site", "device", "point", "indicator"):
        assert query(database_url, f"SELECT count(*) FROM {table}") == [(0,)], table
    assert version(database_url) == before


def test_every_kind_of_dangling_reference_is_named(database_url: str) -> None:
    found = refusals(
        database_url,
        {
            "organisations": [{"code": "o", "name": "o", "county": "110101"}],
            "sites": [SITE | {"county": "999999", "organisation": "nobody"}],
            "devices": [DEVICE | {"site": "nowhere"}],
            "points": [POINT | {"device": "none"}],
        },
    )
    assert [line.split(";")[0] for line in found] == [
        "organisations #1 (o): county: there is no county '110101'",
        "sites #1 (GH-01): county: there is no county '999999'",
        "sites #1 (GH-01): organisation: there is no organisation 'nobody'",
        "devices #1 (gh-01-plc): site: there is no site 'nowhere'",
        "points #1 (none/pressure): device: there is no device 'none'",
    ]


def test_a_refused_site_does_not_make_its_devices_dangle(database_url: str) -> None:
    assert len(refusals(database_url, document(sites=[SITE | {"lat": 95}]))) == 1


def test_every_problem_is_told_at_once(database_url: str) -> None:
    """Also those that only the database can tell, beside bad rows of every noun that others refer to."""
    load(database_url, document(points=[POINT | {"valid_max": 1.0, "source_name": "AI9"}]))
    before = version(database_url)
    fresh = {"device": "new", "indicator": "water_supply.pressure"}
    own = {"code": "own", "name": {"zh": "自定", "en": "Own"}, "sector": "gas", "unit": "frob"}
    flow = POINT | {"code": "flow", "indicator": "water_supply.flow"}
    found = refusals(
        database_url,
        {
            "indicators": [own],
            "organisations": [{"code": "o", "name": "o", "county": "999999"}],
            "sites": [SITE | {"code": "bad", "lat": 95}, SITE | {"code": "far", "organisation": "o"}],
            "devices": [
                {"code": "new", "site": "bad"},
                {"code": "other", "site": "nowhere"},
                {"code": "far", "site": "far"},
            ],
            "points": [
                17,
                POINT | {"valid_min": 1.2},
                flow | {"source_name": "AI9"},
                fresh | {"code": "a", "source_name": "b"},
                fresh | {"code": "b"},
                fresh | {"code": "c", "valid_min": 500},
                fresh | {"code": "d", "source_name": "x"},
                fresh | {"code": "e", "source_name": "x", "unit": "mg/L"},
                fresh | {"code": "f", "indicator": "own", "unit": "m"},
                fresh | {"code": "g", "indicator": "自定", "unit": "m"},
                {"device": "other", "code": "h", "indicator": "water_supply.pressure", "unit": "m"},
                {"device": "none", "code": "坏", "indicator": "water_supply.flwo", "interval_s": 0},
                {"device": "new", "code": "坏", "indicator": "供水压力", "unit": "m"},
            ],
        },
    )
    assert [line.split(": ")[0] + ": " + line.split(": ")[1] for line in found if "points" not in line[:6]] == [
        "organisations #1 (o): county",
        "indicators #1 (own): unit",
        "sites #1 (bad): lat",
        "devices #2 (other): site",
    ]
    no_code = "'坏' is no code: 1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'"
    kept, heard = "(one of them is kept, or the indicator's)", "(as source_name, or as code)"
    assert [line.split(";")[0] for line in found if line.startswith("points")] == [
        "points #1: expected an object with fields, found '17'",
        f"points #2 (gh-01-plc/pressure): valid_min: valid_min 1.2 is above valid_max 1 {kept}",
        f"points #2 (gh-01-plc/pressure): source_name: 'AI9' names point 'flow' of this device too {heard}",
        f"points #3 (gh-01-plc/flow): source_name: 'AI9' names point 'pressure' of this device too {heard}",
        f"points #4 (new/a): source_name: 'b' names point 'b' of this device too {heard}",
        f"points #5 (new/b): source_name: 'b' names point 'a' of this device too {heard}",
        f"points #6 (new/c): valid_min: valid_min 500 is above valid_max 1.6 {kept}",
        "points #8 (new/e): source_name: 'x' names point 'd' of this device already, at #7",
        "points #8 (new/e): unit: 'mg/L' does not convert to 'MPa', the unit of water_supply.pressure",
        "points #11 (other/h): unit: 'm' does not convert to 'MPa', the unit of water_supply.pressure",
        f"points #12 (none/坏): code: {no_code}",
        "points #12 (none/坏): interval_s: 0 is no interval: more than 0 and at most a year, in seconds",
        "points #12 (none/坏): indicator: there is no indicator 'water_supply.flwo'",
        "points #12 (none/坏): device: there is no device 'none'",
        f"points #13 (new/坏): code: {no_code}",
        "points #13 (new/坏): unit: 'm' does not convert to 'MPa', the unit of water_supply.pressure",
    ]
    assert version(database_url) == before
    assert query(database_url, "SELECT (SELECT count(*) FROM site), (SELECT count(*) FROM device)") == [(1, 1)]
    assert query(database_url, "SELECT count(*) FROM organisation") == [(0,)]


def test_a_bad_row_that_gives_up_its_name_makes_no_second_problem(database_url: str) -> None:
    """Its stored name counts for nothing: what it shall be called is in the document."""
    load(database_url, document(points=[POINT | {"source_name": "AI1"}]))
    renamed = POINT | {"source_name": "AI2", "interval_s": 0}
    flow = POINT | {"code": "flow", "indicator": "water_supply.flow", "source_name": "AI1"}
    assert len(refusals(database_url, {"points": [renamed, flow]})) == 1


def test_a_bad_indicator_judges_no_point(database_url: str) -> None:
    """Its stored unit and range may be what the row was to change."""
    own = {"code": "bridge.wind", "name": {"zh": "风", "en": "Wind"}, "sector": "bridge", "unit": "m/s", "valid_max": 1}
    load(database_url, {"indicators": [own]})
    wanted = own | {"unit": "Cel", "valid_max": 100, "interval_s": 0}
    point = POINT | {"indicator": "bridge.wind", "valid_min": 50}
    written = document(indicators=[wanted], points=[point, point | {"code": "other", "unit": "K"}])
    assert len(refusals(database_url, written)) == 1


def test_what_stands_in_a_list_of_unknown_name_does_not_dangle(database_url: str) -> None:
    found = refusals(database_url, {"stes": [SITE], "devices": [DEVICE, {"code": "e", "site": "GH-0"}]})
    assert [line.split(";")[0] for line in found] == [
        "'stes' is no part of a registry document",
        "devices #2 (e): site: there is no site 'GH-0'",
    ]


@pytest.mark.parametrize("name", ["供水管网压力", "供水压力", "water supply  pressure", " 供水 压力"])
def test_an_indicator_may_be_given_by_its_name(database_url: str, name: str) -> None:
    load(database_url, document(points=[POINT | {"indicator": name, "unit": "bar"}]))
    assert query(database_url, "SELECT indicator FROM point") == [("water_supply.pressure",)]


def test_a_name_of_no_or_several_indicators_lists_candidates(database_url: str) -> None:
    own = {"code": "gas.own", "name": {"zh": "浊度", "en": "Own"}, "sector": "gas", "unit": "m"}
    mine = {"code": "gas.mine", "name": {"zh": "自定", "en": "Mine"}, "sector": "gas", "unit": "m"}
    written = [("a", "浊度"), ("b", "管网压力"), ("c", "甚么"), ("d", "自定")]
    points = [POINT | {"code": code, "indicator": name} for code, name in written]
    several = "gas.own (浊度), water_supply.turbidity (浊度)"
    near = "water_supply.pressure (供水管网压力), heating.pressure (供热管网压力)"
    where = "write an indicator's code or full name, as `lifeline registry export` lists them"
    assert refusals(database_url, document(indicators=[own, mine], points=points)) == [
        f"points #1 (gh-01-plc/a): indicator: '浊度' is the name of several indicators: {several}; write the code",
        f"points #2 (gh-01-plc/b): indicator: there is no indicator '管网压力'; did you mean {near}?",
        f"points #3 (gh-01-plc/c): indicator: there is no indicator '甚么'; {where}",
    ]


def test_a_dry_run_says_what_would_happen_and_writes_nothing(database_url: str) -> None:
    before = version(database_url)
    assert load(database_url, document(), dry_run=True).counts["points"].created == 1
    assert query(database_url, "SELECT count(*) FROM point") == [(0,)]
    assert version(database_url) == before


def test_a_device_may_move_to_another_site(database_url: str) -> None:
    load(database_url, document())
    other = SITE | {"code": "GD-01", "county": "632523", "lon": 101.4339, "lat": 36.04}
    load(database_url, {"sites": [other], "devices": [DEVICE | {"site": "GD-01"}]})
    assert query(database_url, "SELECT s.code FROM device d JOIN site s ON s.id = site_id") == [("GD-01",)]
    assert query(database_url, "SELECT count(*) FROM point") == [(1,)]


def test_source_names_may_be_swapped(database_url: str) -> None:
    one, two = (
        POINT | {"source_name": "AI1"},
        POINT | {"code": "flow", "indicator": "water_supply.flow", "source_name": "AI2"},
    )
    load(database_url, document(points=[one, two]))
    load(database_url, {"points": [one | {"source_name": "AI2"}, two | {"source_name": "AI1"}]})
    assert query(database_url, "SELECT code, source_name FROM point ORDER BY 1") == [
        ("flow", "AI1"),
        ("pressure", "AI2"),
    ]


def test_a_name_that_leads_to_two_points_is_refused(database_url: str) -> None:
    load(database_url, document())
    flow = POINT | {"code": "flow", "indicator": "water_supply.flow", "source_name": "pressure"}
    reason = "'pressure' names point 'pressure' of this device too (as source_name, or as code)"
    assert refusals(database_url, {"points": [flow]}) == [f"points #1 (gh-01-plc/flow): source_name: {reason}"]


def test_units_must_convert_to_the_indicators(database_url: str) -> None:
    load(database_url, document(points=[POINT | {"unit": "bar"}]))
    found = refusals(
        database_url,
        document(
            points=[POINT | {"unit": "mg/L"}, POINT | {"code": "door", "indicator": "trench.intrusion", "unit": "m"}]
        ),
    )
    boolean = "'m' is given, but trench.intrusion is true or false and has no unit; leave it out"
    assert found == [
        "points #1 (gh-01-plc/pressure): unit: 'mg/L' does not convert to 'MPa', the unit of water_supply.pressure",
        f"points #2 (gh-01-plc/door): unit: {boolean}",
    ]
    # A kept unit is asked too, when the indicator changes under it.
    found = refusals(database_url, {"points": [POINT | {"indicator": "water_supply.turbidity"}]})
    assert found == [
        "points #1 (gh-01-plc/pressure): unit: 'bar' does not convert to '{NTU}', the unit of water_supply.turbidity"
    ]


def test_given_and_kept_bounds_may_not_cross(database_url: str) -> None:
    load(database_url, document(points=[POINT | {"valid_max": 1.0}]))
    assert "valid_min 1.2 is above valid_max 1" in refusals(database_url, {"points": [POINT | {"valid_min": 1.2}]})[0]
    fresh = POINT | {"code": "other", "valid_min": 5}
    assert "or the indicator's" in refusals(database_url, {"points": [fresh]})[0]


def test_an_edited_indicator_is_never_overwritten_by_the_catalogue(database_url: str) -> None:
    load(database_url, document())
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE indicator SET valid_max = 99 WHERE code = 'gas.methane'")
        connection.execute("DELETE FROM indicator WHERE code = 'gas.flow'")
    with psycopg.connect(database_url) as connection:
        assert registry.seed_catalogue(connection) == 1
    assert query(database_url, "SELECT valid_max FROM indicator WHERE code = 'gas.methane'") == [(99,)]


def test_an_indicator_of_ones_own_comes_with_its_points(database_url: str) -> None:
    own = {"code": "bridge.wind", "name": {"zh": "桥面风速", "en": "Wind on deck"}, "sector": "桥梁", "unit": "m/s"}
    load(database_url, document(indicators=[own], points=[POINT | {"indicator": "bridge.wind", "unit": "km/h"}]))
    assert query(database_url, "SELECT sector, unit FROM indicator WHERE code = 'bridge.wind'") == [("bridge", "m/s")]


def test_changing_the_unit_of_stored_readings_is_warned_of(database_url: str) -> None:
    load(database_url, document())
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO newest_reading (point_id, time, received_at, value, quality) "
            "SELECT id, now(), now(), 1, 0 FROM point"
        )
    imported = load(database_url, {"points": [POINT | {"unit": "bar"}]})
    assert [str(warning) for warning in imported.warnings] == [
        "points #1 (gh-01-plc/pressure): unit: changes from MPa to bar; readings already stored keep their numbers"
    ]


def test_a_site_outside_its_county_is_warned_of(database_url: str) -> None:
    imported = load(database_url, document(sites=[SITE | {"county": "632523"}]))
    assert "is outside of Guide (贵德县), in Gonghe (共和县)" in str(imported.warnings[0])


def test_imports_at_once_wait_for_each_other(database_url: str) -> None:
    """Opposite row orders would deadlock without the lock."""
    sites = [SITE | {"code": f"S{number}"} for number in range(300)]
    devices = [{"code": f"d{number}", "site": f"S{number}"} for number in range(300)]
    failures: list[BaseException] = []

    def run(turn: int) -> None:
        order = slice(None, None, 1 if turn % 2 else -1)
        try:
            for round_ in range(3):
                named = [site | {"name": f"{turn} {round_}"} for site in sites]
                load(database_url, {"sites": named[order], "devices": devices[order]})
        except BaseException as error:  # noqa: BLE001 (the test's thread must hand it over)
            failures.append(error)

    threads = [threading.Thread(target=run, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert query(database_url, "SELECT count(*), count(DISTINCT name) FROM site") == [(300, 1)]


def test_inside_a_transaction_of_the_caller_a_refusal_leaves_it_usable(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT 1")  # the transaction begins here
        with pytest.raises(RegistryRefusedError):
            registry.import_document(connection, registry.from_mapping({"devices": [DEVICE]}))
        registry.import_document(connection, registry.from_mapping(document()))
        registry.import_document(connection, registry.from_mapping(document()))
        connection.rollback()
    assert query(database_url, "SELECT count(*) FROM site") == [(0,)]


def test_a_hundred_thousand_points(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, not judged: figures belong to the machine."""
    devices = [{"code": f"d{number}", "site": "GH-01"} for number in range(20_000)]
    points = [
        POINT | {"device": f"d{number // 5}", "code": f"p{number % 5}", "source_name": f"AI{number % 5}", "unit": "MPa"}
        for number in range(100_000)
    ]
    written = document(devices=devices, points=points)
    took = []
    for _ in range(2):
        started = time.perf_counter()
        imported = load(database_url, written)
        took.append(time.perf_counter() - started)
    assert imported.counts["points"].unchanged == 100_000
    with capsys.disabled():
        print(f"\n100,000 points: imported in {took[0]:.1f} s, found unchanged in {took[1]:.1f} s")
