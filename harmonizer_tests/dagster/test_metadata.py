from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harmonizer_assets.core.records.partition import PartitionKey
from harmonizer_assets.core.records.reports import PartitionResult
from harmonizer_assets.web.metadata import code_span, partition_metadata, summary

PLOTTED = {"labels", "outliers", "asked", "cached", "cost_usd", "seconds"}


def result(**given) -> PartitionResult:
    return PartitionResult(
        PartitionKey("DATE", "alpha"), 4, True, "v1", {"outlier": 1, "unresolved": 1}, **given
    )


def test_every_partition_has_the_numbers_that_plot_also_where_no_model_was_asked():
    shown = partition_metadata(result())
    assert {name: shown[name] for name in PLOTTED} == {
        "labels": 4,
        "outliers": 1,
        "asked": 0,
        "cached": 0,
        "cost_usd": 0.0,
        "seconds": 0.0,
    }
    unasked = partition_metadata(result(), asked=False)
    assert {name for name in PLOTTED if name not in unasked} == {"asked", "cached", "cost_usd"}
    paid = partition_metadata(
        result(metrics={"words_asked": 3, "cache_hits": 2, "cost_usd": 0.25, "calls": 1})
    )
    assert (paid["asked"], paid["cached"], paid["cost_usd"], paid["calls"]) == (3, 2, 0.25, 1)


def test_a_cost_that_is_not_known_is_not_shown_as_nothing():
    shown = partition_metadata(result(metrics={"words_asked": 3, "calls": 1}))
    assert shown["cost_usd"] == "unknown: no price for this model"


def test_the_summary_shows_the_worst_outliers_in_their_lines():
    shown = summary(
        "4 labels", [{"line": "TOTAL [12.50]", "reasoning": "it looks like GRAND_TOTAL"}]
    ).value
    assert "TOTAL [12.50]" in shown
    assert "it looks like GRAND_TOTAL" in shown


@given(st.text())
def test_whatever_a_receipt_says_is_one_code_span_of_it(text):
    [paragraph] = [
        token for token in MarkdownIt().parse(f"- x {code_span(text)}") if token.type == "inline"
    ]
    kinds = [child.type for child in paragraph.children or []]
    assert kinds == ["text", "code_inline"]
