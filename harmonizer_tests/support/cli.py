"""The command line: in this process, which has Dagster imported, or in one of its own."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

COMMAND = [sys.executable, "-m", "harmonizer_assets.cli"]
ROOT = Path(__file__).parents[2]

Completed = subprocess.CompletedProcess[str]


def cli(*arguments: object, home: Path | None = None, **environment: str) -> Completed:
    """Run a command in this process; what it does to the process is undone."""
    from harmonizer_assets.cli import main

    words = _words(arguments, home)
    # A test runner may have set the width of its own terminal, at which tables would wrap.
    variables = {"COLUMNS": None, **environment}
    with _undisturbed():
        result = CliRunner().invoke(
            main, words, prog_name="harmonizer", env=variables, catch_exceptions=False
        )
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def cli_process(*arguments: object, home: Path | None = None, **environment: str) -> Completed:
    """Run a command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *_words(arguments, home)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        cwd=ROOT,
    )


@contextmanager
def started(*arguments: object, home: Path) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which is killed at the end if it still runs."""
    # A shell that runs the tests in the background has its children ignore interrupts.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*COMMAND, *_words(arguments, home)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    finally:
        signal.signal(signal.SIGINT, ignored)
    with process:
        try:
            yield process
        finally:
            process.kill()


def cli_on_terminal(*arguments: object, home: Path, columns: int) -> tuple[int, str]:
    """The exit code, and what a terminal of that many columns gets on standard output."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    names = ("COLUMNS", "NO_COLOR", "TERM")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    process = subprocess.Popen(
        [*COMMAND, "--home", str(home), *(str(argument) for argument in arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**environment, "TERM": "xterm"},
        cwd=ROOT,
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65_536):
            parts.append(part)
    except OSError:
        pass  # What Linux says when the last writer has closed the terminal.
    finally:
        os.close(ours)
    return process.wait(timeout=60), b"".join(parts).decode().replace("\r\n", "\n")


def shown_error(result: Completed) -> str:
    """The one message on standard error; there must be no traceback."""
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def _words(arguments: tuple[object, ...], home: Path | None) -> list[str]:
    where = [] if home is None else ["--home", str(home)]
    return [*where, *(str(argument) for argument in arguments)]


@contextmanager
def _undisturbed() -> Iterator[None]:
    environment = dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    umask = os.umask(0o022)
    os.umask(umask)
    try:
        yield
    finally:
        os.umask(umask)
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
