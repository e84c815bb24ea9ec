"""The spool: first in first out, durable, bounded, and never in the way of a start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.ingest import slots
from services.ingest.messages import Message, Oversize
from services.ingest.spool import Spool, SpoolFullError


def messages(first: int, count: int, size: int = 100) -> list[Message]:
    return [Message(b"t/%d" % number, b"x" * size, number, 5) for number in range(first, first + count)]


def test_order_and_contents_survive_reopening(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 1 << 20)
    spool.append(messages(0, 10))
    spool.append(messages(10, 10))
    again = Spool(tmp_path / "s", 1 << 20)  # the first was not even closed
    assert len(again) == 20
    assert again.oldest == 0
    found, last = again.first(15)
    assert found == [message._replace(packet_id=0) for message in messages(0, 15)]
    again.remove_to(last)
    assert [message.received_at for message in again.first(100)[0]] == list(range(15, 20))


def test_full_spool_takes_nothing_more_and_works_again_when_emptied(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 300_000)
    taken = 0

    def fill() -> None:
        nonlocal taken
        while True:
            spool.append(messages(taken, 50))
            taken += 50

    with pytest.raises(SpoolFullError):
        fill()
    assert 500 < taken < 2500
    assert len(spool) == taken
    assert spool.size <= 300_000
    while len(spool):
        _, last = spool.first(200)
        spool.remove_to(last)
    assert spool.size == 0
    assert (tmp_path / "s").stat().st_size < 50_000
    spool.append(messages(0, 50))


def test_oversize_payload_keeps_the_size_it_had(tmp_path: Path) -> None:
    payload = Oversize(b"abc")
    payload.size = 7_000_000
    spool = Spool(tmp_path / "s", 1 << 20)
    spool.append([Message(b"t", payload, 1, 1)])
    found = spool.first(1)[0][0].payload
    assert isinstance(found, Oversize)
    assert found.size == 7_000_000


def test_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"this is no database" * 1000)
    spool = Spool(tmp_path / "s", 1 << 20)
    spool.append(messages(0, 1))
    assert len(list(tmp_path.glob("s.damaged-*"))) == 1


def test_damaged_pages_are_put_aside_with_what_is_not_merged(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 8 << 20)
    spool.append(messages(0, 5000, 400))
    spool.close()
    content = bytearray((tmp_path / "s").read_bytes())
    for page in range(1, len(content) // 4096, 2):
        content[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    (tmp_path / "s").write_bytes(content)
    again = Spool(tmp_path / "s", 8 << 20)
    while len(again):  # some of it may still be readable
        found, last = again.first(500)
        if found:
            again.remove_to(last)
    again.append(messages(0, 3))
    assert len(again.first(10)[0]) == 3
    assert [path for path in tmp_path.glob("s.damaged-*") if not path.name.endswith(("wal", "shm"))]


def test_what_is_done_is_passed_over_though_it_cannot_be_deleted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 1 << 20)
    spool.append(messages(0, 100))
    spool._database.execute("CREATE TRIGGER full BEFORE DELETE ON message BEGIN SELECT RAISE(ABORT, 'no room'); END")
    _, last = spool.first(60)
    spool.remove_to(last)
    assert len(spool) == 40
    assert [message.received_at for message in spool.first(100)[0]] == list(range(60, 100))


def test_slots_are_taken_lowest_first_and_given_back(tmp_path: Path) -> None:
    first, second = slots.claim(tmp_path), slots.claim(tmp_path)
    assert (first.number, second.number) == (0, 1)
    assert first.identity != second.identity
    identity = first.identity
    first.release()
    again = slots.claim(tmp_path)
    assert (again.number, again.identity) == (0, identity)
    second.release()
    shutil.rmtree(again.folder)  # a lost folder leads back to the same session
    assert slots.claim(tmp_path).identity == identity


def test_spool_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(slots.NoSlotError, match="LIFELINE_SPOOL_DIR"):
        slots.claim(tmp_path / "file")
