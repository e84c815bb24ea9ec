"""Registry files of every form: the same document from each, what Excel does to them, and hostile ones."""

from __future__ import annotations

import io
import json
import time
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lifeline.registry import Document, Noun, RegistryRefusedError, from_mapping
from lifeline.registry.check import check
from lifeline.registry.export import write_file, write_template
from lifeline.registry.files import read_bytes, read_file
from lifeline.registry.rows import PointRow, SiteRow

SITES_CSV = (
    "站点编码,站点名称,行业*,所属区县,经度(°),纬度（WGS84）,备注\r\n"
    "GH-01,恰卜恰水厂,供水,共和县,100.62,36.284,\r\n"
    "\r\n"
    'GD-01,"贵德,河阴",gas,632523,101.43,36.04,新\r\n'
)


CODES = "1 to 64 of the letters A-Z a-z, digits, '.', '_' and '-'"


def read(text: str | bytes, ending: str = ".csv", noun: Noun | None = None) -> Document:
    return read_bytes(text.encode() if isinstance(text, str) else text, ending, noun)[0]


def refused(text: str | bytes, ending: str = ".csv", noun: Noun | None = None) -> list[str]:
    """Every problem, whether of the file's form or of its rows; at least one."""
    try:
        problems = check(read(text, ending, noun))[1]
    except RegistryRefusedError as error:
        problems = error.problems
    assert problems
    return [str(problem) for problem in problems]


def row_problems(document: Document) -> list[str]:
    return [str(problem) for problem in check(document)[1]]


def workbook(sheets: dict[str, list[list[Any]]]) -> bytes:
    book = openpyxl.Workbook()
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.remove(book.worksheets[0])
    output = io.BytesIO()
    book.save(output)
    return output.getvalue()


# --- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_a_csv_with_chinese_headings(encoding: str) -> None:
    checked, problems = check(read(SITES_CSV.encode(encoding)))
    assert problems == []
    assert [item.place.line for item in checked["sites"]] == [2, 4]
    assert checked["sites"][1].row == SiteRow.model_validate(
        {"code": "GD-01", "name": "贵德,河阴", "sector": "gas", "county": "632523", "lon": 101.43, "lat": 36.04}
    )
    first = checked["sites"][0].row
    assert isinstance(first, SiteRow)
    assert (first.sector, first.county) == ("water_supply", "632521")


@pytest.mark.parametrize(
    ("header", "noun"),
    [
        ("device,code,indicator", "points"),
        ("设备编码;测点编码;指标编码;单位", "points"),
        ("code\tsite\tname", "devices"),
        ("设备编码,站点编码,型号", "devices"),
        ("code,name,sector,county,lon,lat", "sites"),
        ("code,name_zh,name_en,sector,unit", "indicators"),
        ("指标编码,指标名称,英文名称,行业,计量单位", "indicators"),
        ("code,name", "organisations"),
        ("单位编码,单位名称,区县", "organisations"),
    ],
)
def test_the_headings_tell_the_noun(header: str, noun: str) -> None:
    assert list(read(header + "\n")) == [noun]


def test_one_file_of_several_nouns() -> None:
    document = read(
        "类型,code,name,site,sector,county,lon,lat,device,indicator\n"
        "站点,S,场站,,供水,632521,100.6,36.2,,\n"
        "设备,d,,S,,,,,,\n"
        "point,p,,,,,,,d,water_supply.pressure\n"
        "设备,e,,S,供水,,,,,\n"
    )
    assert {noun: len(rows) for noun, rows in document.items()} == {"sites": 1, "devices": 2, "points": 1}
    assert row_problems(document) == [
        "devices #2 (e), line 5: sector: is no field of devices; known are code, site, name, model"
    ]


def test_an_empty_cell_clears_and_a_missing_column_says_nothing() -> None:
    checked, _ = check(read("device,code,indicator,unit\nd,p,i,\n"))
    assert checked["points"][0].row.model_fields_set == {"device", "code", "indicator", "unit"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("code,site,nmae\nd,s,x\n", "line 1: the heading 'nmae' is no field of devices"),
        ("code,site,code\nd,s,x\n", "line 1: the heading 'code' is a second column for code"),
        ("code,site\nd,s\ne,s,1\n", "line 3: '1' stands beyond the last heading"),
        ('code,site\nd,s\n"e,s\nf', "line 3: this is no readable CSV"),
        ("what,ever\n1,2\n", "the headings tell neither"),
        ("", "the headings tell neither"),
        ("类型,code\n站,x\n", "line 2: noun: '站' is none of"),
        ("站点编码,站点名称,行业,区县,经度(GCJ-02),纬度(GCJ-02)\n", "'经度(GCJ-02)' is no field"),
        ("设备编码,测点编码,指标编码,采集间隔(分钟)\n", "'采集间隔(分钟)' is no field"),
    ],
)
def test_a_csv_that_is_refused(text: str, said: str) -> None:
    assert any(said in problem for problem in refused(text))


def test_a_record_over_several_lines_is_named_by_its_first() -> None:
    document = read('code,site,name\nd,s,"two\nlines"\ne,s,"x\ny"\n')
    assert [row.line for row in document["devices"]] == [2, 4]


def test_a_formula_guard_is_taken_off() -> None:
    document = read("device,code,indicator,source_name\nd,p,i,'=SUM(A1)\n")
    assert document["points"][0].fields["source_name"] == "=SUM(A1)"


# --- XLSX ------------------------------------------------------------------------------------------------------------


def test_a_workbook_with_chinese_sheets_title_rows_and_numbers_for_codes() -> None:
    content = workbook(
        {
            "说明": [["请按表填写"]],
            "站点": [
                ["海南州监测站点表"],
                [],
                ["编码", "名称", "行业", "区县", "经度", "纬度"],
                [632521.0, "恰卜恰水厂", "供水", 632521, 100.62, "36.284"],
            ],
            "Sheet9": [["设备编码", "站点编码"], ["d1", 632521]],
            "Sheet3": [],
        }
    )
    document, warnings = read_bytes(content, ".xlsx")
    checked, problems = check(document)
    assert problems == []
    site = checked["sites"][0]
    assert isinstance(site.row, SiteRow)
    assert (site.row.code, site.row.county, site.place.line, site.place.sheet) == ("632521", "632521", 4, "站点")
    assert [str(warning) for warning in warnings] == [
        "sheet 说明: was not read: neither its name nor its headings tell what it holds"
    ]


def test_problems_of_a_workbook_name_sheet_and_row() -> None:
    rows: list[list[Any]] = [
        ["device", "code", "indicator", "valid_min"],
        ["d", "p", "i", 1],
        ["d", date(2026, 1, 2), "i", "#N/A"],
    ]
    where = "points #2 (d/date 2026-01-02 00:00:00), sheet 测点 row 3"
    assert row_problems(read(workbook({"测点": rows}), ".xlsx")) == [
        f"{where}: code: 'date 2026-01-02 00:00:00' is no code: {CODES}",
        f"{where}: valid_min: '#N/A' is no number",
    ]


def test_formulas_are_not_run() -> None:
    content = workbook({"devices": [["code", "site"], ["d", "=1+1"]]})
    assert row_problems(read(content, ".xlsx")) == ["devices #1 (d), sheet devices row 2: site: is missing"]


def repacked(content: bytes, part: str, change: tuple[bytes, bytes]) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(*change) if name == part else data)
    return output.getvalue()


def test_hostile_workbooks() -> None:
    content = workbook({"devices": [["code", "site"], ["d", "s"]]})
    sheet = "xl/worksheets/sheet1.xml"
    entities = repacked(
        content, sheet, (b"<worksheet", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><worksheet')
    )
    assert "declares a document type" in refused(entities, ".xlsx")[0]
    bomb = repacked(content, sheet, (b"<worksheet", b" " * (450 << 20) + b"<worksheet"))
    assert len(bomb) < 1 << 20
    assert "unpacks to more than" in refused(bomb, ".xlsx")[0]
    far = repacked(content, sheet, (b'<row r="2"', b'<row r="999999999999"'))
    started = time.perf_counter()
    assert "more than 1,048,576 rows" in refused(far, ".xlsx")[0]
    lying = repacked(content, sheet, (b'<dimension ref="A1:B2"', b'<dimension ref="A1:XFD1048576"'))
    assert len(read(lying, ".xlsx")["devices"]) == 1
    assert time.perf_counter() - started < 20
    for damaged in (b"", b"PK", content[:1000], content.replace(b"xl/", b"yl/"), b"\xd0\xcf\x11\xe0 an old .xls"):
        assert (
            "no XLSX workbook" in refused(damaged, ".xlsx")[0] or "no readable workbook" in refused(damaged, ".xlsx")[0]
        )


# --- YAML and JSON ---------------------------------------------------------------------------------------------------

YAML = """\
# 站点
sites:
  - {code: 010, name: on, sector: gas, county: 632521, lon: 100.6, lat: 36.2}
  - code: S2
    name: 贵德
    address: ~
devices:
"""


def test_yaml_keeps_what_is_written_and_knows_its_lines() -> None:
    document = read(YAML, ".yaml")
    rows = document["sites"]
    assert (rows[0].fields["code"], rows[0].fields["name"], rows[0].line) == ("010", "on", 3)
    assert (rows[1].fields["address"], rows[1].line) == (None, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nsites: [*a, *a]\n", "line 1: anchors and aliases"),
        ("sites: [*a]", "line 1: anchors and aliases"),
        ("sites:\n - code: a\n   code: b\n", "sites #1 (b), line 2: 'code' is written twice, again in line 3"),
        ("sites: " + "[" * 100_000, "nested deeper than"),
        ("sites: {}", "expected a list"),
        ("stes: []", "'stes' is no part of a registry document"),
        ("- a", "expected lists of"),
        ("sites:\n - a: 'x\n", "this is no YAML"),
        ("sites: []\n---\nsites: []", "line 2: holds several documents"),
        ("sites: [1]", "sites #1: expected an object with fields, found '1'"),
        ("? [a]\n: b", "a field's name must be plain text"),
        ("\x00", "this is no YAML"),
    ],
)
def test_a_yaml_that_is_refused(text: str, said: str) -> None:
    assert any(said in problem for problem in refused(text, ".yaml"))


def test_yaml_tags_make_nothing() -> None:
    document = read("sites: [!!python/object/apply:os.system {code: !!python/name:os.system ''}]", ".yaml")
    assert document["sites"][0].fields == {"code": ""}


def test_json_knows_its_lines() -> None:
    document = read('{\n "sites": [\n  {"code": "a"},\n\n  {"code":\n "b"}],\n "devices": []\n}', ".json")
    assert [row.line for row in document["sites"]] == [3, 5]
    assert document["devices"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"sites": [\n{"lon": NaN}]}', "sites #1, line 2: lon: 'nan' is no finite number"),
        ('{"sites": [\n{"lon": 1}\n{"lon": 1}]}', "line 3: this is no JSON: expected ']'"),
        ('{"sites": [{"code": 1, "code": 2}]}', "'code' is written twice"),
        ('{"sites": [], "sites": []}', "'sites' is a second list of sites"),
        ('{"sites": []} x', "something stands after the end"),
        ('{"sites": 1}', "sites line 1: expected a list, found '1'"),
        ('{"stes": []}', "'stes' is no part of a registry document"),
        ("[]", "expected an object with lists of"),
        ("", "this is no JSON"),
        ('{"sites": [' + "[" * 100_000, "nested too deep"),
        ('{"sites": [{"lon": ' + "9" * 5000 + "}]}", "sites #1, line 1: lon: 'inf' is no finite number"),
        ('{"sites": [1, "a"]}', "sites #1, line 1: expected an object with fields, found '1'"),
    ],
)
def test_a_json_that_is_refused(text: str, said: str) -> None:
    assert any(said in problem for problem in refused(text, ".json"))


def test_a_list_alone_needs_its_noun() -> None:
    assert len(read('[{"code": "a"}]', ".json", "sites")["sites"]) == 1
    assert len(read("- code: a\n", ".yml", "sites")["sites"]) == 1


# --- rows ------------------------------------------------------------------------------------------------------------

POINT = {"device": "d", "code": "p", "indicator": "i"}


@pytest.mark.parametrize(
    ("noun", "fields", "said"),
    [
        ("points", {"code": "p", "indicator": "i"}, "device: is missing"),
        ("points", POINT | {"device": None}, "device: is missing"),
        ("points", POINT | {"code": "泵1"}, "'泵1' is no code"),
        ("points", POINT | {"code": "a\n"}, None),
        ("points", POINT | {"code": "x" * 65}, "is no code"),
        ("points", POINT | {"code": True}, "'True' is no text"),
        ("points", POINT | {"valid_min": float("nan")}, "'nan' is no finite number"),
        ("points", POINT | {"valid_min": "Infinity"}, "'Infinity' is no number"),
        ("points", POINT | {"valid_min": 10**400}, "digits is no finite number"),
        ("points", POINT | {"valid_min": "1e999"}, "is no finite number"),
        ("points", POINT | {"valid_min": "１２．５"}, None),
        ("points", POINT | {"valid_min": True}, "'True' is no number"),
        ("points", POINT | {"interval_s": 0}, "0 is no interval"),
        ("points", POINT | {"unit": "frob"}, "'frob' is no known unit"),
        ("points", POINT | {"valid_min": 2, "valid_max": 1}, "valid_min 2 is above valid_max 1"),
        ("points", POINT | {"name": "a\x00b"}, "U+0000"),
        ("points", POINT | {"name": "\ud800"}, "U+D800"),
        ("points", POINT | {"name": "x" * 201}, "has 201 characters"),
        ("points", POINT | {"\ud800": 1}, "is no field of points"),
        ("sites", {"code": "s", "name": "n", "sector": "水"}, "'水' is no sector"),
        ("sites", {"code": "s", "county": "青海"}, "'青海' is no county"),
        ("sites", {"code": "s", "lat": 91, "lon": 181}, "181 is no longitude"),
        ("indicators", {"code": "i", "name": {"zh": "名"}, "sector": "gas"}, "the name in en is missing"),
        ("indicators", {"code": "i", "name": {"zh": "名", "en": "n", "fr": "n"}}, "'fr' is no language of ours"),
        ("indicators", {"code": "i", "name": "x", "sector": "gas"}, "'x' is no set of names"),
    ],
)
def test_a_bad_field_is_named_with_its_reason(noun: Noun, fields: dict[str, Any], said: str | None) -> None:
    problems = row_problems(from_mapping({noun: [fields]}))
    if said is None:
        assert problems == []
    else:
        assert any(said in problem for problem in problems), problems


def test_units_are_kept_in_ucum() -> None:
    assert PointRow.model_validate(POINT | {"unit": "m³/h"}).unit == "m3/h"


def test_codes_written_twice_name_the_first() -> None:
    document = read("device,code,indicator\nd,p,i\ne,p,i\nd,p,j\n")
    assert row_problems(document) == ["points #3 (d/p), line 4: code: 'd/p' is already written at #1, line 2"]


# --- any input at all ------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["d", "MPa", "供水"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
field_names = st.sampled_from(
    ["code", "编码", "名称", "备注", "name", "sector", "county", "lon", "lat", "site", "device", "indicator", "unit"]
)
nouns = st.sampled_from(["sites", "devices", "points", "indicators", "organisations"])
documents = st.dictionaries(
    nouns | st.sampled_from(["站点", "测点"]) | st.text(max_size=3),
    st.lists(st.dictionaries(field_names | st.text(max_size=3), values, max_size=5) | values, max_size=3) | values,
    max_size=3,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def survives(content: bytes, ending: str, noun: Noun | None = None) -> None:
    """Read and check: nothing but the named refusal may come out, and every problem must be printable."""
    try:
        document, _ = read_bytes(content, ending, noun)
        problems = check(document)[1]
    except RegistryRefusedError as error:
        problems = error.problems
        assert problems
    for problem in problems:
        str(problem).encode()
        json.dumps(problem.as_dict())


@quick
@given(documents)
def test_any_document_as_json_and_yaml(document: dict[str, Any]) -> None:
    survives(json.dumps(document).encode(), ".json")
    survives(json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"), ".json")
    survives(json.dumps(document).encode(), ".yaml")


@quick
@given(
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([".csv", ".yaml", ".json", ".xlsx", ".doc"]),
    st.none() | nouns,
)
@example(b"\xff\xfe\x00", ".csv", None)
@example(b"%YAML 9.9\n---\n", ".yaml", None)
@example(b"\xef\xbb\xbf", ".json", None)
def test_any_bytes(content: bytes, ending: str, noun: Noun | None) -> None:
    survives(content, ending, noun)


@quick
@given(st.lists(st.lists(st.text(max_size=8) | field_names, max_size=5), max_size=5), st.none() | nouns)
def test_any_table_as_csv(rows: list[list[str]], noun: Noun | None) -> None:
    survives("\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass"), ".csv", noun)


# Made once: a workbook holds the time it was made, and its length varies with that.
POINTS_XLSX = workbook({"测点": [["device", "code", "indicator"], ["d", "p", "i"]]})


@settings(quick, max_examples=50)
@given(st.data())
def test_a_damaged_workbook(data: st.DataObject) -> None:
    content = bytearray(POINTS_XLSX)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(content), ".xlsx")


@settings(quick, max_examples=60)
@given(st.binary(max_size=200))
def test_a_damaged_sheet(junk: bytes) -> None:
    content = workbook({"测点": [["device", "code", "indicator"], ["d", "p", "i"]]})
    survives(repacked(content, "xl/worksheets/sheet1.xml", (b'<row r="2">', b'<row r="2">' + junk)), ".xlsx")
    survives(repacked(content, "xl/workbook.xml", (b"<sheets>", b"<sheets>" + junk)), ".xlsx")


# --- out again -------------------------------------------------------------------------------------------------------

INDICATOR = {"code": "gas.x", "name": {"zh": "名", "en": "n"}, "sector": "gas", "unit": "kPa", "interval_s": 60.0}
SITE = {"code": "001", "name": "@n", "sector": "gas", "county": "632521", "lon": 100.62, "lat": 36.284}
STORED: dict[Noun, list[dict[str, Any]]] = {
    "organisations": [{"code": "o", "name": "=cmd|' /C calc'!A0", "county": None}],
    "indicators": [INDICATOR | {"valid_min": 0.0, "valid_max": None, "basis": "somewhere"}],
    "sites": [SITE | {"address": "a, b", "organisation": "o"}],
    "devices": [{"code": "d", "site": "001", "name": None, "model": "-1"}],
    "points": [
        {"device": "d", "code": "p", "indicator": "gas.x", "source_name": "+x", "name": "压力", "unit": None}
        | {"interval_s": None, "valid_min": -1.5, "valid_max": 1e300}
    ],
}


@pytest.mark.parametrize("ending", [".json", ".yaml", ".xlsx", ".csv"])
def test_what_is_exported_is_read_back_the_same(ending: str, tmp_path: Path) -> None:
    expected, problems = check(read(json.dumps(STORED), ".json"))
    assert problems == []
    parts = [{noun: rows} for noun, rows in STORED.items()] if ending == ".csv" else [STORED]
    for part in parts:
        write_file(tmp_path / f"registry{ending}", part)
        document, warnings = read_file(tmp_path / f"registry{ending}")
        checked, problems = check(document)
        assert (problems, warnings) == ([], [])
        for noun in part:
            assert [item.row for item in checked[noun]] == [item.row for item in expected[noun]]


def test_the_template_is_right_by_itself(tmp_path: Path) -> None:
    write_template(tmp_path / "template.xlsx")
    document, _ = read_file(tmp_path / "template.xlsx")
    assert row_problems(document) == []
    assert set(document) == {"organisations", "sites", "devices", "points"}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryRefusedError, match="cannot be read: No such file"):
        read_file(tmp_path / "none.csv")


def test_libyaml_is_there() -> None:
    """Without it a large YAML file takes ten times as long."""
    assert hasattr(yaml, "CBaseLoader")
