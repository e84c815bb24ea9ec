# mypy: allow-subclassing-any
"""The broker amqtt as a process of its own, mended where it would lose what it acknowledged.

Started as ``python -m services.demo.amqtt_broker FILE``; FILE is JSON with ``host``, ``port``, ``users``
(name: password) and ``directory``. As it comes, amqtt 0.12

* acknowledges a message while it is still in memory between two queues, and drops it when its publisher leaves;
* forgets a message that a subscriber has not acknowledged within 5 s, or before its connection broke;
* marks messages that waited for a subscriber as retained, which they are not;
* lets a stranger take over or delete a session before his password is looked at;
* keeps nothing over a restart (its own plugin for that cannot store binary payloads).

Here a message is put into its subscribers' queues before it is acknowledged, stays there until each of them has
acknowledged it, and the queues are on disk every :data:`SAVE_EVERY_S` and at the end. QoS 2 is delivered as 1.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import amqtt.broker
import msgspec
from amqtt.errors import MQTTError
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage, Session

SAVE_EVERY_S = 5.0
SESSION_EXPIRY_S = 14 * 86400
WINDOW = 2000
"""Most messages sent to one subscriber and not acknowledged."""
QUEUE_LIMIT = 200_000
"""Most messages waiting for one subscriber; then new ones are lost to it, and the log says so."""

_log = logging.getLogger("amqtt_broker")


class SavedMessage(msgspec.Struct, array_like=True):
    topic: str
    data: bytes
    qos: int


class SavedSession(msgspec.Struct, array_like=True):
    client_id: str
    subscriptions: list[tuple[str, int]]
    messages: list[SavedMessage]


class Saved(msgspec.Struct, array_like=True):
    """What a restart finds again: sessions that outlive their connection, and retained messages."""

    sessions: list[SavedSession]
    retained: list[SavedMessage]


class Arrivals(asyncio.Queue[Any]):
    """Stands where amqtt would queue what a publisher sent: passes it on at once, so that the PUBACK is true."""

    def __init__(self, handler: Handler, session: Session) -> None:
        super().__init__()
        self._handler = handler
        self._session = session

    async def put(self, item: Any) -> None:
        await Handler.broker.take(self._session, self._handler, item)

    def put_nowait(self, item: Any) -> None:
        self._handler.later(self.put(item))


class Handler(BrokerProtocolHandler):
    """One connection; sends what waits for its session and forgets a message only when it is acknowledged."""

    broker: ClassVar[Broker]
    users: ClassVar[dict[str, str]]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.wake = asyncio.Event()
        self._pump_task: asyncio.Task[None] | None = None
        self._later: set[asyncio.Task[None]] = set()

    @classmethod
    async def init_from_connect(
        cls, reader: Any, writer: Any, plugins_manager: Any, loop: asyncio.AbstractEventLoop | None = None
    ) -> tuple[Any, Session]:
        handler, session = await super().init_from_connect(reader, writer, plugins_manager, loop)
        known = cls.users.get(session.username or "")
        if known is None or not hmac.compare_digest(known.encode(), (session.password or "").encode()):
            await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
            await writer.close()
            raise MQTTError(f"wrong user name or password from {session.remote_address}")
        return handler, session

    def attach(self, session: Session, reader: Any, writer: Any) -> None:
        session.delivered_message_queue = Arrivals(self, session)
        super().attach(session, reader, writer)

    async def start(self) -> None:
        await super().start()
        self._pump_task = asyncio.create_task(self._pump())

    async def stop(self) -> None:
        if self._pump_task is not None:
            self._pump_task.cancel()
        await super().stop()

    def later(self, work: Any) -> None:
        """Run a coroutine beside the caller, and keep it from being collected."""
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _retry_deliveries(self) -> None:
        """The pump does that."""

    async def _pump(self) -> None:
        session = self.session
        for message in list(session.inflight_out.values()):
            await self._send_packet(message.build_publish_packet(dup=True))
        while True:
            while not session.retained_messages.empty() and len(session.inflight_out) < WINDOW:
                waiting = session.retained_messages.get_nowait()
                number = session.next_packet_id
                message = OutgoingApplicationMessage(number, waiting.topic, 1, waiting.data, False)
                session.inflight_out[number] = message
                await self._send_packet(message.build_publish_packet())
            self.wake.clear()
            await self.wake.wait()

    async def handle_puback(self, puback: Any) -> None:
        self.session.inflight_out.pop(puback.variable_header.packet_id, None)
        self.wake.set()


class Outcome:
    """What amqtt expects of a finished future."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def result(self) -> Any:
        return self._message


class Broker(amqtt.broker.Broker):
    """amqtt's broker with durable queues."""

    dropped = 0

    async def take(self, session: Session, handler: Handler, message: Any) -> None:
        """Route a published message into the queues of its subscribers; a bad topic ends the connection."""
        if not await self._handle_message_delivery(session, handler, Outcome(message)):
            await handler.handle_connection_closed()
            raise MQTTError("bad topic")

    async def _authenticate(self, _session: Session, _listener: Any) -> bool:
        return True  # Handler.init_from_connect lets nobody through without a password

    async def _broadcast_message(self, session: Any, topic: Any, data: Any, force_qos: int | None = None) -> None:
        del session, force_qos
        for topic_filter, subscriptions in list(self._subscriptions.items()):
            if self._matches(topic, topic_filter):
                for receiver, qos in subscriptions:
                    await self._hand_over(receiver, topic, data, qos)

    async def _hand_over(self, receiver: Session, topic: str, data: Any, qos: int) -> None:
        handler = self._get_handler(receiver)
        connected = receiver.transitions.state == "connected"
        if qos == 0:
            if connected and handler is not None:
                handler.later(handler.mqtt_publish(topic, data, 0, retain=False))
            return
        if not connected and receiver.clean_session:
            return
        if receiver.retained_messages.qsize() >= QUEUE_LIMIT:
            self.dropped += 1
            if self.dropped % 1000 == 1:
                _log.error("queue of %s is full; messages lost so far: %d", receiver.client_id, self.dropped)
            return
        receiver.retained_messages.put_nowait(SavedMessage(topic, bytes(data), 1))
        if handler is not None:
            handler.wake.set()

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        topic_filter, qos = subscription
        granted: int = await super().add_subscription((topic_filter, min(qos, 1)), session)
        return granted

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """The pump does that."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        # amqtt calls this for everybody's subscriptions whenever anybody connects.
        topic_filter, qos = subscription
        mine = any(other.client_id == session.client_id for other, _ in self._subscriptions.get(topic_filter, []))
        handler = self._get_handler(session)
        if not mine or handler is None:
            return
        for topic, retained in list(self._retained_messages.items()):
            if self._matches(topic, topic_filter):
                await handler.mqtt_publish(topic, retained.data, 0 if qos == 0 else 1, retain=True)

    def state(self) -> Saved:
        """All that must outlive this process."""
        subscriptions: dict[str, list[tuple[str, int]]] = {}
        for topic_filter, held in self._subscriptions.items():
            for session, qos in held:
                subscriptions.setdefault(session.client_id, []).append((topic_filter, qos))
        sessions = []
        for client_id, (session, _) in self._sessions.items():
            if not session.clean_session:
                waiting = [*session.inflight_out.values(), *session.retained_messages._queue]
                messages = [SavedMessage(message.topic, bytes(message.data), 1) for message in waiting]
                sessions.append(SavedSession(client_id, subscriptions.get(client_id, []), messages))
        retained = [SavedMessage(m.topic, bytes(m.data), m.qos or 0) for m in self._retained_messages.values()]
        return Saved(sessions, retained)

    async def restore(self, saved: Saved) -> None:
        """Take up where :meth:`state` left off."""
        for stored in saved.sessions:
            handler, session = self.create_offline_session(stored.client_id)
            session.clean_session = False
            self._sessions[stored.client_id] = (session, handler)
            for subscription in stored.subscriptions:
                await self.add_subscription(subscription, session)
            for message in stored.messages:
                session.retained_messages.put_nowait(message)
        for message in saved.retained:
            await self.retain_message(None, message.topic, message.data, message.qos)


def save(path: Path, state: Saved) -> None:
    """Write ``state`` whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(msgspec.msgpack.encode(state))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


async def serve(configuration: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    path = Path(configuration["directory"]) / "amqtt.msgpack"
    listener = {"type": "tcp", "bind": f"{configuration['host']}:{configuration['port']}"}
    broker = Broker(
        {"listeners": {"default": listener}, "session_expiry_interval": SESSION_EXPIRY_S, "plugins": {}}, loop=loop
    )
    Handler.broker, Handler.users = broker, configuration["users"]
    saved = msgspec.msgpack.decode(path.read_bytes(), type=Saved) if path.exists() else Saved([], [])
    await broker.start()
    await broker.restore(saved)
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), SAVE_EVERY_S)
        except TimeoutError:
            save(path, broker.state())
    for server in broker._servers.values():
        server.instance.close()
    for _, handler in list(broker._sessions.values()):
        if handler.writer is not None:
            await handler.stop()
    save(path, broker.state())
    logging.disable()  # amqtt's tasks complain of being cancelled at the end


def main() -> None:
    """Run the broker that the JSON file named on the command line describes."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _log.setLevel(logging.INFO)
    amqtt.broker.BrokerProtocolHandler = Handler
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
