"""A small prefecture for tests of ingest: devices d1…, points p1… of one indicator, and ways to publish and count."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
import psycopg
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import Process, run_cli, wait_for

COUNTY = "632521"
# 2026-11-01T00:00Z in milliseconds; tests count up from here.
START_MS = 1_793_491_200_000

_REGISTER = """
INSERT INTO indicator (code, name, sector, unit, valid_min, valid_max)
VALUES ('water_supply.pressure', '{}', 'water_supply', 'MPa', 0, 1.6) ON CONFLICT DO NOTHING;
INSERT INTO site (code, name, sector, county, lon, lat)
VALUES ('test-site', 'test', 'water_supply', '632521', 100.6, 36.3) ON CONFLICT DO NOTHING;
"""


def register(url: str, devices: int = 10, points: int = 10) -> None:
    """Devices ``d1``… with points ``p1``…, pressures in MPa, valid from 0 to 1.6."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_REGISTER)
        connection.execute(
            "INSERT INTO device (code, site_id) SELECT 'd' || n, site.id FROM generate_series(1, %s) n, site",
            (devices,),
        )
        connection.execute(
            "INSERT INTO point (device_id, code, indicator) "
            "SELECT device.id, 'p' || n, 'water_supply.pressure' FROM device, generate_series(1, %s) n",
            (points,),
        )


def fetch(url: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query, arguments).fetchall()


def one(url: str, query: str, *arguments: object) -> Any:
    return fetch(url, query, *arguments)[0][0]


def count(url: str) -> int:
    return int(one(url, "SELECT count(*) FROM reading"))


def times_of(url: str, device: str, point: str) -> list[int]:
    """Times of a point's readings, epoch milliseconds, in order."""
    rows = fetch(
        url,
        "SELECT (extract(epoch FROM time) * 1000)::int8 FROM reading JOIN point ON point.id = point_id "
        "JOIN device ON device.id = device_id WHERE device.code = %s AND point.code = %s ORDER BY time",
        device,
        point,
    )
    return [row[0] for row in rows]


class Publisher:
    """A publisher that goes on over broker restarts."""

    def __init__(self, url: str, client_id: str = "test-publisher") -> None:
        parts = urlsplit(url)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self._client.max_queued_messages_set(0)
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        self._client.max_inflight_messages_set(2000)
        self._client.reconnect_delay_set(1, 1)
        self._sent = 0
        self._acknowledged: list[int] = []
        self._client.on_publish = lambda *arguments: self._acknowledged.append(arguments[2])
        self._client.connect(parts.hostname or "", parts.port or 1883)
        self._client.loop_start()
        wait_for(self._client.is_connected, what="the publisher's connection")

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Send, now or when the broker is back (QoS 1)."""
        self._client.publish(topic, payload, qos=qos, retain=retain)
        self._sent += 1

    def reading(self, device: str, point: str, number: int, value: float = 0.5) -> None:
        """Reading ``number`` of a point: its time is ``START_MS + number`` seconds."""
        payload = json.dumps({"point": point, "time": START_MS + number * 1000, "value": value})
        self.publish(f"lifeline/v1/{COUNTY}/{device}/readings", payload)

    def settle(self, limit_s: float = 15) -> None:
        """Wait until the broker has acknowledged everything."""
        wait_for(lambda: len(self._acknowledged) >= self._sent, limit_s, "the broker's acknowledgements")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Rig:
    """One database, one broker, and ingest processes between them."""

    def __init__(self, start: Callable[..., Process], database_url: str, mqtt_url: str, directory: Path) -> None:
        self._start = start
        self.database_url = database_url
        self.environ = {
            "LIFELINE_DATABASE_URL": database_url,
            "LIFELINE_MQTT_URL": mqtt_url,
            "LIFELINE_SPOOL_DIR": str(directory / "spool"),
            "LIFELINE_METRICS_PORT": "0",
            "LIFELINE_LOG_FORMAT": "json",
            "LIFELINE_SPARKPLUG": "false",
            # The broker may be shared with other tests: each takes a share of its own.
            "LIFELINE_MQTT_SHARE_GROUP": f"test-{abs(hash(directory)) % 10**9}",
        }

    def ingest(self, environ: Mapping[str, str] | None = None, *, ready: bool = True) -> Process:
        """Start an ingest process; with ``ready``, wait until it consumes and the database takes its commits."""
        process = self._start("ingest", environ={**self.environ, **(environ or {})})
        if ready:
            wait_for(lambda: "subscribed" in process.output() or not process.is_alive(), 20, "ingest's subscription")
            wait_for(lambda: "database connected" in process.output() or not process.is_alive(), 20, "its database")
            assert process.is_alive(), process.output()
        return process

    def metrics(self, process: Process) -> dict[str, float]:
        """All metrics of an ingest process, by name with labels."""
        import urllib.request

        started = next(line for line in events(process) if line["event"] == "ingest started")
        with urllib.request.urlopen(f"http://127.0.0.1:{started['metrics_port']}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def cli(self, *arguments: str) -> str:
        ended = run_cli(*arguments, environ=self.environ)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


def events(process: Process) -> list[dict[str, Any]]:
    """The log of a process, event by event."""
    return [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]


def steady(value: Callable[[], int], quiet_s: float = 1.0, limit_s: float = 30.0) -> int:
    """``value()`` once it has stayed the same for ``quiet_s``."""
    deadline = time.monotonic() + limit_s
    last, since = value(), time.monotonic()
    while time.monotonic() - since < quiet_s and time.monotonic() < deadline:
        time.sleep(0.1)
        now = value()
        if now != last:
            last, since = now, time.monotonic()
    return last
