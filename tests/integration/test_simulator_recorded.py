"""Replay of recorded files over a real broker: every cell arrives, as what the mapping says, in the file's order."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.simulator.mapping import load_mapping
from services.simulator.publish import Publisher, parse_broker
from services.simulator.replay import Report, Source, Window, replay
from tests.integration.recorded_files import MAPPINGS, need
from tests.integration.test_simulator_publish import listening
from tests.servers import ROOT, BrokerServer, run_cli, wait_for

RECORDED = {
    "ctown_attacks.csv": ("ctown.mapping.yaml", 4177, 4177 * 43),
    "heating_substation_L4.csv": ("heating_substation.mapping.yaml", 45461, 45461 * 6),
    "pump_rig_0.csv": ("pump_rig.mapping.yaml", 1147, 1147 * 6),
}


@pytest.mark.parametrize("name", RECORDED)
def test_every_cell_of_a_recorded_file_arrives_once(broker: BrokerServer, name: str) -> None:
    mapping_name, rows, cells = RECORDED[name]
    mapping = load_mapping(MAPPINGS / mapping_name)
    source, report = Source(need(name), mapping, Window(batch_rows=100)), Report()
    assert source.survey()[0] == rows
    topics = {f"lifeline/v1/{mapping.county}/{column.device}/readings" for column in mapping.columns.values()}
    publisher = Publisher(parse_broker(broker.url), "test-replay", backlog_bytes=1 << 20)
    with listening(broker.url, *topics) as heard:
        publisher.start()
        stop = threading.Event()
        replay(source, publisher, report, stop)
        assert publisher.flush(60)
        counts = publisher.counts()
        publisher.close(0.2)
        wait_for(lambda: len(heard) >= report.messages, 30, "the messages")
    assert (report.rows, report.readings, report.missing_cells, report.unreadable_cells) == (rows, cells, 0, 0)
    assert counts.acknowledged_readings == cells
    assert counts.dropped == 0
    readings = [
        (topic.split("/")[3], row["point"], row["time"], row["value"])
        for topic, payload in heard
        for row in json.loads(payload)["readings"]
    ]
    assert len(readings) == len({reading[:3] for reading in readings}) == cells


def test_newest_first_stays_newest_first_and_impossible_values_go_through(broker: BrokerServer) -> None:
    path = need("heating_substation_L4.csv")
    with path.open(encoding="utf-8") as file:
        recorded = [float(row["t_amb"]) for row in csv.DictReader(file)]
    mapping = load_mapping(MAPPINGS / "heating_substation.mapping.yaml")
    source, report = Source(path, mapping, Window(batch_rows=500)), Report()
    publisher = Publisher(parse_broker(broker.url), "test-order")
    with listening(broker.url, "lifeline/v1/632523/substation-L4/readings") as heard:
        publisher.start()
        replay(source, publisher, report, threading.Event())
        assert publisher.flush(60)
        publisher.close(0.2)
        wait_for(lambda: len(heard) >= report.messages, 30, "the messages")
    rows = [row for _, payload in heard for row in json.loads(payload)["readings"] if row["point"] == "t_amb"]
    assert [row["value"] for row in rows] == recorded
    assert -39.9 in recorded
    times = [row["time"] for row in rows]
    assert times == sorted(times, reverse=True)


def test_the_command_tells_what_it_did(own_broker: BrokerServer, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(
        "datetime,t_amb,t_sup,t_ret,e\n2024-04-04 11:52:00,16.8,,32.3,1\n2024-04-04 11:49:00,x,61.0,32.3,1\n"
    )
    mapping = ROOT / "services" / "simulator" / "mappings" / "heating_substation.yaml"
    environ = {"LIFELINE_MQTT_URL": own_broker.url}
    done = run_cli("simulate", "--replay", str(file), "--mapping", str(mapping), environ=environ)
    assert done.returncode == 0, done.stderr
    assert "rows 2, readings 4" in done.stdout
    assert "acknowledged readings 4" in done.stdout
    assert "line 3: t_amb 'x' is no number" in done.stderr
    assert "columns without a mapping: e" in done.stderr
    chosen = run_cli(
        "simulate", "--replay", str(file), "--mapping", str(mapping), "--from", "2024-04-04T11:50", environ=environ
    )
    assert "rows 1, readings 2" in chosen.stdout
    alone = run_cli("simulate", "--replay", str(file), environ=environ)
    assert alone.returncode == 2
    assert "--mapping" in alone.stderr
    written = run_cli(
        "simulate", "--mapping", str(mapping), "--write-registry", str(tmp_path / "registry.json"), environ=environ
    )
    assert written.returncode == 0, written.stderr
    assert len(json.loads((tmp_path / "registry.json").read_text())["points"]) == 3


def test_shifted_to_now_the_newest_row_is_now(
    own_broker: BrokerServer, tmp_path: Path, lifeline_process: Callable[..., Any]
) -> None:
    import time

    file = tmp_path / "data.csv"
    file.write_text("datetime,t_amb,t_sup,t_ret\n2024-04-04 11:52:00,1,2,3\n2024-04-04 11:49:00,1,2,3\n")
    mapping = ROOT / "services" / "simulator" / "mappings" / "heating_substation.yaml"
    with listening(own_broker.url, "lifeline/v1/#") as heard:
        process = lifeline_process(
            "simulate", "--replay", str(file), "--mapping", str(mapping), "--shift-to-now",
            environ={"LIFELINE_MQTT_URL": own_broker.url},
        )  # fmt: skip
        assert process.wait() == 0, process.output()
        wait_for(lambda: len(heard) == 1, what="the message")
    times = sorted({row["time"] for row in json.loads(heard[0][1])["readings"]})
    assert times[1] - times[0] == 180_000
    assert abs(times[1] / 1000 - time.time()) < 30
