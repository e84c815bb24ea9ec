"""The shapes between the broker and the database: messages as they came, and what was found in them."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from lifeline.readings import Readings
from services.ingest.formats.sparkplug_node import NodeState

if TYPE_CHECKING:
    from services.ingest.formats.model import Reason
    from services.ingest.formats.sparkplug import Rebirth
    from services.ingest.formats.status import Status

KEPT_PAYLOAD = 64 << 10
"""Bytes of a refused payload that are kept."""

Nodes: TypeAlias = MutableMapping[str, NodeState]
"""What each Sparkplug edge node (``group/node``) said before."""


class Message(NamedTuple):
    """One MQTT message as it came."""

    topic: bytes
    payload: bytes
    received_at: int
    """Microseconds since 1970-01-01T00:00Z."""
    packet_id: int
    """What the broker waits to see acknowledged; 0 for QoS 0 and for messages from the spool."""


class Oversize(bytes):
    """The beginning of a payload that was too large to keep; ``size`` is what it was, bytes."""

    size: int


def payload_size(payload: bytes) -> int:
    """Bytes of a payload as it came, also where only its beginning was kept."""
    return payload.size if isinstance(payload, Oversize) else len(payload)


def topic_text(topic: bytes) -> str:
    """A topic as text that the database takes."""
    return topic.decode("utf-8", "replace").replace("\0", "�")


class DeadLetter(NamedTuple):
    """One row of ``dead_letter``; ``received_at`` in microseconds since 1970."""

    received_at: int
    topic: str
    reason: Reason
    detail: str
    payload: bytes
    payload_size: int


class DeviceReport(NamedTuple):
    """One row for ``device_status``."""

    device_id: int
    status: Status
    received_at: int


@dataclass(slots=True)
class Decoded:
    """What a number of messages hold. ``formats`` counts messages by the format of their topic."""

    readings: Readings = field(default_factory=Readings.empty)
    refusals: list[DeadLetter] = field(default_factory=list)
    reports: list[DeviceReport] = field(default_factory=list)
    rebirths: list[Rebirth] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
