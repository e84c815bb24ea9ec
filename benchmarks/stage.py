"""What every benchmark stands on: a migrated database, a broker, ingest between them, and a load."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.load import Load
from tests.servers import BrokerServer, Databases, PostgresServer, Process, wait_for

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; ``limit`` is what bounds it, in the same unit, measured in the same run."""

    bench: str
    value: float
    unit: str
    limit: float | None = None
    of: str | None = None
    """What the limit is."""

    def line(self) -> str:
        fields: dict[str, Any] = {"bench": self.bench, "value": _rounded(self.value), "unit": self.unit}
        if self.limit is not None:
            fields |= {"limit": _rounded(self.limit), "ratio": _rounded(self.value / self.limit)}
        if self.of is not None:
            fields["of"] = self.of
        return json.dumps(fields, ensure_ascii=False)


def _rounded(value: float) -> float:
    return round(value) if abs(value) >= 1000 else float(f"{value:.3g}")


@dataclass(frozen=True, slots=True)
class Stage:
    """Servers for one run, durable as in life."""

    database_url: str
    broker_url: str
    directory: Path

    @contextlib.contextmanager
    def ingest(self, **environ: str) -> Iterator[Process]:
        """An ingest process that consumes; ended cleanly."""
        log = self.directory / f"ingest-{time.monotonic_ns()}.log"
        settings = {
            "LIFELINE_DATABASE_URL": self.database_url,
            "LIFELINE_MQTT_URL": self.broker_url,
            "LIFELINE_SPOOL_DIR": str(self.directory / "spool"),
            "LIFELINE_METRICS_PORT": "0",
            "LIFELINE_LOG_FORMAT": "json",
            **environ,
        }
        process = Process(["ingest"], settings, log)
        try:
            for word in ("subscribed", "database connected", "registry read"):
                wait_for(partial(_says, process, word), 60, word)
            yield process
            process.terminate(60)
        finally:
            process.kill()

    def register(self, devices: int, points: int) -> None:
        """Devices ``d1``… of ``points`` points each, and no readings."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute("TRUNCATE reading, newest_reading, evaluation_batch, point, device, site CASCADE")
            connection.execute(
                "INSERT INTO indicator (code, name, sector, unit, valid_min, valid_max) "
                "VALUES ('water_supply.pressure', '{}', 'water_supply', 'MPa', 0, 1.6) ON CONFLICT DO NOTHING"
            )
            connection.execute(
                "INSERT INTO site (code, name, sector, county, lon, lat) "
                "VALUES ('bench', 'bench', 'water_supply', '632521', 100.6, 36.3)"
            )
            connection.execute(
                "INSERT INTO device (code, site_id) SELECT 'd' || n, site.id FROM generate_series(1, %s) n, site",
                (devices,),
            )
            connection.execute(
                "INSERT INTO point (device_id, code, indicator) SELECT device.id, 'p' || n, 'water_supply.pressure' "
                "FROM device, generate_series(1, %s) n",
                (points,),
            )

    def clear(self) -> None:
        """Forget all readings, and let the server settle."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute("TRUNCATE reading, newest_reading, evaluation_batch")
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                connection.execute("CHECKPOINT")

    def publish(self, load: Load) -> subprocess.Popen[str]:
        """Start a publisher, wait until its messages are made, and let it go."""
        publisher = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(load))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert publisher.stdin is not None
        assert publisher.stdout is not None
        assert publisher.stdout.readline() == "ready\n"
        publisher.stdin.write("go\n")
        publisher.stdin.flush()
        return publisher


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """PostgreSQL (LIFELINE_TEST_DATABASE_URL where set, else an embedded one) and mosquitto, for one run."""
    with tempfile.TemporaryDirectory(prefix="lifeline-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        url = os.environ.get("LIFELINE_TEST_DATABASE_URL")
        if not url:
            postgres = PostgresServer(directory / "postgres", {"shared_buffers": "1GB", "max_wal_size": "8GB"})
            postgres.start()
            stack.callback(postgres.stop)
            url = postgres.url
        databases = Databases(url, f"lifeline_bench_{os.getpid()}")
        stack.callback(databases.close)
        database_url = databases.create_migrated()
        stack.callback(databases.drop, database_url)
        broker = BrokerServer(directory / "broker")
        broker.start()
        stack.callback(broker.stop)
        yield Stage(database_url, broker.url, directory)


def _says(process: Process, word: str) -> bool:
    return word in process.output()


def metric(process: Process, name: str) -> float:
    """One metric of an ingest process."""
    started = next(line for line in process.output().splitlines() if '"ingest started"' in line)
    port = json.loads(started)["metrics_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
    raise KeyError(name)
