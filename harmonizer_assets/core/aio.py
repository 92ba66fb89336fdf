"""Asynchronous iteration from synchronous code, and waiting that can be cancelled."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def iterate(make: Callable[[], AsyncGenerator[T]]) -> Generator[T]:
    """Run an asynchronous generator on an event loop in a thread of its own; yield its items.

    The generator goes on while the caller is busy with an item. Closing the iterator, or an
    exception such as KeyboardInterrupt in the caller, cancels it and waits for its clean-up.

    Raises:
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
        while not isinstance(item := items.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)
        thread.join()


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, but not longer than this.

    Until Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the same moment as
    the event (python/cpython#86296).
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
