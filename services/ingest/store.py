"""One transaction of ingest: everything a batch of messages holds, or nothing of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from lifeline.readings import Readings, from_micros
from lifeline.timeseries import write
from services.ingest.formats.sparkplug_node import NodeState

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from services.ingest.messages import DeadLetter, DeviceReport

_DEAD_LETTERS = "COPY dead_letter (received_at, topic, reason, detail, payload, payload_size) FROM STDIN"

# The last word of a device on itself, by arrival: a will carries the time at which it was left with the broker.
_DEVICE_STATUS = """
INSERT INTO device_status AS old (device_id, online, time, received_at, battery, rssi, firmware)
VALUES (%s, %s, to_timestamp(%s / 1e6), to_timestamp(%s / 1e6), %s, %s, %s)
ON CONFLICT (device_id) DO UPDATE
SET online = excluded.online, time = excluded.time, received_at = excluded.received_at,
    battery = coalesce(excluded.battery, old.battery), rssi = coalesce(excluded.rssi, old.rssi),
    firmware = coalesce(excluded.firmware, old.firmware)
WHERE old.received_at <= excluded.received_at
"""

# A device may have left the registry since the message was decoded.
_KNOWN_DEVICES = "SELECT id FROM device WHERE id = ANY(%s)"


# What Sparkplug edge nodes said before.
_LOAD_NODES = "SELECT key, state FROM sparkplug_node"
_SAVE_NODE = """
INSERT INTO sparkplug_node (key, state) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET state = excluded.state
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction stores. ``readings`` come from :func:`write.sorted_once`."""

    readings: Readings
    refusals: list[DeadLetter] = field(default_factory=list)
    reports: list[DeviceReport] = field(default_factory=list)
    nodes: Mapping[str, NodeState] = field(default_factory=dict)


def commit(connection: psycopg.Connection, batch: Batch, *, look_for_repeats: bool) -> Readings:
    """Store readings, newest values, refusals, device status, edge nodes and the queue row; the readings that were new.

    Without ``look_for_repeats`` a repeat among them raises ``psycopg.errors.UniqueViolation`` and nothing is stored.
    ``connection`` is in autocommit, or in a transaction that this becomes part of.
    """
    readings = batch.readings
    with connection.transaction(), connection.cursor() as cursor:
        new = readings
        if len(readings) and look_for_repeats:
            new = write.write_absent(cursor, readings)
        elif len(readings):
            write.write_new(cursor, readings)
        if len(new):
            write.write_newest(cursor, new)
            write.enqueue(cursor, new)
        _write_dead_letters(cursor, batch.refusals)
        _write_reports(cursor, batch.reports)
        if batch.nodes:
            cursor.executemany(
                _SAVE_NODE, [(key, Jsonb(state.to_dict())) for key, state in sorted(batch.nodes.items())]
            )
    return new


def load_nodes(connection: psycopg.Connection) -> dict[str, NodeState]:
    """What every edge node said before. Raises ``psycopg.Error``."""
    return {key: NodeState.from_dict(state) for key, state in connection.execute(_LOAD_NODES)}


def _write_dead_letters(cursor: psycopg.Cursor, letters: list[DeadLetter]) -> None:
    if not letters:
        return
    with cursor.copy(_DEAD_LETTERS) as copy:
        for letter in letters:
            copy.write_row((from_micros(letter.received_at), *letter[1:]))


def _write_reports(cursor: psycopg.Cursor, reports: list[DeviceReport]) -> None:
    if not reports:
        return
    newest = {report.device_id: report for report in reports}
    known = {row[0] for row in cursor.execute(_KNOWN_DEVICES, (list(newest),))}
    cursor.executemany(
        _DEVICE_STATUS,
        [
            (device_id, s.online, s.time, report.received_at, s.battery, s.rssi, s.firmware)
            for device_id, report in sorted(newest.items())
            if device_id in known
            for s in (report.status,)
        ],
    )
