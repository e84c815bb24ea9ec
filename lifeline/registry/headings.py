"""Column headings and sheet names, as people in China and elsewhere write them, to our fields and nouns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from lifeline.registry.document import NOUNS, Noun
from lifeline.registry.problems import Problem, shown
from lifeline.registry.rows import ROWS

NOUN_NAMES: dict[Noun, tuple[str, ...]] = {
    "organisations": ("单位", "organisation", "organization", "organizations", "机构", "组织", "运营单位"),
    "indicators": ("指标", "indicator", "监测指标", "指标目录"),
    "sites": ("站点", "site", "场站", "监测站点"),
    "devices": ("设备", "device", "监测设备"),
    "points": ("测点", "point", "监测点", "点位"),
}
"""Sheet names and values of a noun column beside the noun itself; the first is the usual Chinese word."""

# Field: headings meaning it for every noun.
_FIELDS: dict[str, tuple[str, ...]] = {
    "code": ("编码", "编号", "代码", "id"),
    "name": ("名称", "名字"),
    "sector": ("行业", "领域", "专项", "行业领域"),
    "county": ("区县", "县", "县区", "所在县", "所属区县", "行政区划", "行政区划代码"),
    "lon": ("经度", "longitude", "lng"),
    "lat": ("纬度", "latitude"),
    "address": ("地址", "位置", "详细地址"),
    "organisation": ("单位编码", "organization", "运营单位", "权属单位", "管理单位", "责任单位"),
    "site": ("站点", "站点编码", "站点编号", "所属站点", "site_code"),
    "model": ("型号", "设备型号", "规格型号"),
    "device": ("设备", "设备编码", "设备编号", "所属设备", "device_code"),
    "indicator": ("指标", "指标编码", "监测指标", "指标名称", "indicator_code"),
    "source_name": ("源名称", "源点名", "上报名称", "原始名称", "点名"),
    "unit": ("单位", "计量单位", "量纲"),
    "interval_s": ("间隔", "采集间隔", "上报间隔", "采集周期", "上报周期", "interval"),
    "valid_min": ("有效下限", "量程下限", "最小值", "有效最小值", "min"),
    "valid_max": ("有效上限", "量程上限", "最大值", "有效最大值", "max"),
    "basis": ("依据", "取值依据"),
    "name_zh": ("中文名", "中文名称", "名称"),
    "name_en": ("英文名", "英文名称"),
    "name_bo": ("藏文名", "藏文名称"),
}
_OWN_CODE: dict[Noun, tuple[str, ...]] = {
    "organisations": ("单位编码", "机构编码"),
    "indicators": ("指标编码",),
    "sites": ("站点编码", "站点编号"),
    "devices": ("设备编码", "设备编号"),
    "points": ("测点编码", "测点编号", "点位编码"),
}
"""Headings that are a noun's own code in its own table, and a reference elsewhere."""
_OWN_NAME: dict[Noun, tuple[str, ...]] = {
    "organisations": ("单位名称", "机构名称"),
    "indicators": ("指标名称",),
    "sites": ("站点名称",),
    "devices": ("设备名称",),
    "points": ("测点名称", "点位名称"),
}
_TITLES = {
    "site": "站点编码",
    "device": "设备编码",
    "indicator": "指标编码",
    "organisation": "运营单位",
    "interval_s": "采集间隔(秒)",
}
_NOUN_COLUMN = {"noun", "kind", "类型", "类别"}
_IGNORED = {"序号", "备注", "说明", "no", "no.", "remark", "remarks", "note", "notes", "comment"}
_BRACKETS = re.compile(r"[(\[]([^()\[\]]{0,40})[)\]]$")  # after NFKC, which makes full-width ones of these
_SECONDS = {"s", "秒", "sec", "second", "seconds"}
_WGS_84 = {"", "°", "deg", "度", "wgs84", "wgs_84", "cgcs2000"}

# A file of one noun is told by its columns: the first noun all of whose telling fields are there.
_TELLING: tuple[tuple[Noun, frozenset[str]], ...] = (
    ("points", frozenset({"device", "code", "indicator"})),
    ("devices", frozenset({"code", "site"})),
    ("sites", frozenset({"code", "lon", "lat"})),
    ("sites", frozenset({"code", "sector", "county"})),
    ("indicators", frozenset({"code", "sector"})),
    ("organisations", frozenset({"code", "name"})),
)

IGNORED = ""
"""Stands for a column that is read by people only, such as 备注."""


def noun_of(name: object) -> Noun | None:
    """The noun a sheet name or a cell of the noun column means."""
    text = _plain(name)
    return next((noun for noun in NOUNS if text == noun or text in NOUN_NAMES[noun]), None)


def is_noun_column(heading: object) -> bool:
    return _plain(heading) in _NOUN_COLUMN


def is_code(heading: object) -> bool:
    """Whether a heading is a row's own code, whatever its noun."""
    return any(field_of(heading, noun) == "code" for noun in NOUNS)


def is_remark(heading: object) -> bool:
    """Whether a heading is for people only, such as 备注."""
    return _plain(heading) in _IGNORED


def fields_known(noun: Noun) -> tuple[str, ...]:
    """The fields of ``noun`` by our own names."""
    return tuple(ROWS[noun].model_fields)


def field_of(heading: object, noun: Noun) -> str | None:
    """The field of ``noun`` that a heading means, :data:`IGNORED`, or None where it means nothing."""
    text = _plain(heading)
    if not text or text in _IGNORED or text in _NOUN_COLUMN:
        return IGNORED
    names = _field_names(noun)
    if text in names:
        return names[text]
    bracket = _BRACKETS.search(text)
    field = names.get(text[: bracket.start()].strip("_* ")) if bracket else None
    if bracket and (
        (field == "interval_s" and bracket[1] not in _SECONDS)
        or (field in ("lon", "lat") and bracket[1] not in _WGS_84)
    ):
        return None  # minutes, or GCJ-02: to take them for ours would be wrong silently
    return field


def title(field: str, noun: Noun) -> str:
    """The Chinese heading for a field, as our own workbooks write it."""
    if field == "code":
        return _OWN_CODE[noun][0]
    if field in ("name", "name_zh"):
        return _OWN_NAME[noun][0]
    return _TITLES.get(field) or _FIELDS[field][0]


def recognise(headings: Sequence[object]) -> Noun | None:
    """The noun whose table these are the headings of, by its telling columns."""
    for noun, telling in _TELLING:
        fields = [field_of(heading, noun) for heading in headings]
        known = {"name" if field == "name_zh" else field for field in fields}
        if telling <= known and None not in fields:
            return noun
    for noun, telling in _TELLING:  # one heading misspelt: still better to name it than to know nothing
        if telling <= {field_of(heading, noun) for heading in headings}:
            return noun
    return None


def columns(headings: Sequence[object], noun: Noun, line: int, sheet: str | None) -> tuple[list[str], list[Problem]]:
    """The field of each column; the problems are headings that mean nothing or repeat, which are :data:`IGNORED`."""
    fields: list[str] = []
    problems: list[Problem] = []
    for heading in headings:
        field = field_of(heading, noun)
        if field is None:
            known = ", ".join(ROWS[noun].model_fields)
            problems.append(_problem(f"the heading {shown(heading)} is no field of {noun}; known are {known}"))
        elif field and field in fields:
            problems.append(_problem(f"the heading {shown(heading)} is a second column for {field}"))
            field = IGNORED
        fields.append(field or IGNORED)
    return fields, [Problem(problem.reason, noun, None, line, sheet) for problem in problems]


def fields_of(cells: Mapping[str, Any], noun: Noun) -> dict[str, Any]:
    """A row's fields from its cells: an indicator's ``name_zh``, ``name_en``, ``name_bo`` become its ``name``."""
    fields = dict(cells)
    if noun == "indicators":
        parts = {language: fields.pop(f"name_{language}", None) for language in ("zh", "en", "bo")}
        names = {language: name for language, name in parts.items() if name is not None}
        if names:
            fields["name"] = names
    return fields


def _problem(reason: str) -> Problem:
    return Problem(reason)


def _field_names(noun: Noun) -> dict[str, str]:
    """Heading: field, for one noun; what names the noun itself wins over what refers to another."""
    if noun not in _NAMES:
        taken = set(ROWS[noun].model_fields)
        if noun == "indicators":
            taken = (taken - {"name"}) | {"name_zh", "name_en", "name_bo"}
        names = {alias: field for field, aliases in _FIELDS.items() if field in taken for alias in (field, *aliases)}
        names |= dict.fromkeys(_OWN_CODE[noun], "code")
        names |= dict.fromkeys(_OWN_NAME[noun], "name_zh" if noun == "indicators" else "name")
        if noun == "indicators":
            names["name"] = "name_zh"
        _NAMES[noun] = names
    return _NAMES[noun]


_NAMES: dict[Noun, dict[str, str]] = {}


def _plain(heading: object) -> str:
    """Heading or name without what people add: stars for "required", spaces, capitals, full-width letters."""
    if not isinstance(heading, str):
        return ""
    text = unicodedata.normalize("NFKC", heading[:200]).casefold().strip().strip("*＊ ")
    return re.sub(r"[\s/、-]+", "_" if text.isascii() else "", text)
