"""The bounded queue between consumers and the writer."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.ingest.messages import Decoded, Message


class Acknowledger(Protocol):
    """Who must hear that a parcel is durable."""

    def acknowledge(self, parcel: Parcel) -> None: ...


_READING_BYTES = 40
"""Of one reading in columns (30), and what their arrays add."""
_REFUSAL_BYTES = 500
"""Of one refusal beside its payload: a row of six Python objects, its detail the largest."""


@dataclass(slots=True, eq=False)
class Parcel:
    """Messages that arrived together; acknowledged together when they are durable."""

    messages: list[Message]
    consumer: Acknowledger
    session: int
    """Which session of the consumer they came in; packet ids mean nothing in a later one."""
    size: int
    """Bytes held in memory, roughly."""
    arrived: float = field(default_factory=time.monotonic)
    decoded: Decoded | None = None
    """What the messages hold, where the consumer could tell already."""

    @property
    def weight(self) -> int:
        """Readings and refusals, or messages where they are not decoded yet."""
        decoded = self.decoded
        return len(self.messages) if decoded is None else len(decoded.readings) + len(decoded.refusals)

    def hold(self, decoded: Decoded) -> None:
        """Keep what the messages hold, and count its bytes. To be called before :meth:`ParcelQueue.put`, once."""
        assert self.decoded is None
        self.decoded = decoded
        self.size += _READING_BYTES * len(decoded.readings)
        self.size += sum(_REFUSAL_BYTES + len(letter.payload) for letter in decoded.refusals)


class ParcelQueue:
    """First in, first out, bounded by bytes. What is taken counts until :meth:`release`, so that memory is bounded."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._parcels: deque[Parcel] = deque()
        self._taken: list[Parcel] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, parcel: Parcel, go_on: Callable[[], bool]) -> bool:
        """Add ``parcel``, waiting for room. ``go_on`` is asked five times a second while waiting; its no drops it."""
        with self._changed:
            while self._held_bytes and self._held_bytes + parcel.size > self._most_bytes:
                self._changed.wait(0.2)
                self._changed.release()
                try:
                    wanted = go_on()
                finally:
                    self._changed.acquire()
                if not wanted:
                    return False
            self._held_bytes += parcel.size
            self._parcels.append(parcel)
            self._changed.notify_all()
            return True

    def take(self, most_readings: int, timeout_s: float) -> list[Parcel]:
        """All that is there, up to about ``most_readings``; waits up to ``timeout_s`` for the first. May be empty."""
        with self._changed:
            if not self._parcels and not self._closed:
                self._changed.wait(timeout_s)
            taken: list[Parcel] = []
            weight = 0
            while self._parcels and weight < most_readings:
                parcel = self._parcels.popleft()
                weight += parcel.weight
                taken.append(parcel)
            self._taken += taken
            return taken

    @property
    def has_waiting(self) -> bool:
        """Whether there is something that nobody has taken yet: the writer is at work."""
        return bool(self._parcels)

    def release(self, parcels: list[Parcel]) -> None:
        """``parcels``, the oldest of those taken and in their order, are durable: make room."""
        size = sum(parcel.size for parcel in parcels)
        with self._changed:
            first = itertools.islice(self._taken, len(parcels))
            assert all(one is other for one, other in zip(first, parcels, strict=True)), "released out of order"
            del self._taken[: len(parcels)]
            self._held_bytes -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing more will be put; :meth:`take` no longer waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """Closed, and everything taken and released."""
        with self._changed:
            return self._closed and not self._parcels and not self._taken

    def weigh(self) -> tuple[int, float]:
        """(readings and refusals in memory, age in seconds of the oldest message not released)."""
        with self._changed:
            every = [*self._taken, *self._parcels]
        oldest = min((parcel.arrived for parcel in every), default=None)
        age = 0.0 if oldest is None else time.monotonic() - oldest
        return sum(parcel.weight for parcel in every), age
