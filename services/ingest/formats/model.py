"""What every parser speaks: readings as the source named them, and refusals with their reason."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Reason = Literal[
    "too_large",
    "bad_payload",
    "bad_topic",
    "unknown_device",
    "unknown_point",
    "county_mismatch",
    "bad_value",
    "bad_unit",
    "bad_time",
    "future_time",
    "too_old",
]

MAX_PAYLOAD = 1 << 20
"""Largest message taken, bytes; above it the message is refused as ``too_large``."""

MOST_REFUSALS: Final = 10_000
"""Most refusals of one message that are listed one by one.

A message of 1 MiB can hold half a million things that are no readings; a list of them would be some hundred times as
large as the message, in memory and in the dead letter. No device has as many points to send in one message.
"""
MOST_REFUSED_BYTES: Final = 4 * MAX_PAYLOAD
"""Most bytes of the texts of listed refusals: base fields and names are copied into each, and make them large."""


class RawReading(NamedTuple):
    """One reading as its source wrote it, before the registry is asked."""

    name: str
    """The point's code, or its ``source_name`` in SenML and Sparkplug."""
    time: int | None
    """Microseconds since 1970-01-01T00:00Z; None where the source gave none (arrival time counts)."""
    value: float
    """Finite; booleans are 0.0 and 1.0."""
    quality: int
    """:data:`lifeline.readings.GOOD`, ``UNCERTAIN`` or ``BAD``."""
    unit: str | None
    """The source's unit where it names one."""
    raw: bytes
    """The reading's own text, kept should it be refused."""


class Refusal(NamedTuple):
    """Why one reading, or one whole message, is not taken."""

    reason: Reason
    detail: str
    """For people: what is wrong and, where it can be said, what would be right."""
    raw: bytes
    """The reading's own text, or the whole payload where the whole is unreadable."""


class Refusals:
    """The refusals of one message: the first one by one, of those beyond the bound only how many for which reason."""

    __slots__ = ("_beyond", "_bytes", "_listed")

    def __init__(self, listed: list[Refusal] | None = None) -> None:
        """Go on with ``listed``, which becomes ours."""
        self._listed = [] if listed is None else listed
        self._bytes = sum(len(refusal.raw) for refusal in self._listed)
        self._beyond: dict[Reason, int] = {}

    @property
    def full(self) -> bool:
        """Whether only the reason of a further refusal is kept, so that its text need not be made."""
        return len(self._listed) >= MOST_REFUSALS or self._bytes >= MOST_REFUSED_BYTES

    def add(self, refusal: Refusal) -> None:
        """List ``refusal``, or count it."""
        if self.full:
            self._beyond[refusal.reason] = self._beyond.get(refusal.reason, 0) + 1
        else:
            self._listed.append(refusal)
            self._bytes += len(refusal.raw)

    def close(self, payload: bytes) -> list[Refusal]:
        """All of them; where some are only counted, one refusal of the whole message, ``payload``, tells of those."""
        if self._beyond:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self._beyond.items()))
            detail = f"{sum(self._beyond.values())} more readings of this message are refused, not listed: {reasons}"
            self._listed.append(Refusal("bad_payload", detail, payload))
            self._beyond = {}
        return self._listed


class Parsed(NamedTuple):
    """What one message holds."""

    readings: list[RawReading]
    refusals: list[Refusal]
    """From :meth:`Refusals.close`: bounded, whatever the message holds."""
