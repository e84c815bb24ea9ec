"""A Sparkplug B edge node: births, data by alias, its death as the will, and rebirth on command (Sparkplug 3.0.0)."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from lifeline.indicators import catalogue
from lifeline.sparkplug import BD_SEQ, REBIRTH, PayloadError, decode, encode, make_metric, text
from lifeline.sparkplug_b_pb2 import DataType, Metric
from services.simulator.chance import Floats
from services.simulator.publish import Broker, Message, Publisher
from services.simulator.signals.scene import Indices
from services.simulator.world import World

GROUP = "lifeline"
WAITING_MESSAGES = 2000
"""DDATA kept while the broker is away; the oldest go first."""


class _Data(NamedTuple):
    device: int
    metrics: list[Metric]
    time_ms: int


class EdgeNode:
    """One node with a connection of its own, so that the broker can tell its death.

    ``devices`` are indices into the prefecture. All but the callbacks belongs to the thread that calls ``work``.
    """

    def __init__(self, broker: Broker, world: World, code: str, devices: list[int]) -> None:
        prefecture = world.prefecture
        self._code = code
        self._world = world
        self._prefecture = prefecture
        self._devices = devices
        self._boolean = world.boolean.tolist()
        units = {indicator.code: indicator.unit for indicator in catalogue()}
        points = [point for point, device in enumerate(prefecture.point_device.tolist()) if device in set(devices)]
        self._alias = {point: number + 1 for number, point in enumerate(points)}
        self._unit = {point: units[prefecture.points[point].indicator] for point in points}
        self._shown: dict[int, tuple[float, int]] = {}
        self._seq = 0
        # A birth under a number that has died revives nothing, and the last run's number is not known here.
        self._bd_seq = int(time.time()) % 256
        self._live = False
        self._birth_wanted = threading.Event()
        self._waiting: deque[_Data] = deque(maxlen=WAITING_MESSAGES)
        self.dropped_readings = 0
        self.publisher = Publisher(
            broker,
            f"lifeline-simulator-{code}",
            on_connect=self._birth_wanted.set,
            on_disconnect=self._connection_lost,
            on_message=self._commanded,
            subscriptions=(f"spBv1.0/{GROUP}/NCMD/{code}",),
            will=self._death(),
        )

    def add(self, device: int, points: Indices, times: Floats, values: Floats, now: float) -> None:
        """Take readings of one device, to be sent by :meth:`work`."""
        metrics = []
        for point, moment, value in zip(points.tolist(), times.tolist(), values.tolist(), strict=True):
            milliseconds = round(moment * 1000)
            self._shown[point] = (value, milliseconds)
            metrics.append(self._metric(point, value, milliseconds, born=False))
        if len(self._waiting) == WAITING_MESSAGES:
            self.dropped_readings += len(self._waiting[0].metrics)
        self._waiting.append(_Data(device, metrics, round(now * 1000)))

    def work(self, now: float) -> None:
        """Send births where a connection is new or a host asked, then what waits."""
        if not self.publisher.connected:
            return
        if self._birth_wanted.is_set():
            self._birth_wanted.clear()
            self._give_birth(round(now * 1000))
        while self._live and self._waiting:
            data = self._waiting.popleft()
            self._send("DDATA", data.metrics, data.time_ms, data.device, len(data.metrics))

    def close(self, timeout_s: float) -> bool:
        """Tell the node's death, as the specification asks before a wished end, and leave."""
        if self._live and self.publisher.connected:
            self.publisher.offer(self._death())
        return self.publisher.close(timeout_s)

    def _give_birth(self, now_ms: int) -> None:
        self._seq = 0
        node = [
            make_metric(BD_SEQ, self._bd_seq, DataType.Int64, timestamp_ms=now_ms),
            make_metric(REBIRTH, False, DataType.Boolean, timestamp_ms=now_ms),
        ]
        self._send("NBIRTH", node, now_ms, None, 0)
        for device in self._devices:
            self._read_unread(device, now_ms)
            points = self._points_of(device)
            metrics = [self._metric(point, *self._shown[point], born=True) for point in points]
            self._send("DBIRTH", metrics, now_ms, device, len(metrics))
        self._live = True

    def _read_unread(self, device: int, now_ms: int) -> None:
        """A birth tells the value of every metric, so what was never sampled is sampled now."""
        unread = np.array([point for point in self._points_of(device) if point not in self._shown], np.int64)
        values = self._world.values(unread, np.full(unread.shape, now_ms / 1000))
        self._shown.update(
            {point: (value, now_ms) for point, value in zip(unread.tolist(), values.tolist(), strict=True)}
        )

    def _points_of(self, device: int) -> list[int]:
        return [point for point in self._alias if self._prefecture.point_device[point] == device]

    def _metric(self, point: int, value: float, time_ms: int, *, born: bool) -> Metric:
        datatype = DataType.Boolean if self._boolean[point] else DataType.Double
        name = self._prefecture.points[point].source_name if born else None
        unit = self._unit[point] if born else None
        return make_metric(name, value, datatype, alias=self._alias[point], timestamp_ms=time_ms, unit=unit)

    def _send(self, kind: str, metrics: list[Metric], time_ms: int, device: int | None, readings: int) -> None:
        topic = f"spBv1.0/{GROUP}/{kind}/{self._code}"
        if device is not None:
            topic += f"/{self._prefecture.devices[device].code}"
        self.publisher.offer(Message(topic, encode(metrics, timestamp_ms=time_ms, seq=self._seq), readings))
        self._seq = (self._seq + 1) % 256

    def _death(self) -> Message:
        metrics = [make_metric(BD_SEQ, self._bd_seq, DataType.Int64)]
        return Message(f"spBv1.0/{GROUP}/NDEATH/{self._code}", encode(metrics, timestamp_ms=None, seq=None))

    def _connection_lost(self) -> None:
        """The next connection's will carries the next number, and its birth the same."""
        self._live = False
        self._bd_seq = (self._bd_seq + 1) % 256
        self.publisher.set_will(self._death())

    def _commanded(self, _topic: str, payload: bytes) -> None:
        try:
            metrics = decode(payload).metrics
        except PayloadError:
            return
        if any(text(metric.name) == REBIRTH and metric.boolean_value for metric in metrics):
            self._birth_wanted.set()
