"""A contract time, read strictly: RFC 3339 with an offset, or integer epoch milliseconds."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from services.ingest.formats.hostile_json import quoted

MICROS_PER_SECOND: Final = 1_000_000
LARGEST: Final = 253_402_300_800 * MICROS_PER_SECOND
"""The end of the year 9999, microseconds since 1970-01-01T00:00Z; times from here on are unreadable."""
SMALLEST: Final = -62_135_596_800 * MICROS_PER_SECOND
"""The start of the year 1, which is as far back as a database timestamp made from Python goes."""

_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))?"
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


class TimeError(ValueError):
    """A time that cannot be read; ``detail`` says why and what would be right."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def parse_time(value: object) -> int:
    """Microseconds since 1970-01-01T00:00Z of a contract time.

    Text is RFC 3339 section 5.6 ``date-time``: ``T``, ``t`` or a space between date and time, ``Z``, ``z`` or
    ``±hh:mm`` (or ``±hhmm``) as offset, any number of fractional digits (rounded to microseconds). Second 60 is taken
    where the RFC allows a leap second (23:59:60 in UTC, whatever the offset) as the second after it, as POSIX time
    counts; elsewhere it is refused. An integer is epoch milliseconds; a float or a boolean is refused.

    Raises :class:`TimeError`, for anything unreadable and for times outside the years 1 to 9999.
    """
    if isinstance(value, str):
        return _in_range(_parse_text(value), value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_range(value * 1000, value)
    raise TimeError(f"time is {quoted(value)}; send RFC 3339 text with an offset or integer epoch milliseconds")


def _in_range(micros: int, value: object) -> int:
    if not SMALLEST <= micros < LARGEST:
        raise TimeError(f"time {quoted(value)} is outside the years 1 to 9999")
    return micros


def _parse_text(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise TimeError(f"time {quoted(text)} is not RFC 3339, such as 2026-01-31T08:00:00+08:00")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, zulu, sign, offset_hour, offset_minute = match.groups()[6:]
    if zulu is None and sign is None:
        raise TimeError(f"time {quoted(text)} has no offset; add Z or one such as +08:00")
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        raise TimeError(f"time {quoted(text)} is on no day of the calendar") from None
    if hour > 23 or minute > 59 or second > 60 or int(offset_hour or 0) > 23 or int(offset_minute or 0) > 59:
        raise TimeError(f"time {quoted(text)} is at no time of the day")
    offset_s = 0 if zulu else int(sign + "1") * (int(offset_hour) * 3600 + int(offset_minute) * 60)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s
    if second == 60 and seconds % 86_400 != 0:
        raise TimeError(f"time {quoted(text)} has second 60, which comes only at 23:59:60 UTC")
    digits = fraction or ""
    return seconds * MICROS_PER_SECOND + int(digits[:6].ljust(6, "0")) + (digits[6:7] >= "5")
