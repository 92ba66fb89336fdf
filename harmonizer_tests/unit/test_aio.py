"""Waiting that can be cancelled at any moment."""

from __future__ import annotations

import asyncio

import pytest

from harmonizer_assets.core.base.aio import wait_for_event


@pytest.mark.parametrize("ticks", range(5))
def test_a_cancellation_in_the_moment_of_the_event_is_not_lost(ticks):
    async def cancelled() -> bool:
        event = asyncio.Event()

        async def waits() -> None:
            while True:
                event.clear()
                await wait_for_event(event, 1.0)

        task = asyncio.create_task(waits())
        await asyncio.sleep(0.01)
        event.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=0.2)
        return bool(done) and task.cancelled()

    assert asyncio.run(cancelled())


def test_waiting_ends_when_the_time_is_over():
    asyncio.run(wait_for_event(asyncio.Event(), 0.01))
