"""Sparkplug B payloads, bytes to metrics and back (Sparkplug 3.0.0, section 6.4). Pure; knows no topic and no state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from lifeline.sparkplug_b_pb2 import DataType, Metric, Payload

BD_SEQ: Final = "bdSeq"
"""The metric that ties a node's death to its birth."""
REBIRTH: Final = "Node Control/Rebirth"
_CONTROLS: Final = ("Node Control/", "Device Control/")

QUALITY_BAD: Final = 0
QUALITY_GOOD: Final = 192
QUALITY_STALE: Final = 500

_BITS: Final = {1: 8, 2: 16, 3: 32, 4: 64, 5: 8, 6: 16, 7: 32, 8: 64}
_SIGNED: Final = (1, 2, 3, 4)
_FIELD_BITS: Final = {"int_value": 32, "long_value": 64}
_UNIT_KEYS: Final = frozenset(("engunit", "engineering units"))


class PayloadError(ValueError):
    """The bytes are no Sparkplug B payload."""


class ValueUnfitError(ValueError):
    """A metric's value is no finite number or boolean; the text says what it is."""


def decode(payload: bytes) -> Payload:
    """The payload's message. Raises :class:`PayloadError` for empty or malformed bytes."""
    if not payload:
        raise PayloadError("the payload is empty; send a Sparkplug B payload")
    try:
        return Payload.FromString(payload)
    except DecodeError:
        raise PayloadError("not a Sparkplug B payload: the protobuf is malformed") from None


def is_control(name: str) -> bool:
    """Whether a metric steers the node instead of measuring something."""
    return name == BD_SEQ or name.startswith(_CONTROLS)


def text(value: str | bytes) -> str:
    """A protobuf string as text: proto2 hands over bytes where they are not UTF-8, which become U+FFFD."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def number(metric: Metric, datatype: int) -> float:
    """The metric's value as a finite float64; booleans are 0.0 and 1.0.

    ``datatype`` is the one declared at birth or in the metric, 0 where unknown. The signed types come in two's
    complement, extended to the field's width or not. Raises :class:`ValueUnfitError`.
    """
    if metric.is_null:
        raise ValueUnfitError("the value is null")
    if datatype > DataType.Boolean:
        raise ValueUnfitError(f"the datatype is {type_name(datatype)}; numbers and booleans are readings")
    kind = metric.WhichOneof("value")
    if kind is None:
        raise ValueUnfitError("there is no value")
    if kind in _FIELD_BITS:
        return _integer(getattr(metric, kind), datatype, _FIELD_BITS[kind])
    if kind == "boolean_value":
        return float(metric.boolean_value)
    if kind not in {"float_value", "double_value"}:
        raise ValueUnfitError(f"the value is a {kind}; numbers and booleans are readings")
    value = metric.float_value if kind == "float_value" else metric.double_value
    if not math.isfinite(value):
        raise ValueUnfitError(f"the value is {value!r}; it must be finite")
    return value


def type_name(datatype: int) -> str:
    """The name of a datatype, ``type 34`` where this version has none."""
    return DataType.Name(datatype) if datatype in DataType.values() else f"type {datatype}"


def unit_of(metric: Metric) -> str | None:
    """The engineering unit among the metric's properties (``engUnit``), None where there is none."""
    if not metric.HasField("properties"):
        return None
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        if text(key).lower() in _UNIT_KEYS and value.WhichOneof("value") == "string_value" and not value.is_null:
            return text(value.string_value).replace("\0", "").strip() or None
    return None


def quality_of(metric: Metric) -> int | None:
    """The ``Quality`` property (0 bad, 192 good, 500 stale), None where there is none."""
    if not metric.HasField("properties"):
        return None
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        kind = value.WhichOneof("value")
        if text(key) == "Quality" and kind in _FIELD_BITS:
            return int(getattr(value, kind))
    return None


def encode(metrics: Iterable[Metric], *, timestamp_ms: int | None, seq: int | None) -> bytes:
    """A payload's bytes; ``seq`` is taken modulo 256 and left out (as in a node's death) where None."""
    payload = Payload(metrics=metrics)
    if timestamp_ms is not None:
        payload.timestamp = timestamp_ms
    if seq is not None:
        payload.seq = seq % 256
    return payload.SerializeToString()


def make_metric(
    name: str | None,
    value: float | str | None,
    datatype: int = DataType.Double,
    *,
    alias: int | None = None,
    timestamp_ms: int | None = None,
    unit: str | None = None,
    quality: int | None = None,
) -> Metric:
    """One metric; ``name`` or ``alias`` is needed, both at birth. A value of None is sent as null."""
    metric = Metric(name=name, alias=alias, timestamp=timestamp_ms, datatype=datatype)
    if value is None:
        metric.is_null = True
    elif isinstance(value, str):
        metric.string_value = value
    elif datatype == DataType.Boolean:
        metric.boolean_value = bool(value)
    elif datatype == DataType.Float:
        metric.float_value = value
    elif datatype in {DataType.Int64, DataType.UInt64, DataType.UInt32, DataType.DateTime}:
        metric.long_value = int(value) % 2**64
    elif datatype in _BITS:
        metric.int_value = int(value) % 2**32
    else:
        metric.double_value = value
    if unit is not None:
        set_unit(metric, unit)
    if quality is not None:
        metric.properties.keys.append("Quality")
        metric.properties.values.add(type=DataType.Int32, int_value=quality)
    return metric


def set_unit(metric: Metric, unit: str) -> None:
    """Add the engineering unit to a metric that has none."""
    # Keys without a value would shift the pair appended here.
    paired = min(len(metric.properties.keys), len(metric.properties.values))
    del metric.properties.keys[paired:]
    del metric.properties.values[paired:]
    metric.properties.keys.append("engUnit")
    metric.properties.values.add(type=DataType.String, string_value=unit)


def rebirth_command(timestamp_ms: int) -> bytes:
    """The payload of an NCMD by which an edge node is asked for its births again."""
    return encode([make_metric(REBIRTH, True, DataType.Boolean)], timestamp_ms=timestamp_ms, seq=None)


def _integer(value: int, datatype: int, field_bits: int) -> float:
    bits = _BITS.get(datatype)
    if bits is None:
        if datatype == DataType.Boolean and value > 1:
            raise ValueUnfitError(f"the value {value} is no Boolean")
        return float(value)
    if datatype not in _SIGNED:
        if value >> bits:
            raise ValueUnfitError(f"the value {value} is outside {type_name(datatype)}")
        return float(value)
    low, half = value & ((1 << bits) - 1), 1 << (bits - 1)
    signed = low - (1 << bits) if low >= half else low
    # In full: as wide as the type, or extended to 32 bits, or to the field's width.
    if value not in {low, signed % 2**32, signed % (1 << field_bits)}:
        raise ValueUnfitError(f"the value {value} is outside {type_name(datatype)}")
    return float(signed)
