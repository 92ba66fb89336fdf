"""The web UI in headless Chromium, over a home that has been run."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dagster import AssetKey, DagsterInstance
from dagster._core.execution.backfill import BulkActionStatus
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.dagster_compat.instance import open_instance
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts
from harmonizer_tests.support.served import Served, wait_for
from harmonizer_tests.support.web import served_app

pytestmark = pytest.mark.browser

TRAP = "![TOTAL](http://evil.invalid/x.png)"
"""A word of a receipt that would have a careless page load a picture from another host."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A served home: its address and its pipeline."""
    folder = tmp_path_factory.mktemp("site")
    home = Home(folder / "home").ensure()
    before = os.environ.get("HARMONIZER_HOME")
    os.environ["HARMONIZER_HOME"] = str(home.root)
    pipeline = Pipeline(home)
    receipts = shop_receipts(["Trader Joe's", "日本 <b>Shop</b>"])
    for word in receipts.words:
        if word["text"] == "TOTAL":
            word["text"] = TRAP
    receipts.submit(pipeline, folder)
    run_pipeline(pipeline.home, OFFLINE, log_level="CRITICAL")
    served = Served(home, folder / "ui.log", impatient=True)
    try:
        served.start()
        yield served.address, pipeline
    finally:
        served.stop()
        os.environ.pop("HARMONIZER_HOME")
        if before is not None:
            os.environ["HARMONIZER_HOME"] = before


@pytest.fixture(scope="module")
def context(browser):
    """What a person's browser keeps between pages: the programs of the web UI are large."""
    return browser.new_context(viewport={"width": 1500, "height": 950})


@pytest.fixture
def page(site, context):
    hosts: set[str] = set()

    def note(request):
        hosts.add(urlsplit(request.url).netloc)

    context.on("request", note)
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    for opened in context.pages:
        opened.close()
    context.remove_listener("request", note)
    # Pictures are inside the page: their addresses name no host.
    assert {host.partition(":")[0] for host in hosts} <= {"127.0.0.1", ""}


def screenshot(page, name: str) -> None:
    """Keep a picture where the environment asks for it."""
    folder = os.environ.get("HARMONIZER_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(1_500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_the_graph_shows_the_way_from_words_to_outliers(site, page):
    page.goto(f"{site[0]}/assets/outliers?view=lineage&lineageScope=upstream&lineageDepth=5")
    for asset in ("words", "labels", "word_embeddings", "similarity_matches", "llm_verdicts"):
        page.get_by_text(asset, exact=True).first.wait_for()
    screenshot(page, "graph")


def test_the_partitions_page_shows_exactly_the_computed_partitions_as_materialized(site, page):
    held = len(site[1].partitions.held())
    page.goto(f"{site[0]}/assets/outliers?view=partitions")
    page.get_by_text(f"Materialized ({held})").wait_for()
    page.get_by_text(merchant_key("Trader Joe's")).first.wait_for()
    page.get_by_text(re.compile("Failed .0.")).wait_for()
    screenshot(page, "partitions")


def test_a_partition_shows_its_counts_and_worst_outliers(site, page):
    key = f"DATE|{merchant_key('日本 <b>Shop</b>')}"
    page.goto(f"{site[0]}/assets/outliers?view=partitions&partition={key}")
    for text in ("labels", "outlier_rate", "seconds", "summary"):
        page.get_by_text(text, exact=True).first.wait_for()
    screenshot(page, "partition")


def test_the_checks_of_the_last_run_are_shown_as_passed(site, page):
    page.goto(f"{site[0]}/assets/outliers?view=checks")
    for check in ("counts_reconcile", "unresolved_share", "all_partitions_current"):
        page.get_by_text(check).first.wait_for()
    assert page.get_by_text("Succeeded").count() >= 3
    screenshot(page, "checks")


def test_the_runs_of_the_command_line_are_shown_as_successes(site, page):
    page.goto(f"{site[0]}/runs")
    for job in ("harmonize_arrivals", "check_labels"):
        page.get_by_text(job).first.wait_for()
    with open_instance(site[1].home) as instance:
        assert len(instance.get_runs()) == 2
    screenshot(page, "runs")


def choose(page, dialog, dimension: int, name: str) -> None:
    """Select one partition of a dimension in Dagster's dialog."""
    dialog.get_by_text("Select a partition or create one").nth(dimension).click()
    page.get_by_role("menu").locator("span", has_text=name).first.click()
    page.keyboard.press("Escape")


def materializations(instance: DagsterInstance, asset: str, key: str) -> int:
    records = instance.fetch_materializations(AssetKey(asset), limit=1_000).records
    return sum(record.partition_key == key for record in records)


def test_a_partition_is_materialized_from_the_ui(site, page):
    shop = merchant_key("Trader Joe's")
    with open_instance(site[1].home) as instance:
        before = materializations(instance, "outliers", f"DATE|{shop}")
        page.goto(f"{site[0]}/assets/outliers?view=partitions")
        page.get_by_role("button", name="Materialize").first.click()
        dialog = page.get_by_role("dialog")
        choose(page, dialog, 1, shop[:10])
        choose(page, dialog, 0, "DATE")
        screenshot(page, "materialize")
        dialog.get_by_role("button", name="Launch 1 run").click()
        wait_for(lambda: materializations(instance, "outliers", f"DATE|{shop}") == before + 1)


def test_a_backfill_of_one_label_type_is_launched_and_finishes(site, page):
    shops = {partition.merchant_key for partition in site[1].partitions.held()}
    with open_instance(site[1].home) as instance:
        before = {shop: materializations(instance, "outliers", f"TIME|{shop}") for shop in shops}
        page.goto(f"{site[0]}/assets/outliers?view=lineage&lineageScope=upstream&lineageDepth=2")
        page.get_by_role("button", name="Materialize all").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="All").nth(1).click()
        choose(page, dialog, 0, "TIME")
        dialog.get_by_role("button", name=re.compile("Launch")).click()
        wait_for(lambda: bool(instance.get_backfills()))
        [backfill] = instance.get_backfills()
        wait_for(
            lambda: (
                instance.get_backfill(backfill.backfill_id).status
                == BulkActionStatus.COMPLETED_SUCCESS
            )
        )
        after = {shop: materializations(instance, "outliers", f"TIME|{shop}") for shop in shops}
        assert after == {shop: count + 1 for shop, count in before.items()}
        page.goto(f"{site[0]}/runs/b/{backfill.backfill_id}")
        page.get_by_text("Completed").first.wait_for()
        screenshot(page, "backfill")


def test_the_story_of_a_run_is_told_by_numbers_and_pictures(site, page):
    page.goto(f"{site[0]}/assets/harmonization_report")
    for name in ("labels", "outliers", "asked", "cached", "cost_usd", "seconds"):
        page.get_by_text(name, exact=True).first.wait_for()
    for picture in ("similarity_distribution", "heat_map", "cost_against_finds"):
        row = page.locator("tr", has=page.get_by_text(picture, exact=True))
        row.get_by_text("[Show Markdown]").click()
        image = page.get_by_role("dialog").locator("img")
        image.wait_for()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200
        screenshot(page, picture)
        page.keyboard.press("Escape")
        image.wait_for(state="detached")


def test_the_numbers_of_runs_are_plotted(site, page):
    run_pipeline(site[1].home, replace(OFFLINE, refresh=True), log_level="CRITICAL")
    page.goto(f"{site[0]}/assets/harmonization_report")
    page.get_by_text("Plots", exact=True).click()
    page.locator("canvas").first.wait_for()
    assert page.locator("canvas").count() >= 6
    screenshot(page, "plots")


def test_the_review_page_is_served_under_the_same_address(site, page):
    page.goto(f"{site[0]}/review/")
    page.keyboard.type("ann")
    page.keyboard.press("Enter")
    page.get_by_text("labels are open").wait_for()
    page.keyboard.press("Enter")
    page.get_by_text("Is this label right?").wait_for()


def test_text_of_receipts_is_shown_as_it_is_and_loads_nothing(site, page):
    page.goto(f"{site[0]}/assets/harmonization_report")
    row = page.locator("tr", has=page.get_by_text("summary", exact=True))
    row.get_by_text(TRAP).first.wait_for()
    assert page.locator("img[src*=evil], a[href*=evil]").count() == 0
    screenshot(page, "summary")


def test_the_report_opens_from_its_link(site, page):
    page.goto(f"{site[0]}/assets/harmonization_report")
    with page.context.expect_page() as opened:
        page.get_by_text(re.compile(r"^/reports/[0-9a-f-]+\.html$")).click()
    opened.value.get_by_role("heading", name="Harmonization report").wait_for()
    page.goto(f"{site[0]}/reports/")
    page.get_by_role("link", name="latest").click()
    page.get_by_role("heading", name="Harmonization report").wait_for()


ATTACK = """
async (target) => {
    const mutation = "mutation { wipeAssets(assetPartitionRanges: []) { __typename } }";
    const body = JSON.stringify({query: mutation});
    const get = `${target}/graphql?query=${encodeURIComponent(mutation)}`;
    const tries = {
        get: () => fetch(get),
        blind_get: () => fetch(get, {mode: "no-cors"}),
        json: () => fetch(`${target}/graphql`, {
            method: "POST", body, headers: {"Content-Type": "application/json"}
        }),
        text: () => fetch(`${target}/graphql`, {method: "POST", body}),
        blind_text: () => fetch(`${target}/graphql`, {method: "POST", body, mode: "no-cors"}),
        report: () => fetch(`${target}/reports/latest.html`),
        socket: () => new Promise((resolve, reject) => {
            const socket = new WebSocket(`${target.replace("http", "ws")}/graphql`, "graphql-ws");
            socket.onopen = () => resolve({type: "open"});
            socket.onerror = () => reject(new Error("closed"));
        }),
        frame: () => new Promise((resolve) => {
            const frame = document.createElement("iframe");
            frame.src = target;
            frame.onload = () => resolve({type: frame.contentWindow.length ? "shown" : "empty"});
            document.body.append(frame);
        }),
    };
    const found = {};
    for (const name in tries) {
        try { found[name] = (await tries[name]()).type; } catch (error) { found[name] = "refused"; }
    }
    return found;
}
"""


def test_a_page_of_another_origin_gets_nothing_from_the_web_ui_and_changes_nothing(site, page):
    answers = {}

    def note(response):
        if response.url.startswith(site[0]):
            answers.setdefault(response.status, []).append(response.url)

    with served_app(Starlette(routes=[Route("/", lambda _: HTMLResponse("<p>evil</p>"))])) as port:
        page.goto(f"http://127.0.0.1:{port}/")
        page.on("response", note)
        found = page.evaluate(ATTACK, site[0])
    assert found == {
        "get": "refused",
        "blind_get": "refused",
        "json": "refused",
        "text": "refused",
        "blind_text": "refused",
        "report": "refused",
        "socket": "refused",
        "frame": "empty",
    }
    assert set(answers) == {403}
