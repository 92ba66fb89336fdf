"""The web UI: Dagster's server and daemon, and the reports, on the loopback interface only."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from harmonizer_assets.core.errors import InputError, StoreError
from harmonizer_assets.core.home import Home

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = 3000
"""Of the web UI; reports are served at the next one."""

_SECONDS_BETWEEN_LOOKS: Final = 0.5
_HOSTS: Final = frozenset({LOOPBACK, "localhost"})


class ReportHandler(SimpleHTTPRequestHandler):
    """Serves the HTML pages of one folder, and nothing else."""

    def send_head(self) -> Any:
        """Open the page that is asked for; `/` is the latest one."""
        # A page of another site must not read reports through a name that it points here.
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in _HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        name = urlsplit(self.path).path.lstrip("/") or "latest.html"
        if name.startswith(".") or "/" in name or not name.endswith(".html"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        self.path = f"/{name}"
        return super().send_head()

    def end_headers(self) -> None:
        """Have pages taken as what they say they are, and asked for again each time."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: Dagster's log is what people read."""


def serve_reports(home: Home, port: int = 0) -> ThreadingHTTPServer:
    """Serve the home's reports in a thread, and note the address for the links of later runs.

    Args:
        home: whose reports.
        port: on the loopback interface; 0, or one that is taken, lets the system choose.

    Raises:
        StoreError: the home cannot be written.
    """
    handler = partial(ReportHandler, directory=str(home.reports))
    try:
        home.reports.mkdir(parents=True, exist_ok=True)
        try:
            server = ThreadingHTTPServer((LOOPBACK, port), handler)
        except OSError:
            server = ThreadingHTTPServer((LOOPBACK, 0), handler)
        address_file(home).write_text(f"http://{LOOPBACK}:{server.server_port}/")
    except OSError as error:
        raise StoreError(f"{home.reports}: reports cannot be served ({error.strerror})") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def address_file(home: Home) -> Path:
    """Where the address of the served reports is noted."""
    return home.reports / ".address"


def report_address(home: Home, page: Path) -> str:
    """The address at which a browser opens a report while `harmonizer ui` runs.

    It is where reports were served last, or where they are by default: a page of the web UI cannot
    open files.
    """
    try:
        address = address_file(home).read_text().strip()
    except OSError:
        address = f"http://{LOOPBACK}:{DEFAULT_PORT + 1}/"
    return address + page.name


def serve(home: Home, port: int) -> int:
    """Serve until stopped; the exit code of Dagster's processes.

    Raises:
        InputError: the port is taken.
        StoreError: the home cannot be written.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise InputError(f"port {port} is taken: choose another with --port") from None
    reports = serve_reports(home, port + 1)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "harmonizer_assets.definitions"]
    stopped = threading.Event()
    # Set before the process is made: a shell that starts this in the background has it, and what
    # it starts, ignore interrupts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    # In a group of its own, so that Ctrl-C reaches it once, from here.
    dagster = subprocess.Popen([*command, "-h", LOOPBACK, "-p", str(port)], process_group=0)
    try:
        while dagster.poll() is None and not stopped.wait(_SECONDS_BETWEEN_LOOKS):
            pass
        if dagster.poll() is None:
            # `dagster dev` stops its own processes when it is interrupted.
            dagster.send_signal(signal.SIGINT)
        code = dagster.wait()
        return 0 if stopped.is_set() else code
    finally:
        reports.shutdown()
