from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.results import PartitionResult
from harmonizer_assets.metadata import code_span, partition_metadata, summary
from harmonizer_assets.ui import DEFAULT_PORT, report_address, serve_reports

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


@pytest.fixture
def reports(home):
    home.reports.mkdir()
    (home.reports / "run-1.html").write_text("<p>first</p>")
    (home.reports / "latest.html").write_text("<p>latest</p>")
    (home.reports / "secret.txt").write_text("no report")
    server = serve_reports(home)
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def fetch(address: str, **headers: str) -> str:
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def test_reports_are_served_where_their_links_point(home, reports):
    assert report_address(home, home.reports / "run-1.html") == f"{reports}run-1.html"
    assert fetch(f"{reports}run-1.html") == "<p>first</p>"
    assert fetch(reports) == "<p>latest</p>"


@pytest.mark.parametrize(
    "path", ["secret.txt", ".address", "../harmonizer.toml", "%2e%2e/harmonizer.duckdb", "x.html"]
)
def test_nothing_but_reports_is_served(reports, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(reports + path)


def test_a_page_that_comes_through_a_foreign_name_is_refused(reports):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetch(reports, Host="evil.invalid")


def test_before_the_ui_has_run_a_report_is_linked_where_it_will_be_served_by_default(home):
    page = home.reports / "run-1.html"
    assert report_address(home, page) == f"http://127.0.0.1:{DEFAULT_PORT + 1}/run-1.html"
