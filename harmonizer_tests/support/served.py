"""A home served by `harmonizer ui`, as people run it, for tests that drive or kill it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.reports import ASSETS
from harmonizer_assets.dagster_compat.instance import prepare_instance

SECONDS_TO_START = 120.0
BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
    launchPartitionBackfill(backfillParams: $params) {
        __typename
        ... on LaunchBackfillSuccess { backfillId }
        ... on PythonError { message }
    }
}
"""


class Served:
    """`harmonizer ui` of a home, in processes of its own."""

    def __init__(
        self, home: Home, log: Path, impatient: bool = False, in_background: bool = False
    ) -> None:
        """Serve nothing yet.

        Args:
            home: to be served.
            log: takes what the processes print.
            impatient: whether the daemon looks for runs that were killed, and frees their places,
                every few seconds, as the home's dagster.yaml can say.
            in_background: whether interrupts are ignored from the start, as a shell has its
                background jobs do.
        """
        self._home = home
        self._log = log
        self._impatient = impatient
        self._in_background = in_background
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]

    @property
    def home(self) -> Home:
        return self._home

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        command = [sys.executable, "-m", "harmonizer_assets.cli", "--home", str(self._home.root)]
        if self._impatient:
            _look_often(self._home)
        if self._in_background:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(
                    [*command, "ui", "--port", str(self._port)],
                    stdout=log,
                    stderr=log,
                    cwd=Path(__file__).parents[2],
                    start_new_session=True,
                )
        finally:
            if self._in_background:
                signal.signal(signal.SIGINT, before)
        wait_for(self._answers, SECONDS_TO_START)

    def stop(self, seconds: float = 30.0) -> bool:
        """Stop what is left, however it was killed; runs that take longer than that are killed.

        Whether nothing had to be killed.
        """
        if self._process is None:
            return True
        left = self.processes()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(left, timeout=seconds)
        for process in alive:
            process.kill()
        self._process.wait(timeout=30)
        return not alive

    def processes(self) -> list[psutil.Process]:
        """All processes that work on the home: servers, daemon, run workers."""
        found = []
        for process in psutil.process_iter():
            try:
                home = process.environ().get("HARMONIZER_HOME")
                if home == str(self._home.root) and process.pid != os.getpid():
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def find(self, *words: str) -> psutil.Process | None:
        """A process with these words in its command."""
        for process in self.processes():
            try:
                command = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if all(word in command for word in words):
                return process
        return None

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask the web server's GraphQL."""
        request = urllib.request.Request(
            f"{self.address}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: dict[str, Any] = json.load(answer)
        assert "errors" not in content, content
        return content["data"]

    def launch_backfill(self, partitions: Sequence[str]) -> str:
        """Launch a backfill of the partitioned assets, as the dialog of the UI does; its id."""
        params = {
            "assetSelection": [{"path": [name]} for name in ASSETS],
            "partitionNames": list(partitions),
        }
        answer = self.ask(BACKFILL, params=params)["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        backfill_id: str = answer["backfillId"]
        return backfill_id

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            urllib.request.urlopen(f"{self.address}/server_info", timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True


def _look_often(home: Home) -> None:
    prepare_instance(home)
    config = home.dagster / "dagster.yaml"
    settings = yaml.safe_load(config.read_text())
    settings["run_monitoring"]["poll_interval_seconds"] = 3
    settings["run_monitoring"]["free_slots_after_run_end_seconds"] = 5
    settings["run_coordinator"]["config"]["user_code_failure_retry_delay"] = 5
    config.write_text(yaml.safe_dump(settings))


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait until a condition holds.

    Long by default: a run whose worker is killed before it has said which process it is counts as
    alive for two minutes.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:.0f} s"
        time.sleep(0.3)
