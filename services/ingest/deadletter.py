"""``lifeline deadletter``: see what ingest refused, and bring it in after the cause is mended."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import click

from lifeline import db, logs, settings
from lifeline.readings import Readings, to_micros
from lifeline.timeseries import ensure_partitions_at, write
from services.ingest import points
from services.ingest.decode import Decoder, Limits
from services.ingest.formats.model import Reason
from services.ingest.messages import Message
from services.ingest.store import Batch, commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from services.ingest.messages import Decoded

_AT_ONCE = 1000

_COLUMNS = "id, received_at, topic, reason, detail, payload, payload_size, replayed_at"

# What waits, newest first.
_LIST = f"""
SELECT {_COLUMNS} FROM dead_letter
WHERE (replayed_at IS NULL OR %(all)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR received_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR received_at < %(until)s)
ORDER BY id DESC LIMIT %(limit)s
"""  # noqa: S608 (only our own column names)

# What is to be tried again, oldest first; another replay's rows are left to it.
_CLAIM = f"""
SELECT {_COLUMNS} FROM dead_letter
WHERE replayed_at IS NULL AND id > %(after)s
  AND (%(ids)s::int8[] IS NULL OR id = ANY(%(ids)s))
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608 (only our own column names)

_COUNT = """
SELECT count(*) FROM dead_letter
WHERE replayed_at IS NULL AND (%(ids)s::int8[] IS NULL OR id = ANY(%(ids)s))
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
"""

_MARK = "UPDATE dead_letter SET replayed_at = now() WHERE id = ANY(%s)"
_STILL = "UPDATE dead_letter SET reason = %s, detail = %s WHERE id = %s"


class Letter(NamedTuple):
    """One row of ``dead_letter``."""

    id: int
    received_at: datetime
    topic: str
    reason: str
    detail: str
    payload: bytes
    payload_size: int
    replayed_at: datetime | None


class Replayed(NamedTuple):
    """What a replay came to, in refusals; ``readings`` counts readings that were new to the database."""

    taken: int
    readings: int
    refused_again: int
    cut: int
    """Refusals of which only the beginning was kept, which cannot be replayed."""


@click.group()
def deadletter() -> None:
    """See what ingest refused and why, and re-ingest it after the cause is mended."""


@deadletter.command("list")
@click.option("--reason", type=click.Choice(get_args(Reason)), help="Only refusals for this reason.")
@click.option("--from", "since", type=click.DateTime(), help="Received at or after this time (UTC).")
@click.option("--to", "until", type=click.DateTime(), help="Received before this time (UTC).")
@click.option("--limit", default=100, show_default=True, help="At most this many, newest first.")
@click.option("--all", "everything", is_flag=True, help="Also what was brought in already.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line each.")
def list_letters(
    reason: str | None, since: datetime | None, until: datetime | None, limit: int, everything: bool, as_json: bool
) -> None:
    """Refusals that wait, newest first."""
    filters: dict[str, Any] = {"reason": reason, "since": _utc(since), "until": _utc(until)}
    with db.connect(settings.load(), "deadletter") as connection:
        letters = [
            Letter._make(row) for row in connection.execute(_LIST, {**filters, "limit": limit, "all": everything})
        ]
    for letter in letters:
        click.echo(json.dumps(as_document(letter), ensure_ascii=False) if as_json else _line(letter))
    if not as_json:
        counts = ", ".join(f"{name} {count}" for name, count in Counter(x.reason for x in letters).most_common())
        click.echo(f"{len(letters)} refusals shown{': ' + counts if counts else ''}", err=True)


@deadletter.command()
@click.argument("ids", type=int, nargs=-1)
@click.option("--reason", type=click.Choice(get_args(Reason)), help="All refusals for this reason.")
@click.option("--all", "everything", is_flag=True, help="All refusals that wait.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON line.")
def replay(ids: tuple[int, ...], reason: str | None, everything: bool, as_json: bool) -> None:
    """Bring refusals in again: those with the given IDS, of one --reason, or --all.

    What is refused again stays, with its present reason. A reading without a time keeps the time it arrived at.
    """
    if sum([bool(ids), reason is not None, everything]) != 1:
        raise click.UsageError("give ids, or --reason, or --all")
    loaded = settings.load()
    logs.configure(loaded, "deadletter")
    with db.connect(loaded, "deadletter") as connection:
        connection.autocommit = True
        chosen = list(ids) or None
        row = connection.execute(_COUNT, {"ids": chosen, "reason": reason}).fetchone()
        total = Replayed(0, 0, 0, 0)
        progress: Any = click.progressbar(length=row[0] if row else 0, label="replaying", file=sys.stderr)
        with progress as bar:
            for part in replay_all(connection, loaded, chosen, reason):
                total = Replayed(*(a + b for a, b in zip(total, part, strict=True)))
                bar.update(part.taken + part.refused_again + part.cut)
    if as_json:
        click.echo(json.dumps(total._asdict()))
        return
    click.echo(
        f"{total.taken} brought in ({total.readings} new readings), {total.refused_again} refused again", nl=False
    )
    click.echo(f", {total.cut} kept only in part and not replayable" if total.cut else "")


def replay_all(
    connection: psycopg.Connection, loaded: settings.Settings, ids: list[int] | None = None, reason: str | None = None
) -> Iterator[Replayed]:
    """Replay refusals in slices, each in a transaction of its own. ``connection`` is in autocommit."""
    decoder = Decoder(points.load(connection), Limits.of(loaded))
    write.prepare(connection)
    after = 0
    while True:
        with connection.transaction():
            chosen = {"ids": ids, "reason": reason, "after": after, "limit": _AT_ONCE}
            letters = [Letter._make(row) for row in connection.execute(_CLAIM, chosen)]
            if not letters:
                return
            after = letters[-1].id
            result = _replay_slice(connection, decoder, letters)
        yield result


def _replay_slice(connection: psycopg.Connection, decoder: Decoder, letters: list[Letter]) -> Replayed:
    whole = [letter for letter in letters if letter.payload_size == len(letter.payload)]
    now = time.time_ns() // 1000
    done: list[int] = []
    decoded: list[Decoded] = []
    for letter in whole:
        message = Message(letter.topic.encode(), letter.payload, to_micros(letter.received_at), 0)
        found = decoder.decode([message], now)
        if found.refusals and not len(found.readings) and not found.reports:
            refusal = found.refusals[0]
            connection.execute(_STILL, (refusal.reason, refusal.detail, letter.id))
            continue
        done.append(letter.id)
        decoded.append(found)
    readings = write.sorted_once(Readings.concatenate([found.readings for found in decoded]))
    ensure_partitions_at(connection, readings.time)
    batch = Batch(
        readings,
        [refusal for found in decoded for refusal in found.refusals],
        [report for found in decoded for report in found.reports],
    )
    new = commit(connection, batch, look_for_repeats=True)
    connection.execute(_MARK, (done,))
    return Replayed(len(done), len(new), len(whole) - len(done), len(letters) - len(whole))


def as_document(letter: Letter) -> dict[str, Any]:
    """The letter as the contract shows it; bytes that are no UTF-8 are shown with replacement characters."""
    return {
        "id": letter.id,
        "received_at": letter.received_at.isoformat().replace("+00:00", "Z"),
        "topic": letter.topic,
        "reason": letter.reason,
        "detail": letter.detail,
        "payload": letter.payload.decode("utf-8", "replace"),
        "payload_size": letter.payload_size,
    }


def _line(letter: Letter) -> str:
    payload = letter.payload[:60].decode("utf-8", "replace").replace("\n", " ")
    when = letter.received_at.strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"{letter.id:>8}  {when}Z  {letter.reason:<15}  {letter.topic}\n          {letter.detail}\n          {payload}"
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
