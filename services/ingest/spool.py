"""Where messages wait on disk while the database is away: an SQLite file, committed with fsync before we acknowledge.

Messages are kept raw, so that a process that starts without a database can spool too, and are parsed when the database
is back. A crash between the database's commit and our delete replays a slice; the key (point, time) absorbs it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

from lifeline import logs
from services.ingest.messages import Message, Oversize, payload_size

if TYPE_CHECKING:
    from pathlib import Path

_log = logs.get(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    topic BLOB NOT NULL,
    payload BLOB NOT NULL,
    size INTEGER NOT NULL  -- of the payload before an oversize one was cut
)
"""
_PAGE = 4096
_RESERVE = 16 * _PAGE
"""Kept free, so that taking messages off a full spool has room to work."""


class SpoolFullError(Exception):
    """The spool has reached its limit or its disk is full; nothing was added."""


class Spool:
    """A first-in, first-out store of messages under one file. Used by one thread."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        """Open or create it. A file that SQLite cannot read is put aside under another name, never deleted."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._most_bytes = most_bytes
        self._database: sqlite3.Connection
        self._count: int
        self._done = 0
        """The messages up to this id are in the database."""
        try:
            self._read()
        except sqlite3.OperationalError:
            raise  # locked, or not to be written: somebody must look
        except sqlite3.DatabaseError as error:
            self._put_aside(error)

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes of the file in use. Any thread may ask."""
        return self._size

    @property
    def oldest(self) -> int | None:
        """When the oldest message arrived, microseconds since 1970. Any thread may ask."""
        return self._oldest

    def append(self, messages: list[Message]) -> None:
        """Add ``messages`` at the end; on return they are on disk. All or none. Raises :class:`SpoolFullError`."""
        coming = sum(len(message.topic) + len(message.payload) + 40 for message in messages)
        if self.size + coming + _RESERVE > self._most_bytes:
            raise SpoolFullError(f"{self._path} holds {self.size} of at most {self._most_bytes} bytes")
        try:
            self._insert(messages)
        except sqlite3.OperationalError as error:  # the disk is full, or cannot be written
            raise SpoolFullError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._put_aside(error)
            self._insert(messages)
        self._count += len(messages)
        self._note()

    def _insert(self, messages: list[Message]) -> None:
        with self._database:
            self._database.executemany(
                "INSERT INTO message (received_at, topic, payload, size) VALUES (?, ?, ?, ?)",
                [(m.received_at, m.topic, m.payload, payload_size(m.payload)) for m in messages],
            )

    def first(self, most_messages: int, most_bytes: int = 16 << 20) -> tuple[list[Message], int]:
        """The oldest messages, and the id of the last of them for :meth:`remove_to`; none where the file is damaged."""
        try:
            return self._select(most_messages, most_bytes)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._put_aside(error)
            return [], 0

    def _select(self, most_messages: int, most_bytes: int) -> tuple[list[Message], int]:
        messages: list[Message] = []
        last = held = 0
        cursor = self._database.execute(
            "SELECT id, received_at, topic, payload, size FROM message WHERE id > ? ORDER BY id LIMIT ?",
            (self._done, most_messages),
        )
        for number, received_at, topic, payload, size in cursor:
            last = number
            if len(payload) < size:
                payload = Oversize(payload)  # noqa: PLW2901
                payload.size = size
            messages.append(Message(topic, payload, received_at, 0))
            held += len(payload)
            if held > most_bytes:
                break
        cursor.close()
        return messages, last

    def remove_to(self, last: int) -> None:
        """Forget all messages up to the id ``last``; they are in the database."""
        row = self._database.execute(
            "SELECT count(*) FROM message WHERE id > ? AND id <= ?", (self._done, last)
        ).fetchone()
        self._count -= int(row[0])
        self._done = last
        with contextlib.suppress(sqlite3.DatabaseError), self._database:
            # On a full disk there is no room to work: what is done is passed over, and goes with the file in the end.
            self._database.execute("DELETE FROM message WHERE id <= ?", (last,))
        if not self._count:
            self._start_anew()
        self._note()

    def _start_anew(self) -> None:
        """All is in the database: give the disk back, which needs no room, as VACUUM does."""
        self._database.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._done = 0
        self._database = self._open()

    def close(self) -> None:
        self._database.close()

    def _put_aside(self, error: sqlite3.DatabaseError) -> None:
        """Begin a new file beside one that cannot be read; the old one is kept, with what SQLite had not merged yet."""
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._database.close()
        name = f"{self._path.name}.damaged-{time.time_ns()}"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).rename(self._path.with_name(name + suffix))
        _log.error("the spool is damaged and was put aside", kept=str(self._path.with_name(name)), error=str(error))
        self._done = 0
        self._read()

    def _read(self) -> None:
        self._database = self._open()
        self._count = int(self._database.execute("SELECT count(*) FROM message").fetchone()[0])
        self._note()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=5)
        database.execute(f"PRAGMA page_size = {_PAGE}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = OFF")  # zeroing what is deleted needs as much disk again
        database.execute(_SCHEMA)
        database.commit()
        return database

    def _note(self) -> None:
        """Keep at hand what other threads may ask for."""
        pages = self._pragma("page_count") - self._pragma("freelist_count")
        row = self._database.execute(
            "SELECT received_at FROM message WHERE id > ? ORDER BY id LIMIT 1", (self._done,)
        ).fetchone()
        self._size = pages * _PAGE if self._count else 0
        self._oldest: int | None = None if row is None else int(row[0])

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])
