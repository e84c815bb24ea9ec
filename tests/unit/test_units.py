"""Units: what devices write, converted rightly or not at all, whatever the text."""

from __future__ import annotations

import math
import time

import pint
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifeline.units import MAX_LENGTH, agree, conversion, symbol, ucum

# Units of RFC 8428 (12.1) and RFC 8798, without the obsolete ones that repeat others.
SENML = """
m kg g s A K cd mol Hz rad sr N Pa J W C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s W/m2 cd/m2
bit bit/s lat lon pH dB dBW Bspl count / %RH %EL EL 1/s 1/min beat/min beats S/m B VA VAs var vars J/m kg/m3 deg NTU
ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s MB/s mV mA dBm ug/m3 mm/h m/h ppm /100 /1000
hPa mm cm km km/h
"""


@pytest.mark.parametrize("unit", SENML.split())
def test_senml_units_are_known(unit: str) -> None:
    assert agree(unit, unit)


@pytest.mark.parametrize(
    ("source", "target", "value", "expected"),
    [
        ("K", "Cel", 273.15, 0),
        ("°F", "Cel", 212, 100),
        ("Cel", "K", 0, 273.15),
        ("bar", "MPa", 16, 1.6),
        ("psi", "kPa", 1, 6.894757),
        ("mH2O", "kPa", 10, 98.0665),
        ("kgf/cm²", "MPa", 1, 0.0980665),
        ("l/s", "m³/h", 1, 3.6),
        ("m3/s", "m3/h", 1, 3600),
        ("Nm³/h", "m3{normal}/h", 7, 7),
        ("%VOL", "[ppm]", 1, 10_000),
        ("μS/cm", "mS/cm", 1000, 1),
        ("µS/cm", "uS/cm", 5, 5),
        ("dBm", "dBW", 30, 0),
        ("km/h", "m/s", 36, 10),
        ("kVA", "W", 1, 1000),
        ("Wh/km", "J/m", 1, 3.6),
        ("兆帕", "kPa", 1, 1000),
        ("deg", "rad", 180, math.pi),
        ("µε", "um/m", 12, 12),
        ("με", "um/m", 12, 12),
        ("GPM", "L/min", 1, 3.785411784),
        ("mm/h", "m/h", 1000, 1),
    ],
)
def test_conversion(source: str, target: str, value: float, expected: float) -> None:
    found = conversion(source, target)
    assert found is not None
    assert found.apply(value) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    "spellings",
    [
        ("Cel", "°C", "℃", "degC", "摄氏度", " °C "),
        ("m3/h", "m³/h", "m^3/h", "㎥/h", "m3.h-1", "m³·h⁻¹", "立方米/小时", "m3/hr"),
        ("%{vol}", "%VOL", "％VOL", "%vol"),
        ("%{LEL}", "%LEL", "%lel"),
        ("%{RH}", "%RH", "%"),
        ("1/m", "/m", "m-1"),
        ("{NTU}", "NTU", "FNU"),
        ("[ppm]", "ppm", "10*-6"),
        ("L", "l", "升"),
        ("mg/L", "mg/l", "g/m3", "毫克/升"),
        ("deg", "°", "度"),
    ],
)
def test_spellings_of_one_unit_agree(spellings: tuple[str, ...]) -> None:
    for one in spellings:
        assert agree(one, spellings[0]), one
        assert agree(spellings[0], one), one


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("%{LEL}", "%{vol}"),  # 100 %LEL of methane is 5 %VOL: a factor of twenty that depends on the gas
        ("%", "%{LEL}"),
        ("%{RH}", "%{vol}"),
        ("mg/m3", "[ppm]"),
        ("MPa", "m"),
        ("dB", "dBm"),
        ("{NTU}", "1"),
        ("[pH]", "1"),
        ("frob", "m"),
        ("", "m"),
        ("m", ""),
        ("m" * (MAX_LENGTH + 1), "m"),
        ("m**99999999", "m"),
        ("m99999999", "m"),
        ("m10", "m10"),
        ("m//s", "m/s"),
        ("0.m", "m"),
        ("__import__('os')", "1"),
        ("Ym9.Ym9.Ym9.Ym9.Ym9.Ym9.Ym9.Ym9", "m72"),
    ],
)
def test_what_does_not_convert(source: str, target: str) -> None:
    assert conversion(source, target) is None


def test_milli_and_mega_are_not_confused() -> None:
    found = conversion("mPa", "MPa")
    assert found is not None
    assert found.scale == pytest.approx(1e-9)


def test_ucum_and_symbol() -> None:
    assert ucum("m³/h") == "m3/h"
    assert ucum("nonsense") is None
    assert symbol("Cel") == "°C"
    assert symbol("MPa") == "MPa"


ATOMS = {
    "m": "meter",
    "g": "gram",
    "s": "second",
    "Pa": "pascal",
    "bar": "bar",
    "W": "watt",
    "J": "joule",
    "V": "volt",
    "A": "ampere",
    "S": "siemens",
    "L": "liter",
    "N": "newton",
    "Hz": "hertz",
    "Ohm": "ohm",
    "lx": "lux",
}
PREFIXES = {"": "", "k": "kilo", "M": "mega", "m": "milli", "u": "micro", "h": "hecto", "c": "centi", "n": "nano"}
REGISTRY: pint.UnitRegistry[float] = pint.UnitRegistry()
part = st.tuples(st.sampled_from(sorted(PREFIXES)), st.sampled_from(sorted(ATOMS)), st.integers(1, 3))


@given(part, part, st.sampled_from(sorted(PREFIXES)), st.sampled_from(sorted(PREFIXES)))
def test_the_table_agrees_with_pint(
    one: tuple[str, str, int], two: tuple[str, str, int], other_one: str, other_two: str
) -> None:
    def both(first: str, second: str) -> tuple[str, str]:
        ours = f"{first}{one[1]}{one[2]}/{second}{two[1]}{two[2]}"
        pints = f"{PREFIXES[first]}{ATOMS[one[1]]}**{one[2]}/({PREFIXES[second]}{ATOMS[two[1]]}**{two[2]})"
        return ours, pints

    source, target = both(one[0], two[0]), both(other_one, other_two)
    found = conversion(source[0], target[0])
    assert found is not None
    factor = REGISTRY.Quantity(1.0, source[1]).to(target[1]).magnitude
    assert found.scale == pytest.approx(factor, rel=1e-9)
    assert found.offset == 0


@pytest.mark.parametrize(
    ("ours", "pints"),
    [("[psi]", "psi"), ("mm[Hg]", "mmHg"), ("atm", "atm"), ("kgf", "kgf"), ("cal", "cal")],
)
def test_the_rarer_atoms_agree_with_pint(ours: str, pints: str) -> None:
    base = {"kgf": ("N", "newton"), "cal": ("J", "joule")}.get(ours, ("Pa", "pascal"))
    found = conversion(ours, base[0])
    assert found is not None
    factor = REGISTRY.Quantity(1.0, pints).to(base[1]).magnitude
    assert found.scale == pytest.approx(factor, rel=1e-6)


@given(st.text(max_size=60), st.text(max_size=60))
@example("\u2488" * 40, "\ufdfa" * 48)
@example("{" * 48, "}" * 48)
@example("/" * 48, "%%%%%%%%")
def test_no_text_raises(source: str, target: str) -> None:
    found = conversion(source, target)
    assert found is None or (math.isfinite(found.scale) and found.scale > 0)
    ucum(source)


@given(st.text("mskgPaLh%/.{}[]0123456789-+*^²³µ°'()", max_size=MAX_LENGTH))
def test_texts_like_units_are_read_quickly(text: str) -> None:
    started = time.perf_counter()
    found = conversion(text, text)
    assert time.perf_counter() - started < 0.2
    assert found is None or found.is_identity
