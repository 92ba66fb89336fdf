"""Interrupts that libraries, or what is done at the end of a block, drop or turn into errors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from harmonizer_assets.core.base.errors import RunStoppedError

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""Those that ask a process to end."""
MOST_NOTED: Final = 1_024
"""Signals that are read at once, a byte each."""

_OF_THE_LANGUAGE: Final = (asyncio.CancelledError, GeneratorExit)
"""They end a task or a generator, and are the cause of errors that mean what they say."""


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise the interrupt itself where an error has come of it.

    DuckDB raises RuntimeError from whatever a signal's handler raises during a query:
    KeyboardInterrupt, or in a step of Dagster an error of Dagster's. What is closed on the way out
    may fail since the interrupt came between two of its lines. Either would count as an error of
    the partition or of the file that is being read.

    Raises:
        BaseException: the interrupt.
    """
    try:
        yield
    except Exception as error:
        raise_interrupt_in(error)
        raise


def raise_interrupt_in(error: Exception) -> None:
    """Raise the interrupt that an error has come of, if it has.

    Raises:
        BaseException: the interrupt.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        if not isinstance(one, (Exception, *_OF_THE_LANGUAGE)):
            raise one from error
        seen.add(id(one))
        one = one.__cause__ or one.__context__


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Give an event that is set at once when a signal asks this process to end.

    What a signal's handler raises is dropped where it comes while a library calls back, or while
    an object is destroyed, and the work would go on. The interpreter writes the number of each
    signal into a socket as well, which a thread reads here. Whoever had it written elsewhere gets
    it still. Outside the main thread, where no handler can be set, the event is never set.

    Raises:
        KeyboardInterrupt: work has ended with `RunStoppedError` since the event was set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

        def note() -> None:
            while numbers := ours.recv(MOST_NOTED):
                if any(number in ENDING_SIGNALS for number in numbers):
                    stop.set()
                if before >= 0:
                    # One that is full says enough already.
                    with suppress(BlockingIOError):
                        os.write(before, numbers)

        noting = threading.Thread(target=note, name="harmonizer-signals", daemon=True)
        noting.start()
        try:
            yield stop
        except RunStoppedError:
            if stop.is_set():
                raise KeyboardInterrupt from None
            raise
        finally:
            signal.set_wakeup_fd(before)
            theirs.shutdown(socket.SHUT_WR)
            noting.join()
