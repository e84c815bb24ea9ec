"""MQTT on the wire, in large pieces.

paho reads each packet in several small ``recv`` calls. :class:`FrameSocket` stands between paho and the broker: it
takes what the socket has in one call, splits it into packets, keeps PUBLISH for us and hands paho all others, so that
paho still leads the session (connect, subscribe, keep-alive, reconnect) and never sees a reading. What either of us
sends is queued here whole, so that our acknowledgements never fall into the middle of one of paho's packets.

Layout of packets: MQTT 3.1.1 section 2 and 3.3, MQTT 5.0 sections 2.1, 3.3 and 3.4.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import NamedTuple

import numpy as np

from services.ingest.formats.model import MAX_PAYLOAD
from services.ingest.messages import KEPT_PAYLOAD, Oversize

_RECV = 256 << 10
_MOST_PER_READ = 1 << 20
_PUBLISH, _PUBACK = 0x30, 0x40
_MOST_HEADER = 66 << 10
"""Bytes that a PUBLISH may need beside its payload: a topic of up to 64 KiB, packet id and small properties."""


class FrameError(ConnectionError):
    """The broker sent what is not MQTT; the connection is of no use any more."""


class Published(NamedTuple):
    """One PUBLISH packet; ``packet_id`` is 0 for QoS 0."""

    topic: bytes
    payload: bytes
    packet_id: int
    again: bool
    """Flagged DUP: the broker has no acknowledgement of an earlier delivery."""


class FrameSocket:
    """A non-blocking socket as paho wants one (``recv``, ``send``, ``close``, …), and ours."""

    def __init__(self, sock: socket.socket, *, version_5: bool) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._sock = sock
        self._version_5 = version_5
        self._received = b""
        self._for_paho = bytearray()
        self._outgoing = bytearray()
        self._skip = 0
        """Bytes of an oversize packet that are still to come and go unread."""

    # What paho calls.

    def recv(self, buffer_size: int) -> bytes:
        """Bytes of the packets that are paho's. Raises ``BlockingIOError`` when there are none."""
        if not self._for_paho:
            raise BlockingIOError
        taken = bytes(self._for_paho[:buffer_size])
        del self._for_paho[:buffer_size]
        return taken

    def send(self, buffer: bytes | bytearray) -> int:
        """Take all of ``buffer``; it goes out with the next :meth:`flush`."""
        self._outgoing += buffer
        return len(buffer)

    def close(self) -> None:
        """Send what is queued, within two seconds, and close."""
        with contextlib.suppress(OSError):
            self._sock.settimeout(2)
            self._sock.sendall(bytes(self._outgoing))
        self._outgoing.clear()
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    # What the consumer calls.

    @property
    def has_for_paho(self) -> bool:
        return bool(self._for_paho)

    @property
    def has_outgoing(self) -> bool:
        return bool(self._outgoing)

    @property
    def has_pending(self) -> bool:
        """Whether TLS holds bytes already taken off the socket, of which no selector knows."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def flush(self) -> None:
        """Send what is queued as far as the socket takes it. Raises ``OSError`` when the connection is gone."""
        while self._outgoing:
            try:
                sent = self._sock.send(self._outgoing)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._outgoing[:sent]

    def read(self) -> list[Published]:
        """All PUBLISH packets that are here; the others are kept for paho. Raises ``OSError``."""
        pieces = [self._received] if self._received else []
        total = 0
        while total < _MOST_PER_READ:
            try:
                piece = self._sock.recv(_RECV)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not piece:
                raise ConnectionResetError("the broker closed the connection")
            pieces.append(piece)
            total += len(piece)
            if len(piece) < _RECV and not isinstance(self._sock, ssl.SSLSocket):
                break
        if total == 0:
            return []
        try:
            return self._split(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except IndexError:
            raise FrameError("a packet ends before its own header") from None

    def acknowledge(self, packet_ids: list[int]) -> None:
        """Queue one PUBACK for each id, in order."""
        packets = np.empty(len(packet_ids), [("header", ">u2"), ("packet_id", ">u2")])
        packets["header"] = _PUBACK << 8 | 2
        packets["packet_id"] = packet_ids
        self._outgoing += packets.tobytes()

    def _split(self, data: bytes) -> list[Published]:  # noqa: PLR0912 (the hot path, in one piece)
        found: list[Published] = []
        version_5 = self._version_5
        position, end_of_data = 0, len(data)
        if self._skip:
            position = min(self._skip, end_of_data)
            self._skip -= position
        while position + 2 <= end_of_data:
            first, length, start = data[position], data[position + 1], position + 2
            if length & 0x80:
                length, start = _length(data, position + 1)
                if start < 0:
                    break
            end = start + length
            if end > end_of_data:
                if first & 0xF0 == _PUBLISH and length > MAX_PAYLOAD + _MOST_HEADER:
                    if end_of_data - start < _MOST_HEADER + KEPT_PAYLOAD:
                        break
                    found.append(_oversize(data[start:], first, length, version_5=version_5))
                    self._skip = end - end_of_data
                    position = end_of_data
                break
            if first & 0xF0 == _PUBLISH:
                # The hot path: see _fields for what the bytes are.
                after_topic = start + 2 + (data[start] << 8 | data[start + 1])
                body = after_topic
                packet_id = 0
                if first & 0x06:
                    packet_id = data[body] << 8 | data[body + 1]
                    body += 2
                if version_5:
                    if data[body]:
                        properties, body = _length(data, body)
                        body += properties
                    else:
                        body += 1
                if body > end:
                    raise FrameError("a PUBLISH packet is shorter than its own header")
                found.append(Published(data[start + 2 : after_topic], data[body:end], packet_id, first & 0x08 != 0))
            else:
                self._for_paho += data[position:end]
            position = end
        self._received = data[position:]
        return found


def _length(data: bytes, position: int) -> tuple[int, int]:
    """A variable byte integer and the position after it; (0, -1) where it is not all there."""
    value = 0
    for count in range(4):
        if position + count >= len(data):
            return 0, -1
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            return value, position + count + 1
    raise FrameError("a length of more than four bytes")


def _oversize(data: bytes, first: int, length: int, *, version_5: bool) -> Published:
    """The beginning of a PUBLISH that is too large to keep; ``data`` starts after the fixed header."""
    body = 2 + (data[0] << 8 | data[1])
    topic = data[2:body]
    packet_id = 0
    if first & 0x06:
        packet_id = data[body] << 8 | data[body + 1]
        body += 2
    if version_5:
        properties, body = _length(data, body)
        body += properties
    payload = Oversize(data[body : body + KEPT_PAYLOAD])
    payload.size = length - body
    return Published(topic, payload, packet_id, first & 0x08 != 0)
