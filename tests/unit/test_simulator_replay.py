"""Replay: what a CSV and its mapping become, row by row, and what is told of cells that cannot be read."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import yaml

from services.simulator.mapping import MappingError, load_mapping
from services.simulator.publish import Message
from services.simulator.replay import ReplayError, Report, Source, Window, replay

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "services" / "simulator" / "mappings").glob("*.yaml")) + sorted(
    (ROOT / "tests" / "data").glob("*.mapping.yaml")
)
MAPPING = """
county: "632523"
time: {column: when, format: "%d/%m/%y %H", timezone: Asia/Shanghai}
sites: [{code: s, name: 站, sector: heating, lon: 101.4, lat: 36.0, county: "632521"}]
devices: {d2: {site: s}}
columns:
  t: {device: d1, point: temperature, indicator: heating.supply_temperature, scale: 2, offset: 1}
  "on": {device: d2, point: running, indicator: drainage.pump_running, boolean: true}
"""


class Outlet:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    def put(self, message: Message, stop: threading.Event) -> bool:
        self.messages.append(message)
        return not stop.is_set()

    def rows(self) -> list[tuple[str, str, int, object]]:
        return [
            (message.topic, row["point"], row["time"], row["value"])
            for message in self.messages
            for row in json.loads(message.payload)["readings"]
        ]


def play(
    tmp_path: Path, text: str, mapping: str = MAPPING, *, encoding: str = "utf-8", **window: object
) -> tuple[Outlet, Report]:
    file, explained = tmp_path / "data.csv", tmp_path / "mapping.yaml"
    file.write_text(text, encoding=encoding)
    explained.write_text(mapping, encoding="utf-8")
    outlet, report = Outlet(), Report()
    source = Source(file, load_mapping(explained), Window(**window))  # type: ignore[arg-type]
    replay(source, outlet, report, threading.Event())
    return outlet, report


JULY_4 = 1_467_561_600_000
"""2016-07-04T00:00+08:00."""


def test_rows_go_out_in_the_files_own_order_as_the_points_of_the_mapping(tmp_path: Path) -> None:
    outlet, report = play(tmp_path, "when,t,on\n04/07/16 01,20.5,1\n04/07/16 00,-3,0\n")
    assert outlet.rows() == [
        ("lifeline/v1/632523/d1/readings", "temperature", JULY_4 + 3_600_000, 42.0),
        ("lifeline/v1/632523/d1/readings", "temperature", JULY_4, -5.0),
        ("lifeline/v1/632521/d2/readings", "running", JULY_4 + 3_600_000, True),
        ("lifeline/v1/632521/d2/readings", "running", JULY_4, False),
    ]
    assert (report.rows, report.readings, report.messages) == (2, 4, 2)


def test_cells_missing_or_unreadable_are_skipped_and_told_by_line(tmp_path: Path) -> None:
    text = "when,t,on\n04/07/16 00,,1\n04/07/16 01,n/a,maybe\nyesterday,1,1\n\n04/07/16 02,inf,1\n04/07/16 03\n"
    outlet, report = play(tmp_path, text)
    assert [row[1] for row in outlet.rows()] == ["running", "running"]
    assert (report.rows, report.missing_cells, report.unreadable_cells, report.unreadable_rows) == (4, 3, 3, 1)
    assert report.faults == [
        "line 3: t 'n/a' is no number",
        "line 3: on 'maybe' is no boolean",
        "line 4: when 'yesterday' is no time as %d/%m/%y %H",
        "line 6: t 'inf' is no number",
    ]


def test_rows_can_be_sorted_chosen_and_batched(tmp_path: Path) -> None:
    text = "when,t,on\n" + "".join(f"04/07/16 {hour:02},{hour},1\n" for hour in reversed(range(24)))
    hour = 3_600_000
    outlet, report = play(tmp_path, text, sort=True, begin_ms=JULY_4 + 2 * hour, end_ms=JULY_4 + 9 * hour, batch_rows=3)
    times = [time_ms for topic, _, time_ms, _ in outlet.rows() if "d1" in topic]
    assert times == [JULY_4 + hour * number for number in range(2, 9)]
    assert (report.rows, report.rows_outside, report.messages) == (7, 17, 6)


def test_semicolons_decimal_commas_and_chinese_encodings(tmp_path: Path) -> None:
    mapping = (ROOT / "services/simulator/mappings/semicolons.yaml").read_text(encoding="utf-8")
    text = "时间;压力;流量\n2020-03-09T10:14:33+08:00;0,352;-12,5\n2020-03-09 10:15:33;无;3\n"
    outlet, report = play(tmp_path, text, mapping, encoding="gb18030")
    first = 1_583_720_073_000
    assert [row[1:] for row in outlet.rows()] == [
        ("pressure", first, 0.352),
        ("flow", first, -12.5),
        ("flow", first + 60_000, 3.0),
    ]
    assert report.missing_cells == 1


@pytest.mark.parametrize(("form", "cell"), [("epoch_s", "1467561600.5"), ("epoch_ms", "1467561600500")])
def test_times_in_epochs(tmp_path: Path, form: str, cell: str) -> None:
    outlet, _ = play(tmp_path, f"when,t,on\n{cell},1,1\n", MAPPING.replace("%d/%m/%y %H", form))
    assert outlet.rows()[0][2] == JULY_4 + 500


def test_a_factor_paces_the_rows(tmp_path: Path) -> None:
    begin = time.monotonic()
    outlet, _ = play(tmp_path, "when,t,on\n04/07/16 00,1,1\n04/07/16 02,1,1\n04/07/16 01,1,1\n", speed=36_000.0)
    assert 0.28 < time.monotonic() - begin < 2, "two hours up and one down, at ten hours a second"
    assert len(outlet.messages) == 6


def test_a_column_the_file_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match=r"lacks 'on'.*it has when, t"):
        play(tmp_path, "when,t\n04/07/16 00,1\n")
    with pytest.raises(ReplayError, match="empty"):
        play(tmp_path, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('county: "632523"', "county: Guide"), "county"),
        (("Asia/Shanghai", "Asia/Qiabuqia"), "time.timezone"),
        (("point: running", "pointe: running"), "columns.on"),
        (
            ("device: d2, point: running", "device: d1, point: temperature"),
            "columns 't' and 'on' are both d1/temperature",
        ),
        (("{site: s}", "{site: x}"), "devices.d2.site: 'x' is none of sites"),
        (("column: when", "column: t"), "column 't' is the time and a point"),
        (("columns:", "columns: ["), "cannot be read"),
        (('"on":', "on:"), "columns: Value error, put the names read as True in quotes"),
    ],
)
def test_a_mapping_that_cannot_be_used_names_the_field(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(MAPPING.replace(*change), encoding="utf-8")
    with pytest.raises(MappingError) as caught:
        load_mapping(path)
    assert said in str(caught.value)


def test_the_registry_document_of_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(MAPPING, encoding="utf-8")
    document = load_mapping(path).document()
    assert [site["county"] for site in document["sites"]] == ["632521"]
    assert {(one["code"], one["site"]) for one in document["devices"]} == {("d1", "s"), ("d2", "s")}
    path.write_text(MAPPING.replace("drainage.pump_running", "pump"), encoding="utf-8")
    with pytest.raises(MappingError, match=r"columns\.on\.indicator: 'pump' is not in the catalogue"):
        load_mapping(path).document()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_hold(path: Path) -> None:
    document = load_mapping(path).document()
    assert document["points"]
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["sites"]
