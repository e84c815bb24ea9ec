"""``lifeline deadletter``: what was refused comes in once its cause is mended, each letter once, and stops no other."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any

import psycopg
import pytest

from lifeline import db, sparkplug
from lifeline.settings import Settings
from lifeline.sparkplug_b_pb2 import DataType
from lifeline.timeseries import ensure_partitions_at
from services.ingest import deadletter
from services.ingest.deadletter import Replayed, replay_all
from services.ingest.formats.model import MOST_REFUSALS
from services.ingest.formats.senml import parse_senml
from services.ingest.formats.sparkplug import parse_metrics
from tests.integration.ingest_rig import COUNTY, START_MS, count, fetch, one, register, times_of
from tests.servers import run_cli, wait_for

READINGS = f"lifeline/v1/{COUNTY}/d1/readings"
STATUS = f"lifeline/v1/{COUNTY}/d1/status"
SENML = f"lifeline/v1/{COUNTY}/d1/senml"

_INSERT = """
INSERT INTO dead_letter (received_at, topic, reason, detail, payload, payload_size)
VALUES (to_timestamp(%s / 1000.0), %s, %s, 'as it was', %s, %s) RETURNING id
"""


@pytest.fixture
def url(database_url: str) -> str:
    register(database_url, devices=2, points=3)
    return database_url


def letter(
    url: str,
    payload: object,
    *,
    topic: str = READINGS,
    reason: str = "unknown_point",
    received_ms: int = START_MS,
    size: int | None = None,
) -> int:
    """A refusal that waits; its id."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    arguments = (received_ms, topic, reason, text, len(text) if size is None else size)
    return int(one(url, _INSERT, *arguments))


def reading(number: int, value: float | None = 0.5, point: str = "p1") -> dict[str, Any]:
    return {"point": point, "time": START_MS + number * 1000, "value": value}


def waiting(url: str) -> dict[int, tuple[str, str]]:
    """Reason and detail of what waits, by id."""
    rows = fetch(url, "SELECT id, reason, detail FROM dead_letter WHERE replayed_at IS NULL ORDER BY id")
    return {row[0]: (row[1], row[2]) for row in rows}


def replay(settings: Settings, ids: list[int] | None = None, reason: str | None = None) -> Replayed:
    total = Replayed(0, 0, 0, 0)
    with db.connect(settings, "test-deadletter") as connection:
        connection.autocommit = True
        for part in replay_all(connection, settings, ids, reason):
            total = Replayed(*map(sum, zip(total, part, strict=True)))
    return total


def cli(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_cli("deadletter", *arguments, environ={"LIFELINE_DATABASE_URL": url})


def test_by_ids(url: str, settings: Settings) -> None:
    first, second, third = (letter(url, reading(number)) for number in range(3))
    assert replay(settings, ids=[first, third]) == Replayed(2, 2, 0, 0)
    assert list(waiting(url)) == [second]
    assert times_of(url, "d1", "p1") == [START_MS, START_MS + 2000]


def test_by_reason(url: str, settings: Settings) -> None:
    letter(url, reading(1), reason="unknown_device")
    other = letter(url, reading(2), reason="unknown_point")
    assert replay(settings, reason="unknown_device") == Replayed(1, 1, 0, 0)
    assert list(waiting(url)) == [other]


def test_all_in_more_than_one_slice(url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletter, "_AT_ONCE", 4)
    monkeypatch.setattr(deadletter, "_MOST_IN_TRANSACTION", 5)
    for number in range(10):
        letter(url, reading(number))
    assert replay(settings) == Replayed(10, 10, 0, 0)
    assert waiting(url) == {}
    assert times_of(url, "d1", "p1") == [START_MS + number * 1000 for number in range(10)]
    assert replay(settings) == Replayed(0, 0, 0, 0)


def test_what_is_refused_again_stays_with_its_present_reason(url: str, settings: Settings) -> None:
    first = letter(url, reading(1, point="nowhere"), reason="bad_value")
    second = letter(url, reading(2, value=None))
    letter(url, reading(3))
    assert replay(settings) == Replayed(1, 1, 2, 0)
    assert {number: reason for number, (reason, _) in waiting(url).items()} == {
        first: "unknown_point",
        second: "bad_value",
    }
    assert "nowhere" in waiting(url)[first][1]


def test_poisoned_letters_stay_alone(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE reading ADD CONSTRAINT odd CHECK (value <> 0.666) NOT VALID")
    poisoned = []
    for number in range(20):
        odd = number in {0, 7, 8, 19}
        made = letter(url, reading(number, 0.666 if odd else 0.5))
        if odd:
            poisoned.append(made)
    ended = cli(url, "replay", "--all", "--json")
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert json.loads(ended.stdout) == {
        "taken": 16,
        "readings": 16,
        "refused_again": 4,
        "cut": 0,
        "not_waiting": 0,
    }
    assert count(url) == 16
    assert list(waiting(url)) == poisoned
    for reason, detail in waiting(url).values():
        assert reason == "unknown_point"
        assert detail.startswith("the database refuses it: ")
        assert "odd" in detail
    listed = cli(url, "list")
    assert "the database refuses it" in listed.stdout
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE reading DROP CONSTRAINT odd")
    assert json.loads(cli(url, "replay", "--all", "--json").stdout)["taken"] == 4
    assert count(url) == 20


def test_a_letter_kept_in_part_stays(url: str, settings: Settings) -> None:
    kept = letter(url, reading(1), size=70_000)
    assert replay(settings) == Replayed(0, 0, 0, 1)
    assert waiting(url) == {kept: ("unknown_point", "as it was")}
    assert "1 kept only in part" in cli(url, "replay", "--all").stdout


def test_a_letter_of_good_and_bad_readings_leaves_the_bad_ones(url: str, settings: Settings) -> None:
    whole = letter(url, [reading(1), reading(2, value=None), reading(3), 5], reason="bad_payload")
    assert replay(settings) == Replayed(1, 2, 0, 0)
    assert times_of(url, "d1", "p1") == [START_MS + 1000, START_MS + 3000]
    rows = fetch(url, "SELECT id, reason, payload, received_at FROM dead_letter WHERE replayed_at IS NULL ORDER BY id")
    assert [(row[1], json.loads(row[2])) for row in rows] == [
        ("bad_value", reading(2, value=None)),
        ("bad_payload", 5),
    ]
    assert whole not in waiting(url)
    # They are of this replay's making: the next one tries them, this one did not.
    assert replay(settings) == Replayed(0, 0, 2, 0)


def test_a_letter_that_stands_for_unlisted_refusals_stays_and_multiplies_nothing(url: str, settings: Settings) -> None:
    payload = json.dumps([reading(1), *[1] * (MOST_REFUSALS + 5)], separators=(",", ":")).encode()
    whole = letter(url, payload, reason="bad_payload")
    assert replay(settings) == Replayed(0, 1, 1, 0)
    assert count(url) == 1
    assert waiting(url).keys() == {whole}
    assert waiting(url)[whole][1].startswith("5 more readings")


def test_senml(url: str, settings: Settings) -> None:
    """The text of a refused record is a pack of its own, with its own arrival time."""
    pack = [{"bn": "p", "n": "1", "u": "MPa", "v": 0.25}, {"n": "2", "u": "kPa", "v": 250, "t": -2}]
    texts = [found.raw for found in parse_senml(json.dumps(pack).encode(), START_MS * 1000).readings]
    for text in texts:
        letter(url, text, topic=SENML, received_ms=START_MS + 9_999_000)
    assert replay(settings) == Replayed(2, 2, 0, 0)
    assert times_of(url, "d1", "p1") == [START_MS]
    assert times_of(url, "d1", "p2") == [START_MS - 2000]
    assert fetch(url, "SELECT DISTINCT value FROM reading") == [(0.25,)]


def test_status(url: str, settings: Settings) -> None:
    letter(url, {"online": True, "battery": 80}, topic=STATUS, reason="unknown_device")
    letter(url, {"online": "maybe"}, topic=STATUS, reason="unknown_device")
    assert replay(settings) == Replayed(1, 0, 1, 0)
    assert fetch(url, "SELECT online, battery FROM device_status") == [(True, 80)]
    # What the device said since is newer than what an old letter holds.
    letter(url, {"online": False}, topic=STATUS, reason="unknown_device", received_ms=START_MS - 1000)
    assert replay(settings) == Replayed(1, 0, 1, 0)
    assert fetch(url, "SELECT online FROM device_status") == [(True,)]


def test_sparkplug(url: str, settings: Settings) -> None:
    """A refused metric is a payload of its own, read without what its edge node said before."""
    metrics = [
        sparkplug.make_metric("p1", 0.25, timestamp_ms=START_MS),
        sparkplug.make_metric("p2", 300, DataType.UInt32, timestamp_ms=START_MS + 1, unit="kPa"),
        sparkplug.make_metric("nowhere", 1.0),
    ]
    payload = sparkplug.encode(metrics, timestamp_ms=START_MS + 5000, seq=7)
    for found in parse_metrics(payload, START_MS * 1000).readings:
        letter(url, found.raw, topic="spBv1.0/g/DDATA/node/d1", reason="unknown_device")
    letter(url, b"\xff\xff", topic="spBv1.0/g/NDATA/d2", reason="bad_payload")
    letter(url, sparkplug.encode([metrics[0]], timestamp_ms=None, seq=None), topic="spBv1.0/g/NDATA/d2")
    assert replay(settings) == Replayed(3, 3, 2, 0)
    assert times_of(url, "d1", "p1") == times_of(url, "d2", "p1") == [START_MS]
    assert times_of(url, "d1", "p2") == [START_MS + 1]
    assert sorted(reason for reason, _ in waiting(url).values()) == ["bad_payload", "unknown_point"]
    assert sorted(row[0] for row in fetch(url, "SELECT value FROM reading")) == [0.25, 0.25, 0.3]


def test_two_replays_at_once_bring_each_letter_in_once(
    url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletter, "_AT_ONCE", 20)
    for number in range(300):
        # A bad neighbour in each: a letter brought in twice would leave two of it.
        letter(url, [reading(number), reading(number, None)])
    results: list[Replayed] = []
    start = threading.Barrier(2)

    def run() -> None:
        start.wait()
        results.append(replay(settings))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(result.taken for result in results) == 300
    assert sum(result.readings for result in results) == 300
    assert count(url) == 300
    assert len(waiting(url)) == 300
    assert sum(row[0] for row in fetch(url, "SELECT readings FROM evaluation_batch")) == 300


def test_letters_that_another_replay_has_in_hand_are_left_to_it(url: str, settings: Settings) -> None:
    held, free = letter(url, reading(1)), letter(url, reading(2))
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM dead_letter WHERE id = %s FOR UPDATE", (held,))
        assert replay(settings) == Replayed(1, 1, 0, 0)
        assert list(waiting(url)) == [held]
    assert free not in waiting(url)


def test_a_letter_that_another_replay_brought_in_meanwhile_is_not_brought_in_again(
    url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter(url, [reading(1), 5])

    def another(connection: psycopg.Connection, times: Any) -> None:
        monkeypatch.undo()
        assert replay(settings) == Replayed(1, 1, 0, 0)

    monkeypatch.setattr("services.ingest.deadletter.ensure_partitions_at", another)
    assert replay(settings) == Replayed(0, 0, 0, 0)
    assert one(url, "SELECT count(*) FROM dead_letter") == 2


def test_what_is_refused_meanwhile_is_not_for_this_replay(url: str, settings: Settings) -> None:
    for number in range(3):
        letter(url, reading(number))
    taken = 0
    with db.connect(settings, "test-deadletter") as connection:
        connection.autocommit = True
        for number, part in enumerate(replay_all(connection, settings)):
            assert number < 20, "it goes on for ever"
            taken += part.taken
            letter(url, reading(100 + number))
    assert taken == 3


def test_a_reading_without_time_keeps_its_arrival(url: str, settings: Settings) -> None:
    letter(url, {"point": "p1", "value": 0.5}, received_ms=START_MS - 86_400_000 * 40)
    assert replay(settings) == Replayed(1, 1, 0, 0)
    assert times_of(url, "d1", "p1") == [START_MS - 86_400_000 * 40]
    assert fetch(url, "SELECT time = received_at FROM reading") == [(True,)]


def test_a_time_ahead_comes_in_once_it_has_passed(url: str, settings: Settings) -> None:
    now_ms = time.time_ns() // 1_000_000
    limit_ms = settings.future_limit_s * 1000
    passed = {"point": "p1", "time": now_ms - 1000, "value": 0.5}
    ahead = {"point": "p2", "time": now_ms + limit_ms + 3000, "value": 0.5}
    letter(url, passed, reason="future_time", received_ms=now_ms - 2 * limit_ms)
    early = letter(url, ahead, reason="future_time", received_ms=now_ms)
    assert replay(settings) == Replayed(1, 1, 1, 0)
    assert waiting(url)[early][0] == "future_time"
    wait_for(lambda: time.time_ns() // 1_000_000 > now_ms + 3100, 10, "the time to come near")
    assert replay(settings) == Replayed(1, 1, 0, 0)


def test_a_repeat_is_brought_in_and_is_no_new_reading(url: str, settings: Settings) -> None:
    letter(url, reading(1))
    letter(url, reading(1, 0.7))
    assert replay(settings) == Replayed(2, 1, 0, 0)
    assert one(url, "SELECT value FROM reading") == 0.5


def test_months_without_a_partition_get_one_outside_the_letters_transaction(
    url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[psycopg.pq.TransactionStatus] = []

    def watched(connection: psycopg.Connection, times: Any) -> None:
        made.append(connection.info.transaction_status)
        ensure_partitions_at(connection, times)

    monkeypatch.setattr("services.ingest.deadletter.ensure_partitions_at", watched)
    months = (1, 40, 100)
    for number in months:
        letter(url, reading(-number * 30 * 86_400))
    assert replay(settings) == Replayed(3, 3, 0, 0)
    assert set(made) == {psycopg.pq.TransactionStatus.IDLE}
    assert len(times_of(url, "d1", "p1")) == 3


@pytest.mark.parametrize("arguments", [("99999999999999999999",), ("0",), (), ("1", "--all"), ("--reason", "odd")])
def test_usage(url: str, arguments: tuple[str, ...]) -> None:
    ended = cli(url, "replay", *arguments)
    assert ended.returncode == 2, ended.stderr
    assert "Usage:" in ended.stderr


def test_ids_that_do_not_wait_are_told(url: str) -> None:
    here, done = letter(url, reading(1)), letter(url, reading(2))
    assert "not found" not in cli(url, "replay", str(done)).stdout
    ended = cli(url, "replay", str(here), str(here), str(done), "9223372036854775807")
    assert ended.stdout.startswith("1 brought in (1 new readings), 0 refused again")
    assert "2 of the given ids not found waiting" in ended.stdout
    assert json.loads(cli(url, "replay", str(done), "--json").stdout) == {
        "taken": 0,
        "readings": 0,
        "refused_again": 0,
        "cut": 0,
        "not_waiting": 1,
    }


def test_list(url: str) -> None:
    first = letter(url, b'{"point":"\xff\x1b[2J"}', reason="bad_payload", received_ms=START_MS + 250)
    second = letter(url, reading(1), size=70_000)
    listed = [json.loads(line) for line in cli(url, "list", "--json").stdout.splitlines()]
    assert [item["id"] for item in listed] == [second, first]
    assert listed[1] == {
        "id": first,
        "received_at": "2026-11-01T00:00:00.250000Z",
        "topic": READINGS,
        "reason": "bad_payload",
        "detail": "as it was",
        "payload": '{"point":"�\x1b[2J"}',
        "payload_size": 17,
        "payload_base64": "eyJwb2ludCI6Iv8bWzJKIn0=",
    }
    assert listed[0]["payload_size"] == 70_000
    (newest,) = cli(url, "list", "--json", "--limit", "1").stdout.splitlines()
    assert json.loads(newest)["id"] == second
    assert len(cli(url, "list", "--json", "--reason", "bad_payload").stdout.splitlines()) == 1
    shown = cli(url, "list")
    assert "\x1b" not in shown.stdout
    assert "2 refusals shown" in shown.stderr
    for wrong in ("0", "-1", "99999999999999999999"):
        assert cli(url, "list", "--limit", wrong).returncode == 2


def test_json_lists_all_of_them_and_text_says_that_there_are_more(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO dead_letter (received_at, topic, reason, detail, payload, payload_size) "
            "SELECT now(), 't', 'bad_payload', 'd', '\\xff41', 2 FROM generate_series(1, 250)"
        )
    listed = [json.loads(line) for line in cli(database_url, "list", "--json").stdout.splitlines()]
    assert len(listed) == 250
    assert listed[0]["payload_base64"] == "/0E="
    shown = cli(database_url, "list")
    assert shown.stdout.count("bad_payload") == 100
    assert "only the newest 100 are shown" in shown.stderr
