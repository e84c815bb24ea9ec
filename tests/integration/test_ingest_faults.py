"""Nothing acknowledged is lost and nothing is there twice, whatever dies: real servers, real signals."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.integration.ingest_rig import START_MS, Publisher, Rig, count, events, fetch, one, steady, times_of
from tests.integration.proxy import Proxy
from tests.servers import BrokerServer, PostgresServer, Process, wait_for


def publish_steadily(publisher: Publisher, seconds: float, per_second: int, first: int = 0) -> int:
    """Publish at an even pace; the number after the last. Point p1 of d1, one reading a message."""
    began = time.monotonic()
    number = first
    while (elapsed := time.monotonic() - began) < seconds:
        while number - first < elapsed * per_second:
            publisher.reading("d1", "p1", number)
            number += 1
        time.sleep(0.01)
    return number


def expected_times(numbers: int) -> list[int]:
    return [START_MS + number * 1000 for number in range(numbers)]


def test_kill_between_commit_and_acknowledgement(rig: Rig, publisher: Publisher, own_broker: BrokerServer) -> None:
    proxy = Proxy(urlsplit(own_broker.url).port or 0)
    through = {"LIFELINE_MQTT_URL": own_broker.url.replace(str(urlsplit(own_broker.url).port), str(proxy.port))}
    process = rig.ingest(through)
    proxy.hold_to_server()  # commits go on, acknowledgements do not reach the broker
    for number in range(200):
        publisher.reading("d1", "p1", number)
    wait_for(lambda: count(rig.database_url) == 200, what="the commit")
    process.signal(signal.SIGKILL)
    process.wait()
    proxy.close()
    again = rig.ingest()
    wait_for(lambda: rig.metrics(again)['lifeline_ingest_readings_total{outcome="repeat"}'] == 200, what="redelivery")
    assert times_of(rig.database_url, "d1", "p1") == expected_times(200)
    assert one(rig.database_url, "SELECT count(*) FROM newest_reading") == 1


def test_kill_while_readings_pour_in(rig: Rig, publisher: Publisher) -> None:
    process = rig.ingest()
    last = 0
    for _ in range(3):
        last = publish_steadily(publisher, 0.7, 2000, last)
        process.signal(signal.SIGKILL)
        process.wait()
        last = publish_steadily(publisher, 0.3, 2000, last)
        process = rig.ingest()
    publisher.settle()
    wait_for(lambda: count(rig.database_url) == last, 30, "all readings")
    assert times_of(rig.database_url, "d1", "p1") == expected_times(last)


@pytest.mark.timeout(240)
def test_database_away_for_a_minute_at_500_messages_a_second(
    own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer
) -> None:
    process = own_rig.ingest()
    last = publish_steadily(publisher, 2, 500)
    own_postgres.kill()
    last = publish_steadily(publisher, 60, 500, last)
    publisher.settle()
    # All of it was acknowledged meanwhile: it is in the spool, on disk.
    metrics = own_rig.metrics(process)
    assert metrics["lifeline_ingest_spool_bytes"] > 1_000_000
    assert metrics["lifeline_ingest_unacknowledged_seconds"] < 10
    assert metrics["lifeline_ingest_lag_seconds"] > 50
    assert metrics["process_resident_memory_bytes"] < 200e6
    own_postgres.start()
    last = publish_steadily(publisher, 2, 500, last)
    publisher.settle()
    wait_for(lambda: count(own_rig.database_url) == last, 60, "all readings")
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(last)
    wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_spool_bytes"] == 0, what="an empty spool")


def test_kill_while_the_spool_holds_readings(own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer) -> None:
    process = own_rig.ingest()
    own_postgres.stop()
    last = publish_steadily(publisher, 1, 500)
    publisher.settle()
    wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_unacknowledged_seconds"] == 0, what="a quiet spool")
    process.signal(signal.SIGKILL)
    process.wait()
    again = own_rig.ingest(ready=False)  # starts without a database, knows no point, and spools all the same
    wait_for(lambda: "subscribed" in again.output(), 20, "the broker")
    last = publish_steadily(publisher, 1, 500, last)
    publisher.settle()
    own_postgres.start()
    wait_for(lambda: count(own_rig.database_url) == last, 30, "all readings")
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(last)


def test_spool_full_stops_acknowledging_and_loses_nothing(
    own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer
) -> None:
    process = own_rig.ingest({"LIFELINE_SPOOL_LIMIT_MB": "1", "LIFELINE_INGEST_QUEUE_MB": "1"})
    own_postgres.stop()
    last = publish_steadily(publisher, 8, 3000)
    publisher.settle()
    wait_for(lambda: "spool full" in process.output(), 20, "a full spool")
    wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_unacknowledged_seconds"] > 1, what="a growing age")
    assert 0 < own_rig.metrics(process)["lifeline_ingest_spool_bytes"] <= 1 << 20
    own_postgres.start()
    wait_for(lambda: count(own_rig.database_url) == last, 60, "all readings")
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(last)


def test_database_that_hangs_counts_as_away(own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer) -> None:
    process = own_rig.ingest({"LIFELINE_DATABASE_TIMEOUT_S": "1"})
    publisher.reading("d1", "p1", 0)
    wait_for(lambda: count(own_rig.database_url) == 1, what="the first reading")
    backends = [
        pid
        for (pid,) in fetch(
            own_rig.database_url, "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'life%%'"
        )
    ]
    import os

    stopped = [*backends, own_postgres.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(1, 101):
            publisher.reading("d1", "p1", number)
        publisher.settle()
        wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_spool_bytes"] > 0, 20, "the spool")
        wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_unacknowledged_seconds"] < 4, 20, "acknowledgements")
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: count(own_rig.database_url) == 101, 30, "all readings")


def test_broker_restarted_under_load(rig: Rig, publisher: Publisher, own_broker: BrokerServer) -> None:
    process = rig.ingest()
    last = publish_steadily(publisher, 1, 1000)
    own_broker.restart()
    last = publish_steadily(publisher, 2, 1000, last)
    publisher.settle(30)
    wait_for(lambda: count(rig.database_url) == last, 30, "all readings")
    assert times_of(rig.database_url, "d1", "p1") == expected_times(last)
    assert process.is_alive()


def test_sigterm_leaves_nothing_unacknowledged_behind(rig: Rig, publisher: Publisher) -> None:
    process = rig.ingest()
    last = 0
    for _ in range(4):
        last = publish_steadily(publisher, 0.5, 2000, last)
        assert process.terminate() == 0, process.output()
        stored = count(rig.database_url)
        process = rig.ingest()
        assert stored > 0
        # What the first process stored it also acknowledged: the second is given none of it again.
        last = publish_steadily(publisher, 0.3, 2000, last)
        assert rig.metrics(process)['lifeline_ingest_readings_total{outcome="repeat"}'] == 0
    publisher.settle()
    wait_for(lambda: count(rig.database_url) == last, 30, "all readings")
    assert times_of(rig.database_url, "d1", "p1") == expected_times(last)


def test_sigterm_waits_for_what_was_taken(rig: Rig, publisher: Publisher) -> None:
    process = rig.ingest()
    with psycopg.connect(rig.database_url) as blocker:
        blocker.execute("LOCK TABLE newest_reading IN EXCLUSIVE MODE")
        for number in range(100):
            publisher.reading("d1", "p1", number)
        publisher.settle()
        wait_for(lambda: rig.metrics(process)["lifeline_ingest_unacknowledged_seconds"] > 0.5, what="a stuck commit")
        process.signal(signal.SIGTERM)
        time.sleep(1)
        assert process.is_alive()
        blocker.rollback()
    assert process.wait() == 0, process.output()
    assert count(rig.database_url) == 100
    again = rig.ingest()
    publisher.reading("d1", "p1", 100)
    wait_for(lambda: count(rig.database_url) == 101, what="the next reading")
    assert rig.metrics(again)['lifeline_ingest_readings_total{outcome="repeat"}'] == 0


@pytest.mark.parametrize("one_spool_dir", [True, False], ids=["one-spool-dir", "two-spool-dirs"])
def test_two_processes_share_the_load_and_one_takes_over_from_the_other(
    rig: Rig, publisher: Publisher, tmp_path: Path, one_spool_dir: bool
) -> None:
    first = rig.ingest()
    second = rig.ingest({} if one_spool_dir else {"LIFELINE_SPOOL_DIR": str(tmp_path / "elsewhere")})
    last = publish_steadily(publisher, 1, 1000)
    publisher.settle()
    wait_for(lambda: count(rig.database_url) == last, what="all readings")
    stored = 'lifeline_ingest_readings_total{outcome="stored"}'
    shares = [rig.metrics(process)[stored] for process in (first, second)]
    assert sum(shares) == last
    assert min(shares) > last / 4
    second.signal(signal.SIGKILL)
    second.wait()
    # The broker goes on giving half of it to the process that is gone, until the other one ends that session.
    deadline = time.monotonic() + 60
    while "abandoned session taken over" not in first.output() and time.monotonic() < deadline:
        last = publish_steadily(publisher, 0.5, 200, last)
    assert "abandoned session taken over" in first.output()
    publisher.settle()
    wait_for(lambda: count(rig.database_url) == last, 10, "all readings")
    assert times_of(rig.database_url, "d1", "p1") == expected_times(last)


def test_message_that_the_database_refuses_stops_only_itself(rig: Rig, publisher: Publisher) -> None:
    # A rule of the database's own that our code knows nothing of.
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE reading ADD CONSTRAINT odd CHECK (value <> 0.666) NOT VALID")
    rig.ingest()
    for number in range(300):
        publisher.reading("d1", "p1", number, 0.666 if number == 137 else 0.5)
    wait_for(lambda: count(rig.database_url) == 299, 20, "its neighbours")
    assert START_MS + 137_000 not in times_of(rig.database_url, "d1", "p1")
    wait_for(lambda: one(rig.database_url, "SELECT count(*) FROM dead_letter") == 1, what="the refusal")
    payload = json.loads(one(rig.database_url, "SELECT payload FROM dead_letter"))
    assert payload["value"] == 0.666


def test_repeats_are_absorbed_whatever_their_value(rig: Rig, publisher: Publisher) -> None:
    process = rig.ingest()
    for value in (0.1, 0.2, 0.3):
        for number in range(100):
            publisher.reading("d1", "p1", number, value)
        publisher.settle()
        wait_for(lambda: count(rig.database_url) == 100, what="the readings")
    wait_for(lambda: rig.metrics(process)['lifeline_ingest_readings_total{outcome="repeat"}'] == 200)
    assert fetch(rig.database_url, "SELECT DISTINCT value FROM reading") == [(0.1,)]


def test_memory_is_bounded_while_nothing_can_be_stored(
    own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer
) -> None:
    process = own_rig.ingest({"LIFELINE_SPOOL_LIMIT_MB": "1", "LIFELINE_INGEST_QUEUE_MB": "8"})
    own_postgres.stop()
    before = own_rig.metrics(process)["process_resident_memory_bytes"]
    payload = json.dumps([{"point": "p1", "time": START_MS + n * 1000, "value": 0.5} for n in range(1000)])
    for _ in range(2000):  # 95 MB
        publisher.publish("lifeline/v1/632521/d1/readings", payload)
    publisher.settle(60)
    steady(lambda: int(own_rig.metrics(process)["process_resident_memory_bytes"]) >> 22)
    assert own_rig.metrics(process)["process_resident_memory_bytes"] < before + 45e6


def test_broker_killed_and_started_again(rig: Rig, publisher: Publisher, own_broker: BrokerServer) -> None:
    process = rig.ingest()
    publisher.reading("d1", "p1", 0)
    wait_for(lambda: count(rig.database_url) == 1, what="the first reading")
    own_broker.kill()
    wait_for(lambda: "broker connection lost" in process.output(), what="the loss in the log")
    assert rig.metrics(process)[f'lifeline_ingest_connected{{client_id="{client_id(process)}"}}'] == 0
    own_broker.start()
    for number in range(1, 101):
        publisher.reading("d1", "p1", number)
    publisher.settle(30)
    wait_for(lambda: count(rig.database_url) == 101, 30, "the readings after it")
    assert process.is_alive()


def client_id(process: Process) -> str:
    return str(next(event["client_id"] for event in events(process) if event["event"] == "broker connected"))


def test_database_that_takes_no_writes_counts_as_away(
    own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer
) -> None:
    process = own_rig.ingest()
    with psycopg.connect(own_postgres.server.superuser_url, autocommit=True) as admin:
        for setting, spooled in (("on", True), ("off", False)):
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
            admin.execute("SELECT pg_reload_conf()")
            time.sleep(0.5)
            first = 0 if spooled else 50
            for number in range(first, first + 50):
                publisher.reading("d1", "p1", number)
            publisher.settle()
            if spooled:
                wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_spool_bytes"] > 0, 20, "the spool")
    wait_for(lambda: count(own_rig.database_url) == 100, 30, "all readings")
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(100)


def fill_the_disk(own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer) -> tuple[Process, int]:
    """Ingest without a database and without room for its spool, and the number after the last reading published."""
    process = own_rig.ingest({"LIFELINE_INGEST_QUEUE_MB": "1"})
    # The process may write no file beyond 300 KB: what a full disk is to SQLite.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    own_postgres.stop()
    last = publish_steadily(publisher, 3, 1500)
    publisher.settle()
    wait_for(lambda: "spool full" in process.output(), 20, "the error in the log")
    return process, last


def test_disk_full_under_the_spool_stops_acknowledging(
    own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer
) -> None:
    process, last = fill_the_disk(own_rig, publisher, own_postgres)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    own_postgres.start()
    wait_for(lambda: count(own_rig.database_url) == last, 60, "all readings")
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(last)
    assert process.is_alive()


def test_broker_restarted_while_commits_hang_stores_and_refuses_nothing_twice(
    rig: Rig, publisher: Publisher, own_broker: BrokerServer
) -> None:
    process = rig.ingest()
    topic = "lifeline/v1/632521/d1/readings"
    with psycopg.connect(rig.database_url) as blocker:
        blocker.execute("LOCK TABLE newest_reading, dead_letter IN EXCLUSIVE MODE")
        for number in range(50):
            publisher.publish(topic, json.dumps({"point": "p1", "value": number / 100}))  # no time: named by arrival
            publisher.publish(topic, json.dumps({"point": "nowhere", "value": number}))
        publisher.settle()
        wait_for(lambda: rig.metrics(process)["lifeline_ingest_unacknowledged_seconds"] > 0.5, what="a stuck commit")
        own_broker.restart()
        wait_for(lambda: process.output().count('"broker connected"') == 2, 30, "the reconnect")
        time.sleep(1)
        blocker.rollback()
    publisher.publish(topic, json.dumps({"point": "p2", "value": 1}))
    wait_for(lambda: count(rig.database_url) >= 51, 20, "all readings")
    time.sleep(1)
    assert count(rig.database_url) == 51
    assert one(rig.database_url, "SELECT count(*) FROM dead_letter") == 50
    # And the broker holds nothing back: a restart of ingest is given none of it again.
    assert process.terminate() == 0
    again = rig.ingest()
    time.sleep(1)
    assert rig.metrics(again)['lifeline_ingest_messages_total{format="json"}'] == 0


def test_a_slow_spool_comes_in_piece_by_piece(own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    process = own_rig.ingest({"LIFELINE_DATABASE_TIMEOUT_S": "1"}, ready=False)
    wait_for(lambda: "subscribed" in process.output(), what="the subscription")
    last = publish_steadily(publisher, 3, 1500)
    publisher.settle()
    wait_for(lambda: own_rig.metrics(process)["lifeline_ingest_unacknowledged_seconds"] == 0, what="a quiet spool")
    own_postgres.start()
    # A slice of 20,000 readings would take ten times the second that a commit may take.
    with psycopg.connect(own_rig.database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.0005); RETURN NEW; END $$"
        )
        connection.execute("CREATE TRIGGER slow BEFORE INSERT ON newest_reading FOR EACH ROW EXECUTE FUNCTION slow()")
        connection.execute("CREATE TRIGGER slow BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION slow()")
    wait_for(lambda: count(own_rig.database_url) == last, 90, "all readings")
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(last)


def test_disk_still_full_when_the_database_returns(
    own_rig: Rig, publisher: Publisher, own_postgres: PostgresServer
) -> None:
    process, last = fill_the_disk(own_rig, publisher, own_postgres)
    own_postgres.start()
    wait_for(lambda: count(own_rig.database_url) == last, 60, "all readings")
    assert process.is_alive()
    assert times_of(own_rig.database_url, "d1", "p1") == expected_times(last)
