"""Registry documents read in one pass: every problem told, every row named; and documents in Chinese."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lifeline.registry import Document, RegistryRefusedError, from_mapping
from lifeline.registry.check import check
from lifeline.registry.files import read_bytes

CODES = "1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'"


def read(text: str, ending: str = ".csv") -> Document:
    return read_bytes(text.encode(), ending)[0]


def refused(text: str, ending: str = ".csv") -> list[str]:
    """Every problem, whether of the file's form or of its rows; at least one."""
    try:
        problems = check(read(text, ending))[1]
    except RegistryRefusedError as error:
        problems = error.problems
    assert problems
    return [str(problem) for problem in problems]


def row_problems(document: Document) -> list[str]:
    return [str(problem) for problem in check(document)[1]]


# --- one pass, every row named ---------------------------------------------------------------------------------------


def test_a_malformed_element_hides_nothing() -> None:
    """In one line of JSON, where no line number helps, each problem still names its row."""
    points = [
        17,
        {"device": "d", "code": "a b", "indicator": "i"},
        {"device": "d", "indicator": "i"},
        {"device": "d", "code": "p", "indicator": "i", "source_name": "AI1"},
        {"device": "d", "code": "q", "indicator": "i", "source_name": " AI1"},
        {"device": "d", "code": "p", "indicator": "i"},
        {"device": "d", "code": "r", "indicator": "i", "unit": "frob", "source_name": "AI1"},
        None,
    ]
    devices = [{"code": "alarms", "site": "s"}, {"site": "s"}]
    written: dict[str, Any] = {"points": points, "stes": [{"code": "s"}], "devices": devices, "sites": 5}
    text = json.dumps(written)
    found = refused(text, ".json")
    said = [
        "line 1: 'stes' is no part of a registry document",
        "sites line 1: expected a list, found '5'",
        "devices #1 (alarms), line 1: code: 'alarms' is reserved: lifeline/v1/{county}/alarms/ is where Lifeline",
        "devices #2, line 1: code: is missing",
        "points #1, line 1: expected an object with fields, found '17'",
        f"points #2 (d/a b), line 1: code: 'a b' is no code: {CODES}",
        "points #3 (d/?), line 1: code: is missing",
        "points #7 (d/r), line 1: unit: 'frob' is no known unit",
        "points #8, line 1: expected an object with fields, found 'None'",
        "points #6 (d/p), line 1: code: 'd/p' is already written at #4, line 1",
        "points #5 (d/q), line 1: source_name: 'AI1' names point 'p' of this device already, at #4, line 1",
        "points #7 (d/r), line 1: source_name: 'AI1' names point 'p' of this device already, at #4, line 1",
    ]
    assert len(found) == len(said), found
    for problem, beginning in zip(found, said, strict=True):
        assert problem.startswith(beginning)
    assert len(row_problems(from_mapping(written))) == len(said)
    assert (
        check(read(text, ".json"))[1][5].as_dict().items()
        >= {"noun": "points", "index": 2, "key": "d/a b", "line": 1}.items()
    )


def test_a_bad_heading_hides_no_bad_row() -> None:
    found = refused("device,code,indicator,unti,unit\nd,p,i,x,frob\nd,p,i,,,too much\n")
    assert [line.split(";")[0] for line in found] == [
        "points line 1: the heading 'unti' is no field of points",
        "points #1 (d/p), line 2: unit: 'frob' is no known unit",
        "points #2 (d/p), line 3: 'too much' stands beyond the last heading",
        "points #2 (d/p), line 3: code: 'd/p' is already written at #1, line 2",
    ]
    # The misspelt column is told once, not as a missing field of each row.
    assert len(refused("code,name,sector,county,lon,latt\n" + "s,n,gas,632521,100,36\n" * 1)) == 1
    found = refused('device,code,indicator\nd,a b,i\nd,"p,i\n')
    assert found[0].startswith("line 3: this is no readable CSV")
    assert found[1].startswith("points #1 (d/a b), line 2: code: ")


def test_a_repeated_field_is_told_with_its_row() -> None:
    assert refused('{"devices": [{"code": "d", "site": "s", "site": "t"}, {"code": "e", "编码": "f"}]}', ".json") == [
        "devices #1 (d), line 1: 'site' is written twice in one object",
        "devices #2 (e), line 1: '编码' is a second code",
        "devices #2 (e), line 1: site: is missing",
    ]


# --- Chinese names in documents --------------------------------------------------------------------------------------

CHINESE: dict[str, list[dict[str, Any]]] = {
    "单位": [{"单位编码": "o", "单位名称": "水司"}],
    "指标": [{"编码": "gas.x", "名称": {"中文": "名", "英文": "n"}, "行业": "燃气", "单位": "kPa"}],
    "站点": [{"编码": "s", "名称": "厂", "行业": "供水", "区县": "共和县", "经度": 100.6, "纬度": 36.2, "备注": "新"}],
    "设备": [{"编码": "d", "站点": "s", "型号": "S7"}],
    "测点": [{"设备编码": "d", "测点编码": "p", "指标": "gas.x", "采集间隔（秒）": 60, "单位": "兆帕"}],
}
ENGLISH: dict[str, list[dict[str, Any]]] = {
    "organisations": [{"code": "o", "name": "水司"}],
    "indicators": [{"code": "gas.x", "name": {"zh": "名", "en": "n"}, "sector": "gas", "unit": "kPa"}],
    "sites": [{"code": "s", "name": "厂", "sector": "water_supply", "county": "632521", "lon": 100.6, "lat": 36.2}],
    "devices": [{"code": "d", "site": "s", "model": "S7"}],
    "points": [{"device": "d", "code": "p", "indicator": "gas.x", "interval_s": 60, "unit": "MPa"}],
}


@pytest.mark.parametrize("form", ["json", "yaml", "body"])
def test_a_document_in_chinese(form: str) -> None:
    text = json.dumps(CHINESE, ensure_ascii=False)
    document = from_mapping(CHINESE) if form == "body" else read(text, f".{form}")
    checked, problems = check(document)
    assert problems == []
    expected, _ = check(from_mapping(ENGLISH))
    assert {noun: [item.row for item in rows] for noun, rows in checked.items()} == {
        noun: [item.row for item in rows] for noun, rows in expected.items()
    }


def test_a_flat_indicator_name_in_a_document() -> None:
    fields = {"编码": "gas.x", "指标名称": "名", "英文名": "n", "行业": "燃气"}
    assert check(from_mapping({"指标": [fields]}))[0]["indicators"][0].row.name == {"zh": "名", "en": "n"}  # type: ignore[attr-defined]


def test_minutes_are_not_taken_for_seconds_in_a_document_either() -> None:
    found = row_problems(from_mapping({"测点": [{"设备": "d", "编码": "p", "指标": "i", "采集间隔(分钟)": 5}]}))
    assert len(found) == 1
    assert "采集间隔(分钟): is no field of points" in found[0]
