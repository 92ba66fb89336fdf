"""Signals that end a command; which one it was decides the exit code."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_MOST_NOTED: Final = 1_024


class Interrupts:
    """The signals of a command that ask it to end, whoever handles them.

    Dagster replaces the handlers while a run executes and does not say which signal it got, so the
    interpreter itself notes them.
    """

    def __init__(self, noted: socket.socket) -> None:
        """Read the signals from a socket into which the interpreter writes their numbers."""
        self._noted = noted

    def exit_code(self) -> int:
        """Return what shells expect of a command that such a signal has ended: 130 or 143."""
        with suppress(BlockingIOError):
            numbers = self._noted.recv(_MOST_NOTED)
            for number in numbers:
                if number in _ENDING:
                    return 128 + number
        return 128 + signal.SIGINT


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Have SIGTERM raise KeyboardInterrupt, as SIGINT does, and note which of the two comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield Interrupts(ours)
        finally:
            signal.set_wakeup_fd(before)
