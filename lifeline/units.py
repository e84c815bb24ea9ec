"""Units of measurement: reading the ways devices and people write them, and converting between them.

Understood are UCUM as far as this field needs it (prefixes, products, powers, annotations), the SenML units of
RFC 8428 and RFC 8798, and the usual spellings of data sheets, Sparkplug ``engUnit`` properties and Chinese tables
(``°C``, ``m³/h``, ``兆帕``). Text comes from outside: it is limited in length, read by a grammar without nesting,
and never raises.

A table of exact fractions, not a units library: ingest asks for conversions while messages wait, and the libraries
cost it half a second and over 30 MB at the first question. The tests compare the table with such a library.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

MAX_LENGTH = 48
"""Longer texts are no unit; the longest in use has some 25 characters."""
_MAX_EXPONENT = 9


@dataclass(frozen=True, slots=True)
class Conversion:
    """``target value = source value * scale + offset``."""

    scale: float
    offset: float

    @property
    def is_identity(self) -> bool:
        return self.scale == 1.0 and self.offset == 0.0

    def apply(self, value: float) -> float:
        """``value`` in the target unit; may overflow to infinity."""
        return value * self.scale + self.offset


class _Unit(NamedTuple):
    """A unit as ``base value = value * scale + offset`` of the base units to the powers in ``dimension``."""

    dimension: tuple[int, ...]  # powers of m, kg, s, K, A, mol, cd, rad, bit
    scale: Fraction
    offset: Fraction = Fraction(0)
    kind: str = ""  # parts units of one dimension that must not be mixed, such as %LEL and %VOL


_BASES = ("m", "kg", "s", "K", "A", "mol", "cd", "rad", "bit")
_NONE = (0,) * len(_BASES)
_PREFIXES = {
    "Y": 24,
    "Z": 21,
    "E": 18,
    "P": 15,
    "T": 12,
    "G": 9,
    "M": 6,
    "k": 3,
    "h": 2,
    "da": 1,
    "d": -1,
    "c": -2,
    "m": -3,
    "u": -6,
    "n": -9,
    "p": -12,
    "f": -15,
}
_DEGREE = Fraction(math.pi) / 180
_GRAVITY = Fraction(980665, 100000)  # m/s2, standard

# Atoms that take prefixes: (scale, powers of base units). UCUM symbols; SenML agrees but where _WORDS says otherwise.
_METRIC: dict[str, tuple[Fraction | int, dict[str, int]]] = {
    "m": (1, {"m": 1}),
    "g": (Fraction(1, 1000), {"kg": 1}),
    "s": (1, {"s": 1}),
    "K": (1, {"K": 1}),
    "A": (1, {"A": 1}),
    "mol": (1, {"mol": 1}),
    "cd": (1, {"cd": 1}),
    "rad": (1, {"rad": 1}),
    "sr": (1, {"rad": 2}),
    "bit": (1, {"bit": 1}),
    "Hz": (1, {"s": -1}),
    "Bq": (1, {"s": -1}),
    "N": (1, {"kg": 1, "m": 1, "s": -2}),
    "Pa": (1, {"kg": 1, "m": -1, "s": -2}),
    "bar": (100_000, {"kg": 1, "m": -1, "s": -2}),
    "m[H2O]": (_GRAVITY * 1000, {"kg": 1, "m": -1, "s": -2}),
    "m[Hg]": (Fraction(133_322_387_415, 10**6), {"kg": 1, "m": -1, "s": -2}),
    "J": (1, {"kg": 1, "m": 2, "s": -2}),
    "Wh": (3600, {"kg": 1, "m": 2, "s": -2}),
    "cal": (Fraction(4184, 1000), {"kg": 1, "m": 2, "s": -2}),
    "W": (1, {"kg": 1, "m": 2, "s": -3}),
    "C": (1, {"A": 1, "s": 1}),
    "Ah": (3600, {"A": 1, "s": 1}),
    "V": (1, {"kg": 1, "m": 2, "s": -3, "A": -1}),
    "F": (1, {"kg": -1, "m": -2, "s": 4, "A": 2}),
    "Ohm": (1, {"kg": 1, "m": 2, "s": -3, "A": -2}),
    "S": (1, {"kg": -1, "m": -2, "s": 3, "A": 2}),
    "Wb": (1, {"kg": 1, "m": 2, "s": -2, "A": -1}),
    "T": (1, {"kg": 1, "s": -2, "A": -1}),
    "H": (1, {"kg": 1, "m": 2, "s": -2, "A": -2}),
    "lm": (1, {"cd": 1, "rad": 2}),
    "lx": (1, {"cd": 1, "rad": 2, "m": -2}),
    "Gy": (1, {"m": 2, "s": -2}),
    "Sv": (1, {"m": 2, "s": -2}),
    "kat": (1, {"mol": 1, "s": -1}),
    "l": (Fraction(1, 1000), {"m": 3}),
    "L": (Fraction(1, 1000), {"m": 3}),
    "t": (1000, {"kg": 1}),
    "B": (8, {"bit": 1}),  # SenML's byte, not UCUM's rare bel
}
_PLAIN: dict[str, tuple[Fraction | int, dict[str, int]]] = {
    "%": (Fraction(1, 100), {}),
    "[ppth]": (Fraction(1, 1000), {}),
    "[ppm]": (Fraction(1, 10**6), {}),
    "[ppb]": (Fraction(1, 10**9), {}),
    "min": (60, {"s": 1}),
    "h": (3600, {"s": 1}),
    "d": (86400, {"s": 1}),
    "wk": (7 * 86400, {"s": 1}),
    "deg": (_DEGREE, {"rad": 1}),
    "'": (_DEGREE / 60, {"rad": 1}),
    "''": (_DEGREE / 3600, {"rad": 1}),
    "har": (10_000, {"m": 2}),
    "atm": (101_325, {"kg": 1, "m": -1, "s": -2}),
    "gf": (_GRAVITY / 1000, {"kg": 1, "m": 1, "s": -2}),
    "kgf": (_GRAVITY, {"kg": 1, "m": 1, "s": -2}),
    "[psi]": (Fraction(44482216152605, 6_451_600_000), {"kg": 1, "m": -1, "s": -2}),
    "[g]": (_GRAVITY, {"m": 1, "s": -2}),
    "[in_i]": (Fraction(254, 10_000), {"m": 1}),
    "[ft_i]": (Fraction(3048, 10_000), {"m": 1}),
    "[gal_us]": (Fraction(3_785_411_784, 10**12), {"m": 3}),
    "Cel": (1, {"K": 1}),
    "[degF]": (Fraction(5, 9), {"K": 1}),
    "var": (1, {"kg": 1, "m": 2, "s": -3}),
    "Ki": (1024, {}),
    "Mi": (1024**2, {}),
    "Gi": (1024**3, {}),
}

# Whole units with an offset or of a kind of their own; only alone, never in a product.
_OFFSETS = {"Cel": Fraction(27315, 100), "[degF]": Fraction(45967, 180)}
_KINDS = {
    "[pH]": ("pH", 1, 0),
    "dB": ("ratio level", 1, 0),
    "dBW": ("power level", 1, 0),
    "dBm": ("power level", 1, -30),
    "Bspl": ("sound level", 10, 0),
    "dBspl": ("sound level", 1, 0),
}
# Annotations change nothing in UCUM; these we heed, since mixing what they name would mislead.
_ANNOTATIONS = {
    "vol": "volume share",
    "lel": "explosive share",
    "rh": "humidity",
    "ntu": "turbidity",
    "fnu": "turbidity",
}
_MIXABLE = {frozenset(("", "volume share")), frozenset(("", "humidity"))}
"""Kinds that agree: a bare per cent may be of volume or of humidity, but never of the explosive limit."""

# Spellings, after _tidy, that the grammar would not read, or would read as something else: to UCUM.
_WORDS = {
    **dict.fromkeys(("degC", "DegC", "deg_C", "degreesCelsius", "celsius", "Celsius", "CEL", "摄氏度"), "Cel"),
    **dict.fromkeys(("degF", "fahrenheit", "Fahrenheit"), "[degF]"),
    **dict.fromkeys(("kelvin", "Kelvin", "degK"), "K"),
    **dict.fromkeys(("degree", "degrees", "度"), "deg"),
    **dict.fromkeys(("%vol", "%VOL", "%Vol", "%v/v", "vol%", "Vol%", "VOL%", "%O2"), "%{vol}"),
    **dict.fromkeys(("%LEL", "%lel", "LEL%", "%LFL", "LEL"), "%{LEL}"),
    **dict.fromkeys(("%RH", "%rh", "RH%", "%r.H."), "%{RH}"),
    **dict.fromkeys(("%EL", "percent", "/100"), "%"),
    **dict.fromkeys(("/", "1", "ratio"), "1"),
    **dict.fromkeys(("/1000", "‰"), "[ppth]"),
    **dict.fromkeys(("ppm", "PPM"), "[ppm]"),
    **dict.fromkeys(("ppb", "PPB"), "[ppb]"),
    **dict.fromkeys(("NTU", "ntu", "FTU", "度(NTU)"), "{NTU}"),
    **dict.fromkeys(("FNU", "fnu"), "{FNU}"),
    **dict.fromkeys(("pH", "PH", "ph"), "[pH]"),
    **dict.fromkeys(("ue", "uε", "ustrain", "microstrain", "微应变", "u{strain}"), "um/m"),
    **dict.fromkeys(("count", "beats"), "1"),
    **dict.fromkeys(("beat/min", "beats/min", "rpm", "r/min", "bpm"), "/min"),
    **dict.fromkeys(("sec", "second", "seconds", "EL", "秒"), "s"),
    **dict.fromkeys(("msec",), "ms"),
    **dict.fromkeys(("minute", "minutes", "分钟"), "min"),
    **dict.fromkeys(("hr", "hour", "hours", "小时"), "h"),
    **dict.fromkeys(("day", "days", "天"), "d"),
    **dict.fromkeys(("meter", "metre", "meters", "metres", "米"), "m"),
    **dict.fromkeys(("厘米",), "cm"),
    **dict.fromkeys(("毫米",), "mm"),
    **dict.fromkeys(("千米", "公里"), "km"),
    **dict.fromkeys(("兆帕", "Mpa", "MPA", "mpa"), "MPa"),
    **dict.fromkeys(("千帕", "Kpa", "KPa", "kpa", "KPA"), "kPa"),
    **dict.fromkeys(("帕", "pa"), "Pa"),
    **dict.fromkeys(("百帕", "hpa", "HPa", "mb", "mbar"), "hPa"),
    **dict.fromkeys(("公斤", "kgf/cm2", "kg/cm2"), "kgf/cm2"),
    **dict.fromkeys(("psi", "PSI"), "[psi]"),
    **dict.fromkeys(("mH2O", "mWC", "mwc", "米水柱"), "m[H2O]"),
    **dict.fromkeys(("mmH2O",), "mm[H2O]"),
    **dict.fromkeys(("cmH2O",), "cm[H2O]"),
    **dict.fromkeys(("mmHg",), "mm[Hg]"),
    **dict.fromkeys(("cmh", "m3h", "cbm/h", "立方米/小时", "立方米每小时", "方/时", "立方米/时"), "m3/h"),
    **dict.fromkeys(("Nm3/h", "NM3/h", "Nm3/hr", "Sm3/h", "标方/小时", "标立方米/小时"), "m3{normal}/h"),
    **dict.fromkeys(("Nm3", "Sm3"), "m3{normal}"),
    **dict.fromkeys(("m3/hr", "M3/H", "M3/h"), "m3/h"),
    **dict.fromkeys(("立方米", "M3", "cbm"), "m3"),
    **dict.fromkeys(("升", "liter", "litre"), "L"),
    **dict.fromkeys(("升/秒", "lps", "LPS"), "L/s"),
    **dict.fromkeys(("lpm", "LPM"), "L/min"),
    **dict.fromkeys(("gpm", "GPM"), "[gal_us]/min"),
    **dict.fromkeys(("毫克/升", "毫克每升"), "mg/L"),
    **dict.fromkeys(("毫克/立方米",), "mg/m3"),
    **dict.fromkeys(("微西/厘米", "微西门子/厘米"), "uS/cm"),
    **dict.fromkeys(("米/秒",), "m/s"),
    **dict.fromkeys(("分贝", "db", "DB"), "dB"),
    **dict.fromkeys(("dBA", "dB(A)", "dBSPL"), "dBspl"),
    **dict.fromkeys(("VA",), "V.A"),
    **dict.fromkeys(("VAs",), "V.A.s"),
    **dict.fromkeys(("kVA",), "kV.A"),
    **dict.fromkeys(("VAh",), "V.A.h"),
    **dict.fromkeys(("kVAh",), "kV.A.h"),
    **dict.fromkeys(("vars",), "var.s"),
    **dict.fromkeys(("varh",), "var.h"),
    **dict.fromkeys(("kvar",), "1000.var"),
    **dict.fromkeys(("kvarh",), "1000.var.h"),
    **dict.fromkeys(("KiB",), "Ki.B"),
    **dict.fromkeys(("MiB",), "Mi.B"),
    **dict.fromkeys(("lat", "lon"), "deg"),
    **dict.fromkeys(("ohm", "欧姆"), "Ohm"),
    **dict.fromkeys(("gal",), "[gal_us]"),
    **dict.fromkeys(("ft",), "[ft_i]"),
    **dict.fromkeys(("in",), "[in_i]"),
}
_SYMBOLS = {  # how people expect to see it, where that differs from UCUM
    "Cel": "°C",
    "deg": "°",
    "%{vol}": "%VOL",
    "%{LEL}": "%LEL",
    "%{RH}": "%RH",
    "{NTU}": "NTU",
    "[pH]": "pH",
    "[ppm]": "ppm",
    "um/m": "µε",
    "m3/h": "m³/h",
    "m3{normal}/h": "Nm³/h",
    "mg/m3": "mg/m³",
    "m/s2": "m/s²",
    "uS/cm": "µS/cm",
    "1/m": "m⁻¹",
}

_PART = re.compile(
    r"([./]?)(?:(\d{1,6}(?![\d*]))|(10\*|[A-Za-z%']*(?:\[\w{1,10}\])?)([+-]?\d{1,2})?)((?:\{[^{}]*\})*)", re.ASCII
)
_NOTE = re.compile(r"\{([^{}]*)\}")


def conversion(source: str, target: str) -> Conversion | None:
    """How to turn a number in ``source`` into ``target``; None where either is no known unit or they do not convert.

    Two spellings of one unit give the identity. Never raises, whatever the text.
    """
    if len(source) > MAX_LENGTH or len(target) > MAX_LENGTH:
        return None
    return _conversion(source, target)


def agree(one: str, other: str) -> bool:
    """Whether both are spellings of one unit."""
    found = conversion(one, other)
    return found is not None and found.is_identity


def ucum(text: str) -> str | None:
    """The unit's UCUM spelling (``°C`` → ``Cel``, ``m³/h`` → ``m3/h``); None where ``text`` is no known unit."""
    if len(text) > MAX_LENGTH or _unit(text) is None:
        return None
    return _tidy(text)


def symbol(unit: str) -> str:
    """How people write the UCUM ``unit`` (``Cel`` → ``°C``); itself where there is nothing better."""
    return _SYMBOLS.get(unit, unit)


@functools.lru_cache(maxsize=4096)
def _conversion(source: str, target: str) -> Conversion | None:
    ours, theirs = _unit(source), _unit(target)
    if ours is None or theirs is None or ours.dimension != theirs.dimension:
        return None
    if ours.kind != theirs.kind and frozenset((ours.kind, theirs.kind)) not in _MIXABLE:
        return None
    try:
        scale = float(ours.scale / theirs.scale)
        offset = float((ours.offset - theirs.offset) / theirs.scale)
    except OverflowError:
        return None
    return Conversion(scale, offset) if scale > 0 else None  # 0: underflow


@functools.lru_cache(maxsize=1024)
def _unit(text: str) -> _Unit | None:
    text = _tidy(text)
    if text in _KINDS:
        kind, scale, offset = _KINDS[text]
        return _Unit(_NONE, Fraction(scale), Fraction(offset), kind)
    unit = _product(text)
    if unit is not None and text in _OFFSETS:
        unit = unit._replace(offset=_OFFSETS[text])
    return unit


def _tidy(text: str) -> str:
    """UCUM's letters for what people write: ``m³·h⁻¹`` → ``m3.h-1``, ``℃`` → ``Cel``; known words to UCUM."""
    text = unicodedata.normalize("NFKC", text.strip().replace("℃", "Cel").replace("℉", "[degF]"))
    for written, meant in (
        ("°C", "Cel"),
        ("°F", "[degF]"),
        ("°", "deg"),
        ("μ", "u"),  # NFKC makes the micro sign a Greek mu
        ("Ω", "Ohm"),
        ("−", "-"),
        ("·", "."),
        ("×", "."),
        ("⋅", "."),
        ("**", ""),
        ("^", ""),
        (" ", ""),
    ):
        text = text.replace(written, meant)
    return _WORDS.get(text, text)


def _product(text: str) -> _Unit | None:
    """The unit of a UCUM product such as ``m3/h`` or ``%{vol}``; None where it is none."""
    dimension, scale, kinds = list(_NONE), Fraction(1), set[str]()
    position, first = 0, True
    while position < len(text):
        match = _PART.match(text, position)
        if match is None or match.end() == position:
            return None
        operator, number, atom, exponent, notes = match.groups()
        if (operator == "") != first and not (first and operator == "/"):
            return None
        found = _atom(number, atom, bool(notes))
        power = int(exponent or 1) * (-1 if operator == "/" else 1)
        if found is None or abs(power) > _MAX_EXPONENT or (exponent and not atom) or found[0] == 0:
            return None
        scale *= found[0] ** power
        for index, base in enumerate(_BASES):
            dimension[index] += found[1].get(base, 0) * power
        kinds |= _heeded(_NOTE.findall(notes))
        position, first = match.end(), False
    if first or len(kinds) > 1:
        return None
    return _Unit(tuple(dimension), scale, kind=kinds.pop() if kinds else "")


def _heeded(notes: Iterable[str]) -> set[str]:
    return {_ANNOTATIONS[note.casefold()] for note in notes if note.casefold() in _ANNOTATIONS}


def _atom(number: str | None, symbol: str, annotated: bool) -> tuple[Fraction, dict[str, int]] | None:
    """Scale and base powers of one factor, without its exponent."""
    if number is not None:
        return Fraction(number), {}
    if symbol == "10*":
        return Fraction(10), {}
    if symbol == "":
        return (Fraction(1), {}) if annotated else None
    for table in (_PLAIN, _METRIC):
        if symbol in table:
            return Fraction(table[symbol][0]), table[symbol][1]
    for length in (1, 2):
        prefix, rest = symbol[:length], symbol[length:]
        if prefix in _PREFIXES and rest in _METRIC:
            return Fraction(_METRIC[rest][0]) * Fraction(10) ** _PREFIXES[prefix], _METRIC[rest][1]
    return None
