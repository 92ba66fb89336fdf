"""A small shop's home, made once and copied."""

from __future__ import annotations

from harmonizer_assets.cli.runs import run_pipeline
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, shop_receipts


def copy_shop(home: Home) -> None:
    """Fill an empty home with one on whose labels the pipeline has run once."""
    copy_home(home, "a shop that has run", _run_once)


def _run_once(home: Home) -> None:
    shop_receipts().submit(Pipeline(home), home.scratch / "shop")
    run_pipeline(home, OFFLINE, log_level="CRITICAL")
