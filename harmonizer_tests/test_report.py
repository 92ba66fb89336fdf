from __future__ import annotations

import html.parser
import shutil
from collections import Counter

import pytest
from dagster import DagsterInstance, materialize

from harmonizer_assets.assets.report import harmonization_report
from harmonizer_assets.core.errors import StoreError
from harmonizer_assets.core.report import KEPT, write_report
from harmonizer_assets.resources import HarmonizerResource
from harmonizer_assets.ui import report_address
from harmonizer_tests.receipts import Receipts, harmonize, shop_receipts, table
from harmonizer_tests.test_browser import CHROMIUM, FLAGS
from harmonizer_tests.test_cli import cli

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


@pytest.fixture
def reported(harmonizer, tmp_path):
    receipts = shop_receipts(("Alpha Mart", EVIL, "Gamma's"), each=8)
    for word in receipts.words:
        if word["text"] == "TOTAL":
            word["text"] = "<b>TOTAL</b>"
    receipts.submit(harmonizer, tmp_path / "files")
    harmonize(harmonizer)
    harmonizer.update_receipt_alarms()
    harmonizer.update_patterns()
    return harmonizer


def test_the_page_shows_totals_heat_map_findings_and_every_outlier_with_its_reason(reported):
    page = Page(reported.write_report("run-1").read_text(encoding="utf-8"))
    counts = reported.counts()
    assert f"{counts.labels}labels" in page.text.replace("\n", "")
    assert f"{counts.outliers}outliers" in page.text.replace("\n", "")
    for row in table(reported, "outliers"):
        assert row["reasoning"] in page.text
        assert row["line"] in page.text
    for row in table(reported, "findings"):
        assert row["sentence"] in page.text
    assert reported.guarantee() in page.text
    assert "run run-1" in page.text


def test_texts_of_receipts_are_shown_and_never_obeyed(reported):
    content = reported.write_report().read_text(encoding="utf-8")
    page = Page(content)
    assert page.tags["script"] == 0
    assert page.tags["b"] == 3 + len({*reported.decided_by()} - {"unresolved"})
    assert page.handlers == []
    assert "<script>alert(1)</script>" in page.text
    assert "<b>TOTAL</b>" in page.text
    assert "\x1b" not in content


def test_the_page_loads_nothing(reported):
    content = reported.write_report().read_text(encoding="utf-8")
    assert Page(content).addresses == []
    assert "default-src 'none'" in content
    assert "url(" not in content


def test_a_home_without_outliers_has_a_page_too(harmonizer, tmp_path):
    receipts = Receipts()
    receipts.add_receipt("single", "Alpha")
    receipts.submit(harmonizer, tmp_path / "files")
    harmonize(harmonizer)
    page = Page(harmonizer.write_report().read_text(encoding="utf-8"))
    assert "12labels" in page.text.replace("\n", "")


def test_a_run_keeps_its_page_and_the_latest_is_found_under_one_name(reported):
    first = reported.write_report("a")
    second = reported.write_report("b")
    folder = reported.home.reports
    assert {file.name for file in folder.glob("*.html")} == {"a.html", "b.html", "latest.html"}
    assert (folder / "latest.html").read_bytes() == second.read_bytes() != first.read_bytes()


def test_the_pages_of_many_runs_do_not_pile_up(tmp_path):
    for number in range(KEPT + 5):
        write_report(tmp_path, "page", f"run-{number:04}")
    kept = sorted(file.stem for file in tmp_path.glob("*.html"))
    assert len(kept) == KEPT + 1
    assert kept[0] == "latest"
    assert kept[-1] == f"run-{KEPT + 4:04}"


def test_a_folder_that_cannot_be_written_is_named(reported, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(StoreError, match="taken: the report cannot be written"):
        reported.write_report(folder=taken)


def test_the_asset_links_the_page(reported):
    result = materialize(
        [harmonization_report],
        selection=["harmonization_report"],
        resources={"harmonizer": HarmonizerResource()},
        instance=DagsterInstance.ephemeral(),
    )
    [event] = result.get_asset_materialization_events()
    file = reported.home.reports / f"{result.run_id}.html"
    assert event.materialization.metadata["report"].value == str(file)
    link = event.materialization.metadata["open"].value
    assert link == report_address(reported.home, file)
    assert link.endswith(f"/{file.name}")
    assert file.exists()


def test_the_command_line_says_where_the_page_lies(reported, tmp_path):
    result = cli("report", "--out", tmp_path / "out", home=reported.home.root)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().startswith(str(tmp_path / "out"))
    assert (tmp_path / "out" / "latest.html").exists()


@pytest.mark.browser
def test_a_browser_shows_the_page_without_any_request_or_error(reported):
    if shutil.which("chromium") is None and CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    file = reported.write_report()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
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
