"""The catalogue: complete, consistent, and refused loudly where it is not."""

from __future__ import annotations

import pytest

from lifeline import indicators, units
from lifeline.indicators import CatalogueError, catalogue, read_catalogue
from lifeline.tables import SECTORS

GOOD = """
- code: gas.test
  name: {zh: 测试, en: Test}
  sector: gas
  unit: kPa
  quantity: pressure
  valid_min: 0
  valid_max: 10
  interval_s: 60
  seed_limits:
    - {of: value, direction: below, levels: {yellow: 3, orange: 2, red: 1}}
  basis: "somewhere"
"""


def test_every_sector_is_there_and_every_name_in_both_languages() -> None:
    assert {indicator.sector for indicator in catalogue()} == set(SECTORS)
    for indicator in catalogue():
        assert any("\u4e00" <= char <= "\u9fff" for char in indicator.name["zh"]), indicator.code
        assert indicator.name["en"].isascii(), indicator.code


def test_the_contracts_own_indicator() -> None:
    depth = next(indicator for indicator in catalogue() if indicator.code == "waterlogging.depth")
    assert (depth.unit, depth.valid_min, depth.valid_max, depth.interval_s) == ("cm", 0, 300, 300)
    assert depth.name["zh"] == "积水深度"
    assert depth.seed_limits[0].levels == {"blue": 15, "yellow": 20, "orange": 27, "red": 40}


def test_units_are_canonical() -> None:
    for indicator in catalogue():
        if indicator.unit is not None:
            assert units.ucum(indicator.unit) == indicator.unit, indicator.code


def test_limits_lie_where_a_good_reading_can_reach_them() -> None:
    """A level outside of the valid range could never be raised: its readings are bad."""
    for indicator in catalogue():
        for limit in indicator.seed_limits:
            if limit.of == "value" and indicator.value_type == "number":
                for number in limit.levels.values():
                    assert indicator.valid_min is None or indicator.valid_min <= number, indicator.code
                    assert indicator.valid_max is None or number <= indicator.valid_max, indicator.code


def test_span() -> None:
    by_code = {indicator.code: indicator for indicator in catalogue()}
    assert by_code["water_supply.pressure"].usual_span == 1.6
    assert by_code["drainage.manhole_level"].usual_span == 5
    assert by_code["river.level"].usual_span is None


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("sector: gas", "sector: gass", "sector 'gass' is none of"),
        ("code: gas.test", "code: heating.test", "begin with the sector"),
        (", en: Test", "", "name needs zh and en"),
        ("valid_max: 10", "valid_max: -1", "valid_min is above valid_max"),
        ("valid_max: 10", "valid_max: .nan", "valid_max"),
        ("valid_max: 10", "valid_maximum: 10", "valid_maximum"),
        ("unit: kPa", "unit: null", "a boolean has no unit"),
        ("interval_s: 60", "interval_s: 0", "interval_s must be above 0"),
        ("orange: 2", "orange: 4", "tighten with severity"),
        ("red: 1", "purple: 1", "purple"),
        ("of: value", "of: difference", "must say against what"),
        ('basis: "somewhere"', 'basis: " "', "basis must say"),
        ("- code", "code", "no YAML"),
    ],
)
def test_a_bad_entry_is_named(written: str, instead: str, said: str) -> None:
    assert read_catalogue(GOOD)
    with pytest.raises(CatalogueError, match=said):
        read_catalogue(GOOD.replace(written, instead, 1))


def test_a_code_written_twice_is_named() -> None:
    with pytest.raises(CatalogueError, match=r"gas\.test: written twice"):
        read_catalogue(GOOD + GOOD)


def test_levels_rise() -> None:
    assert indicators.LEVELS == ("blue", "yellow", "orange", "red")
