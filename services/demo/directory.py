"""The data directory of one demonstration: its lock, what it remembers, and ``demo.json`` for others to read."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from services.demo import launch, ports

PORT_WAIT_S = 3.0
"""How long a server that was just killed may still hold the port we want."""


class DirectoryError(Exception):
    """The directory or a port cannot be used; the text names the option and what to do."""


class DemoDirectory:
    """A locked data directory. What it remembers (``state.json``) lets a restart keep passwords and ports."""

    def __init__(self, path: Path) -> None:
        """Make the directory where missing, and lock it. Raises :class:`DirectoryError`."""
        self.path = path.resolve()
        try:
            self._make()
            self._lock = self._take_lock()
        except OSError as error:
            raise DirectoryError(
                f"--data-dir {path}: {error.strerror}; name a directory that you may write to"
            ) from error
        self._state = self._read_state()
        self.withdraw()

    @property
    def logs(self) -> Path:
        return self.path / "log"

    def _make(self) -> None:
        if not self.path.exists():
            self.path.mkdir(parents=True)
            # As root, servers run as another account, which must be able to pass through; all in it is closed itself.
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.logs.mkdir(mode=0o700, exist_ok=True)

    def _take_lock(self) -> int:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DirectoryError(
                f"a demonstration already runs on {self.path} (process {owner}): stop it, "
                f"or give this one a directory of its own with --data-dir DIR and --mqtt-port 0"
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor

    def _read_state(self) -> dict[str, Any]:
        path = self.path / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DirectoryError(
                f"{path} is damaged ({error}): restore it, or start anew in another --data-dir"
            ) from error
        assert isinstance(state, dict)
        return state

    def recall(self, name: str) -> Any:
        """What was remembered under ``name``, or None."""
        return self._state.get(name)

    def remember(self, name: str, value: object) -> None:
        """Keep ``value`` (JSON) under ``name`` over restarts; on disk when this returns."""
        if self._state.get(name) != value:
            self._state[name] = value
            launch.write_private(self.path / "state.json", json.dumps(self._state, indent=1))

    def secret(self, name: str) -> str:
        """A random password, made once; safe inside a URL."""
        known = self.recall(f"secret.{name}")
        if not isinstance(known, str):
            known = secrets.token_urlsafe(24)
            self.remember(f"secret.{name}", known)
        return known

    def port(self, name: str, asked: int | None, default: int, option: str) -> int:
        """The port for ``name``: as asked, else as before, else ``default``; 0 stands for a free one.

        Where a port that was named or is ``default`` is taken, raises :class:`DirectoryError` naming ``option``.
        """
        known = self.recall(f"port.{name}")
        wanted = asked or known or (0 if asked == 0 else default)
        if not wanted:
            wanted = ports.free_port()
        elif not _becomes_free(wanted):
            if asked != 0 and (asked is not None or default):
                raise DirectoryError(
                    f"{option} {wanted}: another program on this machine listens there already; "
                    f"stop it, or give another number ({option} 0 takes a free one)"
                )
            wanted = ports.free_port()
        self.remember(f"port.{name}", wanted)
        return int(wanted)

    def publish(self, demo: dict[str, Any]) -> None:
        """Write ``demo.json`` whole; only we may read it."""
        launch.write_private(self.path / "demo.json", json.dumps(demo, indent=1) + "\n")

    def withdraw(self) -> None:
        """Remove ``demo.json``: what it says no longer holds."""
        (self.path / "demo.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Withdraw ``demo.json`` and give up the lock."""
        self.withdraw()
        os.close(self._lock)


def _becomes_free(port: int) -> bool:
    deadline = time.monotonic() + PORT_WAIT_S
    while not ports.is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
