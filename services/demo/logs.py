"""The files that the output of each program goes to, kept from growing without bound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

LIMIT_BYTES = 20 << 20
KEPT_BYTES = 1 << 20


def open_log(path: Path) -> BinaryIO:
    """Open a log to append to; its parent is there. Only we may read it: logs name devices and people."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def trim(path: Path) -> None:
    """Cut a log that has passed :data:`LIMIT_BYTES` to its last :data:`KEPT_BYTES`, while its program goes on writing.

    The program writes in append mode, so cutting the file under it is safe; a line written meanwhile may be lost.
    """
    try:
        if path.stat().st_size <= LIMIT_BYTES:
            return
        with path.open("r+b") as file:
            file.seek(-KEPT_BYTES, os.SEEK_END)
            kept = file.read()
            file.truncate(0)
        with path.open("ab") as file:
            file.write(kept)
    except FileNotFoundError:
        return
