"""Interrupts that libraries turn into errors of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Raise the interrupt itself where a library has wrapped it in an error.

    DuckDB raises RuntimeError from whatever a signal's handler raises during a query:
    KeyboardInterrupt, or in a step of Dagster an error of Dagster's. It would count as an error of
    the partition or of the file that is being read.

    Raises:
        BaseException: the interrupt.
    """
    try:
        yield
    except RuntimeError as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, Exception):
            raise cause from error
        raise
