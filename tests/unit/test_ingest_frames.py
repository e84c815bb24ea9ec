"""Packets come whole out of any pieces, and paho gets all that are not PUBLISH."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.formats.model import MAX_PAYLOAD
from services.ingest.frames import FrameError, FrameSocket, Published
from services.ingest.messages import KEPT_PAYLOAD, Oversize

PUBACK_5 = b"\x40\x02\x00\x07"
PINGRESP = b"\xd0\x00"


def encode_length(value: int) -> bytes:
    out = b""
    while True:
        value, low = divmod(value, 128)
        out += bytes([low | (0x80 if value else 0)])
        if not value:
            return out


def publish(topic: bytes, payload: bytes, packet_id: int, properties: bytes | None = b"") -> bytes:
    body = len(topic).to_bytes(2, "big") + topic
    if packet_id:
        body += packet_id.to_bytes(2, "big")
    if properties is not None:
        body += encode_length(len(properties)) + properties
    body += payload
    return bytes([0x32 if packet_id else 0x30]) + encode_length(len(body)) + body


class Pair:
    def __init__(self, *, version_5: bool = True) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            self.broker, _ = listener.accept()
        ours.setblocking(False)
        self.frames = FrameSocket(ours, version_5=version_5)

    def close(self) -> None:
        self.broker.close()
        self.frames.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


packets = st.lists(
    st.one_of(
        st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=300), st.integers(0, 65535)),
        st.sampled_from([PUBACK_5, PINGRESP]),
    ),
    max_size=12,
)


@given(packets, st.lists(st.integers(1, 400), min_size=1, max_size=20), st.booleans(), st.binary(max_size=200))
@settings(deadline=None)
def test_any_pieces_give_the_same_packets(
    sent: list[tuple[bytes, bytes, int] | bytes], cuts: list[int], version_5: bool, properties: bytes
) -> None:
    pair = Pair(version_5=version_5)
    stream = b"".join(
        item if isinstance(item, bytes) else publish(*item, properties if version_5 else None) for item in sent
    )
    found: list[Published] = []
    position = step = 0
    while position < len(stream):
        size = cuts[step % len(cuts)]
        step += 1
        pair.broker.sendall(stream[position : position + size])
        position += size
        found += pair.frames.read()
    assert [item[:3] for item in found] == [item for item in sent if not isinstance(item, bytes)]
    rest = b"".join(item for item in sent if isinstance(item, bytes))
    assert (pair.frames.recv(1 << 16) if rest else b"") == rest
    pair.close()


def test_nothing_there_is_an_empty_list_and_an_end_is_an_error(pair: Pair) -> None:
    assert pair.frames.read() == []
    with pytest.raises(BlockingIOError):
        pair.frames.recv(1)
    pair.broker.close()
    with pytest.raises(ConnectionResetError):
        pair.frames.read()


def test_oversize_message_passes_by_in_bounded_memory(pair: Pair) -> None:
    size = 3 * MAX_PAYLOAD
    stream = publish(b"a/b", b"x" * size, 9) + publish(b"a/c", b"y", 10)
    found: list[Published] = []
    for start in range(0, len(stream), 50_000):
        pair.broker.sendall(stream[start : start + 50_000])
        found += pair.frames.read()
        assert len(pair.frames._received) < KEPT_PAYLOAD + 200_000
    assert [(item.topic, item.packet_id) for item in found] == [(b"a/b", 9), (b"a/c", 10)]
    assert isinstance(found[0].payload, Oversize)
    assert (found[0].payload.size, len(found[0].payload)) == (size, KEPT_PAYLOAD)


def test_acknowledgements_go_out_in_order_and_between_whole_packets(pair: Pair) -> None:
    pair.frames.send(b"\xc0\x00")
    pair.frames.acknowledge([1, 258, 65535])
    pair.frames.flush()
    assert pair.broker.recv(100) == b"\xc0\x00" + bytes.fromhex("40020001400201024002ffff")
    assert not pair.frames.has_outgoing


@pytest.mark.parametrize("stream", [b"\x32\x05\x00\xffabc", b"\x32\xff\xff\xff\xff\x01"])
def test_what_is_not_mqtt_ends_the_connection(pair: Pair, stream: bytes) -> None:
    pair.broker.sendall(stream)
    with pytest.raises(FrameError):
        pair.frames.read()


def test_redelivery_is_told_from_first_delivery(pair: Pair) -> None:
    packet = publish(b"a/b", b"x", 9)
    pair.broker.sendall(packet + bytes([packet[0] | 0x08]) + packet[1:])
    assert [item.again for item in pair.frames.read()] == [False, True]
