"""What every parser speaks: readings as the source named them, and refusals with their reason."""

from __future__ import annotations

from typing import Literal, NamedTuple

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


class Parsed(NamedTuple):
    """What one message holds."""

    readings: list[RawReading]
    refusals: list[Refusal]
