"""What the packet ids of a session stand for, so that a redelivery is known for what it is.

After a reconnect a broker sends again, flagged DUP, what it has no acknowledgement of (MQTT 5.0, 4.4). Some of that is
still in our hands, and some is durable and only its acknowledgement was lost: neither must be stored again, for a
reading without a time would get a second one, and a refusal a second letter. What another process took is new to us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.ingest.frames import Published
    from services.ingest.messages import Message

_IDS = 1 << 16
REMEMBERED_S = 300.0
"""A broker that sends again does so soon; later the same id with the same content is a new message."""


class InFlight:
    """The packet ids of one session. Not safe for threads: the consumer's lock is held around every call."""

    def __init__(self) -> None:
        self._content = np.zeros(_IDS, np.int64)
        self._owner = np.zeros(_IDS, np.int64)
        """Arrival time of the message that has the id, which names it; 0 where there is none."""
        self._durable_at = np.zeros(_IDS, np.float64)
        """When that message became durable, monotonic seconds; 0 while it is in our hands."""

    def forget(self) -> None:
        """The broker has begun a new session."""
        self._owner[:] = 0

    def sift(self, published: Sequence[Published], now: float) -> tuple[list[Published], list[int]]:
        """(what is new, ids to acknowledge at once, as their message is durable)."""
        if not any(item.again for item in published):
            return list(published), []
        fresh, durable = [], []
        for item in published:
            packet_id = item.packet_id
            known = item.again and self._owner[packet_id] and self._content[packet_id] == _content(item)
            durable_at = self._durable_at[packet_id]
            if not known or (durable_at and now - durable_at > REMEMBERED_S):
                fresh.append(item)
            elif durable_at:
                durable.append(packet_id)
        return fresh, durable

    def take(self, messages: Sequence[Message]) -> None:
        """These are in our hands now."""
        ids = np.array([message.packet_id for message in messages], np.intp)
        self._content[ids] = [hash(message.topic) ^ hash(message.payload) for message in messages]
        self._owner[ids] = [message.received_at for message in messages]
        self._durable_at[ids] = 0

    def drop(self, messages: Sequence[Message]) -> None:
        """These we could not keep: when the broker sends them again, they are new to us."""
        for message in messages:
            if self._owner[message.packet_id] == message.received_at:
                self._owner[message.packet_id] = 0

    def durable(self, messages: Sequence[Message], now: float) -> list[int]:
        """These are durable: the ids to acknowledge, without those that the broker has meanwhile given to others."""
        ids = np.array([message.packet_id for message in messages], np.intp)
        owners = np.array([message.received_at for message in messages], np.int64)
        ours = ids[(ids > 0) & (self._owner[ids] == owners)]
        self._durable_at[ours] = now
        return [int(packet_id) for packet_id in ours]


def _content(item: Published) -> int:
    return hash(item.topic) ^ hash(item.payload)
