"""One MQTT session: from the broker's socket into the bounded queue, and acknowledgements back.

One thread per consumer, and only that thread touches the socket; the writer leaves packet ids to acknowledge and wakes
it. The queue being full stops the reading, so that the broker keeps what we cannot hold.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from lifeline import logs
from services.ingest.frames import FrameSocket
from services.ingest.inflight import InFlight
from services.ingest.messages import Message
from services.ingest.parcels import Parcel

if TYPE_CHECKING:
    from lifeline.settings import Settings
    from services.ingest.metrics import Metrics

_log = logs.get(__name__)

_CONNECT_TIMEOUT_S = 5
_SECOND = 1_000_000
_PACE_S = 0.002
"""A broker writes message by message: a moment later one call brings many, at half the cost for each."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 15.0


class Announcement(NamedTuple):
    """A retained word on whether we are there, kept true by our will."""

    topic: str
    payload: Callable[[bool, int], bytes]
    """(online, epoch milliseconds of connecting) to payload."""


class _Session(paho.Client):
    """paho's client on our socket."""

    frames: FrameSocket | None = None

    def _create_socket(self) -> paho.SocketLike:
        self.frames = FrameSocket(super()._create_socket(), version_5=self._protocol == paho.MQTTv5)  # type: ignore[arg-type]
        return self.frames


class Consumer:
    """Keeps one persistent session and feeds ``put`` with parcels until it is stopped."""

    def __init__(
        self,
        settings: Settings,
        client_id: str,
        filters: tuple[str, ...],
        put: Callable[[Parcel, Callable[[], bool]], bool],
        metrics: Metrics,
        announcement: Announcement | None = None,
        *,
        busy: Callable[[], bool] = lambda: False,
        retiring: bool = False,
    ) -> None:
        """``busy``: whether the writer has enough to do, so that reading in larger pieces costs no time.

        ``retiring``: take what waits in a session that nobody needs any more, and subscribe to nothing.
        """
        self._busy = busy
        self._retiring = retiring
        self._taken = self._returned = 0
        """Parcels of this connection: taken by our thread, returned durable by the writer's."""
        self._last_arrival = time.monotonic()
        self._announcement = announcement
        self._connecting_ms = 0
        self._last_stamp = 0
        self.client_id = client_id
        self._settings = settings
        self._filters = filters
        self._put = put
        self._metrics = metrics
        self._stopping = threading.Event()
        self._closing = False
        self._end_session = False
        self._session = 0
        """Counts the sessions that the broker began anew; packet ids mean nothing in a later one."""
        self._connected = False
        self._lock = threading.Lock()
        """Guards what the writer's thread shares with ours: packet ids in flight, due, and the counts of parcels."""
        self._in_flight = InFlight()
        self._refused = False
        self._to_acknowledge: list[int] = []
        self._to_publish: deque[tuple[str, bytes]] = deque(maxlen=1000)
        self._quiet = threading.Event()
        # Socket objects, not bare descriptors: a late wake-up must never reach whoever got the number next.
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._client: _Session | None = None
        self._thread = threading.Thread(target=self._run, name=f"consumer-{client_id}", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and our subscriptions are on their way."""
        return self._connected

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop_reading(self, timeout_s: float) -> None:
        """Take no more messages; what was taken can still be acknowledged. Returns when the reading has ended."""
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._quiet.wait(timeout_s)

    @property
    def idle_s(self) -> float:
        """Seconds since the last message, once all are acknowledged and the session stands; else 0."""
        busy = self._taken > self._returned or not self._connected
        return 0.0 if busy else time.monotonic() - self._last_arrival

    def close(self, timeout_s: float, *, end_session: bool = False) -> None:
        """Send the acknowledgements that are due, say goodbye and end the thread. The session stays, unless ended."""
        self._end_session = end_session
        self._closing = True
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def acknowledge(self, parcel: Parcel) -> None:
        """The messages of ``parcel`` are durable. Called by the writer's thread."""
        with self._lock:
            if parcel.session != self._session:
                return
            self._returned += 1
            packet_ids = self._in_flight.durable(parcel.messages, time.monotonic())
            self._to_acknowledge += packet_ids
        if packet_ids:
            self._wake()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a QoS 0 message, such as a Sparkplug rebirth request, when the session is up; dropped otherwise."""
        self._to_publish.append((topic, payload))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: there is nobody to wake
            self._waker.send(b"\0")

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    self._converse()
                except OSError as error:
                    _log.warning("broker connection lost", client_id=self.client_id, error=str(error))
                finally:
                    self._connected = False
                    self._metrics.connected.labels(self.client_id).set(0)
                if self._retiring:
                    return  # its holder came back, or somebody else tries later
                if time.monotonic() - began > _LONGEST_WAIT_S:
                    wait_s = _FIRST_WAIT_S
                self._stopping.wait(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 (spreads reconnects, no secret)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        finally:
            self._quiet.set()
            self._woken.close()
            self._waker.close()

    def _converse(self) -> None:
        """One connection, from CONNECT to its end."""
        client = self._client = self._make_client()
        self._refused = False
        url = urlsplit(self._settings.mqtt_url.get_secret_value())
        default_port = 8883 if url.scheme == "mqtts" else 1883
        version_5 = self._settings.mqtt_protocol == "5"
        client.connect(
            url.hostname or "localhost",
            url.port or default_port,
            keepalive=self._settings.mqtt_keepalive_s,
            clean_start=False if version_5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=self._connect_properties() if version_5 else None,
        )
        frames = client.frames
        assert frames is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            while client.socket() is not None:
                self._turn(client, frames, selector)
                if self._refused:
                    raise ConnectionError("without its subscriptions a connection is of no use")
                if self._closing:
                    self._send_due(frames)
                    self._announce(client, online=False)
                    self._say_goodbye(client)
                    return

    def _turn(self, client: _Session, frames: FrameSocket, selector: selectors.BaseSelector) -> None:
        """Wait for something to do, at most a second, and do it."""
        reading = not self._stopping.is_set()
        if not reading:
            self._quiet.set()
        events = (selectors.EVENT_READ if reading else 0) | (selectors.EVENT_WRITE if frames.has_outgoing else 0)
        _watch(selector, frames, events)
        waiting = reading and frames.has_pending
        ready = {key.fileobj: mask for key, mask in selector.select(0 if waiting else 1.0)}
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if reading and (waiting or ready.get(frames, 0) & selectors.EVENT_READ):
            self._take(client, frames)
            if self._busy():
                time.sleep(_PACE_S)
        self._send_due(frames)
        while self._to_publish and self._connected:
            client.publish(*self._to_publish.popleft(), qos=0)
        client.loop_misc()
        if client.want_write():
            client.loop_write()
        frames.flush()

    def _take(self, client: _Session, frames: FrameSocket) -> None:
        published = frames.read()
        while frames.has_for_paho and client.socket() is not None:
            if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
        if not published:
            return
        now = time.monotonic()
        with self._lock:
            published, durable = self._in_flight.sift(published, now)
            self._to_acknowledge += durable
        if not published:
            return
        first = self._stamp(len(published))
        messages = [
            Message(topic, payload, first + position, packet_id)
            for position, (topic, payload, packet_id, _) in enumerate(published)
        ]
        size = sum(map(len, [message.payload for message in messages])) + 250 * len(messages)
        parcel = Parcel(messages, self, self._session, size)
        with self._lock:
            self._in_flight.take(messages)
            self._taken += 1
        self._last_arrival = now
        if not self._put(parcel, self._while_full):
            with self._lock:
                self._in_flight.drop(messages)
                self._returned += 1

    def _stamp(self, messages: int) -> int:
        """Arrival time of the first of so many messages, microseconds since 1970; each further one is one later.

        No two are the same, for a reading without a time is named by its arrival.
        """
        now = time.time_ns() // 1000
        if 0 <= self._last_stamp - now < _SECOND:  # else the clock was set back
            now = self._last_stamp + 1
        self._last_stamp = now + messages - 1
        return now

    def _while_full(self) -> bool:
        """Called while the queue has no room: keeps the acknowledgements going. No ends the wait."""
        client = self._client
        assert client is not None
        assert client.frames is not None
        if client.socket() is None:
            return False  # the broker gave us up, and will send these messages again
        with contextlib.suppress(OSError):
            self._send_due(client.frames)
            client.loop_misc()
            client.frames.flush()
        return not self._closing

    def _send_due(self, frames: FrameSocket) -> None:
        if self._connected:  # a broker that has not let us in yet would take it for a fault
            with self._lock:
                packet_ids, self._to_acknowledge = self._to_acknowledge, []
            if packet_ids:
                frames.acknowledge(packet_ids)
        frames.flush()

    def _say_goodbye(self, client: _Session) -> None:
        properties = None
        if self._end_session and self._settings.mqtt_protocol == "5":
            properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0
        client.disconnect(properties=properties)

    def _make_client(self) -> _Session:
        settings = self._settings
        version_5 = settings.mqtt_protocol == "5"
        client = _Session(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            protocol=paho.MQTTv5 if version_5 else paho.MQTTv311,
            clean_session=None if version_5 else False,
            manual_ack=True,
        )
        url = urlsplit(settings.mqtt_url.get_secret_value())
        if url.username:
            client.username_pw_set(unquote(url.username), unquote(url.password or ""))
        if url.scheme == "mqtts":
            client.tls_set(
                ca_certs=str(settings.mqtt_ca_file) if settings.mqtt_ca_file else None,
                certfile=str(settings.mqtt_cert_file) if settings.mqtt_cert_file else None,
                keyfile=str(settings.mqtt_key_file) if settings.mqtt_key_file else None,
            )
        if self._announcement is not None:
            self._connecting_ms = time.time_ns() // 1_000_000
            offline = self._announcement.payload(False, self._connecting_ms)
            client.will_set(self._announcement.topic, offline, qos=1, retain=True)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        return client

    def _connect_properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = self._settings.mqtt_receive_maximum
        properties.SessionExpiryInterval = self._settings.mqtt_session_expiry_s
        return properties

    def _on_connect(
        self, client: paho.Client, _: object, flags: paho.ConnectFlags, reason: ReasonCode, __: Properties | None
    ) -> None:
        if reason.is_failure:
            _log.error("broker refused the connection", client_id=self.client_id, reason=str(reason))
            return
        if not flags.session_present:
            self._begin_session()
        self._connected = True
        self._metrics.connected.labels(self.client_id).set(1)
        _log.info("broker connected", client_id=self.client_id, session_present=flags.session_present)
        self._last_arrival = time.monotonic()
        if self._retiring:
            client.unsubscribe(list(self._filters))
            return
        # QoS 1 whatever the publisher used: the broker then hands us QoS 2 as QoS 1, and our key absorbs repeats.
        if self._settings.mqtt_protocol == "5":
            # A retained status is news only once: sent again at each connection, it would look fresh for ever.
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            client.subscribe([(name, options) for name in self._filters])
        else:
            client.subscribe([(name, 1) for name in self._filters])

        self._announce(client, online=True)

    def _begin_session(self) -> None:
        """The broker knows nothing of what we hold: it may give its packet ids to other messages."""
        with self._lock:
            self._session += 1
            self._in_flight.forget()
            self._to_acknowledge = []
            self._taken = self._returned = 0

    def _announce(self, client: paho.Client, *, online: bool) -> None:
        if self._announcement is not None:
            payload = self._announcement.payload(online, self._connecting_ms)
            client.publish(self._announcement.topic, payload, qos=0, retain=True)

    def _on_subscribe(
        self, _: paho.Client, __: object, ___: int, reasons: list[ReasonCode], ____: Properties | None
    ) -> None:
        for name, reason in zip(self._filters, reasons, strict=False):
            if reason.is_failure:
                _log.error("broker refused a subscription", filter=name, reason=str(reason))
                self._refused = True
            else:
                _log.info("subscribed", filter=name)

    def _on_disconnect(
        self, _: paho.Client, __: object, ___: paho.DisconnectFlags, reason: ReasonCode, ____: Properties | None
    ) -> None:
        self._connected = False
        if reason.is_failure:
            hint = "is another process using this client id? See LIFELINE_MQTT_CLIENT_ID"
            extra = {"hint": hint} if reason == "Session taken over" else {}
            _log.warning("broker ended the connection", client_id=self.client_id, reason=str(reason), **extra)


def _watch(selector: selectors.BaseSelector, frames: FrameSocket, events: int) -> None:
    """Have ``selector`` look at ``frames`` for ``events``, which may be none."""
    known = frames in {key.fileobj for key in selector.get_map().values()}
    if events and known:
        selector.modify(frames, events)
    elif events:
        selector.register(frames, events)
    elif known:
        selector.unregister(frames)
