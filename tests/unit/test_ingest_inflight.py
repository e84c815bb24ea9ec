"""Redelivered messages: what is in our hands is dropped, what is durable is acknowledged, all else is new."""

from __future__ import annotations

from services.ingest.frames import Published
from services.ingest.inflight import REMEMBERED_S, InFlight
from services.ingest.messages import Message


def sent(packet_id: int, payload: bytes = b"x", *, again: bool = False) -> Published:
    return Published(b"t", payload, packet_id, again)


def taken(packet_id: int, received_at: int, payload: bytes = b"x") -> Message:
    return Message(b"t", payload, received_at, packet_id)


def test_first_deliveries_pass() -> None:
    assert InFlight().sift([sent(1), sent(0), sent(2)], 1.0) == ([sent(1), sent(0), sent(2)], [])


def test_redelivery_of_what_another_process_took_is_new() -> None:
    assert InFlight().sift([sent(1, again=True)], 1.0) == ([sent(1, again=True)], [])


def test_redelivery_while_in_our_hands_is_dropped_and_later_acknowledged_once() -> None:
    flight = InFlight()
    flight.take([taken(1, 100)])
    assert flight.sift([sent(1, again=True), sent(2)], 1.0) == ([sent(2)], [])
    assert flight.durable([taken(1, 100)], 2.0) == [1]


def test_redelivery_of_what_is_durable_is_acknowledged_at_once() -> None:
    flight = InFlight()
    flight.take([taken(1, 100)])
    flight.durable([taken(1, 100)], 2.0)
    assert flight.sift([sent(1, again=True)], 3.0) == ([], [1])
    assert flight.sift([sent(1, again=True)], 3.0 + REMEMBERED_S) == ([sent(1, again=True)], [])


def test_an_id_given_to_another_message_is_not_mistaken_for_it() -> None:
    flight = InFlight()
    flight.take([taken(1, 100)])
    # The broker came back from an older state and gave id 1 to another message, whose redelivery we see first.
    assert flight.sift([sent(1, b"y", again=True)], 1.0)[0] == [sent(1, b"y", again=True)]
    flight.take([taken(1, 200, b"y")])
    assert flight.durable([taken(1, 100)], 2.0) == []  # it would acknowledge the other one
    assert flight.durable([taken(1, 200, b"y")], 2.0) == [1]


def test_what_could_not_be_kept_is_new_when_it_comes_again() -> None:
    flight = InFlight()
    flight.take([taken(1, 100)])
    flight.drop([taken(1, 100)])
    assert flight.sift([sent(1, again=True)], 1.0)[0] == [sent(1, again=True)]


def test_a_new_session_forgets_all() -> None:
    flight = InFlight()
    flight.take([taken(1, 100)])
    flight.forget()
    assert flight.sift([sent(1, again=True)], 1.0)[0] == [sent(1, again=True)]
    assert flight.durable([taken(1, 100)], 1.0) == []
