"""Ingest: throughput one by one and a hundred at a time, time to commit, memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import psycopg
from numpy.typing import NDArray

from benchmarks.load import Load
from benchmarks.stage import ROOT, Figure, Stage, metric
from lifeline.readings import Readings
from lifeline.timeseries import ensure_partitions_at, write
from tests.servers import Process

START_MS = 1_793_491_200_000
DEVICES, POINTS = 1000, 10
SINGLE_MESSAGES = 300_000
BARE_MESSAGES = 60_000
BATCH_MESSAGES = 30_000
COPY_ROWS = 1_000_000
COPY_BATCH = 50_000
STORED = 'lifeline_ingest_readings_total{outcome="stored"}'


def ingest(stage: Stage, only: str) -> Iterator[Figure]:
    """The figures of ingest whose names begin with ``only``."""
    stage.register(DEVICES, POINTS)
    peak = 0.0
    if wanted(only, "ingest.single", "ingest.commit_p99_ms"):
        bare = bare_paho(stage)
        peak = readings_per_s(stage, SINGLE_MESSAGES, 1)
        yield Figure("ingest.single", peak, "readings/s", bare, "bare paho loop, manual acknowledge")
    if wanted(only, "ingest.batch100"):
        direct, staged = copy_rows_per_s(stage)
        batched = readings_per_s(stage, BATCH_MESSAGES, 100)
        yield Figure("ingest.batch100", batched, "readings/s", staged, "COPY to staging, INSERT … ON CONFLICT")
        yield Figure("ingest.batch100.direct", batched, "readings/s", direct, "COPY into the keyed table")
    if wanted(only, "ingest.commit_p99_ms"):
        yield Figure("ingest.commit_p99_ms", commit_p99_ms(stage, 1000, 10), "ms", 100, "goal, at 1,000 messages/s")
        half = commit_p99_ms(stage, peak / 2, 8)
        yield Figure("ingest.commit_p99_ms.half_peak", half, "ms", 300, f"goal, at {peak / 2:.0f} messages/s")
    if wanted(only, "ingest.memory_mb"):
        yield Figure("ingest.memory_mb", memory_mb(stage), "MB", 200, "goal, 100,000 points, 100 readings a message")


def wanted(only: str, *names: str) -> bool:
    return any(name.startswith(only) or only.startswith(name) for name in names)


def readings_per_s(stage: Stage, messages: int, readings: int) -> float:
    """From the first message sent to the last reading committed."""
    stage.clear()
    with stage.ingest() as process:
        load = Load(stage.broker_url, messages, readings, DEVICES, POINTS, START_MS)
        publisher = stage.publish(load)
        began = time.monotonic()
        wait_stored(process, messages * readings)
        elapsed = time.monotonic() - began
        publisher.wait(60)
    with psycopg.connect(stage.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM reading").fetchone()
    assert row == (messages * readings,), f"{row} readings stored, {messages * readings} sent"
    return messages * readings / elapsed


def wait_stored(process: Process, readings: int, limit_s: float = 180) -> None:
    deadline = time.monotonic() + limit_s
    while metric(process, STORED) < readings:
        assert time.monotonic() < deadline, "ingest did not finish in time"
        time.sleep(0.05)


def bare_paho(stage: Stage) -> float:
    """Messages a second that a bare paho loop takes and acknowledges, with the same load."""
    command = [sys.executable, "-m", "benchmarks.bare_paho", stage.broker_url, str(BARE_MESSAGES)]
    receiver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    publisher = stage.publish(Load(stage.broker_url, BARE_MESSAGES, 1, DEVICES, POINTS, START_MS))
    seconds = float(receiver.stdout.readline())
    receiver.wait(10)
    publisher.wait(10)
    return BARE_MESSAGES / seconds


def copy_rows_per_s(stage: Stage) -> tuple[float, float]:
    """Rows a second straight into the keyed table, and by way of a staging table; binary COPY, ready-made rows."""
    rates = []
    for staged in (False, True):
        stage.clear()
        with psycopg.connect(stage.database_url, autocommit=True) as connection:
            write.prepare(connection)
            connection.execute("CREATE TEMP TABLE staging (LIKE reading) ON COMMIT DELETE ROWS")
            batches = [made(start) for start in range(0, COPY_ROWS, COPY_BATCH)]
            ensure_partitions_at(connection, np.concatenate([batch.time for batch in batches]))
            began = time.monotonic()
            for batch in batches:
                with connection.transaction(), connection.cursor() as cursor:
                    if staged:
                        write.write_new(cursor, batch, "staging")
                        cursor.execute("INSERT INTO reading SELECT * FROM staging ON CONFLICT DO NOTHING")
                    else:
                        write.write_new(cursor, batch)
            rates.append(COPY_ROWS / (time.monotonic() - began))
    return rates[0], rates[1]


def made(start: int) -> Readings:
    """Rows ``start`` to ``start`` + :data:`COPY_BATCH`, in the shape the load has: every point once a second."""
    position = np.arange(start, start + COPY_BATCH)
    time_us = START_MS * 1000 + position // (DEVICES * POINTS) * 1_000_000
    point_id = (position % (DEVICES * POINTS) + 1).astype(np.int32)
    return write.sorted_once(
        Readings(point_id, time_us, time_us, position % 1000 / 1000, np.zeros(COPY_BATCH, np.int16))
    )


class _Commits(threading.Thread):
    """Notes when each batch was committed (its notification arrives after that) and what times it held."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.done = threading.Event()
        self.ready = threading.Event()
        self.latencies: list[NDArray[np.float64]] = []

    def run(self) -> None:
        with (
            psycopg.connect(self._url, autocommit=True) as connection,
            psycopg.connect(self._url, autocommit=True) as reader,
        ):
            connection.execute("LISTEN lifeline_evaluation")
            last = 0
            self.ready.set()
            while not self.done.is_set():
                for _ in connection.notifies(timeout=0.2, stop_after=1):
                    now_us = time.time_ns() // 1000
                    rows = reader.execute(
                        "SELECT id, packed FROM evaluation_batch WHERE id > %s ORDER BY id", (last,)
                    ).fetchall()
                    for number, packed in rows:
                        last = number
                        self.latencies.append((now_us - Readings.unpack(packed).time) / 1000)


def commit_p99_ms(stage: Stage, per_second: float, seconds: float) -> float:
    """99th percentile of the time from publishing to commit, milliseconds; the first second is warm-up."""
    stage.clear()
    with stage.ingest() as process:
        commits = _Commits(stage.database_url)
        commits.start()
        commits.ready.wait(10)
        messages = int(per_second * seconds)
        load = Load(stage.broker_url, messages, 1, DEVICES, POINTS, START_MS, per_second, now=True)
        publisher = stage.publish(load)
        publisher.wait(seconds * 3 + 30)
        time.sleep(1)
        commits.done.set()
        commits.join(5)
        assert metric(process, STORED) > messages * 0.5
    latencies = np.concatenate(commits.latencies)
    return float(np.percentile(latencies[int(per_second) :], 99))


def memory_mb(stage: Stage) -> float:
    """Resident memory of ingest with 100,000 points registered, the largest seen under load."""
    stage.register(10_000, 10)
    seen = []
    with stage.ingest() as process:
        publisher = stage.publish(Load(stage.broker_url, 20_000, 100, 10_000, 10, START_MS))
        while publisher.poll() is None or metric(process, STORED) < 2_000_000:
            seen.append(metric(process, "process_resident_memory_bytes") / 1e6)
            time.sleep(0.1)
    assert statistics.fmean(seen) > 0
    return max(seen)
