"""The running simulator: each tick, what is due is made, written and offered to the broker."""

from __future__ import annotations

import heapq
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lifeline import logs
from services.simulator.chance import Floats, key, uniform
from services.simulator.edge_node import EdgeNode
from services.simulator.payloads import Composer, batches, voices
from services.simulator.publish import Broker, Message, Publisher
from services.simulator.scenarios import Running, ScenarioError, Stage, parse_order
from services.simulator.schedule import Due, Schedule
from services.simulator.world import World

SCENARIO_TOPIC = "lifeline-simulator/scenario"
"""Where a running simulator takes orders: ``{"scenario": "storm:632523@30"}``."""
REPEAT_SHARE = 0.004
MOST_REPEATS = 10_000
_log = logs.get(__name__)


class Outlet(Protocol):
    """Where messages go."""

    def offer(self, message: Message) -> None: ...


@dataclass(frozen=True)
class Limits:
    """When to end by itself: after so many seconds, after so many readings; None: never."""

    duration_s: float | None = None
    readings: int | None = None


class Simulator:
    """Turns stretches of time into messages. ``edges`` speak for their devices, all others through ``outlet``."""

    def __init__(self, world: World, schedule: Schedule, outlet: Outlet) -> None:
        self.world = world
        self.schedule = schedule
        self.outlet = outlet
        self.edges: list[EdgeNode] = []
        self._edge_of: dict[int, EdgeNode] = {}
        prefecture = world.prefecture
        self.boolean = world.boolean.tolist()
        self.voices = voices(prefecture)
        self.composer = Composer(prefecture, self.voices, self.boolean)
        self.clock_error = np.array([voice.clock_error_s for voice in self.voices])
        self._repeats: list[tuple[float, int, Message]] = []
        self.readings = 0
        self.repeated = 0

    def connect_edges(self, broker: Broker) -> None:
        """Make the Sparkplug edge nodes, one per county, each with its own connection."""
        prefecture = self.world.prefecture
        county = prefecture.site_county[prefecture.device_site].tolist()
        behind: dict[int, list[int]] = {}
        for device, voice in enumerate(self.voices):
            if voice.shape == "sparkplug" and prefecture.styles[device] != "edge":
                behind.setdefault(county[device], []).append(device)
        for device, style in enumerate(prefecture.styles):
            if style == "edge":
                served = behind.get(county[device], [])
                edge = EdgeNode(broker, self.world, prefecture.devices[device].code, served)
                self.edges.append(edge)
                self._edge_of.update(dict.fromkeys(served, edge))

    def step(self, since: float, until: float) -> None:
        """Publish what belongs to (``since``, ``until``]."""
        stage = self.world.stage
        started, ended = stage.move(until)
        for one in started:
            _log.info("scenario begins", scenario=one.scenario.name, county=one.county, at=one.started)
        for one in ended:
            _log.info("scenario ends", scenario=one.scenario.name, county=one.county)
            self._tell_silence(one, True, until)
        self._tell_silences(since, until)
        for device in self.schedule.booting(since, until).tolist():
            self._tell_status(device, True, until)
        for due in self.schedule.due(since, until):
            self._publish(due, until)
        self._publish_repeats(until)
        for edge in self.edges:
            edge.work(until)

    def end(self, now: float) -> None:
        """Tell that devices of a scenario which are silent now stay so."""
        for one in self.world.stage.running:
            if one.scenario.silent and one.active(np.array([now]))[0]:
                self._tell_silence(one, False, now)

    def _publish(self, due: Due, now: float) -> None:
        device = self.world.prefecture.point_device[due.point]
        if self.world.stage.running:
            heard = ~self.world.stage.silent(device, np.full(device.shape, now))
            due, device = Due(due.point[heard], due.times[heard]), device[heard]
        if due.point.size == 0:
            return
        values = self.world.values(due.point, due.times)
        shown = self.world.stage.clocks(device, due.times) + self.clock_error[device]
        self.readings += due.point.size
        for batch in batches(device):
            part = slice(batch.first, batch.last)
            edge = self._edge_of.get(batch.device)
            if edge is not None:
                edge.add(batch.device, due.point[part], shown[part], values[part], now)
                continue
            for message in self.composer.compose(batch.device, due.point[part], shown[part], values[part]):
                self.outlet.offer(message)
                self._maybe_repeat(batch.device, message, now)

    def _maybe_repeat(self, device: int, message: Message, now: float) -> None:
        # A repeat of a reading without a time would be another reading.
        if self.voices[device].clock == "none" or len(self._repeats) >= MOST_REPEATS:
            return
        seed = self.world.prefecture.seed
        if uniform(seed, key("repeat"), device, round(now * 1000)) < REPEAT_SHARE:
            after = 2 + 28 * float(uniform(seed, key("repeat-after"), device, round(now * 1000)))
            heapq.heappush(self._repeats, (now + after, id(message), message))

    def _publish_repeats(self, now: float) -> None:
        while self._repeats and self._repeats[0][0] <= now:
            message = heapq.heappop(self._repeats)[2]
            self.repeated += message.readings
            self.outlet.offer(message)

    def _tell_silences(self, since: float, until: float) -> None:
        for one in self.world.stage.running:
            was, is_now = one.active(np.array([since, until]))
            if one.scenario.silent and is_now and not was:
                # What the broker would say for the device: its will.
                self._tell_silence(one, False, until)

    def _tell_silence(self, one: Running, online: bool, now: float) -> None:
        if one.scenario.silent:
            for device in one.devices.tolist():
                self._tell_status(device, online, now)

    def _tell_status(self, device: int, online: bool, now: float) -> None:
        if self.voices[device].shape == "sparkplug" and self._edge_of:
            return  # births and deaths tell it
        prefecture = self.world.prefecture
        battery = rssi = None
        if prefecture.styles[device] == "nb":
            battery = round(55 + 45 * float(uniform(prefecture.seed, key("battery"), device)), 0)
            rssi = round(-112 + 35 * float(uniform(prefecture.seed, key("rssi"), device)), 0)
        self.outlet.offer(self.composer.status(device, online, now, battery, rssi))


def history(
    simulator: Simulator, interval_s: Floats, begin: float, end: float, stretch_s: float = 21600.0
) -> Iterator[tuple[float, list[Message]]]:
    """Messages of past readings at ``interval_s`` per point, by stretch of time: (end of the stretch, messages)."""
    world = simulator.world
    schedule = Schedule(world.prefecture, interval_s, begin)
    while begin < end:
        until = min(begin + stretch_s, end)
        due = schedule.history(begin, until)
        device = world.prefecture.point_device[due.point]
        values = world.values(due.point, due.times)
        shown = due.times + simulator.clock_error[device]
        messages: list[Message] = []
        for batch in batches(device):
            part = slice(batch.first, batch.last)
            messages += simulator.composer.compose_past(batch.device, due.point[part], shown[part], values[part])
        yield until, messages
        begin = until


def take_order(stage: Stage, payload: bytes) -> None:
    """An order from :data:`SCENARIO_TOPIC`; one that cannot be read is logged, never raised."""
    try:
        stage.begin(parse_order(json.loads(payload)["scenario"]))
    except (ValueError, KeyError, TypeError, ScenarioError) as error:
        _log.warning("order not understood", topic=SCENARIO_TOPIC, error=str(error))


def run(
    simulator: Simulator,
    publisher: Publisher,
    limits: Limits,
    stop: threading.Event,
    *,
    tick_s: float = 0.5,
    summary_s: float = 10.0,
    clock: Callable[[], float] = time.time,
) -> None:
    """Publish until ``stop`` or a limit; says every ``summary_s`` what went out."""
    start = since = clock()
    told = _Summary(simulator, publisher, start)
    while not stop.is_set():
        now = clock()
        # A clock set back makes nothing twice: we wait until it has caught up.
        if now > since:
            # After a long sleep of the machine only the last stretch is made, or the burst would never end.
            simulator.step(max(since, now - 60), now)
            since = now
        if now - told.at >= summary_s:
            told = told.tell(now)
        if limits.duration_s is not None and now - start >= limits.duration_s:
            break
        if limits.readings is not None and simulator.readings >= limits.readings:
            break
        stop.wait(max(0.02, tick_s - (clock() - now)))
    simulator.end(clock())
    told.tell(clock())


class _Summary:
    """What stood at the last summary line."""

    def __init__(self, simulator: Simulator, publisher: Publisher, at: float) -> None:
        self._simulator, self._publisher = simulator, publisher
        self.at = at
        self._readings = simulator.readings

    def tell(self, now: float) -> _Summary:
        simulator, counts = self._simulator, self._publisher.counts()
        elapsed = max(now - self.at, 1e-9)
        log = _log.info if self._publisher.connected else _log.warning
        dropped = counts.dropped_readings + sum(
            edge.dropped_readings + edge.publisher.counts().dropped_readings for edge in simulator.edges
        )
        log(
            "published" if self._publisher.connected else "broker away",
            readings=simulator.readings,
            per_second=round((simulator.readings - self._readings) / elapsed, 1),
            acknowledged_messages=counts.acknowledged,
            waiting_messages=counts.backlog,
            dropped_readings=dropped,
            repeated=simulator.repeated,
            scenarios=[one.scenario.name for one in simulator.world.stage.running],
            **({"error": self._publisher.last_error} if not self._publisher.connected else {}),
        )
        return _Summary(simulator, self._publisher, now)
