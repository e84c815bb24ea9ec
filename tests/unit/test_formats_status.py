"""What devices say of themselves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.formats.model import Refusal
from services.ingest.formats.status import Status, parse_status

NOW = 1_790_000_000_000_000


def parse(fields: object) -> Status | Refusal | None:
    return parse_status(json.dumps(fields).encode(), NOW)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"online": True}, Status(True, NOW, None, None, None)),
        ({"online": False, "time": 1000}, Status(False, 1_000_000, None, None, None)),
        ({"online": True, "time": "2026-01-31T08:00:00+08:00"}, Status(True, 1_769_817_600_000_000, None, None, None)),
        (
            {"online": True, "battery": 87, "rssi": -71.5, "firmware": "1.2 固件"},
            Status(True, NOW, 87.0, -71.5, "1.2 固件"),
        ),
        ({"online": True, "battery": None, "rssi": None, "firmware": None}, Status(True, NOW, None, None, None)),
        ({"online": True, "uptime": [1, {"x": 2}]}, Status(True, NOW, None, None, None)),
    ],
)
def test_read(fields: object, status: Status) -> None:
    assert parse(fields) == status


def test_cleared_retained_message_says_nothing() -> None:
    assert parse_status(b"", NOW) is None


@pytest.mark.parametrize(
    ("payload", "reason", "named"),
    [
        (b"x", "bad_payload", "not JSON"),
        (b" ", "bad_payload", "not JSON"),
        (b"[]", "bad_payload", "an array"),
        (b"true", "bad_payload", "true"),
        (b"{}", "bad_payload", "online is missing"),
        (b'{"online": 1}', "bad_payload", "online is 1"),
        (b'{"online": null}', "bad_payload", "online is null"),
        (b'{"online": "true"}', "bad_payload", "online is 'true'"),
        (b'{"online": true, "time": null}', "bad_time", "time is null"),
        (b'{"online": true, "time": "2026-01-31T08:00:00"}', "bad_time", "no offset"),
        (b'{"online": true, "time": 1.5}', "bad_time", "time is 1.5"),
        (b'{"online": true, "battery": "87"}', "bad_payload", "battery"),
        (b'{"online": true, "battery": true}', "bad_payload", "battery"),
        (b'{"online": true, "battery": NaN}', "bad_payload", "battery"),
        (b'{"online": true, "rssi": 1e999}', "bad_payload", "rssi"),
        (b'{"online": true, "rssi": 1' + b"0" * 350 + b"}", "bad_payload", "rssi"),
        (b'{"online": true, "firmware": 1.2}', "bad_payload", "firmware"),
        (b'{"online": true, "firmware": "a\\u0000"}', "bad_payload", "firmware"),
        (b'{"online": true, "firmware": "' + b"a" * 201 + b'"}', "bad_payload", "firmware"),
    ],
)
def test_refused(payload: bytes, reason: str, named: str) -> None:
    refusal = parse_status(payload, NOW)
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.raw) == (reason, payload)
    assert named in refusal.detail


@given(
    st.binary()
    | st.fixed_dictionaries(
        {"online": st.booleans()},
        optional={
            name: st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())
            for name in ("time", "battery", "rssi", "firmware")
        },
    ).map(lambda fields: json.dumps(fields).encode())
)
def test_never_raises(payload: bytes) -> None:
    outcome = parse_status(payload, NOW)
    assert outcome is None or isinstance(outcome, Status | Refusal)
