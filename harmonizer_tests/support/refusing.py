"""A proxy before a server of AWS, which refuses some requests as AWS does."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

_NOT_PASSED_ON: Final = ("content-length", "transfer-encoding", "connection")


@dataclass
class Refusing:
    """What is refused.

    Attributes:
        port: of the proxy, on the loopback interface.
        refused: operations that get an error, with its code.
        status: of the error.
        count: how many requests were.
    """

    port: int
    refused: dict[str, str] = field(default_factory=dict)
    status: int = 403
    count: int = 0


@contextmanager
def refusing(host: str, port: int) -> Iterator[Refusing]:
    """Pass requests on to a server of AWS's JSON protocol until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            operation = self.headers.get("x-amz-target", "").rpartition(".")[2]
            code = proxy.refused.get(operation)
            if code is not None:
                proxy.count += 1
                error = {"__type": f"com.amazon.coral.service#{code}", "message": "refused"}
                self._answer(proxy.status, {}, json.dumps(error).encode())
                return
            connection = http.client.HTTPConnection(host, port)
            connection.request("POST", self.path, content, dict(self.headers.items()))
            found = connection.getresponse()
            self._answer(found.status, dict(found.getheaders()), found.read())

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy = Refusing(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
