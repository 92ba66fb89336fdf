"""Say in a few lines what `coverage json -o -` has measured.

coverage json -q -o - | python .ci/coverage_totals.py
"""

from __future__ import annotations

import json
import sys

LISTED = 10


def main() -> None:
    measured = json.load(sys.stdin)
    totals = measured["totals"]
    lines = 100 * totals["covered_lines"] / totals["num_statements"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    print(
        f"Coverage: {lines:.1f} % of {totals['num_statements']:,} lines, {branches:.1f} % of "
        f"{totals['num_branches']:,} branches. Processes that tests start are not measured."
    )
    files = measured["files"].items()
    least = sorted(files, key=lambda file: file[1]["summary"]["percent_covered"])[:LISTED]
    print("Least covered:")
    for name, found in least:
        print(f"  {found['summary']['percent_covered']:5.1f} %  {name}")


if __name__ == "__main__":
    main()
