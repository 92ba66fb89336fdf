"""The processes of the web UI: started, watched and stopped together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from harmonizer_assets.core.base.errors import InputError

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = 3000

_SECONDS_BETWEEN_LOOKS: Final = 0.5


def serve(command: Sequence[str], port: int, environment: Mapping[str, str]) -> int:
    """Serve on the loopback interface until stopped; return the exit code of the command.

    Args:
        command: serves the web UI; is given the options `-h HOST` and `-p PORT`.
        port: of the web UI.
        environment: variables of the command, on top of those of this process.

    Raises:
        InputError: the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise InputError(f"port {port} is taken: choose another with --port") from None
    stopped = threading.Event()
    # Set before the process is made: a shell that starts this in the background has it, and what
    # it starts, ignore interrupts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    # In a group of its own, so that Ctrl-C reaches it once, from here.
    process = subprocess.Popen(
        [*command, "-h", LOOPBACK, "-p", str(port)],
        env={**os.environ, **environment},
        process_group=0,
    )
    while process.poll() is None and not stopped.wait(_SECONDS_BETWEEN_LOOKS):
        pass
    if process.poll() is None:
        # `dagster dev` stops its own processes when it is interrupted.
        process.send_signal(signal.SIGINT)
    code = process.wait()
    return 0 if stopped.is_set() else code
