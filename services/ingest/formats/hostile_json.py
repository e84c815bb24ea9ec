"""JSON from strangers: one function that decodes it and fails in one way only.

What one bad number or one bad character would cost a whole message elsewhere (``NaN``, ``1e999``, a lone surrogate)
comes through as a value that the reading it belongs to can be refused for.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_MOST_DIGITS = 400
"""An integer of more digits is beyond double's range (about 1.8e308) whatever they are."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_QUOTE = 80

_fast = msgspec.json.Decoder[Any]()


class HostileJSONError(ValueError):
    """The payload is not JSON that can be read; ``detail`` says why, for people, and is safe to store."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def decode(payload: bytes) -> object:
    """The value of a JSON text in UTF-8 (RFC 8259): dict, list, str, int, float, bool or None.

    Lenient in what costs only its own reading: ``NaN``, ``Infinity``, ``-Infinity`` and numbers beyond double's range
    become floats that are not finite, half a surrogate pair becomes U+FFFD, a byte order mark is skipped. Integers are
    exact, whatever their size up to 400 digits. Of a repeated key the last counts.

    Raises :class:`HostileJSONError` and nothing else: empty, not UTF-8, not JSON, or nested too deep to be read.
    """
    try:
        return _fast.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass  # the slow decoder takes more, and says where it stopped
    except RecursionError:
        raise HostileJSONError("JSON is nested too deep; send a flat array or object") from None
    return _decode_leniently(payload)


def quoted(value: object) -> str:
    """A value from outside, as text for a refusal's detail: one line, short, without control characters or NUL."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_QUOTE else value[:_LONGEST_QUOTE] + "…")
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 256 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "an object"
    return "an array" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def _decode_leniently(payload: bytes) -> object:
    if not payload:
        raise HostileJSONError("the payload is empty; send JSON")
    try:
        text = payload.removeprefix(_BYTE_ORDER_MARK).decode("utf-8")
        value: object = json.loads(text, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise HostileJSONError(f"not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None
    except RecursionError:
        raise HostileJSONError("JSON is nested too deep; send a flat array or object") from None
    except json.JSONDecodeError as error:
        raise HostileJSONError(f"not JSON: {error.msg} at character {error.pos}") from None
    return _without_lone_surrogates(value) if "\\u" in text else value


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _without_lone_surrogates(value: object) -> object:
    """``value`` with every half of a surrogate pair replaced, which no UTF-8 could carry; changes lists in place."""
    root: list[object] = [value]
    waiting: list[list[object] | dict[object, object]] = [root]
    while waiting:
        parent = waiting.pop()
        if isinstance(parent, dict):
            mended = {_mend(key): _mend(child) for key, child in parent.items()}
            parent.clear()
            parent.update(mended)
            children = list(parent.values())
        else:
            parent[:] = [_mend(child) for child in parent]
            children = parent
        waiting.extend(child for child in children if isinstance(child, list | dict))
    return root[0]


def _mend(value: object) -> object:
    return _LONE_SURROGATE.sub("�", value) if isinstance(value, str) else value
