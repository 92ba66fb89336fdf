from __future__ import annotations

import html.parser
import os
import shutil
import uuid
from collections import Counter
from pathlib import Path

import pytest
from dagster import DagsterInstance, materialize

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.report.page import KEPT, publish_report
from harmonizer_assets.defs.assets.publish import publish
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_assets.web.links import report_link
from harmonizer_tests.support.chromium import FLAGS, chromium
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import Receipts, harmonize, shop_receipts, table

EVIL = "<script>alert(1)</script> \"A\" & 'B' | 🛒 \x1b[31m"


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def written(pipeline: Pipeline) -> Path:
    """The file of a report of the tables as they are."""
    return pipeline.publication.write_report()


@pytest.fixture
def reported(home, tmp_path):
    def make(fresh):
        receipts = shop_receipts(("Alpha Mart", EVIL, "Gamma's"), each=8)
        for word in receipts.words:
            if word["text"] == "TOTAL":
                word["text"] = "<b>TOTAL</b>"
        pipeline = Pipeline(fresh)
        receipts.submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "texts with markup", make)
    return Pipeline(home)


def test_the_page_shows_totals_heat_map_findings_and_every_outlier_with_its_reason(reported):
    page = Page(reported.publish("run-1").report.read_text(encoding="utf-8"))
    counts = reported.tables.counts()
    assert f"{counts.labels}labels" in page.text.replace("\n", "")
    assert f"{counts.outliers}outliers" in page.text.replace("\n", "")
    for row in table(reported, "outliers"):
        assert row["reasoning"] in page.text
        assert row["line"] in page.text
    for row in table(reported, "findings"):
        assert row["sentence"] in page.text
    assert reported.score.guarantee() in page.text
    assert "run run-1" in page.text


def test_texts_of_receipts_are_shown_and_never_obeyed(reported):
    content = written(reported).read_text(encoding="utf-8")
    page = Page(content)
    assert page.tags["script"] == 0
    assert page.tags["b"] == 3 + len({*reported.tables.decided_by()} - {"unresolved"})
    assert page.handlers == []
    assert "<script>alert(1)</script>" in page.text
    assert "<b>TOTAL</b>" in page.text
    assert "\x1b" not in content


def test_the_page_loads_nothing(reported):
    content = written(reported).read_text(encoding="utf-8")
    assert Page(content).addresses == []
    assert "default-src 'none'" in content
    assert "url(" not in content


def test_a_home_without_outliers_has_a_page_too(pipeline, tmp_path):
    receipts = Receipts()
    receipts.add_receipt("single", "Alpha")
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    page = Page(written(pipeline).read_text(encoding="utf-8"))
    assert "12labels" in page.text.replace("\n", "")


def test_a_run_keeps_its_page_and_the_latest_is_found_under_one_name(reported):
    folder = reported.home.reports
    shutil.rmtree(folder)
    first = reported.publish("a").report
    second = reported.publish("b").report
    assert {file.name for file in folder.glob("*.html")} == {"a.html", "b.html", "latest.html"}
    assert (folder / "latest.html").read_bytes() == second.read_bytes() != first.read_bytes()


PAGE = "<!DOCTYPE html><title>Harmonization report, today</title>"


def test_the_pages_of_many_runs_do_not_pile_up_and_other_files_stay(home, tmp_path):
    home.reports.mkdir()
    mine = {"notes.html", "march.html", "20200101T000000.html", "20200101T000000 copy.html"}
    for name in mine:
        (home.reports / name).write_text("mine" if name.startswith("2020") else PAGE)
        os.utime(home.reports / name, (0, 0))
    (tmp_path / "elsewhere.html").write_text(PAGE)
    (home.reports / "20200102T000000.html").symlink_to(tmp_path / "elsewhere.html")
    runs = [str(uuid.UUID(int=number)) for number in range(KEPT + 3)]
    runs += [uuid.UUID(int=1_000).hex, "20261126T104227"]
    for run in runs:
        publish_report(home, PAGE, run)
    kept = {file.name for file in home.reports.glob("*.html")}
    ours = {f"{run}.html" for run in runs[-KEPT:]}
    assert kept == ours | mine | {"latest.html", "20200102T000000.html"}
    assert (tmp_path / "elsewhere.html").exists()


def test_another_folder_gets_one_page_and_loses_nothing(reported, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    for number in range(KEPT + 5):
        (out / f"{uuid.UUID(int=number)}.html").write_text(PAGE)
    (out / "latest.html").write_text("mine")
    before = {path.name: path.read_text() for path in out.iterdir()}
    written = reported.publication.write_report(folder=out)
    after = {path.name: path.read_text() for path in out.iterdir()}
    assert after.keys() - before.keys() == {written.name}
    assert {name: after[name] for name in before} == before


def test_a_folder_that_cannot_be_written_is_named(reported, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(StoreError, match="taken: the report cannot be written"):
        reported.publication.write_report(folder=taken)


def test_the_asset_links_the_page(reported):
    result = materialize(
        [publish],
        selection=["harmonization_report"],
        resources={"home": HomeResource()},
        instance=DagsterInstance.ephemeral(),
    )
    [event] = result.get_asset_materialization_events()
    file = reported.home.reports / f"{result.run_id}.html"
    assert event.materialization.metadata["report"].value == str(file)
    link = event.materialization.metadata["open"].value
    assert link == report_link(file)
    assert link.endswith(f"/{file.name}")
    assert file.exists()


def test_the_command_line_says_where_the_page_lies(reported, tmp_path):
    result = cli("report", "--out", tmp_path / "out", home=reported.home.root)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().startswith(str(tmp_path / "out"))
    assert [str(path) for path in (tmp_path / "out").iterdir()] == [result.stdout.strip()]


@pytest.mark.browser
def test_a_browser_shows_the_page_without_any_request_or_error(reported):
    executable = chromium()
    from playwright.sync_api import sync_playwright

    file = written(reported)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page()
        requested: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.goto(file.as_uri())
        assert page.get_by_role("heading", name="Harmonization report").is_visible()
        heat = page.locator(".heat td.cell[title]").first
        assert heat.is_visible()
        assert requested == [file.as_uri()]
        assert complaints == []
        browser.close()
