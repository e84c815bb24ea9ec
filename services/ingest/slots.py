"""Which of several ingest processes on one machine this is.

A slot is a folder under the spool directory, held by a lock as long as the process lives. The lowest free slot is
taken, so that a process that comes back finds the spool and the MQTT session it left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lifeline.settings import Settings

_MOST_SLOTS = 64
_TRIES = 3


class NoSlotError(Exception):
    """All slots are taken, or the spool directory cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that this process holds until :meth:`release` or its end."""

    number: int
    folder: Path
    _lock: IO[str]

    @property
    def identity(self) -> str:
        """A name that no other slot has, here or on another machine.

        Kept in the folder, so that it goes where the spool goes; made from the machine and the path, so that a folder
        that was lost leads back to the session that still waits with the broker.
        """
        path = self.folder / "identity"
        if not path.exists():
            origin = f"{socket.gethostname()}:{self.folder.resolve()}"
            fresh = path.with_suffix(".new")
            fresh.write_text(hashlib.sha256(origin.encode()).hexdigest()[:12])
            fresh.replace(path)
        return path.read_text().strip()

    @property
    def spool(self) -> Path:
        return self.folder / "spool.sqlite"

    def release(self) -> None:
        self._lock.close()

    def remove(self) -> None:
        """Delete the slot, which must hold nothing any more."""
        shutil.rmtree(self.folder)
        self.release()


def client_id(settings: Settings, slot: Slot) -> str:
    """The MQTT client id of a slot: it leads back to the session that waits with the broker."""
    if settings.mqtt_client_id is not None:
        return f"{settings.mqtt_client_id}-{slot.number}"
    return f"lifeline-ingest-{slot.identity}"


def claim(spool_dir: Path) -> Slot:
    """The lowest free slot. Raises :class:`NoSlotError`."""
    for number in range(_MOST_SLOTS):
        for _ in range(_TRIES):
            slot = try_claim(spool_dir, number)
            if slot is not None:
                return slot
            time.sleep(0.02)  # a neighbour may only be looking whether the slot is abandoned
    raise NoSlotError(
        f"{_MOST_SLOTS} ingest processes already use {spool_dir}; give this one another LIFELINE_SPOOL_DIR"
    )


def try_claim(spool_dir: Path, number: int) -> Slot | None:
    """Slot ``number``, or None while another process holds it. Raises :class:`NoSlotError`."""
    folder = spool_dir / f"slot-{number}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise NoSlotError(f"LIFELINE_SPOOL_DIR: cannot write to {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return Slot(number, folder, lock)


def numbers(spool_dir: Path) -> list[int]:
    """The slots that have a folder, held or not."""
    found = (path.name.removeprefix("slot-") for path in spool_dir.glob("slot-*"))
    return sorted(int(number) for number in found if number.isdecimal())
