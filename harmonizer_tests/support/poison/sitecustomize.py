"""Has workers fail, hang, crash or dawdle at units; Python loads it where it is on the path.

`HARMONIZER_TEST_POISON` is a JSON list of `{"how": "raise" | "crash" | "hang" | "sleep",
"merchant": KEY or null for all, "seconds": of the sleep}`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

poisons: list[dict[str, Any]] = json.loads(os.environ.get("HARMONIZER_TEST_POISON") or "[]")


def act(poison: dict[str, Any]) -> None:
    if poison["how"] == "raise":
        raise ValueError("a spoiled word")
    if poison["how"] == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3_600 if poison["how"] == "hang" else poison["seconds"])


if poisons:
    from harmonizer_assets.core.units import compute

    stages = compute._STAGES

    def poisoned(name: str) -> Any:
        score = stages[name]

        def compute_or_fail(bundle: Any, shared: Any) -> Any:
            merchants = set(bundle.tables["labels"]["merchant_key"].to_pylist())
            for poison in poisons:
                if poison["merchant"] is None or poison["merchant"] in merchants:
                    act(poison)
            return score(bundle, shared)

        return compute_or_fail

    stages.update({name: poisoned(name) for name in stages})
