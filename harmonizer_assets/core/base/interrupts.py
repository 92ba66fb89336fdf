"""Interrupts that libraries, or what is done at the end of a block, turn into errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
