"""From readings to messages: each device in its own shape of our JSON, or in SenML."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from lifeline.indicators import catalogue
from services.simulator.chance import Floats, key, normal, uniform
from services.simulator.prefecture import Prefecture
from services.simulator.publish import Message
from services.simulator.signals.scene import Indices

Shape = Literal["single", "array", "wrapped", "senml", "sparkplug"]
Clock = Literal["beijing", "utc", "milliseconds", "none"]

MOST_READINGS = 100
"""Most readings in one message."""
CLOCK_ERROR_S = 0.8
SPARKPLUG_DEVICES = 6
"""Devices behind a county's edge node; further PLCs speak JSON through a gateway."""
_BEIJING = timezone(timedelta(hours=8))
_SENML_UNITS = {
    "m": "m", "mg/L": "mg/l", "uS/cm": "uS/cm", "{NTU}": "NTU", "[pH]": "pH", "Cel": "Cel", "%{RH}": "%RH",
    "hPa": "hPa", "m/s": "m/s", "deg": "deg",
}  # fmt: skip
"""SenML names (RFC 8428, RFC 8798) for the catalogue's units, where there is one."""


class Voice(NamedTuple):
    """How one device speaks."""

    shape: Shape
    clock: Clock
    clock_error_s: float


class Batch(NamedTuple):
    """One device's readings at one go: positions in the arrays they came from."""

    device: int
    first: int
    last: int


def batches(device: Indices) -> Iterator[Batch]:
    """Runs of one device in ``device``, which is ordered by it."""
    if device.size == 0:
        return
    starts = np.flatnonzero(np.diff(device, prepend=-1)).tolist()
    for first, last in zip(starts, [*starts[1:], device.size], strict=True):
        yield Batch(int(device[first]), first, last)


def voices(prefecture: Prefecture) -> list[Voice]:
    """How each device of the prefecture speaks, by seed."""
    numbers = np.arange(len(prefecture.devices))
    shape = uniform(prefecture.seed, key("shape"), numbers)
    clock = uniform(prefecture.seed, key("clock"), numbers)
    error = CLOCK_ERROR_S * normal(prefecture.seed, key("clock-error"), numbers)
    county = prefecture.site_county[prefecture.device_site]
    behind_node: dict[int, int] = {}
    result = []
    for number, style in enumerate(prefecture.styles):
        here = int(county[number])
        if style == "plc" and behind_node.get(here, 0) < SPARKPLUG_DEVICES:
            behind_node[here] = behind_node.get(here, 0) + 1
            result.append(Voice("sparkplug", "milliseconds", float(error[number])))
        else:
            spoken = _shape(style, float(shape[number]))
            result.append(Voice(spoken, _clock(spoken, float(clock[number])), float(error[number])))
    return result


def _shape(style: str, chance: float) -> Shape:
    if style == "edge":
        return "sparkplug"
    if style == "senml":
        return "senml"
    if style == "nb":
        return "wrapped" if chance < 0.6 else "array"
    return "single" if chance < 0.4 else "array" if chance < 0.7 else "wrapped"


def _clock(shape: Shape, chance: float) -> Clock:
    if shape == "single" and chance < 0.06:
        return "none"
    return "beijing" if chance < 0.55 else "milliseconds" if chance < 0.85 else "utc"


def write_time(seconds: float, clock: Clock) -> str | int:
    """A moment as a device of this ``clock`` writes it."""
    milliseconds = round(seconds * 1000)
    if clock == "milliseconds":
        return milliseconds
    moment = datetime.fromtimestamp(milliseconds // 1000, _BEIJING if clock == "beijing" else UTC)
    text = moment.replace(microsecond=milliseconds % 1000 * 1000).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


class Composer:
    """Writes messages for the devices of a prefecture that speak JSON or SenML."""

    def __init__(self, prefecture: Prefecture, spoken: list[Voice], boolean: list[bool]) -> None:
        self._voices = spoken
        self._codes = [point.code for point in prefecture.points]
        self._boolean = boolean
        units = {indicator.code: indicator.unit for indicator in catalogue()}
        self._units = [_SENML_UNITS.get(units[point.indicator] or "") for point in prefecture.points]
        self._stems = [
            f"lifeline/v1/{prefecture.sites[site].county}/{device.code}/"
            for device, site in zip(prefecture.devices, prefecture.device_site.tolist(), strict=True)
        ]
        self._names = [device.code for device in prefecture.devices]
        self._encode = msgspec.json.Encoder().encode

    def topic(self, device: int, last: str) -> str:
        """The device's topic ending in ``last``."""
        return self._stems[device] + last

    def compose(self, device: int, points: Indices, times: Floats, values: Floats) -> Iterator[Message]:
        """Messages for one device's readings; ``times`` are what its clock shows, epoch seconds."""
        return self._compose(device, self._voices[device], points, times, values)

    def compose_past(self, device: int, points: Indices, times: Floats, values: Floats) -> Iterator[Message]:
        """The same for history: many readings in one message, each with its time, never Sparkplug (which is live)."""
        voice = self._voices[device]
        if voice.shape != "senml":
            voice = Voice("wrapped", "milliseconds", voice.clock_error_s)
        return self._compose(device, voice, points, times, values)

    def _compose(self, device: int, voice: Voice, points: Indices, times: Floats, values: Floats) -> Iterator[Message]:
        most = 1 if voice.shape == "single" else MOST_READINGS
        for first in range(0, points.size, most):
            part = slice(first, first + most)
            rows = list(zip(points[part].tolist(), times[part].tolist(), values[part].tolist(), strict=True))
            if voice.shape == "senml":
                yield Message(self.topic(device, "senml"), self._senml(device, rows), len(rows))
            else:
                yield Message(self.topic(device, "readings"), self._json(voice, rows), len(rows))

    def _json(self, voice: Voice, rows: list[tuple[int, float, float]]) -> bytes:
        readings: list[dict[str, Any]] = []
        for point, time, value in rows:
            reading: dict[str, Any] = {"point": self._codes[point]}
            if voice.clock != "none":
                reading["time"] = write_time(time, voice.clock)
            reading["value"] = value != 0 if self._boolean[point] else value
            readings.append(reading)
        if voice.shape == "single":
            return self._encode(readings[0])
        return self._encode(readings if voice.shape == "array" else {"readings": readings})

    def _senml(self, device: int, rows: list[tuple[int, float, float]]) -> bytes:
        """A pack whose base time is the first reading's whole second, others relative to it (RFC 8428)."""
        base = int(rows[0][1])
        records: list[dict[str, Any]] = []
        for point, time, value in rows:
            record: dict[str, Any] = {"n": self._codes[point], "t": round(time - base, 3), "v": value}
            unit = self._units[point]
            if unit is not None:
                record["u"] = unit
            records.append(record)
        records[0] = {"bn": f"urn:dev:ops:{self._names[device]}:", "bt": base} | records[0]
        return self._encode(records)

    def status(self, device: int, online: bool, now: float, battery: float | None, rssi: float | None) -> Message:
        """A device's retained status (contract, "MQTT")."""
        document: dict[str, Any] = {"online": online, "time": write_time(now, "beijing")}
        if battery is not None:
            document["battery"] = battery
        if rssi is not None:
            document["rssi"] = rssi
        document["firmware"] = "1.4.2"
        return Message(self.topic(device, "status"), self._encode(document), retain=True)
