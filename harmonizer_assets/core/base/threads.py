"""Threads: array work spread over the processor's cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Final, TypeVar

from threadpoolctl import threadpool_limits

_MOST_THREADS: Final = 4
"""Each holds intermediate results of its own."""
ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""Environment of processes of which there is one per core: each computes in one thread."""

_SHARES_CORES: Final = ContextVar("_SHARES_CORES", default=False)
"""Whether this thread is one of those that share the cores."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_blas_thread() -> threadpool_limits:
    """Have BLAS compute in one thread as long as the context is open.

    In several, sums differ in their last digits with how many there are, and so would the tables of
    machines and worker processes; and they would wait for threads of ours.
    """
    return threadpool_limits(1, user_api="blas")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call a function on each item, and return the results in the order of the items.

    One thread per core works; called by such a thread itself, it starts no more. It pays where the
    function spends its time in libraries that release the lock of the interpreter, such as NumPy,
    with `one_blas_thread`, and Chroma.
    """
    threads = min(len(items), _MOST_THREADS, _threads())
    if threads < 2 or _SHARES_CORES.get():
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads, initializer=_SHARES_CORES.set, initargs=(True,)) as pool:
        return list(pool.map(function, items))


def _threads() -> int:
    """Count the threads that this process may use, as numerical libraries do."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), max(1, int(given))) if given.isdigit() else cores()


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
