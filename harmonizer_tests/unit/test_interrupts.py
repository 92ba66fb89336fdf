"""Interrupts stay interrupts, whatever comes of them on the way out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from harmonizer_assets.cli import signals, terminal
from harmonizer_assets.cli.signals import interrupted, interrupts, interrupts_ignored
from harmonizer_assets.core.base.errors import RunStoppedError, StoreError
from harmonizer_assets.core.base.interrupts import interrupts_raised, stopped_by_signals
from harmonizer_assets.core.base.progress import Progress
from harmonizer_assets.core.base.secrets import secrets_removed, translated
from harmonizer_tests.support.signals import DroppedSignal

PROGRESS = Progress("judge", 0, 0, 1, 2)


@pytest.fixture
def handlers():
    """The handlers of signals are those of before when the test ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def failing_on_the_way_out() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise ValueError("cannot be closed")


def wrapped() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as interrupt:
        raise RuntimeError("a callback failed") from interrupt


@pytest.mark.parametrize("fail", [failing_on_the_way_out, wrapped])
@pytest.mark.parametrize(
    "block", [interrupts_raised, secrets_removed, lambda: translated(lambda e: StoreError(str(e)))]
)
def test_an_error_that_has_come_of_an_interrupt_is_the_interrupt(fail, block):
    with pytest.raises(KeyboardInterrupt), block():
        fail()


def test_a_time_out_that_has_come_of_a_cancelled_task_is_a_time_out():
    with pytest.raises(TimeoutError), interrupts_raised():
        raise TimeoutError from asyncio.CancelledError()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_work_that_goes_on_after_a_lost_signal_is_ended_and_tells_no_more(
    handlers, monkeypatch, capfd, number, code
):
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0.0)
    with interrupts() as noted, terminal.terminal_progress() as shown:
        shown(PROGRESS)
        assert "judge" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert interrupted()
        shown(PROGRESS)
        shown(PROGRESS)
        monkeypatch.setattr(signals, "SECONDS_TO_END", -1.0)
        with pytest.raises(KeyboardInterrupt):
            shown(PROGRESS)
        shown(PROGRESS)  # what is done to end in good order
        assert capfd.readouterr().err == ""
        assert noted.exit_code() == code
    assert not interrupted()


def work_that_drops(number: int) -> None:
    with stopped_by_signals() as stop:
        assert not stop.is_set()
        dropped = DroppedSignal(number)
        del dropped
        if stop.wait(timeout=30):
            raise RunStoppedError("stopped")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_was_dropped_stops_the_work_and_is_noted_outside(handlers, number):
    with interrupts() as noted:
        with pytest.raises(KeyboardInterrupt):
            work_that_drops(number)
        assert noted.exit_code() == 128 + number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert noted.came()


def work_that_the_caller_stops() -> None:
    with stopped_by_signals() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not stop.wait(timeout=0.2)
        raise RunStoppedError("stopped by the caller")


def test_other_signals_stop_nothing_and_a_stop_of_the_caller_is_none_of_a_signal():
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with pytest.raises(RunStoppedError):
            work_that_the_caller_stops()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_work_in_a_thread_is_stopped_by_no_signal():
    def work() -> bool:
        with stopped_by_signals() as stop:
            return stop.is_set()

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result() is False


@pytest.mark.usefixtures("handlers")
def test_what_is_done_to_end_is_not_disturbed_and_processes_that_it_starts_can_be_ended():
    with interrupts_ignored():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        with subprocess.Popen(["sleep", "60"]) as process:
            process.terminate()
            assert process.wait(timeout=30) == -signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
