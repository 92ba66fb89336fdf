"""Libraries that take long to import, imported while something else waits."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence


def preload(modules: Sequence[str]) -> threading.Thread:
    """Import modules in a thread of their own.

    Whoever imports one of them meanwhile waits for the thread, as Python does it for any import;
    one that cannot be imported fails there, where it is used.

    Returns:
        The thread, which has started.
    """
    thread = threading.Thread(target=_load, args=(tuple(modules),), name="preload")
    thread.start()
    return thread


def _load(modules: Sequence[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except (ImportError, RuntimeError):  # the latter when the process ends meanwhile
            return
