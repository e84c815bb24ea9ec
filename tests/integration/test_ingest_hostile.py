"""A hundred thousand hostile messages: ingest goes on, and each refusal is in the dead letter by its reason."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from benchmarks.load import publish_messages
from services.ingest.decode import Decoder, Limits
from services.ingest.messages import Message
from services.ingest.points import load
from tests.integration.ingest_rig import COUNTY, Rig, count, fetch, one, register
from tests.servers import BrokerServer, Process, wait_for

MESSAGES = 100_000
SEEDS = (
    b'{"point":"p1","time":1793491200000,"value":0.5}',
    b'[{"point":"p1","value":1},{"point":"p2","value":true,"quality":"bad"}]',
    b'{"readings":[{"point":"p3","time":"2026-11-01T08:00:00+08:00","value":1e3}]}',
    b'[{"bn":"p","bt":1793491200,"n":"1","u":"kPa","v":300},{"n":"2","v":4}]',
    b'{"online":true,"time":"2026-11-01T08:00:00Z","battery":80}',
    b"\x08\xc0\x84\x3d\x12\x0c\n\x02p1\x18\x01 \n]\x00\x00\x80?\x18\x05",
)
TOPICS = (
    f"lifeline/v1/{COUNTY}/d1/readings",
    f"lifeline/v1/{COUNTY}/d2/senml",
    f"lifeline/v1/{COUNTY}/d3/status",
    f"lifeline/v1/{COUNTY}/nobody/readings",
    "lifeline/v1/632525/d1/readings",
    "lifeline/v1/x/d1/readings",
    f"lifeline/v1/{COUNTY}/d1$/senml",
)
SPLICES = (b"null", b"NaN", b"1e999", b"-", b"[", b"{", b'"', b"\\u0000", b"\xff", b"\x00", b"9" * 30, b"[" * 50)


def mutate(random_: random.Random, seed: bytes) -> bytes:
    """One seed with a few bytes changed, cut, doubled or spliced in."""
    data = bytearray(seed)
    for _ in range(random_.randint(0, 4)):
        at = random_.randint(0, len(data))
        kind = random_.randrange(4)
        if kind == 0:
            data[at : at + 1] = bytes([random_.randrange(256)])
        elif kind == 1:
            del data[at : at + random_.randint(1, 8)]
        elif kind == 2:
            data[at:at] = random_.choice(SPLICES)
        else:
            data[at:at] = data[at : at + 12]
    return bytes(data)


def hostile_messages() -> list[tuple[str, bytes]]:
    random_ = random.Random(20261123)
    return [(random_.choice(TOPICS), mutate(random_, random_.choice(SEEDS))) for _ in range(MESSAGES)]


@pytest.mark.timeout(200)
def test_hundred_thousand_hostile_payloads(
    lifeline_process: Callable[..., Process], database_url: str, own_broker: BrokerServer, tmp_path: Path
) -> None:
    register(database_url)
    rig = Rig(lifeline_process, database_url, own_broker.url, tmp_path)
    process = rig.ingest({"LIFELINE_SPARKPLUG": "true"})
    wait_for(lambda: "spBv1.0/#" in process.output(), what="the Sparkplug subscription")
    messages = hostile_messages()
    sparkplug = [("spBv1.0/g/DDATA/n/d4", payload) for _, payload in messages[:5000]]
    publish_messages(own_broker.url, [*messages, *sparkplug])
    final = {"point": "p9", "value": 0.9}
    publish_messages(own_broker.url, [(f"lifeline/v1/{COUNTY}/d9/readings", json.dumps(final).encode())])
    wait_for(
        lambda: (
            one(
                database_url,
                "SELECT count(*) FROM newest_reading JOIN point ON id = point_id JOIN device ON device.id = device_id "
                "WHERE device.code = 'd9'",
            )
            == 1
        ),
        120,
        "the good reading after them",
    )
    assert process.is_alive()
    # The same messages through the decoder alone say what each refusal must be.
    with psycopg.connect(database_url, autocommit=True) as connection:
        alone = Decoder(load(connection), Limits(600_000_000, 7305 * 86_400_000_000))
    now = time.time_ns() // 1000
    decoded = alone.decode([Message(topic.encode(), payload, now, 1) for topic, payload in messages])
    expected = Counter(letter.reason for letter in decoded.refusals)
    stored = Counter(
        dict(fetch(database_url, "SELECT reason, count(*) FROM dead_letter WHERE topic LIKE 'life%%' GROUP BY reason"))
    )
    assert stored == expected
    assert sum(expected.values()) > MESSAGES / 3
    assert len(expected) >= 8
    assert count(database_url) > 100
    metrics = rig.metrics(process)
    assert metrics["lifeline_ingest_unacknowledged_seconds"] < 5
    assert metrics["process_resident_memory_bytes"] < 300e6
