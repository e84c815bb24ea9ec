"""From messages to columns: parsers' readings meet the registry, the clock and the valid ranges.

:meth:`Decoder.decode` is the loop that every reading goes through. Well-formed JSON takes the short way through it;
whatever is out of the ordinary (another format, a refused reading, an unknown device) goes through
:meth:`Decoder._closely`, which means the same and says why. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET

from lifeline.readings import BAD, Readings
from lifeline.units import conversion
from services.ingest.formats.lifeline_json import PlainReading, decode_plain, parse_json
from services.ingest.formats.model import MAX_PAYLOAD, RawReading, Reason, Refusal, Refusals
from services.ingest.formats.senml import parse_senml
from services.ingest.formats.sparkplug import IGNORED, parse_metrics, receive
from services.ingest.formats.status import Status, parse_status
from services.ingest.messages import (
    KEPT_PAYLOAD,
    DeadLetter,
    Decoded,
    DeviceReport,
    Message,
    Nodes,
    Oversize,
    payload_size,
)
from services.ingest.routes import Route, Routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lifeline.settings import Settings
    from services.ingest.points import Device, Points

_QUALITY = {"good": 0, "uncertain": 1, "bad": 2}
_FARTHEST = 8_000_000_000_000_000
"""Times beyond ±this many microseconds (some 250 years) go the close way, before they overflow anything."""
_MOST_NODES = 20_000
"""Edge nodes remembered; the messages of more are read as far as they speak for themselves."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How far from its arrival a reading's time may be, microseconds."""

    future: int
    too_old: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.future_limit_s * 1_000_000, settings.too_old_days * 86_400_000_000)

    def refuse(self, time: int, received_at: int, now: int) -> tuple[Reason, str] | None:
        """Why a reading of ``time`` is out of bounds, if it is; all in microseconds since 1970."""
        if time > max(received_at, now) + self.future:
            ahead_s = (time - max(received_at, now)) // 1_000_000
            return "future_time", f"the time is {ahead_s} s ahead of the server; set the device's clock"
        if time < received_at - self.too_old:
            days = (received_at - time) // 86_400_000_000
            return "too_old", f"the time is {days} days back, more than LIFELINE_TOO_OLD_DAYS allows"
        return None


class _Columns:
    """Columns being filled. ``origin`` is the position of the message a reading came in."""

    __slots__ = ("origin", "quality", "received_at", "row", "time", "value")

    def __init__(self) -> None:
        self.row: list[int] = []
        self.time: list[int] = []
        self.received_at: list[int] = []
        self.value: list[float] = []
        self.quality: list[int] = []
        self.origin: list[int] = []


class Decoder:
    """Turns messages into :class:`Decoded` against one version of the registry. Safe to use from several threads."""

    def __init__(self, points: Points, limits: Limits) -> None:
        self.points = points
        self._limits = limits
        self._routes = Routes(points.devices)

    def decode(self, messages: Sequence[Message], now: int = 0, nodes: Nodes | None = None) -> Decoded:
        """Readings and refusals of ``messages``. Never raises for what a message holds.

        A time is ahead where it is ahead of both its arrival and ``now`` (microseconds; for replay of old messages).
        ``nodes`` is what Sparkplug edge nodes said before, and is brought up to date; without it their messages are
        read as far as they speak for themselves.
        """
        columns = _Columns()
        decoded = Decoded()
        find = self._routes.find
        formats = decoded.formats
        for position, message in enumerate(messages):
            topic, payload, received_at, _ = message
            route = find(topic)
            known = route.plain
            plain = decode_plain(payload) if known is not None and len(payload) <= MAX_PAYLOAD else None
            if plain is None or known is None or not _take_plain(plain, known, received_at, position, columns):
                self._closely(route, message, position, columns, decoded, now, nodes)
            kind = route.format or "unknown"
            formats[kind] = formats.get(kind, 0) + 1
        decoded.readings = self._judge(messages, columns, decoded, now)
        return decoded

    def _judge(self, messages: Sequence[Message], columns: _Columns, decoded: Decoded, now: int) -> Readings:
        """Columns to arrays: readings out of time are refused, values out of range are marked bad."""
        if not columns.row:
            return Readings.empty()
        row = np.array(columns.row, np.intp)
        time = np.array(columns.time, np.int64)
        received_at = np.array(columns.received_at, np.int64)
        value = np.array(columns.value, np.float64)
        quality = np.array(columns.quality, np.int16)
        outside = (value < self.points.valid_min[row]) | (value > self.points.valid_max[row])
        quality[outside] = BAD
        readings = Readings(self.points.point_id[row], time, received_at, value, quality)
        untimely = time > np.maximum(received_at, now) + self._limits.future
        untimely |= time < received_at - self._limits.too_old
        if not untimely.any():
            return readings
        self._refuse_untimely(messages, np.array(columns.origin)[untimely].tolist(), decoded, now)
        return readings.take(~untimely)

    def _refuse_untimely(self, messages: Sequence[Message], origins: Iterable[int], decoded: Decoded, now: int) -> None:
        """Write down, with their own text, the untimely readings of messages that took the short way."""
        for position in dict.fromkeys(origins):
            message = messages[position]
            route = self._routes.find(message.topic)
            refusals = Refusals()
            for reading in parse_json(message.payload).readings:
                time = message.received_at if reading.time is None else reading.time
                untimely = self._limits.refuse(time, message.received_at, now)
                if untimely is not None:
                    refusals.add(Refusal(*untimely, reading.raw))
            decoded.refusals.extend(_dead_letter(route, message, one) for one in refusals.close(message.payload))

    def _closely(
        self,
        route: Route,
        message: Message,
        position: int,
        columns: _Columns,
        decoded: Decoded,
        now: int,
        nodes: Nodes | None,
    ) -> None:
        """The long way: any format, any fault."""
        listed, readings = self._find(route, message, decoded, nodes)
        refusals = Refusals(listed)
        for device, reading in readings:
            found = self._place(route, device, reading, message.received_at, now)
            if isinstance(found, Refusal):
                refusals.add(found)
                continue
            row, time, value = found
            columns.row.append(row)
            columns.time.append(time)
            columns.received_at.append(message.received_at)
            columns.value.append(value)
            columns.quality.append(reading.quality)
            columns.origin.append(position)
        decoded.refusals.extend(_dead_letter(route, message, one) for one in refusals.close(message.payload))

    def _find(
        self, route: Route, message: Message, decoded: Decoded, nodes: Nodes | None
    ) -> tuple[list[Refusal], Iterable[tuple[Device | str | None, RawReading]]]:
        """What a message holds: refusals, and readings with their device (or the code of one nobody knows)."""
        payload = message.payload
        if len(payload) > MAX_PAYLOAD or isinstance(payload, Oversize):
            detail = f"{payload_size(payload)} bytes; send at most {MAX_PAYLOAD} in one message"
            return [Refusal("too_large", detail, payload)], []
        if route.format is None:
            assert route.refusal is not None
            return [Refusal(*route.refusal, payload)], []
        if route.format == "ours":
            return [], []
        if route.format == "status":
            return self._report(route, message, decoded), []
        if route.format == "sparkplug":
            return self._receive(route, message, decoded, nodes)
        parsed = parse_json(payload) if route.format == "json" else parse_senml(payload, message.received_at)
        return parsed.refusals, ((route.device, reading) for reading in parsed.readings)

    def _receive(
        self, route: Route, message: Message, decoded: Decoded, nodes: Nodes | None
    ) -> tuple[list[Refusal], Iterable[tuple[Device | str | None, RawReading]]]:
        """A Sparkplug message, in the light of what its edge node said before."""
        topic = route.sparkplug
        assert topic is not None
        devices = self.points.devices
        if topic.kind in IGNORED:
            return [], []
        if nodes is None or (topic.key not in nodes and len(nodes) >= _MOST_NODES):
            parsed = parse_metrics(message.payload, message.received_at)
            code = topic.device_code
            return parsed.refusals, ((devices.get(code, code), reading) for reading in parsed.readings)
        received = receive(nodes.get(topic.key), topic, message.payload, message.received_at)
        if received.state is not None:
            nodes[topic.key] = received.state
        if received.rebirth is not None:
            decoded.rebirths.append(received.rebirth)
        for code, online, time in received.statuses:
            device = devices.get(code)
            if device is not None:
                status = Status(online, time, None, None, None)
                decoded.reports.append(DeviceReport(device.id, status, message.received_at))
        return received.refusals, ((devices.get(code, code), reading) for code, reading in received.readings)

    def _place(
        self, route: Route, device: Device | str | None, reading: RawReading, received_at: int, now: int
    ) -> tuple[int, int, float] | Refusal:
        """The point's row, the time, and the value in the point's unit; or why there is none."""
        if route.refusal is not None:
            return Refusal(*route.refusal, reading.raw)
        if device is None or isinstance(device, str):
            return Refusal("unknown_device", f"device {str(device)[:100]!r} is not in the registry", reading.raw)
        row = (device.points if route.format == "json" else device.sources).get(reading.name)
        if row is None:
            detail = f"device {device.code} has no point {reading.name[:100]!r} in the registry"
            return Refusal("unknown_point", detail, reading.raw)
        time = received_at if reading.time is None else reading.time
        untimely = self._limits.refuse(time, received_at, now)
        if untimely is not None:
            return Refusal(*untimely, reading.raw)
        value, ours = reading.value, self.points.unit[row]
        if reading.unit is not None and ours is not None and reading.unit != ours:
            factor = conversion(reading.unit, ours)
            if factor is None:
                detail = f"unit {reading.unit[:40]!r} does not convert to {ours!r}, the unit of {reading.name[:100]!r}"
                return Refusal("bad_unit", detail, reading.raw)
            # 415 kPa is 0.415 MPa: what the multiplication adds beyond a double's 15 sure digits is noise.
            value = float(f"{value * factor.scale + factor.offset:.15g}")
            if not np.isfinite(value):
                return Refusal("bad_value", f"value in {ours} is out of double's range", reading.raw)
        return row, time, value

    def _report(self, route: Route, message: Message, decoded: Decoded) -> list[Refusal]:
        """A device's word on itself, into ``decoded``; or why it is refused."""
        status = parse_status(message.payload, message.received_at)
        if isinstance(status, Refusal):
            return [status]
        if status is None:
            return []
        if route.refusal is not None:
            return [Refusal(*route.refusal, message.payload)]
        # How old it may be has no limit: a will carries the time at which it was left with the broker.
        untimely = self._limits.refuse(max(status.time, message.received_at), message.received_at, 0)
        if untimely is not None:
            return [Refusal(*untimely, message.payload)]
        assert route.device is not None
        decoded.reports.append(DeviceReport(route.device.id, status, message.received_at))
        return []


def _take_plain(
    plain: list[PlainReading], known: dict[str, int], received_at: int, position: int, columns: _Columns
) -> bool:
    """Append the readings of one message, all or none; false where one of them needs a closer look."""
    times = []
    try:
        rows = [known[reading.point] for reading in plain]
    except KeyError:
        return False
    for reading in plain:
        time = reading.time
        if isinstance(time, int):
            micros = time * 1000
        elif time is UNSET:
            micros = received_at
        else:
            micros = round(time.timestamp() * 1_000_000)
        if not -_FARTHEST < micros < _FARTHEST:
            return False
        times.append(micros)
    columns.row += rows
    columns.time += times
    columns.value += [reading.value for reading in plain]
    columns.quality += [_QUALITY[reading.quality] for reading in plain]
    columns.received_at += [received_at] * len(plain)
    columns.origin += [position] * len(plain)
    return True


def _dead_letter(route: Route, message: Message, refusal: Refusal) -> DeadLetter:
    raw = refusal.raw
    kept = bytes(raw[:KEPT_PAYLOAD])
    return DeadLetter(message.received_at, route.topic, refusal.reason, refusal.detail, kept, payload_size(raw))
