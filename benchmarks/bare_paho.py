"""The limit for one reading per message: a loop of paho's own that only acknowledges."""

from __future__ import annotations

import sys
import time
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def main(url: str, messages: int) -> None:
    """Print ``ready`` when subscribed, and the seconds from the first to the last of ``messages``."""
    parts = urlsplit(url)
    client = paho.Client(CallbackAPIVersion.VERSION2, "bare-paho", protocol=paho.MQTTv5, manual_ack=True)
    client.username_pw_set(unquote(parts.username or ""), unquote(parts.password or ""))
    taken = 0
    began = 0.0

    def on_message(client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        nonlocal taken, began
        began = began or time.monotonic()
        taken += 1
        client.ack(message.mid, message.qos)

    client.on_message = on_message
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.on_connect = lambda client, *_: client.subscribe("lifeline/v1/+/+/readings", qos=1)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.ReceiveMaximum = 65535
    client.connect(parts.hostname or "", parts.port or 1883, properties=properties)
    while taken < messages:
        client.loop(1.0)
    print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
