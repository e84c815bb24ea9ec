"""An edge node and its messages, for tests of the Sparkplug parser."""

from __future__ import annotations

import json

from lifeline import sparkplug
from lifeline.sparkplug import make_metric
from lifeline.sparkplug_b_pb2 import DataType, Metric
from services.ingest.formats.sparkplug import (
    Received,
    parse_sparkplug_topic,
    receive,
)
from services.ingest.formats.sparkplug_node import NodeState

MS = 1_790_000_000_000
S = 1_000_000


class Host:
    """The receiving side of one edge node: its state stored as JSON between messages, as the database would."""

    def __init__(self, node: str = "n1", group: str = "g") -> None:
        self.node, self.group = node, group
        self.stored: str | None = None
        self.now_ms = MS

    @property
    def state(self) -> NodeState:
        return NodeState() if self.stored is None else NodeState.from_dict(json.loads(self.stored))

    def deliver(self, kind: str, payload: bytes, device: str | None = None) -> Received:
        topic = f"spBv1.0/{self.group}/{kind}/{self.node}" + ("" if device is None else f"/{device}")
        state = None if self.stored is None else self.state
        received = receive(state, parse_sparkplug_topic(topic), payload, self.now_ms * 1000)
        if received.state is not None:
            self.stored = json.dumps(received.state.to_dict())
        return received

    def send(
        self, kind: str, seq: int | None, *metrics: Metric, device: str | None = None, ms: int | None = None
    ) -> Received:
        """Deliver a message sent now, one second after the last."""
        self.now_ms += 1000
        sent_ms = self.now_ms if ms is None else ms
        return self.deliver(kind, sparkplug.encode(metrics, timestamp_ms=sent_ms, seq=seq), device)

    def birth(self, bd_seq: int = 0, *metrics: Metric, seq: int = 0) -> Received:
        return self.send("NBIRTH", seq, bd(bd_seq), *(metrics or (make_metric("level", 1.0, alias=1, unit="m"),)))

    def death(self, bd_seq: int) -> Received:
        return self.send("NDEATH", None, bd(bd_seq))


def bd(bd_seq: int) -> Metric:
    return make_metric("bdSeq", bd_seq, DataType.Int64)


def by_alias(alias: int, value: float, datatype: int = DataType.Double) -> Metric:
    metric = make_metric(None, value, datatype, alias=alias)
    metric.ClearField("datatype")
    return metric


def values(received: Received) -> list[tuple[str, str, float]]:
    return [(device, reading.name, reading.value) for device, reading in received.readings]


def statuses(received: Received) -> list[tuple[str, bool]]:
    return [(status.device_code, status.online) for status in received.statuses]
