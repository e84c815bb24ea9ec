"""The indicator catalogue: what can be measured in each sector, with names, unit, valid range and seed limits.

The figures live in ``data/indicators.yaml``, each with its ``basis``; none is a constant in code. The database's
``indicator`` table starts as a copy of this and may be edited afterwards, so services ask the table; this module is
what fills it, and what the first rules are made from.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lifeline.tables import SECTORS

Level = Literal["blue", "yellow", "orange", "red"]
LEVELS: tuple[Level, ...] = ("blue", "yellow", "orange", "red")
"""Severity, rising (contract, "Levels and sectors")."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class CatalogueError(Exception):
    """The catalogue file cannot be used; the text names every entry and field at fault."""


@dataclass(frozen=True, slots=True)
class SeedLimit:
    """One limit of the field's table, from which a first rule is made.

    ``levels`` holds numbers by level: in the indicator's unit for ``value``, ``change`` (within ``window_s``) and
    ``difference`` (from ``against``; kelvin for ``Cel``), per cent for ``percent`` (of, or over, ``against``); empty
    for ``site``, where the number comes with the site. Booleans are 0 and 1.
    """

    __pydantic_config__ = _STRICT

    of: Literal["value", "difference", "percent", "change", "site"]
    direction: Literal["above", "below", "either"]
    levels: Mapping[Level, float]
    against: str | None = None
    window_s: float | None = None
    hold_s: float | None = None
    where: str | None = None
    season: Literal["heating"] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Indicator:
    """One measured thing. ``unit`` is UCUM, None for booleans; a None bound or interval is the site's to set."""

    __pydantic_config__ = _STRICT

    code: str
    name: Mapping[Literal["zh", "en", "bo"], str]
    sector: str
    unit: str | None
    quantity: str
    interval_s: float | None
    basis: str
    seed_limits: tuple[SeedLimit, ...]
    value_type: Literal["number", "boolean"] = "number"
    valid_min: float | None = None
    valid_max: float | None = None
    span: float | None = None
    also: tuple[str, ...] = ()
    """Shorter names in use, by which a registry file may give the indicator."""

    @property
    def usual_span(self) -> float | None:
        """What percentages of span refer to, in ``unit``: the instrument's span, else the width of the valid range."""
        if self.span is not None:
            return self.span
        if self.valid_min is None or self.valid_max is None:
            return None
        return self.valid_max - self.valid_min


_FILE: TypeAdapter[tuple[Indicator, ...]] = TypeAdapter(tuple[Indicator, ...])


@functools.cache
def catalogue() -> tuple[Indicator, ...]:
    """Every indicator, in the file's order (by sector). Raises :class:`CatalogueError`."""
    return read_catalogue(resources.files("lifeline").joinpath("data/indicators.yaml").read_text(encoding="utf-8"))


def read_catalogue(text: str) -> tuple[Indicator, ...]:
    """The indicators written in ``text`` (YAML, as ``data/indicators.yaml``). Raises :class:`CatalogueError`."""
    try:
        indicators = _FILE.validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise CatalogueError(f"the indicator catalogue is no YAML: {error}") from error
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise CatalogueError("the indicator catalogue cannot be used:\n" + "\n".join(lines)) from None
    faults = [f"{indicator.code}: {fault}" for indicator in indicators for fault in _faults(indicator)]
    codes = [indicator.code for indicator in indicators]
    faults += [f"{code}: written twice" for code in sorted({code for code in codes if codes.count(code) > 1})]
    if faults:
        raise CatalogueError("the indicator catalogue cannot be used:\n" + "\n".join(faults))
    return indicators


def _faults(indicator: Indicator) -> list[str]:
    """What is wrong with one entry beyond its types."""
    low, high = indicator.valid_min, indicator.valid_max
    checks = {
        f"sector {indicator.sector!r} is none of {', '.join(SECTORS)}": indicator.sector not in SECTORS,
        "the code must begin with the sector and a dot": not indicator.code.startswith(f"{indicator.sector}."),
        "name needs zh and en": not {"zh", "en"} <= set(indicator.name),
        "valid_min is above valid_max": low is not None and high is not None and low > high,
        "interval_s must be above 0": indicator.interval_s is not None and indicator.interval_s <= 0,
        "span must be above 0": indicator.span is not None and indicator.span <= 0,
        "a boolean has no unit, a number has one": (indicator.unit is None) != (indicator.value_type == "boolean"),
        "basis must say where the figures come from": not indicator.basis.strip(),
    }
    faults = [fault for fault, found in checks.items() if found]
    for limit in indicator.seed_limits:
        faults += _limit_faults(limit)
    return faults


def _limit_faults(limit: SeedLimit) -> list[str]:
    numbers = [limit.levels[level] for level in LEVELS if level in limit.levels]  # in rising severity
    ordered = sorted(numbers, reverse=limit.direction == "below" and limit.of == "value")
    checks = {
        "seed limits must tighten with severity": numbers != ordered or len(set(numbers)) != len(numbers),
        "a limit taken from the site has no levels": limit.of == "site" and bool(numbers),
        f"a limit of kind {limit.of} must say against what": limit.of in ("difference", "percent", "site")
        and not limit.against,
        "a change limit with levels needs window_s": limit.of == "change" and bool(numbers) and not limit.window_s,
    }
    return [fault for fault, found in checks.items() if found]
