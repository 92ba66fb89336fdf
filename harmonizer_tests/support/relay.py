"""A relay before a server, which can be paused: connections stay and nothing goes through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 65_536


class Relay:
    """Passes on what is sent to a port of the loopback interface, both ways.

    Attributes:
        port: to connect to instead of the server's.
        server: where connections lead to.
    """

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self._flowing = threading.Event()
        self._flowing.set()
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def pause(self) -> None:
        """Let nothing through until `resume`."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let everything through again, what was sent meanwhile first."""
        self._flowing.set()

    def lead_to(self, host: str, port: int) -> None:
        """Let connections that are made from now on end at another server, and end the others."""
        self.server = (host, port)
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections."""
        self._flowing.set()
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self.server)
                self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:
            while True:
                self._flowing.wait()
                content = one.recv(_CHUNK)
                self._flowing.wait()
                if not content:
                    break
                other.sendall(content)


@contextmanager
def relayed(host: str, port: int) -> Iterator[Relay]:
    """Relay to a server until the block ends."""
    relay = Relay(host, port)
    try:
        yield relay
    finally:
        relay.close()
