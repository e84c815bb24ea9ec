"""The registry as a file that :mod:`lifeline.registry.files` reads back unchanged; and an empty workbook to fill in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import dict_row

from lifeline.registry import headings
from lifeline.registry.document import NOUNS, Noun
from lifeline.registry.rows import ROWS

Stored = dict[Noun, list[dict[str, Any]]]

_QUERIES: dict[Noun, str] = {
    "organisations": "SELECT code, name, county FROM organisation ORDER BY code",
    "indicators": (
        "SELECT code, name, sector, unit, valid_min, valid_max, interval_s, basis FROM indicator ORDER BY sector, code"
    ),
    "sites": "SELECT code, name, sector, county, lon, lat, address, organisation FROM site ORDER BY code",
    "devices": "SELECT d.code, s.code AS site, d.name, d.model FROM device d JOIN site s ON s.id = site_id ORDER BY 1",
    "points": (
        "SELECT d.code AS device, p.code, p.indicator, p.source_name, p.name, p.unit, p.interval_s, p.valid_min, "
        "p.valid_max FROM point p JOIN device d ON d.id = p.device_id ORDER BY 1, 2"
    ),
}
_EXAMPLES: dict[Noun, tuple[Any, ...]] = {
    "organisations": ("gonghe-water", "共和县自来水公司", "632521"),
    "sites": ("GH-01", "恰卜恰水厂", "供水", "共和县", 100.62, 36.284, None, "gonghe-water"),
    "devices": ("gh-01-plc", "GH-01", "出厂水测控柜", "S7-1200"),
    "points": ("gh-01-plc", "pressure", "water_supply.pressure", "AI1", "出厂压力", "MPa", 60, 0, 1.6),
}


class ExportError(Exception):
    """The file cannot be written so; the text says what to do."""


def read_registry(connection: psycopg.Connection[Any], nouns: Iterable[Noun] = NOUNS) -> Stored:
    """Every row of the given nouns, fields as an import takes them; None where nothing is set."""
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return {noun: cursor.execute(_QUERIES[noun]).fetchall() for noun in nouns}


def write_file(path: Path, stored: Stored) -> None:
    """Write ``stored`` in the form of the file's ending. Raises :class:`ExportError`, ``OSError``."""
    match path.suffix.lower():
        case ".json":
            path.write_text(json.dumps(stored, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        case ".yaml" | ".yml":
            path.write_text(yaml.safe_dump(stored, allow_unicode=True, sort_keys=False), encoding="utf-8")
        case ".csv":
            if len(stored) != 1:
                raise ExportError("a CSV file holds one noun: say which with --noun, or export to .xlsx")
            noun, rows = next(iter(stored.items()))
            path.write_bytes(_csv(noun, rows).encode("utf-8-sig"))  # Excel needs the mark to see UTF-8
        case ".xlsx":
            _workbook(path, {noun: [_cells(noun, row) for row in rows] for noun, rows in stored.items()})
        case ending:
            raise ExportError(f"'{ending}' is no ending of a registry file; use .csv, .xlsx, .yaml or .json")


def write_template(path: Path) -> None:
    """Write an empty workbook with every heading and one example row per sheet, to be overwritten."""
    if path.suffix.lower() != ".xlsx":
        raise ExportError("the template is a workbook: name it with .xlsx")
    _workbook(path, {noun: [dict(zip(ROWS[noun].model_fields, row, strict=True))] for noun, row in _EXAMPLES.items()})


def _columns(noun: Noun) -> list[str]:
    names = list(ROWS[noun].model_fields)
    if noun == "indicators":
        names[1:2] = ["name_zh", "name_en", "name_bo"]
    return names


def _cells(noun: Noun, row: dict[str, Any]) -> dict[str, Any]:
    if noun != "indicators":
        return row
    names = row["name"]
    return {**row, **{f"name_{language}": names.get(language) for language in ("zh", "en", "bo")}}


def _csv(noun: Noun, rows: list[dict[str, Any]]) -> str:
    output = io.StringIO(newline="")
    writer = csv.DictWriter(output, _columns(noun), extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _inert(value) for name, value in _cells(noun, row).items()})
    return output.getvalue()


def _inert(value: object) -> object:
    """Text a spreadsheet would run as a formula, with the apostrophe that stops it; the reader takes it off again."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _workbook(path: Path, tables: dict[Noun, list[dict[str, Any]]]) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font

    book = Workbook(write_only=True)
    for noun, rows in tables.items():
        sheet = book.create_sheet(headings.NOUN_NAMES[noun][0])
        sheet.freeze_panes = "A2"
        names = _columns(noun)
        titles = []
        for name in names:
            title = WriteOnlyCell(sheet, headings.title(name, noun))
            title.font = Font(bold=True)
            titles.append(title)
        sheet.append(titles)
        for row in rows:
            cells = []
            for name in names:
                cell = WriteOnlyCell(sheet, row.get(name))
                if isinstance(row.get(name), str):
                    cell.data_type = "s"  # never a formula, whatever it begins with
                cells.append(cell)
            sheet.append(cells)
    book.save(path)
