"""A small home to review: labels alike, a blind sample, and texts that try to break a page."""

from __future__ import annotations

from typing import Any, Final

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LabelKey, label_key
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import Receipts, harmonize

MERCHANTS: Final = ('Trader Joe\'s | "Best" & Co', "<script>alert('shop')</script>", "قهوة 👩‍👩‍👧")
SCRIPT: Final = '<script>document.title="broken"</script>'
MIXED: Final = "שלום \"'>&lt;👩‍👩‍👧\u202e"
POLICY: Final = """
blind_share: 1.0
rules:
  - {name: dates, tier: automatic, label_types: [DATE], agreement: 0.3}
"""
"""All wrong dates are in the blind sample; everything else is answered one by one."""


def review_home(home: Home) -> Pipeline:
    """Fill an empty home: totals that are labelled TIME, or DATE (these are asked blindly)."""
    copy_home(home, "review", _make)
    return Pipeline(home)


def _make(home: Home) -> None:
    receipts = Receipts()
    for number, merchant in enumerate(MERCHANTS):
        for copy in range(8):
            receipts.add_receipt(
                f"im<b>/\"'#?&{number}-{copy}",
                merchant,
                total=f"{10 + copy}.50",
                wrong_total={6: "TIME", 7: "DATE"}.get(copy),
            )
    hostile = {"Thank": SCRIPT, "you": MIXED}
    for word in receipts.words:
        word["text"] = hostile.get(word["text"], word["text"])
    home.review_policy.write_text(POLICY)
    pipeline = Pipeline(home)
    receipts.submit(pipeline, home.scratch / "files")
    harmonize(pipeline)


def queue(pipeline: Pipeline, **chosen: Any) -> list[dict[str, Any]]:
    """The rows of the queue that have these values."""
    condition = " AND ".join(f"{name} = ${name}" for name in chosen) or "true"
    return pipeline.warehouse.query(
        f"FROM review_queue WHERE {condition} ORDER BY {LABEL_COLUMNS}", chosen
    ).to_pylist()


def keys(rows: list[dict[str, Any]]) -> list[LabelKey]:
    return [label_key(row) for row in rows]
