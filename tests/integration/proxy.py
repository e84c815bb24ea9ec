"""A TCP proxy that can stop passing bytes on, one way at a time: the network between two servers failing."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Listens on a free port and passes every connection on to ``port``."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._to_server = threading.Event()
        self._to_client = threading.Event()
        self._to_server.set()
        self._to_client.set()
        self._closed = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_to_server(self) -> None:
        """Keep what clients send from now on."""
        self._to_server.clear()

    def hold_to_client(self) -> None:
        """Keep what the server sends from now on."""
        self._to_client.clear()

    def release(self) -> None:
        self._to_server.set()
        self._to_client.set()

    def close(self) -> None:
        """End all connections; what was held is lost."""
        self._closed = True
        self._listener.close()
        self.release()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for source, target, gate in (
                    (client, server, self._to_server),
                    (server, client, self._to_client),
                ):
                    threading.Thread(target=self._pass_on, args=(source, target, gate), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, gate: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                if self._closed:
                    break
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
