"""A Chroma server, as `chroma run` starts it, for as long as a test takes."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 30.0


@contextmanager
def chroma_server(folder: Path) -> Iterator[str]:
    """Serve a folder on the loopback interface; yield the URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Path(sys.executable).with_name("chroma")
    arguments = ["run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with (folder.parent / "chroma.log").open("wb") as log:
        process = subprocess.Popen([command, *arguments], stdout=log, stderr=log, cwd=folder.parent)
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        assert process.poll() is None, "chroma run has ended"
        try:
            urllib.request.urlopen(f"{url}/api/v2/heartbeat", timeout=2).close()
        except OSError:
            assert time.monotonic() < deadline, "chroma run does not answer"
            time.sleep(0.05)
        else:
            return
