"""What a row of each noun must be: fields as in the contract's registry table, values as people write them.

Codes may come as numbers (a spreadsheet makes 632521 of a code), sectors and counties by their Chinese names, numbers
as text, units in any spelling; what is kept is the code, the number and UCUM. ``model_fields_set`` tells what was
given: an import leaves alone what a row does not mention, and an explicit null or an empty cell clears it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from lifeline import units
from lifeline.counties import counties
from lifeline.registry.document import Noun
from lifeline.registry.problems import shown
from lifeline.tables import CODE_PATTERN, SECTORS

SECTOR_NAMES = {
    "water_source": ("水源", "水源地"),
    "water_supply": ("供水", "给水", "自来水"),
    "gas": ("燃气", "天然气"),
    "heating": ("供热", "供暖", "热力"),
    "drainage": ("排水", "污水"),
    "waterlogging": ("内涝", "积水", "易涝点"),
    "river": ("河道", "河湖", "江河水库", "水库"),
    "trench": ("管廊", "综合管廊", "地下管廊", "管沟"),
    "bridge": ("桥梁",),
    "tunnel": ("隧道",),
    "weather": ("气象",),
}
"""What people in China write for a sector; the first is the usual word."""

_SECTORS = {name: sector for sector, names in SECTOR_NAMES.items() for name in names} | {name: name for name in SECTORS}
RESERVED_DEVICES = {"alarms": "lifeline/v1/{county}/alarms/ is where Lifeline itself publishes alarms"}
"""Codes that no device may have, since ingest would never hear it, and why."""

_CODE = re.compile(CODE_PATTERN.replace("$", r"\Z"))
_COUNTY = re.compile(r"[0-9]{6}\Z")
_NUMBER = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,3})?\Z", re.ASCII)
_LANGUAGES = {"中文": "zh", "英文": "en", "藏文": "bo"}
_LONGEST = {"text": 200, "address": 500, "basis": 2000}


def _text(value: object, longest: int = _LONGEST["text"]) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)  # a spreadsheet's 632521.0
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value) if abs(value) < 1e15 else ""
    if not isinstance(value, str):
        raise ValueError("is missing" if value is None else f"{shown(value)} is no text")  # noqa: TRY004 (pydantic's)
    value = value.strip()
    if not value:
        raise ValueError("is empty")
    if len(value) > longest:
        raise ValueError(f"{shown(value)} has {len(value)} characters, at most {longest} are taken")
    if not value.isprintable():
        # Control characters and halves of surrogate pairs; unassigned and private ones may be rare names.
        bad = next((char for char in value if unicodedata.category(char) in ("Cc", "Cs")), None)
        if bad is not None:
            raise ValueError(f"{shown(value)} holds the character U+{ord(bad):04X}, which no text may hold")
    return value


def _code(value: object) -> str:
    text = _text(value)
    if _CODE.match(text) is None:
        raise ValueError(f"{shown(text)} is no code: 1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'")
    return text


def code_text(value: object) -> str | None:
    """The code that a cell or field holds, None where it holds none."""
    try:
        return _code(value)
    except ValueError:
        return None


def plain_text(value: object) -> str | None:
    """The text that a cell or field holds, None where it holds none."""
    try:
        return _text(value)
    except ValueError:
        return None


def label(value: object) -> str | None:
    """What stands where a code should, printable and cut, to find the row by; None where nothing of use does."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = code_text(value)
    if text is None:
        text = value.strip() if isinstance(value, str) else ""
        text = shown(text)[1:-1] if text else None
    return text


def _device_code(code: str) -> str:
    if code in RESERVED_DEVICES:
        raise ValueError(f"'{code}' is reserved: {RESERVED_DEVICES[code]}; choose another code")
    return code


def _sector(value: object) -> str:
    text = _text(value)
    if text not in _SECTORS:
        names = ", ".join(f"{code} ({names[0]})" for code, names in SECTOR_NAMES.items())
        raise ValueError(f"{shown(text)} is no sector; they are {names}")
    return _SECTORS[text]


def _county(value: object) -> str:
    text = _text(value)
    for code, county in counties().items():
        if text in (county.name["zh"], county.name["zh"].removesuffix("县"), county.name["en"]):
            return code
    if _COUNTY.match(text) is None:
        raise ValueError(f"{shown(text)} is no county: the 6 digits of GB/T 2260, such as 632521")
    return text


def _number(value: object) -> float:
    if isinstance(value, str):
        text = unicodedata.normalize("NFKC", value.strip()[:100])
        if _NUMBER.match(text) is None:
            raise ValueError(f"{shown(value)} is no number")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is missing" if value is None else f"{shown(value)} is no number")  # noqa: TRY004
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{shown(value)} is no finite number")
    return number


def _within(low: float, high: float, what: str) -> Any:
    def check(value: object) -> float:
        number = _number(value)
        if not low <= number <= high:
            raise ValueError(f"{number:g} is no {what}: {low:g} to {high:g} degrees (WGS-84)")
        return number

    return BeforeValidator(check)


def _interval(value: object) -> float:
    seconds = _number(value)
    if not 0 < seconds <= 366 * 86400:
        raise ValueError(f"{seconds:g} is no interval: more than 0 and at most a year, in seconds")
    return seconds


def _unit(value: object) -> str:
    text = _text(value)
    unit = units.ucum(text)
    if unit is None:
        raise ValueError(f"{shown(text)} is no known unit; write it in UCUM, such as MPa, Cel, m3/h, mg/L or %{{vol}}")
    return unit


def _names(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is no set of names; expected zh and en (and bo)")  # noqa: TRY004
    value = {_LANGUAGES.get(language, language): name for language, name in value.items()}
    unknown = set(value) - {"zh", "en", "bo"}
    if unknown:
        raise ValueError(f"{shown(min(map(str, unknown)))} is no language of ours; they are zh, en and bo")
    names = {str(language): _text(name) for language, name in value.items() if name is not None}
    missing = [language for language in ("zh", "en") if language not in names]
    if missing:
        raise ValueError(f"the name in {' and '.join(missing)} is missing")
    return names


Code = Annotated[str, BeforeValidator(_code)]
Text = Annotated[str, BeforeValidator(_text)]
Sector = Annotated[str, BeforeValidator(_sector)]
County = Annotated[str, BeforeValidator(_county)]
Unit = Annotated[str, BeforeValidator(_unit)]
Number = Annotated[float, BeforeValidator(_number)]
Interval = Annotated[float, BeforeValidator(_interval)]


class RegistryRow(BaseModel):
    """What all rows share: unknown fields are refused, since a misspelt one would be lost silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    noun: ClassVar[Noun]


class _Ranged(RegistryRow):
    @model_validator(mode="after")
    def _range_is_not_empty(self) -> _Ranged:
        low, high = getattr(self, "valid_min", None), getattr(self, "valid_max", None)
        if low is not None and high is not None and low > high:
            raise ValueError(f"valid_min {low:g} is above valid_max {high:g}")
        return self


class OrganisationRow(RegistryRow):
    """Who runs sites; without a county it serves the whole prefecture."""

    noun = "organisations"
    code: Code
    name: Text
    county: County | None = None


class IndicatorRow(_Ranged):
    """What can be measured; ``unit`` None for booleans."""

    noun = "indicators"
    code: Code
    name: Annotated[dict[str, str], BeforeValidator(_names)]
    sector: Sector
    unit: Unit | None = None
    valid_min: Number | None = None
    valid_max: Number | None = None
    interval_s: Interval | None = None
    basis: Annotated[str, BeforeValidator(lambda value: _text(value, _LONGEST["basis"]))] | None = None


class SiteRow(RegistryRow):
    """A place; WGS-84 degrees."""

    noun = "sites"
    code: Code
    name: Text
    sector: Sector
    county: County
    lon: Annotated[float, _within(-180, 180, "longitude")]
    lat: Annotated[float, _within(-90, 90, "latitude")]
    address: Annotated[str, BeforeValidator(lambda value: _text(value, _LONGEST["address"]))] | None = None
    organisation: Code | None = None


class DeviceRow(RegistryRow):
    """What publishes, at a site."""

    noun = "devices"
    code: Annotated[Code, AfterValidator(_device_code)]
    site: Code
    name: Text | None = None
    model: Text | None = None


class PointRow(_Ranged):
    """One indicator on one device; what is None is the indicator's."""

    noun = "points"
    device: Code
    code: Code
    indicator: Text
    """Its code, or its name in one of our languages, which :func:`references.name_indicators` turns into the code."""
    source_name: Text | None = None
    name: Text | None = None
    unit: Unit | None = None
    interval_s: Interval | None = None
    valid_min: Number | None = None
    valid_max: Number | None = None


ROWS: dict[Noun, type[RegistryRow]] = {
    row.noun: row for row in (OrganisationRow, IndicatorRow, SiteRow, DeviceRow, PointRow)
}


def faults(error: ValidationError, model: type[RegistryRow], *, partial: bool = False) -> list[tuple[str | None, str]]:
    """(field, reason) of each fault, in words; of a ``partial`` row without those of missing fields."""
    found: list[tuple[str | None, str]] = []
    for item in error.errors(include_url=False, include_context=False):
        field = str(item["loc"][0])[:64] if item["loc"] else None
        match item["type"]:
            case "missing" if partial:
                continue
            case "missing":
                reason = "is missing"
            case "extra_forbidden":
                reason = f"is no field of {model.noun}; known are {', '.join(model.model_fields)}"
            case _:
                reason = item["msg"].removeprefix("Value error, ")
        found.append((field, reason))
    return found
