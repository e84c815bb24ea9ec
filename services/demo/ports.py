"""Local ports: free ones, and whether one is taken."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 up): a port from that range could be taken by any client while
# its server restarts, even by a client that connects to the very port and so finds itself.
_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES = 1000


class NoFreePortError(Exception):
    """Every port tried is taken."""


def free_port() -> int:
    """A TCP port nobody listens on now, on the loopback address. Raises :class:`NoFreePortError`."""
    chance = random.SystemRandom()
    for _ in range(_TRIES):
        port = chance.randint(_LOWEST, _HIGHEST)
        if is_free(port):
            return port
    raise NoFreePortError(f"no free port between {_LOWEST} and {_HIGHEST} on {HOST}: is something holding them all?")


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback address now."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier one that linger in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
