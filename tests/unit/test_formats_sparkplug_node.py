"""An edge node's life: order, repeats, births, deaths and requests for rebirth, over any course of events."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lifeline import sparkplug
from lifeline.sparkplug import make_metric
from lifeline.sparkplug_b_pb2 import Metric
from services.ingest.formats.sparkplug import (
    Received,
    parse_metrics,
)
from services.ingest.formats.sparkplug_node import REBIRTH_WAIT_S
from tests.unit.sparkplug_host import Host, bd, by_alias, statuses, values

MS = 1_790_000_000_000
S = 1_000_000
NAMES = ("a", "b", "c", "d")


def test_sequence_wraps_without_a_request() -> None:
    host = Host()
    host.birth(0, seq=0)
    for seq in [*range(1, 256), 0, 1]:
        received = host.send("NDATA", seq, by_alias(1, float(seq)))
        assert received.rebirth is None
        assert values(received) == [("n1", "level", float(seq))]


def test_birth_may_start_at_any_number() -> None:
    host = Host()
    host.birth(0, seq=200)
    assert host.send("NDATA", 201, by_alias(1, 1.0)).rebirth is None


def test_a_gap_keeps_the_readings_and_asks_once() -> None:
    host = Host()
    host.birth()
    received = host.send("NDATA", 2, by_alias(1, 5.0))
    assert values(received) == [("n1", "level", 5.0)]
    assert received.rebirth is not None
    assert "seq 2 of g/n1 came after 0" in received.rebirth.reason
    again = host.send("NDATA", 4, by_alias(1, 6.0))
    assert values(again) == [("n1", "level", 6.0)]
    assert again.rebirth is None


def test_request_is_made_again_until_a_birth_comes_and_ever_less_often() -> None:
    host = Host()
    host.birth()
    seq, asked = 5, []
    for _ in range(120):
        received = host.send("NDATA", seq, by_alias(1, 1.0))
        seq = (seq + 1) % 256
        if received.rebirth is not None:
            asked.append(host.now_ms)
    waits = [(later - earlier) / 1000 for earlier, later in pairwise(asked)]
    assert waits == [REBIRTH_WAIT_S, 2 * REBIRTH_WAIT_S, 4 * REBIRTH_WAIT_S]
    host.birth()
    host.now_ms += 600_000
    assert host.send("NDATA", 1, by_alias(1, 1.0)).rebirth is None


@pytest.mark.parametrize("ms_back", [0, 1500])
def test_repeat_is_no_gap(ms_back: int) -> None:
    host = Host()
    host.birth()
    for seq in range(1, 6):
        host.send("NDATA", seq, by_alias(1, float(seq)))
    before = host.stored
    received = host.send("NDATA", 5 if ms_back == 0 else 3, by_alias(1, 3.0), ms=host.now_ms - ms_back)
    assert values(received) == [("n1", "level", 3.0)]
    assert received.rebirth is None
    assert host.stored == before
    assert host.send("NDATA", 6, by_alias(1, 6.0)).rebirth is None


def test_same_number_sent_later_still_counts() -> None:
    host = Host()
    host.birth()
    host.send("NDATA", 1, by_alias(1, 1.0))
    received = host.send("DBIRTH", 1, make_metric("b", 1.0), device="d1")
    assert received.rebirth is None
    assert statuses(received) == [("d1", True)]


def test_everything_delivered_again_changes_nothing() -> None:
    host, sent = Host(), []
    script: list[tuple[str, int | None, tuple[Metric, ...], str | None]] = [
        ("NBIRTH", 0, (bd(0), make_metric("a", 1.0, alias=1)), None),
        ("DBIRTH", 1, (make_metric("b", 1.0, alias=2),), "d1"),
        ("NDATA", 2, (by_alias(1, 2.0),), None),
        ("DDATA", 3, (by_alias(2, 2.0),), "d1"),
        ("DDEATH", 4, (), "d1"),
        ("NDATA", 5, (by_alias(1, 3.0),), None),
    ]
    first = []
    for kind, seq, metrics, device in script:
        host.now_ms += 1000
        payload = sparkplug.encode(metrics, timestamp_ms=host.now_ms, seq=seq)
        sent.append((kind, payload, device))
        first.append(host.deliver(kind, payload, device))
    before = host.stored
    for (kind, payload, device), original in zip(sent, first, strict=True):
        again = host.deliver(kind, payload, device)
        assert values(again) == values(original)
        assert (again.refusals, again.statuses, again.rebirth) == ([], [], None)
        assert host.stored == before


def test_sessions_delivered_again_do_not_bring_back_the_older() -> None:
    host, sent = Host(), []
    for session, name in enumerate("ab"):
        for kind, seq, metrics in (
            ("NBIRTH", 0, (bd(session), make_metric(name, 1.0, alias=1))),
            ("NDATA", 1, (by_alias(1, 2.0),)),
            ("NDEATH", None, (bd(session),)),
        ):
            host.now_ms += 1000
            sent.append((kind, sparkplug.encode(metrics, timestamp_ms=host.now_ms, seq=seq)))
            host.deliver(*sent[-1])
    before = host.stored
    for message in sent[:3]:
        again = host.deliver(*message)
        assert all(name == "a" for _, name, _ in values(again))
        assert (again.statuses, again.rebirth) == ([], None)
        assert host.stored == before


def test_data_before_any_birth() -> None:
    host = Host()
    received = host.send("NDATA", 17, make_metric("named", 1.0), by_alias(1, 2.0))
    assert values(received) == [("n1", "named", 1.0)]
    assert [refusal.reason for refusal in received.refusals] == ["unknown_point"]
    assert received.rebirth is not None
    assert "NBIRTH is not known" in received.rebirth.reason
    host.birth()
    host.now_ms += 600_000
    assert host.send("NDATA", 1, by_alias(1, 2.0)).rebirth is None


def test_device_data_before_its_birth() -> None:
    host = Host()
    host.birth()
    received = host.send("DDATA", 1, make_metric("named", 1.0), device="d1")
    assert values(received) == [("d1", "named", 1.0)]
    assert received.rebirth is not None
    assert "DBIRTH is not known" in received.rebirth.reason


# Deaths


def test_death_takes_the_devices_along() -> None:
    host = Host()
    host.birth(7)
    assert statuses(host.send("DBIRTH", 1, make_metric("b", 1.0, alias=2), device="d1")) == [("d1", True)]
    received = host.death(7)
    assert statuses(received) == [("n1", False), ("d1", False)]
    assert {status.time for status in received.statuses} == {host.now_ms * 1000}
    assert statuses(host.death(7)) == []


def test_older_death_is_ignored() -> None:
    host = Host()
    host.birth(7)
    host.birth(8)
    assert statuses(host.death(7)) == []
    assert host.state.online
    assert statuses(host.death(8)) == [("n1", False)]


def test_late_birth_does_not_revive() -> None:
    host = Host()
    host.birth(7)
    host.death(7)
    received = host.birth(7, make_metric("level", 4.0, alias=1))
    assert values(received) == [("n1", "level", 4.0)]
    assert statuses(received) == []
    assert not host.state.online
    assert statuses(host.birth(8)) == [("n1", True)]


def test_death_known_before_its_birth() -> None:
    host = Host()
    assert statuses(host.death(7)) == [("n1", False)]
    assert statuses(host.birth(7)) == []
    assert not host.state.online


def test_late_birth_leaves_the_present_session_alone() -> None:
    host = Host()
    host.birth(7, make_metric("old", 1.0, alias=1))
    host.death(7)
    host.birth(8, make_metric("new", 1.0, alias=1))
    before = host.stored
    assert values(host.birth(7, make_metric("old", 2.0, alias=1))) == [("n1", "old", 2.0)]
    assert host.stored == before
    assert values(host.send("NDATA", 1, by_alias(1, 3.0))) == [("n1", "new", 3.0)]


def test_data_after_death_is_taken_and_asks() -> None:
    host = Host()
    host.birth(7)
    host.death(7)
    received = host.send("NDATA", 1, by_alias(1, 3.0))
    assert values(received) == [("n1", "level", 3.0)]
    assert received.rebirth is not None
    assert "after its death" in received.rebirth.reason
    assert not host.state.online


def test_device_birth_under_a_dead_node_is_not_online() -> None:
    host = Host()
    host.birth(7)
    host.death(7)
    received = host.send("DBIRTH", 1, make_metric("b", 1.0), device="d1")
    assert values(received) == [("d1", "b", 1.0)]
    assert statuses(received) == []
    assert received.rebirth is not None


def test_device_death_and_return() -> None:
    host = Host()
    host.birth()
    host.send("DBIRTH", 1, make_metric("b", 1.0, alias=2), device="d1")
    assert statuses(host.send("DDEATH", 2, device="d1")) == [("d1", False)]
    assert host.send("DDATA", 3, by_alias(2, 1.0), device="d1").rebirth is not None
    assert statuses(host.send("DBIRTH", 4, make_metric("b", 1.0, alias=2), device="d1")) == [("d1", True)]
    assert statuses(host.send("DDEATH", 5, device="never-born")) == [("never-born", False)]


def test_death_without_number_counts() -> None:
    host = Host()
    host.birth(7)
    assert statuses(host.send("NDEATH", None)) == [("n1", False)]


# Hostile input


class EdgeNode(RuleBasedStateMachine):
    """A node that follows the specification, a network that loses and repeats: values never go to a wrong name.

    Only a birth that gives aliases new meanings is never lost here: the messages after it could not be told from
    those after a lost reading, which are read all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.host = Host()
        self.session = -1
        self.connected = False
        self.seq = 0
        self.value = 0.0
        self.aliases: dict[str | None, dict[int, str]] = {}
        self.names: dict[str | None, list[str]] = {}
        self.said: dict[tuple[str, float], str] = {}
        self.sent: list[tuple[str, bytes, str | None]] = []
        self.asked: list[int] = []

    def _deliver(self, kind: str, metrics: list[Metric], device: str | None, lost: bool) -> None:
        self.host.now_ms += 1000
        seq = None if kind == "NDEATH" else self.seq
        self.seq = 1 if kind == "NBIRTH" else (self.seq if seq is None else (self.seq + 1) % 256)
        payload = sparkplug.encode(metrics, timestamp_ms=self.host.now_ms, seq=seq)
        if not lost:
            self.sent.append((kind, payload, device))
            self._check(self.host.deliver(kind, payload, device))

    def _check(self, received: Received) -> None:
        for code, reading in received.readings:
            assert self.said[code, reading.value] == reading.name
            assert parse_metrics(reading.raw, 0).readings == [reading]
        if received.rebirth is not None:
            self.asked.append(self.host.now_ms)

    def _measure(self, device: str | None, name: str) -> float:
        self.value += 1
        self.said[device or self.host.node, self.value] = name
        return self.value

    def _born(self, device: str | None, names: list[str], lost: bool) -> list[Metric]:
        if not lost:
            self.names[device] = names
        self.aliases[device] = dict(enumerate(self.names.get(device, names)))
        return [
            make_metric(name, self._measure(device, name), alias=alias) for alias, name in self.aliases[device].items()
        ]

    @rule(names=st.permutations(NAMES), lost=st.booleans(), new=st.booleans())
    def node_birth(self, names: list[str], lost: bool, new: bool) -> None:
        if new or not self.connected:
            self.session += 1
        self.connected, self.seq = True, 0
        self.aliases.clear()
        self._deliver("NBIRTH", [bd(self.session), *self._born(None, names, lost)], None, lost)

    @rule(names=st.permutations(NAMES), lost=st.booleans(), device=st.sampled_from(["d1", "d2"]))
    def device_birth(self, names: list[str], lost: bool, device: str) -> None:
        if self.connected:
            self._deliver("DBIRTH", self._born(device, names, lost), device, lost)

    @rule(lost=st.booleans(), device=st.sampled_from([None, "d1", "d2"]), alias=st.integers(0, 3))
    def data(self, lost: bool, device: str | None, alias: int) -> None:
        if self.connected and device in self.aliases:
            value = self._measure(device, self.aliases[device][alias])
            self._deliver("NDATA" if device is None else "DDATA", [by_alias(alias, value)], device, lost)

    @rule(lost=st.booleans(), device=st.sampled_from(["d1", "d2"]))
    def device_death(self, lost: bool, device: str) -> None:
        if self.connected and device in self.aliases:
            del self.aliases[device]
            self._deliver("DDEATH", [], device, lost)

    @rule()
    def node_death(self) -> None:
        if self.connected:
            self.connected = False
            self.aliases.clear()
            self._deliver("NDEATH", [bd(self.session)], None, lost=False)
            if self.session == self.host.state.bd_seq:
                assert not self.host.state.online

    @rule(count=st.integers(1, 5))
    def redeliver(self, count: int) -> None:
        for kind, payload, device in self.sent[-count:]:
            self._check(self.host.deliver(kind, payload, device))

    @invariant()
    def requests_keep_their_distance(self) -> None:
        assert all(later - earlier >= REBIRTH_WAIT_S * 1000 for earlier, later in pairwise(self.asked))


EdgeNode.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestEdgeNode: Any = EdgeNode.TestCase


# The codec's other direction
