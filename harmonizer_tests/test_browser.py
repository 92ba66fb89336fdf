"""The web UI in headless Chromium, over a home that has been run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.instance import open_instance
from harmonizer_assets.runs import run_pipeline
from harmonizer_tests.receipts import shop_receipts

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A served home: its address and its harmonizer."""
    folder = tmp_path_factory.mktemp("site")
    home = Home(folder / "home").ensure()
    before = os.environ.get("HARMONIZER_HOME")
    os.environ["HARMONIZER_HOME"] = str(home.root)
    harmonizer = Harmonizer(home)
    shop_receipts(["Trader Joe's", "日本 <b>Shop</b>"]).submit(harmonizer, folder)
    run_pipeline(harmonizer, judge="offline", log_level="CRITICAL")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "harmonizer_assets.cli", "--home", str(home.root), "ui"]
    log = (folder / "ui.log").open("w")
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdout=log,
        stderr=log,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/server_info", timeout=2).read()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (folder / "ui.log").read_text()
                time.sleep(0.5)
        yield address, harmonizer
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
        if before is not None:
            os.environ["HARMONIZER_HOME"] = before


@pytest.fixture
def page(site):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        yield page
        browser.close()
        assert hosts <= {site[0].removeprefix("http://")}


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
    held = len(site[1].partitions())
    page.goto(f"{site[0]}/assets/outliers?view=partitions")
    page.get_by_text(f"Materialized ({held})").wait_for()
    page.get_by_text(merchant_key("Trader Joe's")).first.wait_for()
    page.get_by_text(re.compile("Failed .0.")).wait_for()
    screenshot(page, "partitions")


def test_a_partition_shows_its_counts_and_worst_outliers(site, page):
    key = f"DATE|{merchant_key('日本 <b>Shop</b>')}"
    page.goto(f"{site[0]}/assets/outliers?view=partitions&partition={key}")
    for text in ("labels", "outlier_rate", "worst_outliers", "fingerprint"):
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
    for job in ("ingest_and_index", "harmonize_partitions", "check_labels"):
        page.get_by_text(job).first.wait_for()
    with open_instance(site[1].home) as instance:
        assert len(instance.get_runs()) == 3
    screenshot(page, "runs")
