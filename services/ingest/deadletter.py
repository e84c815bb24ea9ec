"""``lifeline deadletter``: see what ingest refused, and bring it in after the cause is mended."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import click
import psycopg

from lifeline import db, logs, settings
from lifeline.readings import Readings, to_micros
from lifeline.timeseries import ensure_partitions_at, write
from services.ingest import points
from services.ingest.decode import Decoder, Limits
from services.ingest.formats.model import Reason
from services.ingest.messages import Decoded, Message
from services.ingest.store import Batch, commit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_AT_ONCE = 200
"""Letters read together, of up to 64 KiB each."""
_MOST_IN_TRANSACTION = 20_000
"""Readings and refusals after which a transaction takes no further letter."""
_LONGEST_ERROR = 1000

_SHOWN = 100
"""Refusals that a person is shown at once."""
_LARGEST_ID = 2**63 - 1
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

_CHOSEN = """
replayed_at IS NULL AND id > %(after)s AND id <= %(last)s
  AND (%(ids)s::int8[] IS NULL OR id = ANY(%(ids)s))
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
"""

# What is to be tried again, oldest first.
_CHOOSE = f"SELECT {_COLUMNS} FROM dead_letter WHERE {_CHOSEN} ORDER BY id LIMIT %(limit)s"  # noqa: S608 (our own words)
_COUNT = f"SELECT count(*) FROM dead_letter WHERE {_CHOSEN}"  # noqa: S608 (our own words)

# Refusals that come while a replay runs are not for it: it would not end as long as they come.
_LAST = "SELECT coalesce(max(id), 0) FROM dead_letter"

# Those of a transaction; another replay's rows, and what it brought in meanwhile, are left to it.
_CLAIM = """
SELECT id FROM dead_letter WHERE replayed_at IS NULL AND id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED
"""

_MARK = "UPDATE dead_letter SET replayed_at = now() WHERE id = ANY(%s)"
_STILL = "UPDATE dead_letter SET reason = %s, detail = %s WHERE id = %s"

# What says of the data, not of the server, that it cannot be stored.
_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.NotSupportedError)


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

    def plus(self, other: Replayed) -> Replayed:
        return Replayed(*(one + more for one, more in zip(self, other, strict=True)))


_NONE = Replayed(0, 0, 0, 0)


class _Opened(NamedTuple):
    """A letter and what is in it now."""

    letter: Letter
    found: Decoded
    still: tuple[str, str] | None
    """Reason and detail with which the letter stays, whatever of it comes in."""


@click.group()
def deadletter() -> None:
    """See what ingest refused and why, and re-ingest it after the cause is mended."""


@deadletter.command("list")
@click.option("--reason", type=click.Choice(get_args(Reason)), help="Only refusals for this reason.")
@click.option("--from", "since", type=click.DateTime(), help="Received at or after this time (UTC).")
@click.option("--to", "until", type=click.DateTime(), help="Received before this time (UTC).")
@click.option(
    "--limit",
    type=click.IntRange(1, _LARGEST_ID),
    help="At most this many, newest first; without it 100, or all with --json.",
)
@click.option("--all", "everything", is_flag=True, help="Also what was brought in already.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line each.")
def list_letters(
    reason: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Refusals that wait, newest first."""
    most = limit or (None if as_json else _SHOWN)
    filters: dict[str, Any] = {"reason": reason, "since": _utc(since), "until": _utc(until), "all": everything}
    counts: Counter[str] = Counter()
    with (
        db.connect(settings.load(), "deadletter") as connection,
        connection.cursor(name="letters") as cursor,  # a server's cursor: there may be millions
    ):
        cursor.execute(_LIST, {**filters, "limit": None if most is None else most + 1})
        for row in cursor:
            letter = Letter._make(row)
            if most is not None and counts.total() == most:
                click.echo(f"only the newest {most} are shown; --limit shows more", err=True)
                break
            counts[letter.reason] += 1
            click.echo(json.dumps(as_document(letter), ensure_ascii=False) if as_json else _line(letter))
    if not as_json:
        by_reason = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        click.echo(f"{counts.total()} refusals shown{': ' + by_reason if by_reason else ''}", err=True)


@deadletter.command()
@click.argument("ids", type=click.IntRange(1, _LARGEST_ID), nargs=-1)
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
    chosen = sorted(set(ids)) or None
    with db.connect(loaded, "deadletter", autocommit=True) as connection:
        waiting = count_waiting(connection, chosen, reason)
        total = _NONE
        progress: Any = click.progressbar(length=waiting, label="replaying", file=sys.stderr)
        with progress as bar:
            for part in replay_all(connection, loaded, chosen, reason):
                total = total.plus(part)
                bar.update(part.taken + part.refused_again + part.cut)
    _tell(total, 0 if chosen is None else len(chosen) - waiting, as_json=as_json)


def _tell(total: Replayed, not_waiting: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**total._asdict(), "not_waiting": not_waiting}))
        return
    parts = [f"{total.taken} brought in ({total.readings} new readings), {total.refused_again} refused again"]
    if total.cut:
        parts.append(f"{total.cut} kept only in part and not replayable")
    if not_waiting:
        parts.append(f"{not_waiting} of the given ids not found waiting (no such id, or brought in already)")
    click.echo(", ".join(parts))


def count_waiting(connection: psycopg.Connection, ids: list[int] | None = None, reason: str | None = None) -> int:
    """How many refusals wait, of those with the given ids or reason."""
    row = connection.execute(_COUNT, {"ids": ids, "reason": reason, "after": 0, "last": _LARGEST_ID}).fetchone()
    return int(row[0]) if row else 0


def replay_all(
    connection: psycopg.Connection, loaded: settings.Settings, ids: list[int] | None = None, reason: str | None = None
) -> Iterator[Replayed]:
    """Replay what waits now, of those with the given ids or reason, some in a transaction.

    ``connection`` is in autocommit. What the database itself refuses stays, and stops nothing else. Raises
    ``psycopg.Error`` where the server fails.
    """
    decoder = Decoder(points.load(connection), Limits.of(loaded))
    write.prepare(connection)
    row = connection.execute(_LAST).fetchone()
    chosen = {"ids": ids, "reason": reason, "after": 0, "last": row[0] if row else 0, "limit": _AT_ONCE}
    while letters := [Letter._make(row) for row in connection.execute(_CHOOSE, chosen)]:
        chosen["after"] = letters[-1].id
        whole = [letter for letter in letters if letter.payload_size == len(letter.payload)]
        yield _NONE._replace(cut=len(letters) - len(whole))
        for portion in _portions(decoder, whole):
            # Before the transaction: making a partition waits for others that do.
            ensure_partitions_at(connection, _readings(portion).time)
            yield _bring_in(connection, portion)


def _portions(decoder: Decoder, letters: list[Letter]) -> Iterator[list[_Opened]]:
    """The letters opened, as many at a time as make a transaction of a fair size."""
    now = time.time_ns() // 1000
    portion: list[_Opened] = []
    weight = 0
    for letter in letters:
        opened = _open(decoder, letter, now)
        portion.append(opened)
        weight += 1 + len(opened.found.readings) + len(opened.found.refusals)
        if weight >= _MOST_IN_TRANSACTION:
            yield portion
            portion, weight = [], 0
    if portion:
        yield portion


def _open(decoder: Decoder, letter: Letter, now: int) -> _Opened:
    found = decoder.decode([Message(letter.topic.encode(), letter.payload, to_micros(letter.received_at), 0)], now)
    refusals = found.refusals
    # More than is listed, so that the last stands for the whole: each try would write down as many anew.
    endless = len(refusals) > 1 and refusals[-1].payload == letter.payload
    if not refusals or not (endless or _is_nothing(found)):
        return _Opened(letter, found, None)
    found.refusals = []
    told = refusals[-1 if endless else 0]
    return _Opened(letter, found, (told.reason, told.detail))


def _is_nothing(found: Decoded) -> bool:
    return not len(found.readings) and not found.reports


def _bring_in(connection: psycopg.Connection, portion: Sequence[_Opened]) -> Replayed:
    """Store letters in one transaction; in halves where the database refuses them, so that a poisoned one stays alone.

    Each half is a transaction of its own: all readings of a transaction are written in one order, or two processes
    that move the same points would wait for each other.
    """
    try:
        with connection.transaction():
            return _store(connection, portion)
    except _REFUSED as error:
        if len(portion) > 1:
            middle = len(portion) // 2
            return _bring_in(connection, portion[:middle]).plus(_bring_in(connection, portion[middle:]))
        (opened,) = portion
        told = str(error).strip().replace("\0", "�")[:_LONGEST_ERROR]
        still = (opened.letter.reason, f"the database refuses it: {told}")
    with connection.transaction():
        return _store(connection, [_Opened(opened.letter, Decoded(), still)])


def _store(connection: psycopg.Connection, portion: Sequence[_Opened]) -> Replayed:
    """Bring in those letters that no other replay has in hand. In a transaction, of which this is the first thing."""
    ids = [opened.letter.id for opened in portion]
    claimed = {row[0] for row in connection.execute(_CLAIM, (ids,))}
    ours = [opened for opened in portion if opened.letter.id in claimed]
    batch = Batch(
        _readings(ours),
        [refusal for opened in ours for refusal in opened.found.refusals],
        [report for opened in ours for report in opened.found.reports],
    )
    new = commit(connection, batch, look_for_repeats=True)
    done = [opened.letter.id for opened in ours if opened.still is None]
    connection.execute(_MARK, (done,))
    stay = [(*opened.still, opened.letter.id) for opened in ours if opened.still is not None]
    if stay:
        with connection.cursor() as cursor:
            cursor.executemany(_STILL, stay)
    return Replayed(len(done), len(new), len(stay), 0)


def _readings(portion: Sequence[_Opened]) -> Readings:
    return write.sorted_once(Readings.concatenate([opened.found.readings for opened in portion]))


def as_document(letter: Letter) -> dict[str, Any]:
    """The letter as the contract shows it; a payload that is no UTF-8 text is there a second time, in Base64."""
    payload = letter.payload.decode("utf-8", "replace")
    binary = {"payload_base64": base64.b64encode(letter.payload).decode()} if payload.encode() != letter.payload else {}
    return {
        "id": letter.id,
        "received_at": letter.received_at.isoformat().replace("+00:00", "Z"),
        "topic": letter.topic,
        "reason": letter.reason,
        "detail": letter.detail,
        "payload": payload,
        "payload_size": letter.payload_size,
        **binary,
    }


def _line(letter: Letter) -> str:
    when = letter.received_at.strftime("%Y-%m-%d %H:%M:%S")
    payload = _plain(letter.payload[:60].decode("utf-8", "replace"))
    lines = (f"{letter.id:>8}  {when}Z  {letter.reason:<15}  {_plain(letter.topic)}", _plain(letter.detail), payload)
    return "\n          ".join(lines)


def _plain(text: str) -> str:
    """A stranger's text for a terminal: on one line, and without codes that would steer it."""
    return "".join(character if character.isprintable() else " " for character in text)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
