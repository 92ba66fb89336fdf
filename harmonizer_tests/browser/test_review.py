"""The review page in headless Chromium, by keyboard alone."""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.review_homes import MERCHANTS, MIXED, SCRIPT, keys, queue, review_home
from harmonizer_tests.support.review_page import reviewing

pytestmark = pytest.mark.browser


@pytest.fixture
def pipeline(home: Home, tmp_path: Path) -> Pipeline:
    """Three totals that are labelled TIME, with images, and three labelled DATE, asked blindly."""
    (tmp_path / "receipt.png").write_bytes(grey_png(300, 500))
    home.settings_file.write_text(f'[review]\nimage_roots = ["{tmp_path}"]\n')
    pipeline = review_home(home)
    named = "UPDATE words SET extra = '{\"image_uri\": \"receipt.png\"}' WHERE image_id LIKE '%-6'"
    pipeline.warehouse.write(lambda con: con.execute(named))
    return pipeline


def grey_png(width: int, height: int) -> bytes:
    """A picture that a browser can show."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\x00" + b"\xdd" * width) * height)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    )


@pytest.fixture
def page(pipeline: Pipeline, browser):
    """The queue as ann sees it; nothing may be loaded from elsewhere or be broken on the page."""
    with reviewing(pipeline.home) as ann:
        # In a context of its own, which knows nothing of pages before it.
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(20_000)
        broken: list[str] = []
        hosts: set[str] = set()
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on("console", lambda message: broken.append(message.text))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(f"http://127.0.0.1:{ann.port}/review/")
        page.keyboard.type("ann")
        page.keyboard.press("Enter")
        page.get_by_text("6 labels are open").wait_for()
        yield page
        page.close()
        assert hosts == {f"127.0.0.1:{ann.port}"}
        assert [text for text in broken if "Failed to load resource" not in text] == []


def press(page, *names: str) -> None:
    for name in names:
        page.keyboard.press(name)


def status(page, text: str) -> None:
    """Wait for what the page says, and for the focus to be where keys are heard."""
    page.get_by_role("status").filter(has_text=text).wait_for()
    page.locator("body:not(.sending)").wait_for()
    page.locator("main:focus").wait_for()


def heading(page) -> str:
    return page.locator("main h1").inner_text()


def start(page, label: str) -> None:
    """Go to the first label of a type by the filter of the queue."""
    while page.locator("select:focus").count() == 0:
        press(page, "Tab")
    page.keyboard.type(label)
    while page.locator("select:focus").input_value() != label:
        # On a busy machine letters come so late that each begins a new search of the list.
        page.wait_for_timeout(1_500)
        page.keyboard.type(label)
    press(page, "Enter")
    page.get_by_text("3 labels are open").wait_for()
    page.locator("main:focus").wait_for()
    press(page, "Enter")
    page.locator("main[data-page=item]").wait_for()
    # The page hears keys once its script has run.
    page.locator("main:focus").wait_for()
    assert label in heading(page)


def answers(pipeline: Pipeline):
    return table(pipeline, "review_answers")


def said(pipeline: Pipeline):
    return [(row["verdict"], row["to_label"], row["note"]) for row in answers(pipeline)]


def screenshot(page, name: str) -> None:
    """Keep a picture where the environment asks for it."""
    folder = os.environ.get("HARMONIZER_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"review-{name}.png"))


def test_labels_are_answered_one_after_the_other(page, pipeline):
    screenshot(page, "queue")
    start(page, "TIME")
    screenshot(page, "item")
    press(page, "a")
    status(page, "Stored: GRAND_TOTAL")
    press(page, "r")
    status(page, "Stored: the label is right")
    press(page, "x")
    status(page, "Stored: no label")
    assert "Nothing is left" in heading(page)
    assert sorted(said(pipeline), key=str) == [
        ("right", None, None),
        ("wrong", "GRAND_TOTAL", None),
        ("wrong", None, None),
    ]


def test_another_type_is_chosen_by_typing(page, pipeline):
    start(page, "TIME")
    press(page, "c")
    page.keyboard.type("line t")
    assert page.locator("#found [aria-current]").inner_text().startswith("LINE_TOTAL")
    screenshot(page, "types")
    press(page, "Enter")
    status(page, "Stored: LINE_TOTAL")
    press(page, "c", "ArrowUp")
    assert page.locator("#found [aria-current]").inner_text().startswith("no label")
    press(page, "ArrowDown", "ArrowDown")
    chosen = page.locator("#found [aria-current] b").inner_text()
    press(page, "Enter")
    status(page, f"Stored: {chosen}")
    assert {to_label for _, to_label, _ in said(pipeline)} == {"LINE_TOTAL", chosen}


def test_a_type_that_does_not_exist_answers_nothing_and_escape_goes_back(page, pipeline):
    start(page, "TIME")
    press(page, "c")
    page.keyboard.type("nothing like it")
    press(page, "Enter", "Escape")
    assert page.locator("main:focus").count() == 1
    assert answers(pipeline) == []


def test_an_answer_is_taken_back_and_given_again_with_a_note(page, pipeline):
    start(page, "TIME")
    before = page.locator(".receipt p").first.inner_text()
    press(page, "a")
    status(page, "Stored: GRAND_TOTAL")
    assert page.locator(".receipt p").first.inner_text() != before
    press(page, "u")
    status(page, "taken back")
    assert page.locator(".receipt p").first.inner_text() == before
    press(page, "n")
    page.keyboard.type("a r x s: keys are letters here")
    press(page, "Enter", "r")
    status(page, "Stored: the label is right")
    [standing] = table(pipeline, "standing_answers")
    assert (standing["verdict"], standing["note"]) == ("right", "a r x s: keys are letters here")


def open_list(page, key: str) -> None:
    """Go from a label to a list of three, and wait until keys are heard there."""
    press(page, key)
    page.get_by_text("One answer for 3 labels").wait_for()
    page.locator("main:not([data-page=item]):focus").wait_for()


def test_one_answer_for_all_alike_is_given_with_their_list_in_sight(page, pipeline):
    start(page, "TIME")
    open_list(page, "k")
    assert page.locator("[data-label]").count() == 3
    screenshot(page, "kind")
    press(page, "b")
    page.locator("main[data-page=item]:focus").wait_for()
    open_list(page, "k")
    press(page, "a")
    status(page, "Stored for 3 labels: GRAND_TOTAL")
    [kind] = {row["kind_id"] for row in queue(pipeline, label="TIME")}
    assert {row["kind_id"] for row in answers(pipeline)} == {kind}
    press(page, "u")
    status(page, "taken back")
    assert table(pipeline, "standing_answers") == []


def test_one_answer_for_a_list_leaves_out_what_is_not_ticked(page, pipeline):
    # One of the three looks otherwise, as a kind of its own.
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE review_queue SET kind_id = 'other' "
            "WHERE label = 'TIME' AND image_id LIKE '%0-6'"
        )
    )
    start(page, "TIME")
    open_list(page, "l")
    press(page, "ArrowDown", "ArrowDown", "Space")
    assert [box.is_checked() for box in page.locator("[data-tick]").all()] == [True, False, True]
    left_out = page.locator("[data-label]").nth(1).get_attribute("data-label")
    screenshot(page, "list")
    press(page, "a")
    status(page, "Stored for 2 labels: GRAND_TOTAL")
    assert page.locator("[data-label]").get_attribute("data-label") == left_out
    assert {(row["kind_id"], row["is_blind"]) for row in answers(pipeline)} == {(None, False)}


def test_a_list_without_a_tick_is_not_answered(page, pipeline):
    start(page, "TIME")
    open_list(page, "k")
    press(page, *["ArrowDown", "Space"] * 3, "a")
    status(page, "No label is ticked")
    assert answers(pipeline) == []


def test_a_list_that_has_changed_meanwhile_is_not_answered(page, pipeline):
    start(page, "TIME")
    open_list(page, "k")
    pipeline.review.answer(keys(queue(pipeline, label="TIME"))[0], "bob", "right")
    press(page, "a")
    status(page, "look at the list again")
    assert {row["reviewer"] for row in answers(pipeline)} == {"bob"}


def test_a_key_that_is_pressed_twice_answers_one_label(page, pipeline):
    start(page, "TIME")
    press(page, "s", "s", "s")
    status(page, "Stored: skipped")
    assert len(answers(pipeline)) == 1


def test_what_is_asked_blindly_is_shown_without_a_proposal(page, pipeline):
    start(page, "DATE")
    screenshot(page, "blind")
    shown = page.locator("main").inner_text()
    assert "asked without a proposal" in shown
    assert not re.search("Proposed|P\\(wrong\\)|Why|accept|GRAND_TOTAL is", shown)
    press(page, "a", "k")
    press(page, "r")
    status(page, "Stored: the label is right")
    assert [(row["is_blind"], row["verdict"]) for row in answers(pipeline)] == [(True, "right")]


def test_hostile_texts_are_shown_as_text(page, pipeline):
    start(page, "TIME")
    seen = ""
    while "Nothing is left" not in heading(page):
        seen += page.locator("main").inner_text()
        assert page.title() == "16.50: TIME?"
        press(page, "s")
        status(page, "skipped")
        page.get_by_role("status").evaluate("status => { status.textContent = ''; }")
    assert all(text in seen for text in (*MERCHANTS, SCRIPT, MIXED))


def test_the_image_is_shown_with_the_box_of_the_word(page):
    start(page, "TIME")
    picture = page.get_by_role("region", name="Image")
    image, box = picture.locator("img"), picture.locator("rect")
    image.wait_for()
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 300
    whole, part = image.bounding_box(), box.bounding_box()
    across = part["x"] + part["width"] / 2 - whole["x"]
    down = part["y"] + part["height"] / 2 - whole["y"]
    assert across == pytest.approx(0.65 * whole["width"], abs=3)
    assert down == pytest.approx(0.715 * whole["height"], abs=3)


def test_a_server_that_is_gone_is_said_to_be_gone_and_the_answer_can_be_given_again(page, pipeline):
    start(page, "TIME")
    page.context.set_offline(True)
    press(page, "a")
    status(page, "cannot be reached")
    page.context.set_offline(False)
    press(page, "a")
    status(page, "Stored: GRAND_TOTAL")
    assert len(answers(pipeline)) == 1
