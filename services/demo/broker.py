"""A real MQTT broker of our own: mosquitto where this machine has it, else amqtt, which is a Python package."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from services.demo import launch, logs
from services.demo.supervisor import Program

HOST = "127.0.0.1"
USER = "lifeline"
MAX_PACKET_BYTES = 64 << 20
"""Far more than ingest takes: a message that is too large must reach it, to be refused by name. Refused here, its
publisher would be put out, and with QoS 1 come back with the same message for ever."""
CONNECT_LIMIT_S = 2.0

Kind = Literal["mosquitto", "amqtt"]

_MOSQUITTO_CONFIGURATION = """\
# Written at each start; changes are lost.
per_listener_settings false
listener {port} {host}
allow_anonymous false
password_file {directory}/passwords

# Ingest takes a whole batch before it acknowledges: nothing here may hold it back (mosquitto's default is 20).
max_inflight_messages 0
# What waits for an ingest process that is away: much, but never all memory.
max_queued_messages 1000000
max_queued_bytes 536870912
max_packet_size {max_packet_bytes}

persistence true
persistence_location {directory}/
persistent_client_expiration 14d
# What a killed broker may lose, in seconds; a stopped one loses nothing.
autosave_interval 15

log_dest stderr
log_type error
log_type warning
log_type notice
log_timestamp_format %Y-%m-%dT%H:%M:%S
connection_messages false
"""

_NO_MOSQUITTO = "mosquitto is not on this machine: install the package mosquitto, or use --broker amqtt"
_AMQTT_LIMITS = (
    "amqtt: some thousand messages a second, MQTT 3.1.1, one ingest process, no limit on a message's size;",
    "killed, it forgets up to 5 s of what it has taken.",
)


class BrokerError(Exception):
    """No broker can be started; the text says what to install."""


@dataclass(frozen=True)
class Broker:
    """One broker on its own directory, whose parent must exist."""

    kind: Kind
    directory: Path
    port: int
    password: str
    log: Path
    account: launch.Account | None

    @property
    def url(self) -> str:
        """``mqtt://`` URL of the account that may publish and subscribe everything."""
        return f"mqtt://{USER}:{quote(self.password, safe='')}@{HOST}:{self.port}"

    @property
    def protocol(self) -> str:
        """The MQTT version for ``LIFELINE_MQTT_PROTOCOL``."""
        return "5" if self.kind == "mosquitto" else "3.1.1"

    @property
    def has_shared_subscriptions(self) -> bool:
        return self.kind == "mosquitto"

    @property
    def limits(self) -> tuple[str, ...]:
        """What this broker lacks, for people."""
        return () if self.kind == "mosquitto" else _AMQTT_LIMITS

    def start(self) -> subprocess.Popen[bytes]:
        """Write the configuration and start the broker as our child; returns at once. Raises :class:`BrokerError`."""
        argv = self._mosquitto() if self.kind == "mosquitto" else self._amqtt()
        # amqtt runs from our own virtual environment, which the account may have no way into: it stays ourselves.
        account = self.account if self.kind == "mosquitto" else None
        with logs.open_log(self.log) as output:
            return launch.start(
                argv,
                output=output,
                account=account,
                reaches=(Path(argv[0]), self.directory / "x"),
                death_signal=signal.SIGTERM,  # saves what is queued, then ends
            )

    def _mosquitto(self) -> list[str]:
        program = launch.find_program("mosquitto")
        if program is None:
            raise BrokerError(_NO_MOSQUITTO)
        launch.make_directory(self.directory, self.account)
        launch.write_private(self.directory / "passwords", password_line(USER, self.password), self.account)
        text = _MOSQUITTO_CONFIGURATION.format(
            port=self.port, host=HOST, directory=self.directory.absolute(), max_packet_bytes=MAX_PACKET_BYTES
        )
        configuration = self.directory / "mosquitto.conf"
        launch.write_private(configuration, text, self.account)
        return [program, "-c", str(configuration.absolute())]

    def _amqtt(self) -> list[str]:
        launch.make_directory(self.directory, None)
        configuration = {
            "host": HOST,
            "port": self.port,
            "users": {USER: self.password},
            "directory": str(self.directory.absolute()),
        }
        path = self.directory / "amqtt.json"
        launch.write_private(path, json.dumps(configuration))
        return [sys.executable, "-m", "services.demo.amqtt_broker", str(path.absolute())]

    def is_ready(self) -> bool:
        """Whether it lets our account in (a real MQTT CONNECT, at most :data:`CONNECT_LIMIT_S`)."""
        return can_connect(HOST, self.port, USER, self.password)

    def program(self) -> Program:
        """This broker for the supervisor."""
        return Program(name="broker", start=self.start, is_ready=self.is_ready, log=str(self.log), stop_limit_s=15.0)


def choose(wished: Kind | Literal["auto"]) -> Kind:
    """As wished; auto: mosquitto where it is on PATH or in Debian's place for servers, else amqtt.

    Raises :class:`BrokerError` where what is wished is not on this machine.
    """
    if wished == "amqtt":
        return "amqtt"
    if launch.find_program("mosquitto") is not None:
        return "mosquitto"
    if wished == "mosquitto":
        raise BrokerError(_NO_MOSQUITTO)
    return "amqtt"


def password_line(user: str, password: str) -> str:
    """A line of mosquitto's password file: PBKDF2-HMAC-SHA512 as its own ``mosquitto_passwd`` writes it ($7$)."""
    salt, iterations = secrets.token_bytes(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"{user}:$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def can_connect(host: str, port: int, user: str, password: str) -> bool:
    """Whether an MQTT broker answers at ``host:port`` and accepts the account."""
    answered = threading.Event()
    accepted = False

    def on_connect(_client: object, _data: object, _flags: object, reason: object, _properties: object) -> None:
        nonlocal accepted
        accepted = not getattr(reason, "is_failure", True)
        answered.set()

    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"lifeline-ready-{os.getpid()}", protocol=mqtt.MQTTv311)
    client.username_pw_set(user, password)
    client.on_connect = on_connect
    client.connect_timeout = CONNECT_LIMIT_S
    try:
        client.connect(host, port)
    except OSError:
        return False
    client.loop_start()
    try:
        answered.wait(CONNECT_LIMIT_S)
    finally:
        client.disconnect()
        client.loop_stop()
    return accepted
