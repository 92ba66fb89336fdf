"""Signals whose exception comes where it is dropped."""

from __future__ import annotations

import os


class DroppedSignal:
    """Sends a signal to this process when it is destroyed.

    What the handler raises then is dropped by the interpreter.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
