"""A server that answers every request with its own headers, the key among them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Indiscreet:
    """How the server answers.

    Attributes:
        status: of every answer.
        is_json: whether the answer has the form of an error of the OpenAI API.
        requests: how many there were.
    """

    status: int = 401
    is_json: bool = True
    requests: int = 0
    url: str = ""


@contextmanager
def indiscreet_server() -> Iterator[Indiscreet]:
    state = Indiscreet()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            state.requests += 1
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = f"not for you: {self.headers}"
            error = {"message": said, "code": said, "type": said, "param": said}
            body = json.dumps({"error": error}) if state.is_json else f"<html>{said}</html>"
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json" if state.is_json else "text/html")
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
