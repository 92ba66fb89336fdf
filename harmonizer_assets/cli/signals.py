"""Signals that end a command; which one it was decides the exit code."""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from harmonizer_assets.core.base.interrupts import ENDING_SIGNALS, MOST_NOTED

SECONDS_TO_END: Final = 2.0
"""Work that goes on for longer after a signal has not noticed it."""


class Interrupts:
    """The signals of a command that ask it to end, whoever handles them.

    Dagster replaces the handlers while a run executes and does not say which signal it got, so the
    interpreter itself notes them.
    """

    def __init__(self, noted: socket.socket) -> None:
        """Read the signals from a socket into which the interpreter writes their numbers."""
        self._noted = noted
        self._seen_at: float | None = None

    def came(self) -> bool:
        """Return whether there was one."""
        with suppress(BlockingIOError, OSError):
            return any(n in ENDING_SIGNALS for n in self._noted.recv(MOST_NOTED, socket.MSG_PEEK))
        return False

    def raise_lost(self) -> None:
        """Raise one that work has gone on after.

        An exception that comes while a library calls back, or while an object is destroyed, is
        dropped by the library or by the interpreter.

        Raises:
            KeyboardInterrupt: it was seen here before, `SECONDS_TO_END` ago.
        """
        if self._seen_at is None:
            self._seen_at = time.monotonic() if self.came() else None
        elif time.monotonic() - self._seen_at > SECONDS_TO_END:
            # What is done to end in good order may come here again.
            self._seen_at = math.inf
            raise KeyboardInterrupt

    def exit_code(self) -> int:
        """Return what shells expect of a command that such a signal has ended: 130 or 143."""
        with suppress(BlockingIOError):
            numbers = self._noted.recv(MOST_NOTED)
            for number in numbers:
                if number in ENDING_SIGNALS:
                    return 128 + number
        return 128 + signal.SIGINT


_current: list[Interrupts] = []


def interrupted() -> bool:
    """Return whether a signal has asked this command to end: nothing more is to be told then."""
    return any(noted.came() for noted in _current)


def raise_lost_interrupt() -> None:
    """Raise a signal that asked this command to end, if work has gone on after it.

    Raises:
        KeyboardInterrupt: see `Interrupts.raise_lost`.
    """
    for noted in _current:
        noted.raise_lost()


def ignore_interrupts() -> None:
    """Let no further signal disturb the end of this process.

    Nothing may be started any more: a process would inherit that, and could not be ended.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let no further signal disturb what is done to end in good order."""
    before = {number: signal.signal(number, lambda *_: None) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Have SIGTERM raise KeyboardInterrupt, as SIGINT does, and note which of the two comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        _current.append(Interrupts(ours))
        try:
            yield _current[-1]
        finally:
            _current.pop()
            signal.set_wakeup_fd(before)
