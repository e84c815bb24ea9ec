"""The bounded queue: its bound holds between threads, what is taken counts until it is released."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from lifeline.readings import Readings
from services.ingest.messages import DeadLetter, Decoded, Message
from services.ingest.parcels import Parcel, ParcelQueue
from tests.servers import wait_for


class Nobody:
    def acknowledge(self, parcel: Parcel) -> None:
        pass


def make(size: int = 10, messages: int = 1) -> Parcel:
    return Parcel([Message(b"t", b"", 0, 1)] * messages, Nobody(), 1, size)


def go_on() -> bool:
    return True


def decoded(readings: int, refusals: int, payload: bytes = b"12345") -> Decoded:
    columns = Readings(*(np.zeros(readings, kind) for kind in ("i4", "i8", "i8", "f8", "i2")))
    return Decoded(columns, [DeadLetter(0, "t", "bad_payload", "", payload, len(payload))] * refusals)


class Putter(threading.Thread):
    """Puts one parcel from a thread of its own; ``result`` is None while it waits."""

    def __init__(self, queue: ParcelQueue, parcel: Parcel) -> None:
        super().__init__(daemon=True)
        self._queue, self._parcel = queue, parcel
        self.wanted = True
        self.asked = 0
        self.result: bool | None = None
        self.start()

    def run(self) -> None:
        self.result = self._queue.put(self._parcel, self._go_on)

    def _go_on(self) -> bool:
        self.asked += 1
        return self.wanted


def test_weight_counts_messages_then_readings_and_refusals() -> None:
    parcel = make(messages=3)
    assert parcel.weight == 3
    parcel.hold(decoded(readings=4, refusals=5))
    assert parcel.weight == 9


def test_what_was_decoded_ahead_counts_in_bytes() -> None:
    parcel = make(size=100)
    parcel.hold(decoded(readings=10, refusals=2))
    assert parcel.size == 100 + 10 * 40 + 2 * (500 + 5)
    assert parcel.decoded is not None


def test_refusals_fill_a_batch_as_readings_do() -> None:
    queue = ParcelQueue(1 << 20)
    for _ in range(5):
        parcel = make()
        parcel.hold(decoded(readings=0, refusals=100))
        queue.put(parcel, go_on)
    assert len(queue.take(250, 0)) == 3
    assert queue.weigh()[0] == 500


def test_first_in_first_out() -> None:
    queue = ParcelQueue(1000)
    parcels = [make() for _ in range(5)]
    for parcel in parcels:
        assert queue.put(parcel, go_on)
    taken = queue.take(3, 0) + queue.take(100, 0)
    assert all(one is other for one, other in zip(taken, parcels, strict=True))
    assert queue.take(1, 0) == []


def test_put_waits_at_the_bound_until_what_was_taken_is_released() -> None:
    queue = ParcelQueue(25)
    assert queue.put(make(), go_on)
    assert queue.put(make(), go_on)
    putter = Putter(queue, make())
    wait_for(lambda: putter.asked >= 1, 5, "the wait for room")
    taken = queue.take(1, 0)
    asked = putter.asked
    wait_for(lambda: putter.asked > asked + 1, 5, "a longer wait: what is taken still counts")
    assert putter.result is None
    queue.release(taken)
    putter.join(5)
    assert putter.result is True
    assert len(queue.take(10, 0)) == 2


def test_what_was_decoded_ahead_is_what_put_waits_for() -> None:
    queue = ParcelQueue(1000)
    first, second = make(), make()
    first.hold(decoded(readings=0, refusals=1))
    second.hold(decoded(readings=0, refusals=1))
    assert queue.put(first, go_on)
    putter = Putter(queue, second)
    wait_for(lambda: putter.asked >= 1, 5, "the wait for room")
    queue.release(queue.take(1, 0))
    putter.join(5)
    assert putter.result is True


def test_a_parcel_larger_than_the_bound_goes_alone() -> None:
    queue = ParcelQueue(25)
    assert queue.put(make(size=100), go_on)
    putter = Putter(queue, make())
    wait_for(lambda: putter.asked >= 1, 5, "the wait for room")
    queue.release(queue.take(1, 0))
    putter.join(5)
    assert putter.result is True


def test_a_no_while_waiting_drops_the_parcel() -> None:
    queue = ParcelQueue(15)
    assert queue.put(make(), go_on)
    putter = Putter(queue, make())
    wait_for(lambda: putter.asked >= 1, 5, "the wait for room")
    putter.wanted = False
    putter.join(5)
    assert putter.result is False
    taken = queue.take(10, 0)
    assert len(taken) == 1
    queue.release(taken)
    assert queue.weigh() == (0, 0.0)


def test_go_on_is_asked_without_the_lock() -> None:
    queue = ParcelQueue(15)
    assert queue.put(make(), go_on)
    seen: list[int] = []

    def look() -> bool:
        other = threading.Thread(target=lambda: seen.append(queue.weigh()[0]))
        other.start()
        other.join(2)
        return False

    assert queue.put(make(), look) is False
    assert seen == [1]


def test_closed_and_drained() -> None:
    queue = ParcelQueue(100)
    queue.put(make(), go_on)
    assert not queue.drained
    queue.close()
    assert not queue.drained
    taken = queue.take(10, 0)
    assert not queue.drained
    queue.release(taken)
    assert queue.drained


def test_close_ends_a_wait_for_parcels() -> None:
    queue = ParcelQueue(100)
    taken: list[Parcel] = [make()]
    taker = threading.Thread(target=lambda: taken.__setitem__(slice(None), queue.take(1, 30)), daemon=True)
    taker.start()
    queue.close()
    taker.join(5)
    assert not taker.is_alive()
    assert taken == []


def test_release_in_another_order_is_a_mistake_and_changes_nothing() -> None:
    queue = ParcelQueue(100)
    for _ in range(3):
        queue.put(make(), go_on)
    first, second, third = queue.take(10, 0)
    for wrong in ([second], [first, third], [first, second, third, make()]):
        with pytest.raises((AssertionError, ValueError)):
            queue.release(wrong)
    queue.release([first])
    queue.release([second, third])
    assert queue.weigh()[0] == 0


def test_releasing_many_small_parcels_is_quick() -> None:
    queue = ParcelQueue(1 << 30)
    for _ in range(50_000):
        queue.put(make(), go_on)
    taken = queue.take(50_000, 0)
    began = time.perf_counter()
    queue.release(taken)
    assert time.perf_counter() - began < 0.3
    assert queue.weigh()[0] == 0


def test_many_threads_lose_nothing_and_keep_the_bound() -> None:
    queue = ParcelQueue(200)
    most = 0
    numbers: list[int] = []

    def put(start: int) -> None:
        for number in range(start, start + 200):
            assert queue.put(Parcel([Message(b"", b"", number, 1)], Nobody(), 1, 10), go_on)

    putters = [threading.Thread(target=put, args=(start,), daemon=True) for start in (0, 1000, 2000)]
    for putter in putters:
        putter.start()
    while len(numbers) < 600:
        taken = queue.take(7, 5)
        assert taken
        most = max(most, queue.weigh()[0])
        numbers += [message.received_at for parcel in taken for message in parcel.messages]
        queue.release(taken)
    for putter in putters:
        putter.join(5)
    assert most <= 20
    assert sorted(numbers) == [*range(200), *range(1000, 1200), *range(2000, 2200)]
    for start in (0, 1000, 2000):
        ours = [number for number in numbers if start <= number < start + 200]
        assert ours == sorted(ours)
