"""A process that works on the units that it is told by line; see `executors.processes`.

It reads names of units on stdin and answers each with its outcome on stdout, until stdin ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from harmonizer_assets.core.base.errors import HarmonizerError
from harmonizer_assets.core.base.memory import keep_free_memory
from harmonizer_assets.core.base.secrets import redacted
from harmonizer_assets.core.store.objects import open_store
from harmonizer_assets.core.units.executors.processes import READY
from harmonizer_assets.core.units.store import UnitStore
from harmonizer_assets.core.units.work import Work


def main(url: str, attempts: str, seconds: str, endpoint_url: str) -> None:
    """Work until stdin ends."""
    # The process that started this one is interrupted as well, and ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Failures are in the store; the terminal belongs to the run.
    logging.getLogger("harmonizer_assets").setLevel(logging.ERROR)
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    keep_free_memory()
    store = UnitStore(open_store(url, endpoint_url or None))
    work = Work(store, int(attempts), float(seconds))
    print(READY, file=answers)
    for line in sys.stdin:
        try:
            answer = str(work.attempt(line.strip()))
        except HarmonizerError as error:
            answer = redacted(" ".join(str(error).split()))
        print(answer, file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
