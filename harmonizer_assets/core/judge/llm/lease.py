"""The lease on asking: one process of a home at a time may buy anything from an endpoint.

One run uses the endpoint up to its limits; a second one would only compete for them, and buy
answers that the first is about to have. So whoever asks holds the lease from before it looks up
what is known until what it has bought is stored: runs, submissions to the Batch API, embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Final

from harmonizer_assets.core.base.errors import StoreBusyError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock

_log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 3_600.0
"""Seconds to wait where no setting says it."""

_POLL_SECONDS: Final = 0.2


@asynccontextmanager
async def asking_async(
    home: Home, on_wait: Callable[[], None] | None = None, *, timeout: float = WAIT_SECONDS
) -> AsyncIterator[None]:
    """Hold the lease without blocking the event loop; see `asking`."""
    async with _lock(home, timeout).held_async(_noticed(on_wait)):
        yield


@contextmanager
def asking(
    home: Home, on_wait: Callable[[], None] | None = None, *, timeout: float = WAIT_SECONDS
) -> Iterator[None]:
    """Hold the lease; wait for a process that holds it, and call `on_wait` if there is one.

    Args:
        home: whose lease.
        on_wait: called once when another process holds it.
        timeout: seconds to wait.

    Raises:
        StoreBusyError: it was not released in time; the message names the process.
    """
    with _lock(home, timeout).held(_noticed(on_wait)):
        yield


@contextmanager
def asking_if_idle(home: Home) -> Iterator[bool]:
    """Hold the lease unless another process has it; yield whether it is held."""
    with ExitStack() as stack:
        try:
            stack.enter_context(_lock(home, timeout=0).held())
            is_idle = True
        except StoreBusyError:
            is_idle = False
        yield is_idle


def _lock(home: Home, timeout: float) -> Lock:
    path = home.locks / "judging.lock"
    return Lock(path, "asking a model", timeout=timeout, poll_seconds=_POLL_SECONDS)


def _noticed(on_wait: Callable[[], None] | None) -> Callable[[], None]:
    def noticed() -> None:
        _log.info("another run of this home asks a model: waiting for its lock")
        if on_wait is not None:
            on_wait()

    return noticed
