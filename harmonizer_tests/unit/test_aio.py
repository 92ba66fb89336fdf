"""Waiting that can be cancelled at any moment, and work in threads that is not left alone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from harmonizer_assets.core.base.aio import to_end, wait_for_event


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


def test_a_caller_that_is_cancelled_waits_until_the_work_in_its_thread_has_ended():
    began, released, steps = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        began.set()
        released.wait(10)
        steps.append("work ended")

    async def caller() -> None:
        try:
            await to_end(work, on_cancel=lambda: steps.append("told"))
        finally:
            steps.append("caller ended")

    async def cancelled() -> None:
        task = asyncio.create_task(caller())
        await asyncio.to_thread(began.wait)
        task.cancel()
        await asyncio.sleep(0.05)
        assert steps == ["told"]
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert steps == ["told", "work ended", "caller ended"]


def test_work_in_a_thread_gives_its_result_or_raises_its_error():
    assert asyncio.run(to_end(lambda: 1)) == 1
    with pytest.raises(KeyError):
        asyncio.run(to_end(lambda: {}["absent"]))
