"""Which MQTT sessions there are, on whatever machine, and which of them nobody holds any more.

A broker goes on giving a share of the messages to a session whose process is gone. So each process says in the
database every two seconds that it holds its own; one that has not been held for a while is claimed by a neighbour,
which empties and ends it (:mod:`services.ingest.heir`). Times are the database's.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from services.ingest.polling import Polling

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics

PERIOD_S = 2.0
ABANDONED_S = 15.0
"""A supervisor brings a process back sooner than that, and it should find its own session."""
_LIMIT_S = 10.0

# We hold these sessions.
_HOLD = """
INSERT INTO ingest_session (client_id, broker, host, seen_at)
SELECT unnest(%s::text[]), %s, %s, now()
ON CONFLICT (client_id) DO UPDATE SET broker = excluded.broker, host = excluded.host, seen_at = excluded.seen_at
"""

# Claim a session of this broker that nobody holds; whoever comes second finds it held.
_CLAIM = """
UPDATE ingest_session SET seen_at = now(), host = %s
WHERE client_id = (
    SELECT client_id FROM ingest_session
    WHERE broker = %s AND seen_at < now() - make_interval(secs => %s)
    ORDER BY seen_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING client_id
"""

_FORGET = "DELETE FROM ingest_session WHERE client_id = %s"


class Sessions:
    """Holds our own session and those we have claimed, in a thread of its own."""

    def __init__(self, settings: Settings, metrics: Metrics, own: str, ready: Callable[[], bool]) -> None:
        """``ready`` tells whether our own subscriptions stand, so that a share we end falls to somebody."""
        self._own = own
        self._ready = ready
        url = urlsplit(settings.mqtt_url.get_secret_value())
        self._broker = f"{url.hostname}:{url.port or ''}"
        self._lock = threading.Lock()
        self._claimed: str | None = None
        self._ended: list[str] = []
        self._polling = Polling(
            settings,
            metrics,
            "sessions",
            self._hold,
            period_s=PERIOD_S,
            limit_s=_LIMIT_S,
            complaint="sessions not held",
        )
        self.start, self.stop = self._polling.start, self._polling.stop

    @property
    def alive(self) -> bool:
        return self._polling.alive

    @property
    def claimed(self) -> str | None:
        """The client id of a session that is ours to empty and to end."""
        return self._claimed

    def release(self, client_id: str, *, ended: bool) -> None:
        """Done with a claimed session: it has ended, or somebody else may try."""
        with self._lock:
            self._claimed = None
            if ended:
                self._ended.append(client_id)

    def _hold(self, connection: psycopg.Connection) -> None:
        host = socket.gethostname()
        with self._lock:
            ended, self._ended = self._ended, []
            held = [self._own, *([self._claimed] if self._claimed is not None else [])]
        for client_id in ended:
            connection.execute(_FORGET, (client_id,))
        connection.execute(_HOLD, (held, self._broker, host))
        # While the database was away nobody could say anything: let all be heard before anyone is given up.
        if self._polling.connected_s > ABANDONED_S and self._claimed is None and self._ready():
            row = connection.execute(_CLAIM, (host, self._broker, ABANDONED_S)).fetchone()
            if row is not None:
                with self._lock:
                    self._claimed = row[0]
