"""A network that wants a login: every request gets an HTML page with status 200."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

PAGES: Final = {
    "html": ("text/html; charset=utf-8", b"<!DOCTYPE html><html><body>Please log in</html>"),
    "xhtml": (
        "application/xhtml+xml",
        b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body/></html>',
    ),
    "text": ("text/plain", b"Please log in"),
    "unnamed": (None, b"<html><body/></html>"),
    "json text": ("application/json", b'"Please log in"'),
}
"""Kind and content of what such networks answer."""


@contextmanager
def login_page(kind: str = "html") -> Iterator[str]:
    """Serve one of `PAGES` at every address, for every method; yields the base URL."""
    content_type, page = PAGES[kind]

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            self.rfile.read(length)
            self.send_response(200)
            if content_type is not None:
                self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(page)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
