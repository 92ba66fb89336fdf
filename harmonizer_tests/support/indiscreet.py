"""A server that answers every request with its own headers, the key among them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from xml.sax.saxutils import escape

_TYPES = {"json": "application/json", "xml": "application/xml", "page": "text/html"}


@dataclass
class Indiscreet:
    """How the server answers.

    Attributes:
        status: of every answer.
        form: of its answers: `json` is an error of OpenAI and of DynamoDB, `xml` one of S3, `page`
            none.
        requests: how many there were.
    """

    status: int = 401
    form: Literal["json", "xml", "page"] = "json"
    requests: int = 0
    url: str = ""


@contextmanager
def indiscreet_server() -> Iterator[Indiscreet]:
    state = Indiscreet()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            state.requests += 1
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("X-Amz-Security-Token") or self.headers.get("Authorization")
            said = f"{token} is not for you: {self.headers}"
            error = {"message": said, "code": said, "type": said, "param": said}
            shown = escape(said)
            body = {
                "json": json.dumps({"error": error, "__type": said, **error}),
                "xml": f"<Error><Code>{shown}</Code><Message>{shown}</Message></Error>",
                "page": f"<html>{said}</html>",
            }[state.form]
            self.send_response(state.status)
            self.send_header("Content-Type", _TYPES[state.form])
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

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
