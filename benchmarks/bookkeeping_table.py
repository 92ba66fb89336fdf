"""Print what `python -m benchmarks.bookkeeping --json FILE` has measured as a table.

python -m benchmarks.bookkeeping_table FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

BASELINE: Final = "stock SQLite"
OF_ALL: Final = ("status_cold_ms", "status_warm_ms")
"""Of all partitions together, so comparable only between equal numbers of them."""
MEASURES: Final = ("report_ms", "range_ms", *OF_ALL)


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """A table of all measurements; in brackets the ratio to the baseline of the same size."""
    lines = [
        "| event log | partitions | report, ms each | range run, ms each | status cold, ms "
        "| status warm, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        if "not_measured" in result:
            cells = [f"not measured: {result['not_measured']}", "", "", ""]
        else:
            cells = [_cell(result, name, results) for name in MEASURES]
        lines.append(f"| {result['storage']} | {result['partitions']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(result: dict[str, Any], measure: str, results: Sequence[dict[str, Any]]) -> str:
    """A figure, its ratio to the baseline's, and over how many partitions if not over all."""
    text = f"{result[measure]:,}"
    for other in results:
        if (
            (other["storage"], other["partitions"]) == (BASELINE, result["partitions"])
            and "not_measured" not in other
            and (
                measure not in OF_ALL
                or _measured_over(other, measure) == _measured_over(result, measure)
            )
        ):
            text += f" ({result[measure] / other[measure]:.2g}x)"
    if _measured_over(result, measure) != result["partitions"]:
        text += f" [over {_measured_over(result, measure):,}]"
    return text


def _measured_over(result: dict[str, Any], measure: str) -> int:
    return int(result["range_partitions" if measure == "range_ms" else "report_partitions"])


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
