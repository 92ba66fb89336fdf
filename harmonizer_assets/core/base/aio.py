"""Asynchronous iteration from synchronous code, and waiting that can be cancelled."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from harmonizer_assets.core.base.errors import RunStoppedError

T = TypeVar("T")

_SECONDS_BETWEEN_LOOKS: Final = 0.1
"""Longest time between setting `stop` and noticing it."""


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def iterate(
    make: Callable[[], AsyncGenerator[T]], stop: threading.Event | None = None
) -> Generator[T]:
    """Run an asynchronous generator on an event loop in a thread of its own; yield its items.

    The generator goes on while the caller is busy with an item. Closing the iterator, or an
    exception such as KeyboardInterrupt in the caller, cancels it and waits for its clean-up.

    Args:
        make: makes the generator.
        stop: cancels the generator when it is set, from any thread.

    Raises:
        RunStoppedError: `stop` was set.
        Exception: whatever the generator raises.
    """
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()

    async def drain() -> None:
        async with aclosing(make()) as generator:
            async for item in generator:
                items.put(item)

    task = loop.create_task(drain())

    def run() -> None:
        error: BaseException | None = None
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except BaseException as raised:
            error = raised
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            items.put(_End(error))

    thread = threading.Thread(target=run, name="harmonizer-asyncio", daemon=True)
    thread.start()
    try:
        while not isinstance(item := _next_item(items, stop), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        # A generator that has ended has closed the loop.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _next_item(items: queue.SimpleQueue[Any], stop: threading.Event | None) -> Any:
    if stop is None:
        return items.get()
    while not stop.is_set():
        with suppress(queue.Empty):
            return items.get(timeout=_SECONDS_BETWEEN_LOOKS)
    raise RunStoppedError("stopped; what is finished is kept, run again to go on")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run synchronous work in a thread; when the caller is cancelled, stop it and wait for its end.

    Args:
        work: takes an event; it must end soon after the event is set.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the work has ended by then.
        Exception: whatever the work raises.
    """
    stop = threading.Event()
    return await to_end(partial(work, stop), stop.set)


async def to_end(work: Callable[[], T], on_cancel: Callable[[], object] | None = None) -> T:
    """Run synchronous work in a thread, to its end: a caller that is cancelled waits for it.

    `asyncio.to_thread` leaves the thread alone with its work when the caller is cancelled, so that
    locks which the caller holds are released too early.

    Args:
        work: what is run.
        on_cancel: called when the caller is cancelled, before its end is waited for.

    Raises:
        asyncio.CancelledError: the caller was cancelled; the work has ended by then.
        Exception: whatever the work raises.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            # Read, so that asyncio does not report an exception as never retrieved.
            task.exception()
        raise


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, for at most `seconds`.

    Until Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the same moment as
    the event (python/cpython#86296).
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
