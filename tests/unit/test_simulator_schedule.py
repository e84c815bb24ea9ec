"""When readings go out: the wished rate, batches, late ones and repeats; and what the messages look like."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from lifeline.readings import from_micros
from services.ingest.formats.lifeline_json import parse_json
from services.ingest.formats.model import RawReading
from services.ingest.formats.senml import parse_senml
from services.simulator.live import Simulator, history
from services.simulator.prefecture import Prefecture, build
from services.simulator.publish import Message
from services.simulator.scenarios import Stage, parse_order
from services.simulator.schedule import BOOT_S, Schedule, live_intervals
from services.simulator.world import World

START = 1_795_453_200.0


class Outlet:
    """Keeps messages with the moment at which they were offered."""

    def __init__(self) -> None:
        self.now = 0.0
        self.messages: list[tuple[float, Message]] = []

    def offer(self, message: Message) -> None:
        self.messages.append((self.now, message))


@pytest.fixture(scope="module")
def prefecture() -> Prefecture:
    return build(1, 1000)


def play(prefecture: Prefecture, seconds: float, *scenarios: str, tick: float = 1.0) -> tuple[Simulator, Outlet]:
    """Without edge nodes, so that all devices speak through the outlet."""
    outlet = Outlet()
    stage = Stage(prefecture)
    for order in scenarios:
        stage.begin(parse_order(order))
    interval = live_intervals(prefecture.interval_s, 70.0)
    simulator = Simulator(World(prefecture, stage), Schedule(prefecture, interval, START), outlet)
    for step in np.arange(0, seconds, tick):
        outlet.now = START + step + tick
        simulator.step(START + step, outlet.now)
    return simulator, outlet


@pytest.fixture(scope="module")
def ten_minutes(prefecture: Prefecture) -> tuple[Simulator, Outlet]:
    return play(prefecture, 600)


Rows = list[tuple[float, str, str, int, object]]


def readings(outlet: Outlet) -> Rows:
    """(offered at, device, name, time in microseconds, value); without a time, that of the offer."""
    rows: Rows = []
    for offered, message in outlet.messages:
        _, _, _, device, kind = message.topic.split("/")
        if kind == "status":
            continue
        parsed = (
            parse_json(message.payload) if kind == "readings" else parse_senml(message.payload, round(offered * 1e6))
        )
        assert parsed.refusals == []
        assert len(parsed.readings) == message.readings
        for row in parsed.readings:
            rows.append((offered, device, row.name, row.time or round(offered * 1e6), row.value))
    return rows


def test_the_rate_is_what_was_asked_for_and_all_points_live(prefecture: Prefecture) -> None:
    simulator, outlet = play(prefecture, 300)
    rows = readings(outlet)
    assert len(rows) - len(prefecture.points) == pytest.approx(70 * 300, rel=0.12)
    assert simulator.readings + simulator.repeated == len(rows)
    seen = {(device, name) for offered, device, name, *_ in rows if offered <= START + BOOT_S + 1}
    assert len(seen) == len(prefecture.points), "every point shows within ten seconds"


@pytest.mark.parametrize("rate", [5.0, 70.0, 900.0])
def test_intervals_keep_the_rate_and_the_catalogues_order(prefecture: Prefecture, rate: float) -> None:
    intervals = live_intervals(prefecture.interval_s, rate)
    assert np.sum(1 / intervals) == pytest.approx(rate, rel=0.01)
    order = np.argsort(prefecture.interval_s)
    assert (np.diff(intervals[order]) >= 0).all()
    assert intervals.min() >= 1


def test_no_sample_is_left_out_or_made_twice_however_late_it_comes(prefecture: Prefecture) -> None:
    interval = live_intervals(prefecture.interval_s, 300.0)
    schedule = Schedule(prefecture, interval, START - 100)  # all have booted: that reading may meet a regular one
    heard = Counter[tuple[int, int]]()
    for step in np.arange(0, 1700, 1.7):
        for due in schedule.due(START + step, START + step + 1.7):
            heard.update(zip(due.point.tolist(), np.round(due.times * 1000).astype(np.int64).tolist(), strict=True))
    assert max(heard.values()) == 1
    expected = schedule.history(START + 30, START + 300)
    missing = [
        sample
        for sample in zip(
            expected.point.tolist(), np.round(expected.times * 1000).astype(np.int64).tolist(), strict=True
        )
        if sample not in heard
    ]
    assert missing == []


def test_nb_iot_sends_several_samples_at_once_some_of_them_late(
    prefecture: Prefecture, ten_minutes: tuple[Simulator, Outlet]
) -> None:
    _, outlet = ten_minutes
    nb = {device.code for device, style in zip(prefecture.devices, prefecture.styles, strict=True) if style == "nb"}
    sizes = Counter[bool]()
    ages: list[float] = []
    older_than_newest = 0
    newest: dict[tuple[str, str], int] = defaultdict(int)
    for offered, message in outlet.messages:
        device = message.topic.split("/")[3]
        if device in nb and message.topic.endswith("/readings") and offered > START + BOOT_S + 1:
            times = Counter(row.name for row in parse_json(message.payload).readings)
            sizes[max(times.values()) > 1] += 1
    for offered, device, name, time, _ in readings(outlet):
        ages.append(offered - time / 1e6)
        older_than_newest += time < newest[device, name] and device in nb
        newest[device, name] = max(newest[device, name], time)
    assert sizes[True] > 5 * sizes[False], "batches"
    assert max(ages) > 120, "minutes late"
    assert older_than_newest > 20, "after newer ones"
    assert min(ages) > -10, "clocks err by seconds, never near the limit of ten minutes"


def test_some_messages_come_twice_and_a_reading_is_else_never_made_twice(
    ten_minutes: tuple[Simulator, Outlet],
) -> None:
    simulator, outlet = ten_minutes
    rows = readings(outlet)
    counted = Counter((device, name, time) for _, device, name, time, _ in rows)
    repeats = sum(count - 1 for count in counted.values())
    assert simulator.repeated > 0
    assert repeats == simulator.repeated
    values = defaultdict(set)
    for _, device, name, time, value in rows:
        values[device, name, time].add(value)
    assert all(len(found) == 1 for found in values.values()), "a repeat says the same"


def test_devices_speak_in_different_shapes(prefecture: Prefecture) -> None:
    _, outlet = play(prefecture, 60)
    shapes = Counter[str]()
    for _, message in outlet.messages:
        document = json.loads(message.payload)
        if message.topic.endswith("senml"):
            shapes["senml"] += 1
        elif message.topic.endswith("status"):
            shapes["status"] += 1
            assert document["online"] is True
            assert message.retain
        elif isinstance(document, list):
            shapes["array"] += 1
            shapes["rfc3339"] += isinstance(document[0]["time"], str)
            shapes["milliseconds"] += isinstance(document[0]["time"], int)
        elif "readings" in document:
            shapes["wrapped"] += 1
        else:
            shapes["single"] += 1
            shapes["no time"] += "time" not in document
    assert set(shapes) >= {"senml", "status", "array", "wrapped", "single", "rfc3339", "milliseconds", "no time"}
    assert min(shapes.values()) > 0


def test_booleans_are_booleans(prefecture: Prefecture) -> None:
    _, outlet = play(prefecture, 60)
    shown = [
        reading["value"]
        for _, message in outlet.messages
        if message.topic.endswith("/readings")
        for reading in _listed(json.loads(message.payload))
        if reading["point"].endswith("running") or reading["point"] == "intrusion"
    ]
    assert shown
    assert all(isinstance(value, bool) for value in shown)


def _listed(document: Any) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = document if isinstance(document, list) else document.get("readings", [document])
    return listed


def test_silent_devices_send_nothing_but_their_will(prefecture: Prefecture) -> None:
    simulator, outlet = play(prefecture, 240, "devices_silent@60")
    silent = {prefecture.devices[device].code for device in simulator.world.stage.running[0].devices}
    assert not {device for offered, device, *_ in readings(outlet) if offered > START + 62} & silent
    assert {device for offered, device, *_ in readings(outlet) if offered < START + 60} >= silent
    offline = {
        message.topic.split("/")[3]
        for _, message in outlet.messages
        if message.topic.endswith("status") and not json.loads(message.payload)["online"]
    }
    assert offline == silent


def test_a_wrong_clock_shows_2036(prefecture: Prefecture) -> None:
    _, outlet = play(prefecture, 300, "clock_2036")
    far = {(device, from_micros(time).year) for _, device, _, time, _ in readings(outlet) if time > 2e15}
    assert len(far) == 1
    assert far.pop()[1] == 2036


def test_history_is_what_was_live_at_the_catalogues_intervals(prefecture: Prefecture) -> None:
    simulator, _ = play(prefecture, 0)
    found = list(history(simulator, prefecture.interval_s, START - 43200, START))
    assert [until for until, _ in found] == [START - 21600, START]
    messages = [message for _, part in found for message in part]
    expected = np.sum(43200 / prefecture.interval_s)
    assert sum(message.readings for message in messages) == pytest.approx(expected, rel=0.02)
    assert max(message.readings for message in messages) == 100
    rows = {(message.topic, row.name, row.time) for message in messages for row in _parsed(message)}
    assert len(rows) == sum(message.readings for message in messages)
    assert all(START - 43200 - 10 < (time or 0) / 1e6 < START + 10 for _, _, time in rows)


def _parsed(message: Message) -> list[RawReading]:
    if message.topic.endswith("senml"):
        return list(parse_senml(message.payload, round(START * 1e6)).readings)
    return list(parse_json(message.payload).readings)
