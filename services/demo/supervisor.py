"""Keeping programs running: start, wait until ready, restart what died, stop in order.

One thread does all of it (see :func:`services.demo.launch.start` for why it must not end before the process).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TICK_S = 0.05
SETTLED_S = 20.0
"""A program that ran this long is healthy: its next death is restarted at once."""
PAUSES_S = (0.0, 0.25, 0.5, 0.75)
"""Before the first, second, … restart of one that keeps dying. Short to the end: whoever dies is back within 1.5 s."""
TOLD_ONE_BY_ONE = 5
TELL_EVERY_S = 30.0
"""After so many deaths in a row, how often people are told of them."""
KILL_LIMIT_S = 5.0


class NotReadyError(Exception):
    """A program ended, or took too long, before it was ready; the text names it and where to look."""


@dataclass(frozen=True)
class Program:
    """What can be run, and how one sees that it works."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    is_ready: Callable[[], bool]
    """Whether it serves; called again and again while it starts, must return within a second or so."""
    log: str
    """Where its output goes, for people."""
    stop_signal: int = signal.SIGTERM
    stop_limit_s: float = 10.0
    ready_limit_s: float = 30.0
    before_start: Callable[[], None] = field(default=lambda: None)
    """What must be done before each start; may raise."""


class Child:
    """One program and its present process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._deaths = 0
        """Since it was last settled."""
        self._due_at: float | None = None
        self._told_at = 0.0
        self._untold = 0
        self.restarts = 0

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int:
        """The process id. Only while it has been started."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, now: float | None = None) -> None:
        """Start it and return at once; ``now`` is of ``time.monotonic()``."""
        self.program.before_start()
        self._process = self.program.start()
        self._started_at = time.monotonic() if now is None else now
        self._due_at = None

    def wait_ready(self, limit_s: float | None = None) -> float:
        """Wait until it serves; the seconds since its start. Raises :class:`NotReadyError`."""
        deadline = time.monotonic() + (self.program.ready_limit_s if limit_s is None else limit_s)
        while not self.program.is_ready():
            if not self.is_alive():
                raise NotReadyError(f"{self.name} ended before it was ready ({self._ending()}); see {self.program.log}")
            if time.monotonic() > deadline:
                raise NotReadyError(f"{self.name} was not ready in time; see {self.program.log}")
            time.sleep(TICK_S)
        return time.monotonic() - self._started_at

    def start_ready(self) -> float:
        """Start it and wait until it serves; the seconds it took."""
        self.start()
        return self.wait_ready()

    def stop(self) -> float:
        """Ask it to end, then kill it; the seconds it took. Stopping twice is harmless."""
        began = time.monotonic()
        self._due_at = None
        if self._process is not None:
            if self.is_alive():
                self.signal(self.program.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.program.stop_limit_s)
            self.kill()
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL to it and whatever it left in its session."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_LIMIT_S)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def revive(self, now: float) -> str | None:
        """Restart it where it has died and its pause is over. What happened, for people, or None.

        ``now`` is of ``time.monotonic()``. The first death is mended at once; a program that keeps dying waits for
        the next of :data:`PAUSES_S` each time, and people are told of it now and then (``restarts`` counts them all).
        """
        if self.is_alive():
            return None
        if self._due_at is None:
            if now - self._started_at >= SETTLED_S:
                self._deaths = 0
            self._due_at = now + PAUSES_S[min(self._deaths, len(PAUSES_S) - 1)]
            self._deaths += 1
        if now < self._due_at:
            return None
        ending = self._ending()
        self.restarts += 1
        try:
            self.start(now)
        except Exception as error:  # noqa: BLE001 (whatever hinders a start now may pass; it is told and tried again)
            self._due_at = now + PAUSES_S[-1]
            self._deaths += 1
            return self._unless_told(now, f"{self.name} ended ({ending}) and could not be started again: {error}")
        return self._unless_told(
            now, f"{self.name} ended ({ending}); started again as process {self.pid}, see {self.program.log}"
        )

    def _unless_told(self, now: float, text: str) -> str | None:
        """``text``, or None where people have just heard the like several times."""
        if self._deaths > TOLD_ONE_BY_ONE and now < self._told_at + TELL_EVERY_S:
            self._untold += 1
            return None
        if self._untold:
            text += f" (and {self._untold} times before this)"
        self._told_at, self._untold = now, 0
        return text

    def _ending(self) -> str:
        code = None if self._process is None else self._process.poll()
        if code is None:
            return "not running"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


class Supervisor:
    """Children in the order they were started."""

    def __init__(self) -> None:
        self.children: list[Child] = []

    def add(self, program: Program) -> Child:
        """Start a program and keep it from now on. Not yet ready: :meth:`Child.wait_ready`."""
        child = Child(program)
        self.children.append(child)
        child.start()
        return child

    def pids(self) -> dict[str, int]:
        return {child.name: child.pid for child in self.children}

    def revive(self) -> list[str]:
        """Restart the dead; what happened, for people."""
        now = time.monotonic()
        return [told for child in self.children if (told := child.revive(now)) is not None]

    def kill(self) -> None:
        """SIGKILL to all at once, without waiting; for use in a signal handler while :meth:`stop` waits."""
        for child in self.children:
            child.signal(signal.SIGKILL)

    def stop(self, on_stopped: Callable[[str, float], None] = lambda _name, _seconds: None) -> None:
        """Stop all in reverse order, each within its limit; ``on_stopped`` hears each name and its seconds."""
        for child in reversed(self.children):
            on_stopped(child.name, child.stop())
