"""Which of several ingest processes on one machine this is.

A slot is a folder under the spool directory, held by a lock as long as the process lives. The lowest free slot is
taken, so that a process that comes back finds the spool and the MQTT session it left.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_MOST_SLOTS = 64


class NoSlotError(Exception):
    """All slots are taken, or the spool directory cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that this process holds until :meth:`release` or its end."""

    number: int
    folder: Path
    _lock: IO[str]

    def release(self) -> None:
        self._lock.close()


def claim(spool_dir: Path) -> Slot:
    """The lowest free slot. Raises :class:`NoSlotError`."""
    for number in range(_MOST_SLOTS):
        slot = try_claim(spool_dir, number)
        if slot is not None:
            return slot
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
