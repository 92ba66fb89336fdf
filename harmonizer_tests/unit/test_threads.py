"""Threads share the cores."""

import threading
import time

import pytest

from harmonizer_assets.core.base import threads
from harmonizer_assets.core.base.threads import in_threads


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(threads, "_threads", lambda: 3)


def test_results_come_in_the_order_of_the_items_whichever_is_ready_first():
    waits = [0.05, 0.0, 0.02, 0.0]

    def after(wait):
        time.sleep(wait)
        return wait

    assert in_threads(after, waits) == waits


def test_all_threads_work_at_once():
    together = threading.Barrier(3, timeout=10.0)
    in_threads(lambda _: together.wait(), range(3))


def test_a_thread_that_shares_the_cores_starts_no_more():
    def own_threads(_):
        return {threading.get_ident(), *in_threads(lambda _: threading.get_ident(), range(6))}

    assert [len(used) for used in in_threads(own_threads, range(6))] == [1] * 6
    # The thread that has started them may do so again.
    assert len(own_threads(None) - {threading.get_ident()}) > 0


def test_the_first_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / number, [2, 1, 0])
