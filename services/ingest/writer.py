"""The writer: what arrived while the last commit ran becomes the next one; commit, then acknowledge.

One thread, one connection, one loop. Where the database is away the same messages go to the spool, and on its return
the spool goes first, in order, before anything newer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import ChainMap
from typing import TYPE_CHECKING

import psycopg

from lifeline import db, logs
from lifeline.readings import Readings
from lifeline.timeseries import HomeError, ensure_partitions_at, home, write
from services.ingest.messages import KEPT_PAYLOAD, DeadLetter, Decoded, payload_size, topic_text
from services.ingest.spool import SpoolFullError
from services.ingest.store import Batch, commit, load_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifeline.settings import Settings
    from services.ingest.formats.sparkplug import Rebirth
    from services.ingest.formats.sparkplug_node import NodeState
    from services.ingest.messages import Message, Nodes
    from services.ingest.metrics import Metrics
    from services.ingest.parcels import Parcel, ParcelQueue
    from services.ingest.registry import Registry
    from services.ingest.spool import Spool

_log = logs.get(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 5.0
_REPLAY_MESSAGES = 20_000
_MOST_PATIENCE = 16
_STAGED_AFTER_REPEAT = 8
"""Batches that look for repeats at once after a batch held one: repeats come in runs."""


class DatabaseAwayError(Exception):
    """The database does not take commits now; nothing of the batch is stored."""


class Writer:
    """Takes parcels from the queue until it is closed and drained, and makes each durable before it is acknowledged."""

    def __init__(
        self,
        settings: Settings,
        queue: ParcelQueue,
        spool: Spool,
        registry: Registry,
        metrics: Metrics,
        ask_rebirth: Callable[[Rebirth], None],
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._spool = spool
        self._registry = registry
        self._ask_rebirth = ask_rebirth
        self._nodes: dict[str, NodeState] = {}
        self._metrics = metrics
        self._connection: psycopg.Connection | None = None
        self._wait_s = _FIRST_WAIT_S
        self._next_try = 0.0
        self._staged = 0
        self._slice = _REPLAY_MESSAGES
        self._patience = 1
        """How many times as long as the setting says a commit may take: a single message is not split."""
        self._forget = False
        self._giving_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.failed: BaseException | None = None

    @property
    def direct(self) -> bool:
        """Whether batches go straight to the database, so that decoding ahead is worth its while."""
        return self._connection is not None and not len(self._spool)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def forget_nodes(self) -> None:
        """Another process may have spoken with the edge nodes: read again what they said, before the next batch."""
        self._forget = True

    def join(self, timeout_s: float) -> bool:
        """Wait for the queue to be drained; true when it is. The queue must have been closed."""
        self._giving_up_at = time.monotonic() + timeout_s
        self._thread.join(timeout_s + 1)
        return not self._thread.is_alive() and self.failed is None

    def _run(self) -> None:
        try:
            while not self._queue.drained and time.monotonic() < self._giving_up_at:
                self._turn()
        except BaseException as error:
            self.failed = error
            raise
        finally:
            self._disconnect()

    def _turn(self) -> None:
        """One round: make what arrived durable, acknowledge it, and bring in a slice of the spool."""
        idle_s = 0.05 if len(self._spool) else 0.5
        parcels = self._queue.take(self._settings.ingest_batch_readings, idle_s)
        if parcels:
            self._make_durable(parcels)
            for parcel in parcels:
                parcel.consumer.acknowledge(parcel)
            self._queue.release(parcels)
        if len(self._spool):
            self._replay()
        elif not parcels and self._connection is None:
            with contextlib.suppress(DatabaseAwayError):
                self._connect()

    def _make_durable(self, parcels: list[Parcel]) -> None:
        """To the database, or else to the spool; waits as long as neither has room."""
        while True:
            if not len(self._spool):
                try:
                    self._store_parcels(parcels)
                except DatabaseAwayError as error:
                    _log.warning("database away, spooling", error=str(error))
                else:
                    return
            try:
                self._spool.append([message for parcel in parcels for message in parcel.messages])
            except SpoolFullError as error:
                _log.error("spool full, nothing more is acknowledged", error=str(error))
                self._replay()
                if time.monotonic() > self._giving_up_at:
                    raise
                time.sleep(1.0 if len(self._spool) else 0)
            else:
                return

    def _store_parcels(self, parcels: list[Parcel]) -> None:
        connection = self._connect()
        nodes = ChainMap({}, self._nodes)
        parts = [parcel.decoded or self._decode(parcel.messages, connection, nodes) for parcel in parcels]
        try:
            self._store(connection, parts, nodes)
        except _REFUSED as error:
            _log.error("the database refuses a batch, looking for the message", error=str(error).strip())
            for parcel in parcels:
                self._store_apart(parcel.messages)

    def _replay(self) -> None:
        """Bring the oldest slice of the spool into the database, if it is there."""
        try:
            self._connect()
        except DatabaseAwayError:
            return
        messages, last = self._spool.first(self._slice)
        if not messages:
            return
        began = time.monotonic()
        try:
            self._store_messages(messages)
        except DatabaseAwayError as error:
            # It may have been too much for the time allowed: the next try asks for less, or has more time.
            if len(messages) == 1:
                self._patience = min(2 * self._patience, _MOST_PATIENCE)
            self._slice = max(1, len(messages) // 4)
            _log.warning("spool not brought in", messages=len(messages), error=str(error))
            return
        self._patience = 1
        if time.monotonic() - began < self._settings.database_timeout_s / 4:
            self._slice = min(_REPLAY_MESSAGES, 2 * self._slice)
        self._spool.remove_to(last)
        if not len(self._spool):
            _log.info("spool drained")

    def _store_messages(self, messages: list[Message]) -> None:
        connection = self._connect()
        nodes = ChainMap({}, self._nodes)
        try:
            self._store(connection, [self._decode(messages, connection, nodes)], nodes)
        except _REFUSED as error:
            if len(messages) > 1:
                self._store_apart(messages)
                return
            _log.error("the database refuses a message", topic=messages[0].topic, error=str(error).strip())
            self._store_refused(messages[0], str(error).strip())

    def _store_apart(self, messages: list[Message]) -> None:
        """Store a batch that the database refuses in halves, so that one poisoned message stops only itself."""
        middle = len(messages) // 2
        for part in (messages[:middle], messages[middle:]) if middle else (messages,):
            if part:
                self._store_messages(part)

    def _store_refused(self, message: Message, error: str) -> None:
        """Write down a message that the database itself refuses."""
        size, kept = payload_size(message.payload), bytes(message.payload[:KEPT_PAYLOAD])
        detail = f"the database refuses it: {error}"
        letter = DeadLetter(message.received_at, topic_text(message.topic), "bad_payload", detail, kept, size)
        self._store(self._connect(), [Decoded(refusals=[letter])], ChainMap())

    def _decode(self, messages: list[Message], connection: psycopg.Connection, nodes: Nodes) -> Decoded:
        with self._database_errors(connection):
            return self._registry.require(connection).decode(messages, nodes=nodes)

    def _store(self, connection: psycopg.Connection, parts: list[Decoded], nodes: ChainMap[str, NodeState]) -> None:
        """One transaction: readings, newest values, refusals, device status, edge nodes, the evaluation-queue row."""
        batch = Batch(
            write.sorted_once(Readings.concatenate([part.readings for part in parts])),
            [letter for part in parts for letter in part.refusals],
            [report for part in parts for report in part.reports],
            nodes.maps[0],
        )
        began = time.monotonic()
        with self._database_errors(connection):
            ensure_partitions_at(connection, batch.readings.time)
            new = self._commit(connection, batch)
        self._wait_s = _FIRST_WAIT_S
        self._metrics.commit.observe(time.monotonic() - began)
        self._nodes.update(nodes.maps[0])
        self._count(parts, len(new))
        for part in parts:
            for rebirth in part.rebirths:
                self._ask_rebirth(rebirth)

    def _commit(self, connection: psycopg.Connection, batch: Batch) -> Readings:
        """The fast way, which a repeat stops, and then the way that looks for repeats; gives what was new."""
        if not self._staged:
            try:
                return commit(connection, batch, look_for_repeats=False)
            except psycopg.errors.UniqueViolation:
                pass  # nothing is stored yet
        new = commit(connection, batch, look_for_repeats=True)
        self._staged = _STAGED_AFTER_REPEAT if len(new) < len(batch.readings) else max(0, self._staged - 1)
        return new

    def _count(self, parts: list[Decoded], new: int) -> None:
        metrics = self._metrics
        for part in parts:
            for kind, messages in part.formats.items():
                metrics.messages.labels(kind).inc(messages)
            for letter in part.refusals:
                metrics.rejected.labels(letter.reason).inc()
            metrics.readings.labels("refused").inc(len(part.refusals))
        metrics.readings.labels("stored").inc(new)
        metrics.readings.labels("repeat").inc(sum(len(part.readings) for part in parts) - new)

    def _connect(self) -> psycopg.Connection:
        """The connection, made anew where it was lost. Raises :class:`DatabaseAwayError`, at once between tries."""
        if self._connection is not None:
            if self._forget:
                with self._database_errors(self._connection):
                    self._nodes = load_nodes(self._connection)
                self._forget = False
            return self._connection
        if time.monotonic() < self._next_try:
            raise DatabaseAwayError("waiting before the next try")
        try:
            connection = db.connect(
                self._settings, "ingest-writer", statement_timeout_s=self._time_limit_s, autocommit=True
            )
            with self._database_errors(connection):
                write.prepare(connection)
                home_is = home(connection)
                self._nodes = load_nodes(connection)
        except (psycopg.Error, HomeError, DatabaseAwayError) as error:
            self._next_try = time.monotonic() + self._wait_s
            self._wait_s = min(self._wait_s * 2, _LONGEST_WAIT_S)
            raise DatabaseAwayError(str(error).strip()) from error
        self._connection = connection
        self._metrics.database.set(1)
        _log.info("database connected", home=home_is.value)
        return connection

    @contextlib.contextmanager
    def _database_errors(self, connection: psycopg.Connection) -> Iterator[None]:
        """Within the time limit; whatever the server cannot do now becomes :class:`DatabaseAwayError`.

        What it refuses of the data passes through.
        """
        try:
            with db.deadline(connection, self._time_limit_s):
                yield
        except _REFUSED:
            raise
        except psycopg.Error as error:
            connection.close()
            self._disconnect()
            self._next_try = time.monotonic() + self._wait_s
            self._wait_s = min(self._wait_s * 2, _LONGEST_WAIT_S)
            raise DatabaseAwayError(str(error).strip()) from error

    @property
    def _time_limit_s(self) -> float:
        return self._settings.database_timeout_s * self._patience

    def _disconnect(self) -> None:
        self._metrics.database.set(0)
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()


# What says of the data, not of the server, that it cannot be stored.
_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError)
