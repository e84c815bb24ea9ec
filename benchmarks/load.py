"""A publisher that costs next to nothing: frames are made beforehand and sent from a plain socket (MQTT 3.1.1).

Run as a process of its own (``python -m benchmarks.load``) so that it does not share the interpreter it measures.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

MOST_UNACKNOWLEDGED = 20_000
MOST_IDS = 60_000
_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """What to publish: ``messages`` of ``readings`` each, spread evenly over devices and points."""

    url: str
    messages: int
    readings: int
    devices: int
    points: int
    start_ms: int
    """Time of the first reading, epoch ms; each further round over all points is one second later."""
    per_second: float | None = None
    """Messages a second; None: as fast as the broker takes them."""
    now: bool = False
    """Whether readings carry the time they are sent at (with ``per_second``), so that their way can be timed."""
    county: str = "632521"


def _payload(load: Load, number: int) -> bytes:
    """Message ``number``: one device, ``readings`` of its points in turn, time moving on by a second a round."""
    per_device = number // load.devices * load.readings
    parts = []
    for reading in range(load.readings):
        position = per_device + reading
        moment = load.start_ms + position // load.points * 1000
        parts.append(b'{"point":"p%d","time":%d,"value":0.%03d}' % (position % load.points + 1, moment, number % 1000))
    return parts[0] if load.readings == 1 else b"[" + b",".join(parts) + b"]"


def _frame(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet_id) + payload
    length, remaining = b"", len(body)
    while True:
        remaining, low = divmod(remaining, 128)
        length += bytes([low | (0x80 if remaining else 0)])
        if not remaining:
            return b"\x32" + length + body


def connect(url: str, client_id: str) -> socket.socket:
    """A socket on which the broker has accepted an MQTT 3.1.1 CONNECT."""
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname or "localhost", parts.port or 1883), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fields = [client_id.encode()]
    flags = 0x02
    if parts.username:
        flags |= 0xC0
        fields += [unquote(parts.username).encode(), unquote(parts.password or "").encode()]
    body = b"\x00\x04MQTT\x04" + bytes([flags]) + b"\x00\x3c"
    body += b"".join(struct.pack(">H", len(value)) + value for value in fields)
    sock.sendall(b"\x10" + bytes([len(body)]) + body)
    answer = sock.recv(4)
    if answer != b"\x20\x02\x00\x00":
        raise ConnectionError(f"the broker refused the load generator: {answer!r}")
    return sock


def publish(load: Load) -> float:
    """Send it all and wait until the broker has acknowledged it; the seconds it took."""
    topics = [b"lifeline/v1/%s/d%d/readings" % (load.county.encode(), device + 1) for device in range(load.devices)]
    frames = []
    if not load.now:
        frames = [
            _frame(topics[number % load.devices], number % MOST_IDS + 1, _payload(load, number))
            for number in range(load.messages)
        ]
    with connect(load.url, f"load-{load.start_ms}-{load.messages}") as sock:
        print("ready", flush=True)
        if sys.stdin.readline() == "":
            return 0.0
        if load.now:
            return _send(sock, load.messages, lambda first, last: _timed(load, topics, first, last), load.per_second)
        return _send(sock, load.messages, lambda first, last: b"".join(frames[first:last]), load.per_second)


def publish_messages(url: str, messages: Sequence[tuple[str, bytes]]) -> float:
    """Send (topic, payload) pairs in order and wait until the broker has them all; the seconds it took."""
    frames = [
        _frame(topic.encode(), number % MOST_IDS + 1, payload) for number, (topic, payload) in enumerate(messages)
    ]
    with connect(url, f"load-{len(messages)}-{time.monotonic_ns()}") as sock:
        return _send(sock, len(frames), lambda first, last: b"".join(frames[first:last]))


def _send(
    sock: socket.socket, messages: int, frames: Callable[[int, int], bytes], per_second: float | None = None
) -> float:
    """Send messages 0 to ``messages`` - 1, as the broker leaves room; seconds to the last PUBACK."""
    sock.setblocking(False)
    began = time.monotonic()
    sent = acknowledged = odd = 0
    outgoing = b""
    while acknowledged < messages:
        due = messages
        if per_second is not None:
            due = min(due, int((time.monotonic() - began) * per_second) + 1)
        room = min(due, acknowledged + MOST_UNACKNOWLEDGED, sent + 2000) - sent
        if not outgoing and room > 0:
            outgoing = frames(sent, sent + room)
            sent += room
        waiting = per_second is not None and not outgoing and sent < messages
        readable, writable, _ = select.select([sock], [sock] if outgoing else [], [], 0.0005 if waiting else 1.0)
        if writable:
            outgoing = outgoing[sock.send(outgoing) :]
        if readable:
            got = sock.recv(1 << 16)
            if not got:
                raise ConnectionError("the broker closed the load generator's connection")
            acknowledged, odd = acknowledged + (odd + len(got)) // 4, (odd + len(got)) % 4
    return time.monotonic() - began


def _timed(load: Load, topics: list[bytes], first: int, last: int) -> bytes:
    """Messages whose readings carry the present, to the microsecond, so that their way can be timed."""
    seconds, fraction = divmod(time.time_ns() // 1000, _SECOND)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%06dZ" % fraction
    payload = b'{"point":"p%d","time":"%s","value":0.5}'
    return b"".join(
        _frame(
            topics[number % load.devices],
            number % MOST_IDS + 1,
            payload % (number // load.devices % load.points + 1, moment),
        )
        for number in range(first, last)
    )


if __name__ == "__main__":
    print(json.dumps({"seconds": publish(Load(**json.loads(sys.argv[1])))}), flush=True)
