"""What the person who started the demonstration reads: steps as they are done, then how many readings there are."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator

import click
import psycopg

from lifeline.db import connect, deadline
from lifeline.settings import Settings

LINE_EVERY_S = 300.0
"""How often a figure is written where output is no terminal, such as a file."""
LIVE_EVERY_S = 3.0
COUNT_LIMIT_S = 2.0

# Readings stored so far by county; the daily aggregate answers without reading them all.
_COUNT = """
SELECT county.code, county.name, coalesce(sum(stored.readings), 0)
FROM county
LEFT JOIN (
    SELECT site.county, sum(day.count + day.bad) AS readings
    FROM reading_1d AS day
    JOIN point ON point.id = day.point_id
    JOIN device ON device.id = point.device_id
    JOIN site ON site.id = device.site_id
    GROUP BY site.county
) AS stored ON stored.county = county.code
GROUP BY county.code, county.name
ORDER BY county.code
"""


def cut(text: str, columns: int) -> str:
    """``text`` so that it fills at most ``columns`` of a terminal, where a Chinese character takes two."""
    used = 0
    for place, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            return text[:place]
    return text


class Teller:
    """Writes to standard output; on a terminal the last line is live and rewritten in place."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._line_open = False

    def say(self, text: str) -> None:
        """One whole line."""
        self._clear()
        click.echo(text)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what was done, and how long it took, once it is done."""
        began = time.monotonic()
        if self._live:
            self.update(f"  … {what}")
        yield
        self.say(f"  {click.style('✓', fg='green')} {what}  {time.monotonic() - began:.1f} s")

    def update(self, text: str) -> None:
        """Rewrite the live line; without a terminal, a line like any other."""
        if not self._live:
            click.echo(text)
            return
        self._clear()
        click.echo(cut(text, shutil.get_terminal_size().columns - 1), nl=False)
        self._line_open = True

    def _clear(self) -> None:
        if self._line_open:
            click.echo("\r\x1b[2K", nl=False)
            self._line_open = False


class Figures:
    """Tells every few seconds how many readings are stored, per county.

    A database that hangs is waited for in a thread: whoever calls :meth:`tick` has processes to watch over.
    """

    def __init__(self, teller: Teller, settings: Settings) -> None:
        self._teller = teller
        self._settings = settings
        self._connection: psycopg.Connection | None = None
        self._due = 0.0
        self._counting = False
        self._counted: queue.SimpleQueue[list[tuple[str, int]] | None] = queue.SimpleQueue()
        self._every = LIVE_EVERY_S if sys.stdout.isatty() else LINE_EVERY_S
        self._last: tuple[float, int] | None = None
        self._in_chinese = os.environ.get("LC_ALL", os.environ.get("LANG", "")).startswith("zh")

    def tick(self, now: float) -> None:
        """Tell the figures where they are there, count where that is due; ``now`` is of ``time.monotonic()``."""
        with contextlib.suppress(queue.Empty):
            self._tell(now, self._counted.get_nowait())
            self._counting = False
        if now >= self._due and not self._counting:
            self._due, self._counting = now + self._every, True
            threading.Thread(target=lambda: self._counted.put(self._count()), name="figures", daemon=True).start()

    def _tell(self, now: float, counted: list[tuple[str, int]] | None) -> None:
        if counted is None:
            self._teller.update("  the database does not answer; waiting for it")
            self._last = None
            return
        total = sum(readings for _, readings in counted)
        rate = ""
        if self._last is not None and now > self._last[0]:
            rate = f" (+{(total - self._last[1]) / (now - self._last[0]):,.0f}/s)"
        self._last = (now, total)
        counties = "   ".join(f"{name} {readings:,}" for name, readings in counted)
        self._teller.update(f"  {time.strftime('%H:%M:%S')}  {total:,} readings{rate}:   {counties}")

    def _count(self) -> list[tuple[str, int]] | None:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._settings, "demo", statement_timeout_s=COUNT_LIMIT_S, autocommit=True)
            with deadline(self._connection, COUNT_LIMIT_S + 1):
                rows = self._connection.execute(_COUNT).fetchall()
        except (psycopg.Error, OSError):
            self.close()
            return None
        language = "zh" if self._in_chinese else "en"
        return [(name.get(language) or name.get("zh") or code, int(readings)) for code, name, readings in rows]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
