"""Interrupts stay interrupts, whatever comes of them on the way out."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from harmonizer_assets.cli import signals, terminal
from harmonizer_assets.cli.signals import interrupted, interrupts, interrupts_ignored
from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.interrupts import interrupts_raised
from harmonizer_assets.core.base.progress import Progress
from harmonizer_assets.core.base.secrets import secrets_removed, translated

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
