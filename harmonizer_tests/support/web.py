"""An ASGI application on loopback, and requests whose every header the test chooses."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


def ask(
    port: int,
    path: str = "/",
    method: str = "GET",
    body: str | None = None,
    *,
    encoding: str = "utf-8",
    **headers: str,
) -> Answer:
    """Send a request with exactly these headers, `_` for `-`; `Host` is ours unless it is given.

    `encoding` is that of the answer's text; latin-1 reads any bytes.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Host": f"127.0.0.1:{port}", **named}.items():
            connection.putheader(name, value)
        content = None if body is None else body.encode()
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        text = "" if answer.status == 101 else answer.read().decode(encoding)
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, text)
    finally:
        connection.close()


def ask_websocket(port: int, path: str = "/graphql", **headers: str) -> int:
    """Send the handshake of a websocket; the status, which is 101 where it is accepted."""
    return ask(port, path, **HANDSHAKE, **headers).status


@contextmanager
def served_app(app: Any) -> Iterator[int]:
    """Serve an application in a thread; yield its port."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        # What goes on would take its time from all tests that follow.
        assert not thread.is_alive(), "the server does not stop"
