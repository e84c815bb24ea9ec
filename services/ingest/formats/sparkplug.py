"""Sparkplug B 3.0: one message and what its edge node said before, to readings, statuses and a rebirth request.

Readings are never held back for order's sake: after a gap, or from a node thought dead, they are taken as far as
names or the aliases of the last birth go, and a rebirth is asked for. Storing one twice is absorbed by its key.

The ``raw`` of a reading or a refusal is a payload of that one metric with its name, time, type and unit filled in,
which :func:`parse_metrics` reads without the node's state: so a dead letter can be replayed alone. (A metric refused
because nobody knows its alias stays so: the alias's meaning went with its session.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, NamedTuple, cast

from lifeline.readings import BAD, GOOD, UNCERTAIN
from lifeline.sparkplug import (
    BD_SEQ,
    PayloadError,
    ValueUnfitError,
    decode,
    is_control,
    number,
    quality_of,
    set_unit,
    text,
    unit_of,
)
from lifeline.sparkplug_b_pb2 import Metric, Payload
from services.ingest.formats.hostile_json import quoted
from services.ingest.formats.model import Parsed, RawReading, Refusal, Refusals
from services.ingest.formats.moments import LARGEST
from services.ingest.formats.sparkplug_node import Birth, NodeState, make_birth
from services.ingest.formats.topics import TopicError

LONGEST_NAME: Final = 512
"""Most characters of a metric's name: an alias would copy a longer one into reading after reading."""
LONGEST_UNIT: Final = 64

Kind = Literal["NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH", "NCMD", "DCMD", "STATE"]

_OF_NODE: Final = frozenset(("NBIRTH", "NDATA", "NDEATH", "NCMD"))
_OF_DEVICE: Final = frozenset(("DBIRTH", "DDATA", "DDEATH", "DCMD"))
IGNORED: Final = frozenset(("NCMD", "DCMD", "STATE"))
"""What is meant for edge nodes, or for other host applications."""


class SparkplugTopic(NamedTuple):
    """``spBv1.0/{group}/{kind}/{node}[/{device}]``; of ``spBv1.0/STATE/{host}`` the host stands as ``node``."""

    group: str
    kind: Kind
    node: str
    device: str | None

    @property
    def key(self) -> str:
        """What names the edge node: ``group/node``, the key of the table ``sparkplug_node``."""
        return f"{self.group}/{self.node}"

    @property
    def device_code(self) -> str:
        """The code of the device that speaks: the Sparkplug device's, else the edge node's."""
        return self.node if self.device is None else self.device


class DeviceOnline(NamedTuple):
    """A birth or a death tells whether a device is there."""

    device_code: str
    online: bool
    time: int
    """When it was heard, microseconds since 1970 UTC: a will carries the time of connecting, and birth and death come
    by different clocks, so only the order of arrival says which one holds."""


class Rebirth(NamedTuple):
    """An edge node should be asked for its births: publish :func:`lifeline.sparkplug.rebirth_command`, QoS 0."""

    topic: str
    reason: str


class Received(NamedTuple):
    """What one message brought. Readings and statuses go by device code; ``state`` is the node's from now on."""

    state: NodeState | None
    readings: list[tuple[str, RawReading]]
    refusals: list[Refusal]
    statuses: list[DeviceOnline]
    rebirth: Rebirth | None


class _Metrics(NamedTuple):
    parsed: Parsed
    unresolved: int | None
    """One of the aliases that nobody knows."""


def parse_sparkplug_topic(topic: str) -> SparkplugTopic:
    """Take a Sparkplug topic apart. Raises :class:`~services.ingest.formats.topics.TopicError`."""
    levels = topic.split("/")
    if levels[0] != "spBv1.0" or "" in levels or "\0" in topic:
        raise TopicError("the topic is not spBv1.0/{group}/{type}/{node}[/{device}], each part filled in")
    if levels[1:2] == ["STATE"] and len(levels) == 3:
        return SparkplugTopic("", "STATE", levels[2], None)
    kind = levels[2] if len(levels) > 2 else ""
    if kind not in _OF_NODE | _OF_DEVICE:
        raise TopicError(f"{quoted(kind)} in the topic is no Sparkplug message type, such as NDATA or DDATA")
    expected = 4 if kind in _OF_NODE else 5
    if len(levels) != expected:
        wanted = "{node}" if kind in _OF_NODE else "{node}/{device}"
        raise TopicError(f"the topic is not spBv1.0/{{group}}/{kind}/{wanted}")
    return SparkplugTopic(levels[1], cast("Kind", kind), levels[3], levels[4] if expected == 5 else None)


def receive(state: NodeState | None, topic: SparkplugTopic, payload: bytes, received_at: int) -> Received:
    """What a message brings, given what its edge node said before (None: nothing yet). Pure, and never raises.

    ``received_at`` is in microseconds since 1970 UTC. Commands and host states bring nothing. A message delivered
    again brings its readings again and changes nothing else.
    """
    if topic.kind in IGNORED:
        return Received(state, [], [], [], None)
    try:
        message = decode(payload)
    except PayloadError as error:
        return Received(state, [], [Refusal("bad_payload", str(error), payload)], [], None)
    before = state or NodeState()
    if topic.kind == "NDEATH":
        after = before.died(_bd_seq(message))
        return Received(after, [], [], _changes(topic, before, after, received_at), None)
    if topic.kind == "NBIRTH":
        return _node_birth(before, topic, message, payload, received_at)
    return _device_or_data(before, topic, message, payload, received_at)


def parse_metrics(payload: bytes, received_at: int) -> Parsed:
    """The readings of a payload whose metrics carry their names, without any node's state: for replay. Never raises.

    ``received_at`` (microseconds since 1970 UTC) serves metrics that have no time.
    """
    try:
        message = decode(payload)
    except PayloadError as error:
        return Parsed([], [Refusal("bad_payload", str(error), payload)])
    return _read_metrics(message, payload, None, "", received_at).parsed


def _node_birth(
    before: NodeState, topic: SparkplugTopic, message: Payload, payload: bytes, received_at: int
) -> Received:
    birth = _birth(message)
    parsed = _read_metrics(message, payload, birth, topic.key, received_at).parsed
    readings = [(topic.device_code, reading) for reading in parsed.readings]
    bd_seq = _bd_seq(message)
    if before.is_repeated_birth(message, bd_seq):
        return Received(before, readings, parsed.refusals, [], None)
    after = before.born(message, bd_seq, birth)
    statuses = _changes(topic, before, after, received_at)
    return Received(after, readings, parsed.refusals, statuses, None)


def _device_or_data(
    before: NodeState, topic: SparkplugTopic, message: Payload, payload: bytes, received_at: int
) -> Received:
    order = before.order(message)
    reason = _gap(before, topic, message) if order == "gap" else _absent(before, topic)
    after = before
    if order != "repeat":
        after = before.advance(message)
        if topic.kind == "DBIRTH" and topic.device is not None:
            after = after.device_born(topic.device, replace(_birth(message), online=before.online))
        elif topic.kind == "DDEATH" and topic.device is not None:
            after = after.device_died(topic.device)
    # A device's birth read again must not be read with the aliases of a later one.
    scope = _birth(message) if topic.kind == "DBIRTH" else after.scope(topic.device)
    parsed, unresolved = _read_metrics(message, payload, scope, topic.key, received_at)
    if reason is None and unresolved is not None:
        reason = f"alias {unresolved} of {topic.device_code} is not known"
    rebirth = None
    if order != "repeat":
        after, asked = after.ask(reason, received_at)
        rebirth = None if asked is None else Rebirth(f"spBv1.0/{topic.group}/NCMD/{topic.node}", asked)
    statuses = _changes(topic, before, after, received_at)
    if topic.kind == "DDEATH" and order != "repeat" and before.scope(topic.device) is None:
        statuses.append(DeviceOnline(topic.device_code, False, received_at))
    readings = [(topic.device_code, reading) for reading in parsed.readings]
    return Received(after, readings, parsed.refusals, statuses, rebirth)


def _gap(before: NodeState, topic: SparkplugTopic, message: Payload) -> str:
    return f"seq {message.seq} of {topic.key} came after {before.seq}: messages between them are lost"


def _absent(before: NodeState, topic: SparkplugTopic) -> str | None:
    """Why the sender's births are needed, None where they are known."""
    if before.birth is None:
        return f"{topic.key} sends data and its NBIRTH is not known"
    if not before.online:
        return f"{topic.key} sends data after its death"
    device = before.scope(topic.device)
    if topic.kind == "DDATA" and (device is None or not device.current or not device.online):
        return f"{topic.device_code} of {topic.key} sends data and its DBIRTH is not known"
    return None


def _changes(topic: SparkplugTopic, before: NodeState, after: NodeState, received_at: int) -> list[DeviceOnline]:
    """The statuses that follow from one state becoming another. A node's birth says so even where it was online."""
    changes = []
    if topic.kind in {"NBIRTH", "NDEATH"} and after is not before:
        died = topic.kind == "NDEATH" and not after.online and (before.online or before.birth is None)
        if (topic.kind == "NBIRTH" and after.online) or died:
            changes.append(DeviceOnline(topic.node, after.online, received_at))
    for name, device in after.devices.items():
        former = before.devices.get(name)
        if device is not former and device.online != (former is not None and former.online):
            changes.append(DeviceOnline(name, device.online, received_at))
    return changes


def _birth(message: Payload) -> Birth:
    metrics = []
    for metric in message.metrics:
        name = text(metric.name)
        if not name or _name_fault(name) is not None:
            continue
        alias = metric.alias if metric.HasField("alias") else None
        unit = unit_of(metric)
        metrics.append((name, alias, metric.datatype, unit if unit is None or len(unit) <= LONGEST_UNIT else None))
    return make_birth(message.timestamp if message.HasField("timestamp") else None, metrics)


def _bd_seq(message: Payload) -> int | None:
    for metric in message.metrics:
        if text(metric.name) == BD_SEQ and not metric.is_null:
            kind = metric.WhichOneof("value")
            if kind in {"long_value", "int_value"}:
                return int(getattr(metric, kind))
    return None


def _read_metrics(message: Payload, payload: bytes, birth: Birth | None, node: str, received_at: int) -> _Metrics:
    """Every metric of a message, whose bytes are ``payload``, as a reading or a refusal; controls are neither."""
    readings: list[RawReading] = []
    refusals = Refusals()
    unresolved = None
    sent_ms = message.timestamp if message.HasField("timestamp") else None
    for metric in message.metrics:
        name = text(metric.name)
        if not name and birth is not None and metric.HasField("alias"):
            name = birth.name_of(metric.alias, sent_ms) or ""
        if not name:
            if metric.HasField("alias"):
                unresolved = metric.alias
            time_ms = received_at // 1000 if sent_ms is None else sent_ms
            refusals.add(_nameless(metric, node, None if refusals.full else time_ms))
        elif not is_control(name):
            outcome = _read_metric(metric, name, birth, sent_ms, received_at, keep_text=not refusals.full)
            if isinstance(outcome, Refusal):
                refusals.add(outcome)
            else:
                readings.append(outcome)
    return _Metrics(Parsed(readings, refusals.close(payload)), unresolved)


def _nameless(metric: Metric, node: str, sent_ms: int | None) -> Refusal:
    """Why a metric without a name is refused, with its text unless ``sent_ms`` is None."""
    raw = b"" if sent_ms is None else Payload(timestamp=sent_ms, metrics=[metric]).SerializeToString()
    if not metric.HasField("alias"):
        return Refusal("bad_payload", "the metric has neither name nor alias", raw)
    where = f"edge node {quoted(node)}" if node else "its edge node"
    detail = f"alias {metric.alias} stands in no birth of {where} that holds; a rebirth brings its name"
    return Refusal("unknown_point", detail, raw)


def _read_metric(
    metric: Metric, name: str, birth: Birth | None, sent_ms: int | None, received_at: int, *, keep_text: bool
) -> RawReading | Refusal:
    """``keep_text``: a refusal needs its own text."""
    if name_fault := _name_fault(name):
        return Refusal("bad_payload", name_fault, Payload(metrics=[metric]).SerializeToString() if keep_text else b"")
    declared = 0 if birth is None else birth.types.get(name, 0)
    datatype = metric.datatype or declared
    unit = unit_of(metric)
    inherited = birth.units.get(name) if unit is None and birth is not None else None
    time_ms = metric.timestamp if metric.HasField("timestamp") else sent_ms
    fault: Refusal | None = None
    value = 0.0
    try:
        value = number(metric, datatype)
    except ValueUnfitError as error:
        fault = Refusal("bad_value", f"metric {quoted(name)}: {error}", b"")
    if unit is not None and len(unit) > LONGEST_UNIT:
        fault = Refusal("bad_unit", f"the unit is longer than {LONGEST_UNIT} characters", b"")
    if fault is not None and not keep_text:
        return fault
    raw = _resolved(metric, name, datatype, inherited, received_at // 1000 if time_ms is None else time_ms)
    if fault is not None:
        return fault._replace(raw=raw)
    time = None if time_ms is None else min(time_ms * 1000, LARGEST - 1)
    return RawReading(name, time, value, _quality(metric), unit or inherited, raw)


def _name_fault(name: str) -> str | None:
    if len(name) > LONGEST_NAME:
        return f"the metric's name is longer than {LONGEST_NAME} characters"
    return "the metric's name holds NUL" if "\0" in name else None


def _quality(metric: Metric) -> int:
    """The three codes of Sparkplug; of others, OPC's ranges: 0 to 63 and from 512 on bad, 192 to 255 good."""
    code = quality_of(metric)
    if code is None or 192 <= code < 256:
        return GOOD
    return BAD if code < 64 or code >= 512 else UNCERTAIN


def _resolved(metric: Metric, name: str, datatype: int, unit: str | None, time_ms: int) -> bytes:
    alone = Payload()
    whole = alone.metrics.add()
    whole.CopyFrom(metric)
    whole.ClearField("alias")
    whole.name = name
    whole.timestamp = time_ms
    if datatype:
        whole.datatype = datatype
    if unit is not None:
        set_unit(whole, unit)
    return alone.SerializeToString()
