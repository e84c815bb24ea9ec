"""Our own JSON: one reading, an array of readings, or ``{"readings": [...]}`` (contract, MQTT).

Two ways through the same meaning. :func:`decode_plain` takes well-formed messages at some 0.1 µs a reading, straight
into typed objects, and gives up at the first thing out of the ordinary; :func:`parse_json` then looks closely, and
names what is wrong with each reading. A test holds the two to the same results.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from lifeline.readings import GOOD, QUALITIES
from services.ingest.formats import hostile_json, moments
from services.ingest.formats.hostile_json import quoted
from services.ingest.formats.model import Parsed, RawReading, Refusal, Refusals


class PlainReading(msgspec.Struct):
    """One reading of a well-formed message."""

    point: str
    value: float | bool
    time: int | Annotated[datetime, msgspec.Meta(tz=True)] | msgspec.UnsetType = msgspec.UNSET
    quality: Literal["good", "uncertain", "bad"] = "good"


class _Alone(PlainReading):
    """A message that is one reading. An object with the key ``readings`` is none, whatever else it holds."""

    readings: msgspec.UnsetType = msgspec.UNSET


class _Envelope(msgspec.Struct):
    readings: list[PlainReading]


_one = msgspec.json.Decoder(_Alone)
_many = msgspec.json.Decoder(list[PlainReading])
_envelope = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()


def decode_plain(payload: bytes) -> list[PlainReading] | None:
    """The readings of a well-formed message, or None where only a closer look can tell."""
    try:
        if payload[:1] == b"[":
            return _many.decode(payload)
        if payload[:12] == b'{"readings":':
            return _envelope.decode(payload).readings
        return [_one.decode(payload)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def parse_json(payload: bytes) -> Parsed:
    """Every reading of a message, or why it is refused. Never raises; one bad reading never costs its neighbours."""
    try:
        document = hostile_json.decode(payload)
    except hostile_json.HostileJSONError as error:
        return Parsed([], [Refusal("bad_payload", error.detail, payload)])
    if isinstance(document, dict) and "readings" in document:
        document = document["readings"]
        if not isinstance(document, list):
            return Parsed([], [Refusal("bad_payload", f"readings is {quoted(document)}; send an array", payload)])
    if not isinstance(document, list):
        alone = _read(document)._replace(raw=payload)
        return Parsed([], [alone]) if isinstance(alone, Refusal) else Parsed([alone], [])
    readings: list[RawReading] = []
    refusals = Refusals()
    for item in document:
        result = _read(item)
        if isinstance(result, RawReading):
            readings.append(result._replace(raw=_encode(item)))
        else:
            refusals.add(result if refusals.full else result._replace(raw=_encode(item)))
    return Parsed(readings, refusals.close(payload))


def _read(item: object) -> RawReading | Refusal:
    if not isinstance(item, dict):
        return Refusal("bad_payload", f"a reading is {quoted(item)}; send an object with point and value", b"")
    point = item.get("point")
    if not isinstance(point, str):
        what = f"is {quoted(point)}" if "point" in item else "is missing"
        return Refusal("bad_payload", f"point {what}; send the point's code as text", b"")
    value = item.get("value")
    if not isinstance(value, int | float) or not _is_finite(value):
        what = f"is {quoted(value)}" if "value" in item else "is missing"
        return Refusal("bad_value", f"value of {quoted(point)} {what}; send a finite number or a boolean", b"")
    time: int | None = None
    if "time" in item:
        try:
            time = moments.parse_time(item["time"])
        except moments.TimeError as error:
            return Refusal("bad_time", f"{quoted(point)}: {error.detail}", b"")
    quality = item.get("quality", QUALITIES[GOOD])
    if quality not in QUALITIES:
        detail = f"quality of {quoted(point)} is {quoted(quality)}; send good, uncertain or bad"
        return Refusal("bad_payload", detail, b"")
    return RawReading(point, time, float(value), QUALITIES.index(quality), None, b"")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond double's range
        return False


def _encode(item: object) -> bytes:
    """One item's own text again; numbers that JSON cannot carry keep the spelling they came in."""
    try:
        if not _has_non_finite(item):
            return _encoder.encode(item)
    except (msgspec.MsgspecError, OverflowError, RecursionError, ValueError):
        pass
    return _encode_leniently(item)


def _has_non_finite(item: object) -> bool:
    return isinstance(item, dict) and any(isinstance(value, float) and not _is_finite(value) for value in item.values())


def _encode_leniently(item: object) -> bytes:
    import json

    try:
        return json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    except (RecursionError, ValueError):
        return repr(item)[:1000].encode("utf-8", "replace")
