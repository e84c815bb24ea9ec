"""What one Sparkplug edge node has said of itself, as a value: sequence, births, deaths, and when it was last asked.

Everything here is immutable; a change is a new :class:`NodeState`. ``to_dict`` and ``from_dict`` turn one into JSON
for the table ``sparkplug_node`` and back. The rules are those of Sparkplug 3.0.0, sections 5 and 6.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from lifeline.sparkplug_b_pb2 import Payload

REBIRTH_WAIT_S: Final = 10
"""Least time between two rebirth requests to one node; doubled while they do not help."""
LONGEST_REBIRTH_WAIT_S: Final = 600
REPEAT_WINDOW_MS: Final = 3_600_000
"""A message sent before the last one by up to this is a repeat; by more, the node's clock was set back."""
REMEMBERED_DEATHS: Final = 8
"""bdSeq wraps at 256, so that a death must be forgotten long before its number returns."""
REMEMBERED_BIRTHS: Final = 16
MOST_METRICS: Final = 50_000
"""Metrics remembered of one node and all its devices; those born beyond are read by name, never by alias."""

_FORMAT: Final = 2

Order = Literal["next", "repeat", "gap", "unknown"]
"""How a message stands to the last one: as expected, seen before, others lost in between, or not to be said."""


@dataclass(frozen=True, slots=True)
class Birth:
    """The metrics of one birth certificate, of the node or of one device."""

    born_ms: int | None = None
    """The payload's timestamp, milliseconds since 1970 UTC."""
    online: bool = True
    current: bool = True
    """Whether it belongs to the node's last birth; aliases hold only then."""
    aliases: Mapping[int, str] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[int, int] = field(default_factory=dict)
    """From when on each alias is known to stand for its name, milliseconds; a message sent before may mean another."""

    def succeed(self, former: Birth | None) -> Birth:
        """This birth, with aliases that mean what they meant in ``former`` known for as long as they were there."""
        born_ms = self.born_ms
        if born_ms is None:
            return self
        since = dict.fromkeys(self.aliases, born_ms)
        if former is not None:
            for alias, known_ms in former.since.items():
                if self.aliases.get(alias) == former.aliases.get(alias):
                    # Never later than this birth: the node's clock may have been set back.
                    since[alias] = min(known_ms, born_ms)
        return replace(self, since=since)

    def name_of(self, alias: int, sent_ms: int | None) -> str | None:
        """The name behind an alias in a message sent at ``sent_ms``; None where it cannot be told."""
        if not self.current or (sent_ms is not None and sent_ms < self.since.get(alias, sent_ms)):
            return None
        return self.aliases.get(alias)


@dataclass(frozen=True, slots=True)
class NodeState:
    """An edge node between two messages. The default is a node never heard of."""

    online: bool = False
    bd_seq: int | None = None
    """The bdSeq of the last birth that counted."""
    dead: tuple[int, ...] = ()
    """The bdSeq of the last deaths, newest last."""
    births: tuple[tuple[int | None, int | None, int], ...] = ()
    """The last births that came, newest last, by which one delivered again is known: born_ms, bd_seq, seq."""
    seq: int | None = None
    sent_ms: int | None = None
    """The timestamp of the last message that was no repeat."""
    birth: Birth | None = None
    devices: Mapping[str, Birth] = field(default_factory=dict)
    asked_at: int | None = None
    """When a rebirth was last asked for, microseconds since 1970 UTC."""
    ask_wait_s: int = REBIRTH_WAIT_S
    owed: str | None = None
    """Why a rebirth is needed, from the moment it was found until a birth comes."""

    def scope(self, device: str | None) -> Birth | None:
        """The birth of the node itself, or of one device."""
        return self.birth if device is None else self.devices.get(device)

    def order(self, message: Payload) -> Order:
        """How ``message`` (no birth or death of the node) stands to the last one."""
        if not message.HasField("seq") or self.seq is None:
            return "unknown"
        if message.seq == (self.seq + 1) % 256:
            return "next"
        earlier_ms = None
        if message.HasField("timestamp") and self.sent_ms is not None:
            earlier_ms = self.sent_ms - message.timestamp
        if message.seq == self.seq:
            # Sent later under the same number: a node that does not count, or the 256th lost message.
            return "repeat" if earlier_ms is None or earlier_ms >= 0 else "unknown"
        if earlier_ms is not None:
            if 0 < earlier_ms <= REPEAT_WINDOW_MS:
                return "repeat"
            if earlier_ms == 0 and (self.seq - message.seq) % 256 < 128:
                return "repeat"
        return "gap"

    def advance(self, message: Payload) -> NodeState:
        """Remember the message as the last one."""
        seq = self.seq
        if message.HasField("seq"):
            seq = message.seq if message.seq < 256 else None
        return replace(self, seq=seq, sent_ms=message.timestamp if message.HasField("timestamp") else self.sent_ms)

    def is_repeated_birth(self, message: Payload, bd_seq: int | None) -> bool:
        """Whether this very birth of the node came before."""
        return message.HasField("timestamp") and _identity(message, bd_seq) in self.births

    def born(self, message: Payload, bd_seq: int | None, birth: Birth) -> NodeState:
        """The node's birth. One whose bdSeq has died gives its aliases to a dead node, but revives nothing."""
        dead = bd_seq is not None and bd_seq in self.dead
        if dead and self.online:
            return self
        devices = {name: replace(device, current=False, online=False) for name, device in self.devices.items()}
        births = (*self.births, _identity(message, bd_seq))[-REMEMBERED_BIRTHS:]
        state = replace(self, birth=birth.succeed(self.birth), births=births, devices=devices).advance(message)
        return state if dead else replace(state, online=True, bd_seq=bd_seq, owed=None)

    def died(self, bd_seq: int | None) -> NodeState:
        """The node's death; one of an older session than the present is only remembered.

        A newer one counts: that session's birth is what we have missed, and ours ended before it.
        """
        dead = self.dead
        if bd_seq is not None and bd_seq not in dead:
            dead = (*dead, bd_seq)[-REMEMBERED_DEATHS:]
        if self.online and bd_seq is not None and self.bd_seq is not None and _is_older(bd_seq, self.bd_seq):
            return replace(self, dead=dead)
        devices = {name: replace(device, online=False) for name, device in self.devices.items()}
        return replace(self, dead=dead, online=False, devices=devices)

    def device_born(self, device: str, birth: Birth) -> NodeState:
        """A device's birth; where the node's memory is full its aliases are not kept."""
        former = self.devices.get(device)
        others = sum(len(other.types) + 1 for name, other in self.devices.items() if name != device)
        if others + len(birth.types) > MOST_METRICS:
            if former is None:
                return self
            birth = replace(birth, aliases={}, types={}, units={})
        return replace(self, devices={**self.devices, device: birth.succeed(former)})

    def device_died(self, device: str) -> NodeState:
        """A device's death; its aliases hold on for what still comes by mistake."""
        birth = self.devices.get(device)
        if birth is None:
            return self
        return replace(self, devices={**self.devices, device: replace(birth, online=False)})

    def ask(self, reason: str | None, now: int) -> tuple[NodeState, str | None]:
        """Whether to ask for a rebirth now, and why: for ``reason`` or one still owed. ``now`` in microseconds.

        Not more often than every :data:`REBIRTH_WAIT_S`, and ever less often where asking does not help.
        """
        owed = reason or self.owed
        if owed is None:
            return self, None
        state = replace(self, owed=owed)
        wait_s = REBIRTH_WAIT_S
        if self.asked_at is not None:
            waited_s = (now - self.asked_at) / 1_000_000
            if 0 <= waited_s < self.ask_wait_s:
                return state, None
            if 0 <= waited_s <= 4 * self.ask_wait_s:
                wait_s = min(2 * self.ask_wait_s, LONGEST_REBIRTH_WAIT_S)
        return replace(state, asked_at=now, ask_wait_s=wait_s), owed

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for :meth:`from_dict`."""
        return {
            "format": _FORMAT,
            "online": self.online,
            "bd_seq": self.bd_seq,
            "dead": list(self.dead),
            "births": [list(identity) for identity in self.births],
            "seq": self.seq,
            "sent_ms": self.sent_ms,
            "birth": None if self.birth is None else _birth_to_dict(self.birth),
            "devices": {name: _birth_to_dict(birth) for name, birth in self.devices.items()},
            "asked_at": self.asked_at,
            "ask_wait_s": self.ask_wait_s,
            "owed": self.owed,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> NodeState:
        """The state :meth:`to_dict` wrote; one of another format is as good as none, a rebirth brings it back."""
        if stored.get("format") != _FORMAT:
            return cls()
        plain = ("online", "bd_seq", "seq", "sent_ms", "asked_at", "ask_wait_s", "owed")
        return cls(
            **{name: stored[name] for name in plain},
            dead=tuple(stored["dead"]),
            births=tuple((born_ms, bd_seq, seq) for born_ms, bd_seq, seq in stored["births"]),
            birth=None if stored["birth"] is None else _birth_from_dict(stored["birth"]),
            devices={name: _birth_from_dict(birth) for name, birth in stored["devices"].items()},
        )


def _identity(message: Payload, bd_seq: int | None) -> tuple[int | None, int | None, int]:
    return message.timestamp if message.HasField("timestamp") else None, bd_seq, message.seq


def _is_older(bd_seq: int, present: int) -> bool:
    """Whether a bdSeq comes before the present one; up to 255 they wrap, beyond that they are a node's own idea."""
    if max(bd_seq, present) < 256:
        return (present - bd_seq) % 256 in range(1, 129)
    return bd_seq < present


def make_birth(born_ms: int | None, metrics: Iterable[tuple[str, int | None, int, str | None]]) -> Birth:
    """A birth from its metrics: name, alias, datatype (0 unknown), unit. Only the first 50,000 are remembered."""
    aliases: dict[int, str] = {}
    types: dict[str, int] = {}
    units: dict[str, str] = {}
    for name, alias, datatype, unit in metrics:
        if len(types) >= MOST_METRICS:
            break
        types[name] = datatype
        if alias is not None:
            aliases[alias] = name
        if unit is not None:
            units[name] = unit
    return Birth(born_ms, aliases=aliases, types=types, units=units)


def _birth_to_dict(birth: Birth) -> dict[str, Any]:
    return {
        "born_ms": birth.born_ms,
        "online": birth.online,
        "current": birth.current,
        "aliases": [[alias, name, birth.since.get(alias)] for alias, name in birth.aliases.items()],
        "types": dict(birth.types),
        "units": dict(birth.units),
    }


def _birth_from_dict(stored: Mapping[str, Any]) -> Birth:
    return Birth(
        born_ms=stored["born_ms"],
        online=stored["online"],
        current=stored["current"],
        aliases={alias: name for alias, name, _ in stored["aliases"]},
        types=dict(stored["types"]),
        units=dict(stored["units"]),
        since={alias: since for alias, _, since in stored["aliases"] if since is not None},
    )
