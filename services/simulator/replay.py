"""Replay of a CSV: its rows in their own order as readings of the points its mapping names, each acknowledged."""

from __future__ import annotations

import csv
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from services.simulator.mapping import ColumnOfMapping, Mapping
from services.simulator.publish import Message

MOST_READINGS = 2000
"""Most readings in one message, so that it stays far below ingest's limit of 1 MiB."""
TOLD_FAULTS = 20
"""Faults told one by one; the rest is counted."""
_TRUE = frozenset(("1", "1.0", "true", "TRUE", "True", "yes", "on", "ON"))
_FALSE = frozenset(("0", "0.0", "false", "FALSE", "False", "no", "off", "OFF"))


class ReplayError(Exception):
    """The CSV does not fit its mapping; the text says where."""


class Outlet(Protocol):
    """Where messages go, waiting for room."""

    def put(self, message: Message, stop: threading.Event) -> bool: ...


@dataclass(frozen=True)
class Window:
    """What of the file to replay, and how: times in milliseconds since the epoch, as written in the file.

    ``speed``: recorded seconds per second, None as fast as the broker takes them. ``shift_to_now`` moves all times so
    that the newest is now.
    """

    begin_ms: int | None = None
    end_ms: int | None = None
    sort: bool = False
    speed: float | None = None
    shift_to_now: bool = False
    batch_rows: int = 20

    def holds(self, time_ms: int) -> bool:
        return (self.begin_ms is None or time_ms >= self.begin_ms) and (self.end_ms is None or time_ms < self.end_ms)


@dataclass
class Report:
    """What became of the file."""

    rows: int = 0
    readings: int = 0
    messages: int = 0
    missing_cells: int = 0
    unreadable_cells: int = 0
    unreadable_rows: int = 0
    rows_outside: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < TOLD_FAULTS:
            self.faults.append(text)


class Row(NamedTuple):
    """One row: where it stood, when, and its cells as text."""

    line: int
    time_ms: int
    cells: list[str]


class Source:
    """A CSV with its mapping. Raises :class:`ReplayError` where a column the mapping names is not in the header."""

    def __init__(self, path: Path, mapping: Mapping, window: Window) -> None:
        self.path, self.mapping, self.window = path, mapping, window
        self._read_time = mapping.time.reader()
        with self._open() as file:
            header = next(csv.reader(file, delimiter=mapping.delimiter), None)
        if not header:
            raise ReplayError(f"{path}: the file is empty; its first line must name the columns")
        header = [name.strip() for name in header]
        absent = [name for name in (mapping.time.column, *mapping.columns) if name not in header]
        if absent:
            raise ReplayError(
                f"{path}: the header lacks {', '.join(map(repr, absent))}, which the mapping names; "
                f"it has {', '.join(header)}"
            )
        known = {mapping.time.column, *mapping.columns, *mapping.ignore}
        self.unmapped = [name for name in header if name not in known]
        self._time_at = header.index(mapping.time.column)
        self._width = len(header)
        self.columns = [(header.index(name), name, column) for name, column in mapping.columns.items()]

    def _open(self) -> Any:
        try:
            return self.path.open(encoding=self.mapping.encoding, newline="")
        except (OSError, LookupError) as error:
            raise ReplayError(f"{self.path}: cannot be read: {error}") from error

    def rows(self, report: Report) -> Iterator[Row]:
        """The rows within the window, in the file's own order (or by time where ``sort`` is set)."""
        found = self._rows(report)
        return iter(sorted(found, key=lambda row: row.time_ms)) if self.window.sort else found

    def _rows(self, report: Report) -> Iterator[Row]:
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.mapping.delimiter)
            next(reader, None)
            try:
                for cells in reader:
                    row = self._row(reader.line_num, cells, report)
                    if row is not None:
                        yield row
            except (csv.Error, UnicodeDecodeError) as error:
                raise ReplayError(f"{self.path}, after line {reader.line_num}: {error}") from error

    def _row(self, line: int, cells: list[str], report: Report) -> Row | None:
        if not any(cell.strip() for cell in cells):
            return None
        if len(cells) <= self._time_at:
            report.unreadable_rows += 1
            report.fault(f"line {line}: no cell for {self.mapping.time.column}")
            return None
        try:
            time_ms = self._read_time(cells[self._time_at].strip())
        except (ValueError, OverflowError, OSError):
            report.unreadable_rows += 1
            written = f"{self.mapping.time.column} {cells[self._time_at]!r}"
            report.fault(f"line {line}: {written} is no time as {self.mapping.time.format}")
            return None
        if not self.window.holds(time_ms):
            report.rows_outside += 1
            return None
        return Row(line, time_ms, cells)

    def survey(self) -> tuple[int, int]:
        """How many rows the window holds, and the newest of their times (ms; 0 where there are none)."""
        count, newest = 0, 0
        for row in self._rows(Report()):
            count += 1
            newest = max(newest, row.time_ms)
        return count, newest


def replay(
    source: Source,
    outlet: Outlet,
    report: Report,
    stop: threading.Event,
    *,
    shift_ms: int = 0,
    progress: Callable[[int], None] = lambda _rows: None,
) -> None:
    """Hand all rows of ``source`` to ``outlet``, counting into ``report``; ends early where ``stop`` is set."""
    window = source.window
    writer = _Writer(source, report, shift_ms)
    pacer = _Pacer(window.speed)
    waiting = 0
    for row in source.rows(report):
        if stop.is_set():
            return
        if not pacer.is_due(row.time_ms):
            # What is due goes out before the wait, not after it.
            if not _hand_over(writer, outlet, stop):
                return
            progress(waiting)
            waiting = 0
            pacer.wait(row.time_ms, stop)
        writer.add(row)
        waiting += 1
        if waiting >= window.batch_rows:
            if not _hand_over(writer, outlet, stop):
                return
            progress(waiting)
            waiting = 0
    _hand_over(writer, outlet, stop)
    progress(waiting)


def _hand_over(writer: _Writer, outlet: Outlet, stop: threading.Event) -> bool:
    return all(outlet.put(message, stop) for message in writer.take())


class _Writer:
    """Collects rows and writes them as one message per device."""

    def __init__(self, source: Source, report: Report, shift_ms: int) -> None:
        self._source, self._report, self._shift = source, report, shift_ms
        mapping = source.mapping
        self._topics = {
            column.device: f"lifeline/v1/{mapping.county_of(column.device)}/{column.device}/readings"
            for _, _, column in source.columns
        }
        self._missing = frozenset(mapping.missing)
        self._comma = mapping.decimal == ","
        self._readings: dict[str, list[dict[str, Any]]] = {device: [] for device in self._topics}
        self._encode = msgspec.json.Encoder().encode

    def add(self, row: Row) -> None:
        report = self._report
        report.rows += 1
        time_ms = row.time_ms + self._shift
        for at, name, column in self._source.columns:
            cell = row.cells[at].strip() if at < len(row.cells) else ""
            if cell in self._missing:
                report.missing_cells += 1
                continue
            value = self._value(cell, column)
            if value is None:
                report.unreadable_cells += 1
                report.fault(f"line {row.line}: {name} {cell!r} is no {'boolean' if column.boolean else 'number'}")
                continue
            self._readings[column.device].append({"point": column.point, "time": time_ms, "value": value})

    def _value(self, cell: str, column: ColumnOfMapping) -> float | bool | None:
        if column.boolean:
            return True if cell in _TRUE else False if cell in _FALSE else None
        try:
            number = float(cell.replace(",", ".") if self._comma else cell)
        except ValueError:
            return None
        if column.scale != 1.0 or column.offset != 0.0:
            number = number * column.scale + column.offset
        return number if math.isfinite(number) else None

    def take(self) -> Iterator[Message]:
        for device, readings in self._readings.items():
            for first in range(0, len(readings), MOST_READINGS):
                part = readings[first : first + MOST_READINGS]
                self._report.messages += 1
                self._report.readings += len(part)
                yield Message(self._topics[device], self._encode({"readings": part}), len(part))
            readings.clear()


class _Pacer:
    """Lets recorded time pass ``speed`` times as fast as the clock; order backwards passes like order forwards."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._started = time.monotonic()
        self._passed = 0.0
        self._last: int | None = None

    def is_due(self, time_ms: int) -> bool:
        return self._speed is None or self._wait_s(time_ms) <= 0

    def _wait_s(self, time_ms: int) -> float:
        assert self._speed is not None
        step = 0.0 if self._last is None else abs(time_ms - self._last) / 1000 / self._speed
        self._passed += step
        self._last = time_ms
        return self._started + self._passed - time.monotonic()

    def wait(self, time_ms: int, stop: threading.Event) -> None:
        if self._speed is not None:
            stop.wait(max(0.0, self._wait_s(time_ms)))
