"""Takes over what a process left that did not come back: its spool, and the messages its session holds at the broker.

The spool is on this machine's disk: the slot of a neighbour that has been free for a while is held, and its spool
brought in. The session may have been held anywhere (:mod:`services.ingest.sessions`): we leave its subscriptions, take
what still waits in it, and end it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from lifeline import logs
from services.ingest import sessions, slots
from services.ingest.consumer import Consumer
from services.ingest.parcels import Parcel
from services.ingest.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics
    from services.ingest.sessions import Sessions

_log = logs.get(__name__)

PERIOD_S = 2.0
_QUIET_S = 3.0
"""Without a message for so long, everything left with the broker has come."""
_SLICE = 5000


class Heir:
    """Looks for abandoned slots and sessions, and takes over one at a time."""

    def __init__(
        self,
        settings: Settings,
        own: int,
        filters: tuple[str, ...],
        put: Callable[[Parcel, Callable[[], bool]], bool],
        metrics: Metrics,
        held: Sessions,
    ) -> None:
        self._settings = settings
        self._own = own
        self._sessions = held
        self._filters = filters
        self._put = put
        self._metrics = metrics
        self._free_since: dict[int, float] = {}
        self._stopping = threading.Event()
        self._consumer: Consumer | None = None
        self._thread = threading.Thread(target=self._run, name="heir", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop_reading(self, timeout_s: float) -> None:
        self._stopping.set()
        consumer = self._consumer
        if consumer is not None:
            consumer.stop_reading(timeout_s)

    def close(self, timeout_s: float) -> None:
        """What has not been taken over stays where it is, for the next."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            for number in slots.numbers(self._settings.spool_dir):
                if number != self._own and not self._stopping.is_set():
                    try:
                        self._look_at(number)
                    except (slots.NoSlotError, OSError, sqlite3.Error) as error:
                        _log.error("abandoned slot cannot be taken over", slot=number, error=str(error))
            client_id = self._sessions.claimed
            if client_id is not None and not self._stopping.is_set():
                self._sessions.release(client_id, ended=self._end_session(client_id))

    def _look_at(self, number: int) -> None:
        slot = slots.try_claim(self._settings.spool_dir, number)
        if slot is None:
            self._free_since.pop(number, None)
            return
        try:
            since = self._free_since.setdefault(number, time.monotonic())
            if time.monotonic() - since >= sessions.ABANDONED_S:
                self._free_since.pop(number)
                self._take_over(slot)
        finally:
            slot.release()

    def _take_over(self, slot: slots.Slot) -> None:
        spool = Spool(slot.spool, self._settings.spool_limit_mb << 20)
        _log.info("taking over an abandoned slot", slot=slot.number, spooled=len(spool))
        try:
            emptied = self._bring_in(spool)
        finally:
            spool.close()
        if emptied:
            slot.remove()
            _log.info("abandoned slot taken over", slot=slot.number)

    def _bring_in(self, spool: Spool) -> bool:
        """Pass a spool on, slice by slice; false when we were stopped before its end."""
        while len(spool):
            messages, last = spool.first(_SLICE)
            durable = _Durable()
            parcel = Parcel(messages, durable, 0, sum(len(message.payload) + 250 for message in messages))
            if not self._put(parcel, lambda: not self._stopping.is_set()):
                return False
            while not durable.wait(0.2):
                if self._stopping.is_set():
                    return False
            spool.remove_to(last)
        return True

    def _end_session(self, client_id: str) -> bool:
        """Empty a session and end it; false where its holder came back, or we were stopped before its end."""
        _log.info("taking over an abandoned session", client_id=client_id)
        consumer = Consumer(self._settings, client_id, self._filters, self._put, self._metrics, retiring=True)
        self._consumer = consumer
        consumer.start()
        while consumer.idle_s < _QUIET_S and consumer.alive and not self._stopping.wait(0.1):
            pass
        done = consumer.idle_s >= _QUIET_S
        # Once stopping, the messages taken are still to become durable: the writer drains before we are closed.
        while not done and consumer.idle_s == 0 and consumer.connected and consumer.alive:
            time.sleep(0.1)
        consumer.close(5, end_session=done)
        self._consumer = None
        if done:
            _log.info("abandoned session taken over", client_id=client_id)
        return done


class _Durable(threading.Event):
    """Hears from the writer that a slice is safe."""

    def acknowledge(self, parcel: Parcel) -> None:  # noqa: ARG002 (there is only one)
        self.set()
