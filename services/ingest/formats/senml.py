"""SenML packs in JSON (RFC 8428): base fields resolved, times made absolute, each bad record refused alone.

The ``raw`` of a reading or a refusal is a pack of one record that :func:`parse_senml` reads to the same result, so that
a dead letter can be replayed alone. A record that can be resolved stands there resolved (RFC 8428 section 4.6, its
time absolute); one that cannot stands there as sent, with the base fields that held for it. Only a time that is
relative and too far back to be written absolute (before July 1978) stays relative: replay with the first arrival time.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Final, cast

import msgspec

from lifeline.readings import GOOD
from services.ingest.formats.hostile_json import HostileJSONError, decode, quoted
from services.ingest.formats.model import Parsed, RawReading, Reason, Refusal, Refusals
from services.ingest.formats.moments import LARGEST, MICROS_PER_SECOND, SMALLEST

VERSION: Final = 10
"""The SenML version of RFC 8428 (section 4.4), and the default where ``bver`` is left out."""
RELATIVE_BELOW_S: Final = 2**28
"""Times below this many seconds count from now (RFC 8428 section 4.5.3)."""
LONGEST_NAME: Final = 512
"""Most characters of a resolved name: without a limit one base name would be copied into every record of a pack."""
LONGEST_UNIT: Final = 64

_BASE_TEXTS: Final = {"bn": LONGEST_NAME, "bu": LONGEST_UNIT}
_BASE_NUMBERS: Final = ("bt", "bv", "bs")
_BASES: Final = frozenset(("bn", "bt", "bu", "bv", "bs", "bver"))
_VALUES: Final = frozenset(("v", "vb", "vs", "vd"))

_Record = dict[str, object]
_encode = msgspec.json.Encoder().encode


class _RecordError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(slots=True)
class _Base:
    """The base fields that hold at one place of a pack, as sent but never longer than their limits."""

    fields: _Record = field(default_factory=dict)

    def update(self, record: _Record) -> bool:
        """Take the record's base fields; whether it has any."""
        if not (_BASES & record.keys()):
            return False
        for label, longest in _BASE_TEXTS.items():
            if label in record:
                given = record[label]
                # A text beyond its limit stays one character beyond it, so that each record is refused for it.
                self.fields[label] = given[: longest + 1] if isinstance(given, str) else _small(given)
        for label in _BASE_NUMBERS:
            if label in record:
                self.fields[label] = _small(record[label])
        return True


def parse_senml(payload: bytes, received_at: int) -> Parsed:
    """The readings of one pack, and a refusal for each record that is none.

    ``received_at`` is in microseconds since 1970-01-01T00:00Z; times below 2**28 seconds count from it, and a time of
    zero, or none, gives a reading without time. A record's value is ``v`` (+ ``bv``) or ``vb``, else ``s`` (+ ``bs``);
    records that only carry base fields are no readings. Never raises; a payload that is no pack as a whole, or of
    a version other than 10 or below, is one refusal.
    """
    try:
        pack = decode(payload)
    except HostileJSONError as error:
        return Parsed([], [Refusal("bad_payload", error.detail, payload)])
    if not isinstance(pack, list):
        return Parsed([], [Refusal("bad_payload", "a SenML pack is a JSON array of records", payload)])
    if fault := _version_fault(pack):
        return Parsed([], [Refusal("bad_payload", fault, payload)])
    base = _Base()
    readings: list[RawReading] = []
    refusals = Refusals()
    for record in pack:
        if not isinstance(record, dict):
            detail = f"a SenML record is a JSON object, not {quoted(record)}"
            refusals.add(Refusal("bad_payload", detail, b"" if refusals.full else _one_pack(record)))
            continue
        has_base = base.update(record)
        try:
            reading = _reading(record, base.fields, has_base, received_at)
        except _RecordError as error:
            raw = b"" if refusals.full else _one_pack(_with_base(record, base.fields))
            refusals.add(Refusal(error.reason, error.detail, raw))
        else:
            if reading is not None:
                readings.append(reading)
    return Parsed(readings, refusals.close(payload))


def _version_fault(pack: list[object]) -> str | None:
    """Why the pack's version cannot be read; None where it can (RFC 8428 section 4.4: one version for all records)."""
    versions = [record["bver"] for record in pack if isinstance(record, dict) and "bver" in record]
    for version in versions:
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            return f"bver is {quoted(version)}; it must be a whole number, {VERSION} for RFC 8428"
        if version > VERSION:
            return f"bver is {quoted(version)}; versions up to {VERSION} are read"
        if version != versions[0]:
            return f"bver changes from {versions[0]} to {version}; one pack has one version"
    return None


def _reading(record: _Record, base: _Record, has_base: bool, received_at: int) -> RawReading | None:
    """The record resolved; None where it only carries base fields. Raises :class:`_RecordError`."""
    for label in record:
        if label.endswith("_"):
            raise _RecordError("bad_payload", f"field {quoted(label)} must be understood (RFC 8428) and is not known")
    values = _VALUES & record.keys()
    if not values and "s" not in record:
        if has_base:
            return None
        raise _RecordError("bad_payload", "the record has no value (v, vb) and no sum (s)")
    if len(values) > 1:
        raise _RecordError("bad_payload", f"the record has {' and '.join(sorted(values))}; one value field is allowed")
    name = _name(record, base)
    unit = _unit(record, base)
    value = _value(record, base, values)
    time = _time(record, base, received_at)
    raw = _resolved(record, name, unit, value, time=time, received_at=received_at)
    return RawReading(name, time, value, GOOD, unit, raw)


def _name(record: _Record, base: _Record) -> str:
    name = _text(base, "bn") + _text(record, "n")
    if not name:
        raise _RecordError("bad_payload", "the record has no name (bn, n)")
    if len(name) > LONGEST_NAME:
        raise _RecordError("bad_payload", f"the name (bn and n) is longer than {LONGEST_NAME} characters")
    return name


def _unit(record: _Record, base: _Record) -> str | None:
    unit = _text(record, "u") if "u" in record else _text(base, "bu")
    if len(unit) > LONGEST_UNIT:
        raise _RecordError("bad_unit", f"the unit (u, bu) is longer than {LONGEST_UNIT} characters")
    return unit or None


def _text(fields: _Record, label: str) -> str:
    value = fields.get(label, "")
    if not isinstance(value, str):
        raise _RecordError("bad_payload", f"{label} is {quoted(value)}; it must be text")
    return value


def _value(record: _Record, base: _Record, values: frozenset[str]) -> float:
    if not values:
        return _sum_of(record, "s", base, "bs", "bad_value")
    (label,) = values
    if label == "v":
        return _sum_of(record, "v", base, "bv", "bad_value")
    if label == "vb" and isinstance(record["vb"], bool):
        return float(record["vb"])
    expected = "; it must be true or false" if label == "vb" else "; text and data are no readings, send v or vb"
    raise _RecordError("bad_value", f"{label} is {quoted(record[label])}{expected}")


def _time(record: _Record, base: _Record, received_at: int) -> int | None:
    if "t" not in record and "bt" not in base:
        return None
    seconds = _sum_of(record, "t", base, "bt", "bad_time")
    if seconds == 0:
        return None
    # Far out of range the product may overflow; a calendar's worth of seconds cannot.
    if abs(seconds) > LARGEST // MICROS_PER_SECOND:
        raise _RecordError("bad_time", f"time (bt + t) of {seconds!r} s is outside the years 1 to 9999")
    micros = round(seconds * MICROS_PER_SECOND)
    time = micros if seconds >= RELATIVE_BELOW_S else received_at + micros
    if not SMALLEST <= time < LARGEST:
        raise _RecordError("bad_time", f"time (bt + t) of {seconds!r} s is outside the years 1 to 9999")
    return time


def _sum_of(record: _Record, label: str, base: _Record, base_label: str, reason: Reason) -> float:
    """A number and its base number, each zero where left out."""
    total = _number(record, label, reason) + _number(base, base_label, reason)
    if not math.isfinite(total):
        raise _RecordError(reason, f"{label} + {base_label} is out of a double's range")
    return total


def _number(fields: _Record, label: str, reason: Reason) -> float:
    value = fields.get(label, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RecordError(reason, f"{label} is {quoted(value)}; it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _RecordError(reason, f"{label} is {quoted(value)}; it must be a finite number")
    return number


def _resolved(
    record: _Record, name: str, unit: str | None, value: float, *, time: int | None, received_at: int
) -> bytes:
    """The pack of one resolved record, its time absolute also where the record has none."""
    absolute = received_at if time is None else time
    fields: _Record = {"n": name}
    if absolute >= RELATIVE_BELOW_S * MICROS_PER_SECOND:
        fields["t"] = absolute / MICROS_PER_SECOND
    elif time is not None:
        fields["t"] = (time - received_at) / MICROS_PER_SECOND
    if unit is not None:
        fields["u"] = unit
    if "vb" in record:
        fields["vb"] = record["vb"]
    else:
        fields["v" if "v" in record else "s"] = value
    return _encode([fields])


def _with_base(record: _Record, base: _Record) -> _Record:
    """The record as sent, with the base fields that held for it; those alone would make it no reading at all."""
    if not (_VALUES & record.keys()) and "s" not in record:
        return record
    return {**base, **{label: value for label, value in record.items() if label not in _BASES}}


def _small(value: object) -> object:
    """A base field as sent, or where it could be large and is wrong anyway, an empty value of its kind."""
    if isinstance(value, str):
        return value[:LONGEST_UNIT]
    if isinstance(value, list | dict):
        return type(value)()
    return value


def _one_pack(record: object) -> bytes:
    try:
        return json.dumps([record], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    except RecursionError:
        fields = cast("_Record", record) if isinstance(record, dict) else {}
        shallow = {key: [] if isinstance(value, list | dict) else value for key, value in fields.items()}
        return json.dumps([shallow], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
