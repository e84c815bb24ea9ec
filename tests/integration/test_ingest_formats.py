"""Every topic and format of the contract, through a real broker into a real database."""

from __future__ import annotations

import json

from lifeline import sparkplug
from tests.integration.ingest_rig import COUNTY, START_MS, Publisher, Rig, count, fetch, one, times_of
from tests.servers import BrokerServer, wait_for

TOPIC = f"lifeline/v1/{COUNTY}/d1/readings"


def refusals(url: str) -> dict[str, int]:
    return dict(fetch(url, "SELECT reason, count(*) FROM dead_letter GROUP BY reason"))


def test_our_json_in_its_three_shapes(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    publisher.publish(TOPIC, json.dumps({"point": "p1", "time": START_MS, "value": 0.25, "quality": "uncertain"}))
    publisher.publish(TOPIC, json.dumps([{"point": "p2", "time": "2026-11-01T08:00:00.5+08:00", "value": 1}] * 2))
    publisher.publish(TOPIC, json.dumps({"readings": [{"point": "p3", "value": True}, {"point": "p4", "value": 1.7}]}))
    publisher.publish(TOPIC, "[]")
    wait_for(lambda: count(rig.database_url) == 4, what="four readings")
    rows = fetch(
        rig.database_url,
        "SELECT point.code, value, quality FROM reading JOIN point ON point.id = point_id ORDER BY point.code",
    )
    assert rows == [("p1", 0.25, 1), ("p2", 1.0, 0), ("p3", 1.0, 0), ("p4", 1.7, 2)]
    assert times_of(rig.database_url, "d1", "p2") == [START_MS + 500]
    assert fetch(
        rig.database_url, "SELECT time = received_at FROM reading JOIN point ON id = point_id WHERE code = 'p3'"
    )
    assert refusals(rig.database_url) == {}
    rig.cli("db", "refresh")  # on plain PostgreSQL the aggregates are made from the evaluation queue
    assert one(rig.database_url, "SELECT sum(count + bad) FROM reading_1m") == 4


def test_readings_without_a_time_in_one_burst_are_all_kept(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    for number in range(300):
        publisher.publish(TOPIC, json.dumps({"point": "p1", "value": number / 1000}))
    wait_for(lambda: count(rig.database_url) == 300, what="all of them")
    values = fetch(rig.database_url, "SELECT value FROM reading ORDER BY time")
    assert values == [(number / 1000,) for number in range(300)]


def test_newest_value_never_goes_back(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    for number, value in ((5, 0.5), (9, 0.9), (3, 0.3), (9, 0.1)):
        publisher.reading("d1", "p1", number, value)
        publisher.settle()
    wait_for(lambda: count(rig.database_url) == 3, what="three readings")
    wait_for(lambda: one(rig.database_url, "SELECT value FROM newest_reading") == 0.9, what="the newest reading")


def test_refusals_by_reason_never_cost_their_neighbours(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    bad = [
        {"point": "nowhere", "value": 1},
        {"point": "p1", "value": None},
        {"point": "p1", "value": "7"},
        {"point": "p1", "value": 1, "time": "2026-11-01T08:00:00"},
        {"point": "p1", "value": 1, "time": "2126-11-01T08:00:00Z"},
        {"point": "p1", "value": 1, "time": "1986-11-01T08:00:00Z"},
        7,
    ]
    good = {"point": "p2", "value": 0.5}
    publisher.publish(TOPIC, json.dumps([*bad, good]))
    publisher.publish(TOPIC, '{"point": "p1", "value": NaN}')
    publisher.publish(TOPIC, '{"point": "p1", "value": 1e999}')
    publisher.publish(TOPIC, b"\xff\x00{")
    publisher.publish(TOPIC, b'["' + b"x" * (1 << 20) + b'"]')
    publisher.publish(f"lifeline/v1/{COUNTY}/d1/readings", json.dumps(good | {"point": "p3"}))
    publisher.publish(f"lifeline/v1/{COUNTY}/stranger/readings", json.dumps([good, good]))
    publisher.publish("lifeline/v1/632522/d1/readings", json.dumps(good))
    publisher.publish("lifeline/v1/66/d1/readings", json.dumps(good))
    publisher.publish(f"lifeline/v1/{COUNTY}/d1/reading", json.dumps(good))
    publisher.publish(f"lifeline/v1/{COUNTY}/d1", json.dumps(good))
    publisher.publish(f"lifeline/v1/{COUNTY}/alarms/1", json.dumps({"state": "ours"}))
    publisher.publish(f"lifeline/v1/{COUNTY}/d1/senml", json.dumps([{"n": "p4", "u": "kg", "v": 1}]))
    expected = {
        "unknown_point": 1,
        "bad_value": 4,
        "bad_time": 1,
        "future_time": 1,
        "too_old": 1,
        "bad_payload": 2,
        "too_large": 1,
        "unknown_device": 2,
        "county_mismatch": 1,
        "bad_topic": 3,
        "bad_unit": 1,
    }
    wait_for(lambda: sum(refusals(rig.database_url).values()) >= sum(expected.values()), what="all refusals")
    assert refusals(rig.database_url) == expected
    assert count(rig.database_url) == 2
    kept = fetch(rig.database_url, "SELECT length(payload), payload_size FROM dead_letter WHERE reason = 'too_large'")
    assert kept == [(64 << 10, (1 << 20) + 4)]


def test_oversize_message_far_over_the_limit_is_refused_and_the_next_one_taken(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    publisher.publish(TOPIC, b"x" * 1_900_000)
    publisher.reading("d1", "p1", 1)
    wait_for(lambda: count(rig.database_url) == 1, what="the reading after it")
    assert fetch(rig.database_url, "SELECT reason, payload_size FROM dead_letter") == [("too_large", 1_900_000)]


def test_senml_and_status(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    pack = [{"bn": "p", "bt": START_MS / 1000, "bu": "kPa", "n": "1", "v": 300}, {"n": "2", "v": 400, "t": 60}]
    publisher.publish(f"lifeline/v1/{COUNTY}/d1/senml", json.dumps(pack))
    publisher.publish(f"lifeline/v1/{COUNTY}/d1/status", json.dumps({"online": True, "battery": 81}), retain=True)
    wait_for(lambda: count(rig.database_url) == 2, what="two readings")
    values = fetch(rig.database_url, "SELECT round(value::numeric, 6)::float8 FROM reading ORDER BY time")
    assert values == [(0.3,), (0.4,)]
    wait_for(lambda: fetch(rig.database_url, "SELECT online, battery FROM device_status") == [(True, 81)])
    publisher.publish(f"lifeline/v1/{COUNTY}/d1/status", json.dumps({"online": False}), retain=True)
    wait_for(lambda: fetch(rig.database_url, "SELECT online, battery FROM device_status") == [(False, 81)])


def test_sparkplug_birth_alias_death_and_rebirth_over_a_restart(
    rig: Rig, publisher: Publisher, own_broker: BrokerServer
) -> None:
    environ = {"LIFELINE_SPARKPLUG": "true"}
    process = rig.ingest(environ)
    wait_for(lambda: "spBv1.0/#" in process.output(), what="the Sparkplug subscription")
    metric = sparkplug.make_metric

    def send(kind: str, payload: bytes, device: str = "/d1") -> None:
        publisher.publish(f"spBv1.0/g/{kind}/edge{device}", payload)

    bd_seq = metric("bdSeq", 1, datatype=8)
    send("NBIRTH", sparkplug.encode([bd_seq], timestamp_ms=START_MS, seq=0), "")
    births = [metric("p1", 0.5, datatype=10, alias=7, timestamp_ms=START_MS)]
    send("DBIRTH", sparkplug.encode(births, timestamp_ms=START_MS, seq=1))
    wait_for(lambda: fetch(rig.database_url, "SELECT online FROM device_status") == [(True,)], what="the birth")
    process.terminate()
    process = rig.ingest(environ)
    data = [metric(None, 0.6, datatype=10, alias=7, timestamp_ms=START_MS + 1000)]
    send("DDATA", sparkplug.encode(data, timestamp_ms=START_MS + 1000, seq=2))
    wait_for(lambda: times_of(rig.database_url, "d1", "p1") == [START_MS, START_MS + 1000], what="the alias's reading")
    data = [metric(None, 0.7, datatype=10, alias=7, timestamp_ms=START_MS + 3000)]
    send("DDATA", sparkplug.encode(data, timestamp_ms=START_MS + 3000, seq=4))
    wait_for(lambda: "asking for rebirth" in process.output(), what="the rebirth request after a gap")
    assert len(times_of(rig.database_url, "d1", "p1")) == 3
    send("NDEATH", sparkplug.encode([bd_seq], timestamp_ms=None, seq=None), "")
    wait_for(lambda: fetch(rig.database_url, "SELECT online FROM device_status") == [(False,)], what="the death")


def test_registry_change_is_seen_without_restart(rig: Rig, publisher: Publisher) -> None:
    rig.ingest()
    topic = f"lifeline/v1/{COUNTY}/late/readings"
    reading = {"point": "p1", "time": START_MS, "value": 1}
    publisher.publish(topic, json.dumps([reading, reading | {"time": START_MS + 1000}]))
    wait_for(lambda: refusals(rig.database_url) == {"unknown_device": 2}, what="the refusals")
    fetch(
        rig.database_url,
        "WITH d AS (INSERT INTO device (code, site_id) SELECT 'late', id FROM site RETURNING id) "
        "INSERT INTO point (device_id, code, indicator) SELECT id, 'p1', 'water_supply.pressure' FROM d RETURNING id",
    )

    def arrives() -> bool:
        publisher.publish(topic, json.dumps(reading | {"time": START_MS + 5000}))
        return count(rig.database_url) >= 1

    wait_for(arrives, 5, "a reading of the new device")
    # And what was refused meanwhile comes in by replay.
    listed = [json.loads(line) for line in rig.cli("deadletter", "list", "--json").splitlines()]
    assert {item["reason"] for item in listed} == {"unknown_device"}
    assert json.loads(listed[-1]["payload"]) == reading
    rig.cli("deadletter", "replay", "--reason", "unknown_device")
    assert times_of(rig.database_url, "late", "p1") == [START_MS, START_MS + 1000, START_MS + 5000]
    assert rig.cli("deadletter", "list", "--json") == ""
