"""One browser for the tests of a file: starting Chromium takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harmonizer_tests.support.chromium import FLAGS, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
