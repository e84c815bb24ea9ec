"""What a device says of itself on its status topic, retained, and what its will says when it is gone."""

from __future__ import annotations

import math
from typing import NamedTuple

from services.ingest.formats.hostile_json import HostileJSONError, decode, quoted
from services.ingest.formats.model import Refusal
from services.ingest.formats.moments import TimeError, parse_time

LONGEST_FIRMWARE = 200


class Status(NamedTuple):
    """A device's own word on its state."""

    online: bool
    time: int
    """Microseconds since 1970-01-01T00:00Z, the device's own; arrival where it gave none. A will carries the time at
    which it was left with the broker, so the order of arrival decides which status holds, not this."""
    battery: float | None
    rssi: float | None
    firmware: str | None


class _FieldError(Exception):
    pass


def parse_status(payload: bytes, received_at: int) -> Status | Refusal | None:
    """The status in one message; None for an empty payload, by which a retained status is cleared.

    ``{"online": bool, "time"?, "battery"?, "rssi"?, "firmware"?}``: ``battery`` and ``rssi`` are finite numbers,
    ``firmware`` is text; null stands for left out, save for ``time``. Unknown fields are ignored. ``received_at`` is
    in microseconds since 1970-01-01T00:00Z. Never raises: a refusal names the field (``bad_payload``, ``bad_time``).
    """
    if not payload:
        return None
    try:
        return _status(decode(payload), received_at)
    except TimeError as error:
        return Refusal("bad_time", error.detail, payload)
    except (HostileJSONError, _FieldError) as error:
        return Refusal("bad_payload", str(error), payload)


def _status(fields: object, received_at: int) -> Status:
    if not isinstance(fields, dict):
        raise _FieldError(f"a status is a JSON object, not {quoted(fields)}")
    if "online" not in fields:
        raise _FieldError("online is missing; it must be true or false")
    online = fields["online"]
    if not isinstance(online, bool):
        raise _FieldError(f"online is {quoted(online)}; it must be true or false")
    time = parse_time(fields["time"]) if "time" in fields else received_at
    return Status(online, time, _number(fields, "battery"), _number(fields, "rssi"), _firmware(fields))


def _number(fields: dict[str, object], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _FieldError(f"{name} is {quoted(value)}; it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _FieldError(f"{name} is {quoted(value)}; it must be a finite number")
    return number


def _firmware(fields: dict[str, object]) -> str | None:
    value = fields.get("firmware")
    if value is None:
        return None
    if not isinstance(value, str):
        raise _FieldError(f"firmware is {quoted(value)}; it must be text")
    # PostgreSQL's text holds no NUL.
    if len(value) > LONGEST_FIRMWARE or "\0" in value:
        raise _FieldError(f"firmware must be at most {LONGEST_FIRMWARE} characters, none of them NUL")
    return value
