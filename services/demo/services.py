"""Lifeline's own processes as the supervisor sees them: how each is started, and how one knows that it works."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from services.demo import launch, logs
from services.demo.supervisor import Program

INGEST_STOP_LIMIT_S = 45.0
"""Ingest drains what it has taken before it ends; its own limits add up to less."""
COMMAND_LIMIT_S = 600.0
_CONNECTED = "lifeline_ingest_connected{"


class CommandError(Exception):
    """A command that prepares the demonstration failed; the text holds its words."""


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ``values`` in place; a ``_FILE`` variable would contradict them and goes."""
    kept = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in values}
    return {**kept, **values, "PYTHONUNBUFFERED": "1"}


def command(*arguments: str) -> list[str]:
    """The command line that runs ``lifeline ARGUMENTS`` with this very interpreter."""
    return [sys.executable, "-m", "services.cli", *arguments]


def run(arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
    """Run a ``lifeline`` command to its end, its output in ``log``. Raises :class:`CommandError`."""
    with logs.open_log(log) as output:
        process = launch.start(command(*arguments), output=output, environ=environ)
    try:
        status = process.wait(COMMAND_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise CommandError(f"`lifeline {arguments[0]}` took more than {COMMAND_LIMIT_S:.0f} s; see {log}") from None
    if status != 0:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        raise CommandError(
            f"`lifeline {' '.join(arguments)}` failed:\n  " + "\n  ".join(said) + f"\n(all of it: {log})"
        )


def ingest(environ: Mapping[str, str], metrics_url: str, log: Path) -> Program:
    """The ingest process; ready once it holds its subscriptions, so that nothing published from then on is missed."""

    def is_ready() -> bool:
        text = fetch(metrics_url)
        return any(line.startswith(_CONNECTED) and line.endswith(" 1.0") for line in text.splitlines())

    return _service("ingest", ["ingest"], environ, log, is_ready=is_ready, stop_limit_s=INGEST_STOP_LIMIT_S)


def simulator(options: Sequence[str], environ: Mapping[str, str], log: Path) -> Program:
    """The simulated prefecture. It serves nobody, so that running is all there is to see."""
    return _service("simulator", ["simulate", *options], environ, log)


def _service(
    name: str,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
    *,
    is_ready: Callable[[], bool] = lambda: True,
    stop_limit_s: float = 10.0,
) -> Program:
    def start() -> subprocess.Popen[bytes]:
        with logs.open_log(log) as output:
            return launch.start(command(*arguments), output=output, environ=environ)

    return Program(
        name=name,
        start=start,
        is_ready=is_ready,
        log=str(log),
        stop_limit_s=stop_limit_s,
        ready_limit_s=60.0,
    )


def fetch(url: str, limit_s: float = 1.0) -> str:
    """The text at a loopback ``http://`` URL; empty where there is no answer within ``limit_s``."""
    try:
        with urllib.request.urlopen(url, timeout=limit_s) as answer:  # noqa: S310 (our own URL)
            text: str = answer.read().decode("utf-8", "replace")
            return text
    except (OSError, urllib.error.URLError, ValueError):
        return ""
