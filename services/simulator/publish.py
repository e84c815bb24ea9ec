"""Publishing at QoS 1 with bounded memory: what cannot be sent waits in a backlog, and the oldest is dropped first.

paho keeps the session and resends what was in flight when the connection broke; this module decides how much may be in
flight, holds the rest, and counts. Messages leave from one thread, never under the lock that paho's callbacks take:
paho calls ``on_publish`` holding its own lock, and the two would wait for each other.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

MESSAGE_OVERHEAD = 200
"""Bytes a waiting message costs beside topic and payload, about."""
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 15
_CONNECT_TIMEOUT_S = 2.0


class BrokerError(ValueError):
    """The broker's address cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True)
class Broker:
    """Where and how to connect."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    protocol: str = "5"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30


def parse_broker(url: str, **more: Any) -> Broker:
    """A broker from ``mqtt://user:password@host:port`` or ``mqtts://…``. Raises :class:`BrokerError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BrokerError(f"no URL: {error}") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise BrokerError("it must look like mqtt://user:password@host:port, or mqtts:// for TLS")
    tls = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname,
        port=port or (8883 if tls else 1883),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
        **more,
    )


class Message(NamedTuple):
    """One MQTT message; ``readings`` is how many it carries, for the counts."""

    topic: str
    payload: bytes
    readings: int = 0
    retain: bool = False

    @property
    def size(self) -> int:
        return len(self.topic) + len(self.payload) + MESSAGE_OVERHEAD


@dataclass
class Counts:
    """What became of messages and readings so far."""

    sent: int = 0
    acknowledged: int = 0
    acknowledged_readings: int = 0
    refused: int = 0
    """Acknowledged by the broker with a failure, as without permission."""
    dropped: int = 0
    dropped_readings: int = 0
    connects: int = 0
    backlog: int = 0
    backlog_bytes: int = 0
    in_flight: int = 0


class Publisher:
    """One connection to the broker with its backlog. ``offer`` never blocks, ``put`` waits for room."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        *,
        in_flight: int = 100,
        backlog_bytes: int = 32 << 20,
        on_connect: Callable[[], None] | None = None,
        on_disconnect: Callable[[], None] | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        subscriptions: tuple[str, ...] = (),
        will: Message | None = None,
    ) -> None:
        self._limit = backlog_bytes
        self._wanted_in_flight = self._window = in_flight
        self._changed = threading.Condition()
        self._backlog: deque[Message] = deque()
        self._flying: dict[int, int] = {}
        self._early: dict[int, bool] = {}
        self._counts = Counts()
        self._connected = False
        self._closing = False
        self.last_error = ""
        self._told_connect = on_connect
        self._told_disconnect = on_disconnect
        self._told_message = on_message
        self._subscriptions = subscriptions
        self._broker = broker
        self._client = self._make_client(name, will)
        self._sender = threading.Thread(target=self._send, name=f"send-{name}", daemon=True)

    def _make_client(self, name: str, will: Message | None) -> mqtt.Client:
        broker = self._broker
        newest = broker.protocol == "5"
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{name}-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5 if newest else MQTTProtocolVersion.MQTTv311,
            clean_session=None if newest else True,
        )
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            try:
                context = ssl.create_default_context(cafile=broker.ca_file)
                if broker.cert_file is not None:
                    context.load_cert_chain(broker.cert_file, broker.key_file)
            except (OSError, ssl.SSLError) as error:
                raise BrokerError(f"TLS: cannot use the certificate files: {error}") from error
            client.tls_set_context(context)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        client.max_inflight_messages_set(0)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def start(self) -> None:
        """Begin to connect, and to send what is offered; failures to connect are retried with back-off."""
        self._client.connect_async(self._broker.host, self._broker.port, keepalive=self._broker.keepalive_s)
        self._client.loop_start()
        self._sender.start()

    def set_will(self, will: Message) -> None:
        """The will of the next connection (Sparkplug counts its sessions in it)."""
        self._client.will_set(will.topic, will.payload, qos=1, retain=will.retain)

    @property
    def connected(self) -> bool:
        return self._connected

    def wait_connected(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._connected, timeout_s)

    def counts(self) -> Counts:
        """A copy of the counts as they stand."""
        with self._changed:
            return Counts(**vars(self._counts) | {"backlog": len(self._backlog), "in_flight": self._in_flight})

    @property
    def _in_flight(self) -> int:
        return self._counts.sent - self._counts.acknowledged - self._counts.refused

    def offer(self, message: Message) -> None:
        """Take ``message``; where the backlog is full, the oldest waiting go, as in a gateway."""
        with self._changed:
            while self._backlog and self._counts.backlog_bytes + message.size > self._limit:
                oldest = self._backlog.popleft()
                self._counts.backlog_bytes -= oldest.size
                self._counts.dropped += 1
                self._counts.dropped_readings += oldest.readings
            self._add(message)

    def put(self, message: Message, stop: threading.Event) -> bool:
        """Take ``message`` once there is room; False where ``stop`` came first."""
        with self._changed:
            while self._backlog and self._counts.backlog_bytes + message.size > self._limit:
                if stop.is_set():
                    return False
                self._changed.wait(0.2)
            self._add(message)
            return not stop.is_set()

    def _add(self, message: Message) -> None:
        self._backlog.append(message)
        self._counts.backlog_bytes += message.size
        self._changed.notify_all()

    def flush(self, timeout_s: float, stop: threading.Event | None = None) -> bool:
        """Wait until everything offered is acknowledged; False where time ran out or ``stop`` came first."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while self._backlog or self._in_flight:
                left = end - time.monotonic()
                if left <= 0 or (stop is not None and stop.is_set()):
                    return False
                self._changed.wait(min(left, 0.2))
        return True

    def close(self, timeout_s: float = 1.0) -> bool:
        """Flush for at most ``timeout_s``, then say goodbye to the broker. True where nothing was left behind."""
        clean = self.flush(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._sender.ident is not None:
            self._sender.join(1.0)
        self._client.disconnect()
        # loop_stop waits for the network thread, which may sit in a connection attempt: not longer than this.
        stopper = threading.Thread(target=self._client.loop_stop, daemon=True)
        stopper.start()
        stopper.join(0.5)
        return clean

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or (self._connected and self._backlog and self._in_flight < self._window)
                )
                if self._closing:
                    return
                message = self._backlog.popleft()
                self._counts.backlog_bytes -= message.size
                self._counts.sent += 1
            # A lost connection here is no loss: paho keeps the message and sends it after reconnecting.
            info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
            with self._changed:
                # The broker may have answered before publish() returned.
                accepted = self._early.pop(info.mid, None)
                if accepted is None:
                    self._flying[info.mid] = message.readings
                else:
                    self._counts.acknowledged_readings += message.readings * accepted
                self._changed.notify_all()

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self._changed:
            accepted = not getattr(reason, "is_failure", False)
            if accepted:
                self._counts.acknowledged += 1
            else:
                self._counts.refused += 1
                self.last_error = f"the broker refused a message: {reason}"
            readings = self._flying.pop(mid, None)
            if readings is None:
                self._early[mid] = accepted
            else:
                self._counts.acknowledged_readings += readings * accepted
            self._changed.notify_all()

    def _on_connect(self, client: mqtt.Client, _userdata: Any, _flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.last_error = f"the broker refused the connection: {reason}"
            return
        allowed = getattr(properties, "ReceiveMaximum", None)
        for topic in self._subscriptions:
            client.subscribe(topic, qos=1)
        with self._changed:
            # MQTT 5 forbids more unacknowledged messages than the broker grants.
            self._window = min(self._wanted_in_flight, allowed or self._wanted_in_flight)
            self._connected = True
            self._counts.connects += 1
            self._changed.notify_all()
        if self._told_connect is not None:
            self._told_connect()

    def _on_connect_fail(self, _client: Any, _userdata: Any) -> None:
        self.last_error = f"cannot reach {self._broker.host}:{self._broker.port}"

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        with self._changed:
            self._connected = False
            if not self._closing:
                self.last_error = f"the connection broke: {reason}"
            self._changed.notify_all()
        if self._told_disconnect is not None:
            self._told_disconnect()

    def _on_message(self, _client: Any, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        if self._told_message is not None:
            self._told_message(message.topic, bytes(message.payload))
