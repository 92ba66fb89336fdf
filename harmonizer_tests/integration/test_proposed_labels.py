"""Labels that the fitted model proposes for receipts without any."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import harmonize, shop_receipts

BARE = "image-0-0"


@pytest.fixture
def partly(home, tmp_path) -> tuple[Pipeline, dict[tuple, str]]:
    """A harmonized home in which one receipt carries no label, and the labels that it had."""
    receipts = shop_receipts(("Alpha Mart", "Beta Cafe", "Gamma Deli"), each=8)
    gone = [row for row in receipts.labels if row["image_id"] == BARE]
    receipts.labels = [row for row in receipts.labels if row["image_id"] != BARE]

    def make(fresh):
        pipeline = Pipeline(fresh)
        receipts.submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "with a receipt without labels", make)
    return Pipeline(home), {(row["line_id"], row["word_id"]): row["label"] for row in gone}


def labels(pipeline: Pipeline) -> list[dict]:
    return pipeline.warehouse.query("FROM labels ORDER BY ALL").to_pylist()


def test_receipts_without_labels_get_pending_ones_that_say_where_they_come_from(partly, tmp_path):
    pipeline, gone = partly
    out = tmp_path / "proposals.parquet"
    receipts, count = pipeline.propose_labels(out, 0.5)
    rows = pq.read_table(out).to_pylist()
    assert (receipts, count) == (1, len(rows))
    assert {row["image_id"] for row in rows} == {BARE}
    assert {(row["validation_status"], row["origin"]) for row in rows} == {("PENDING", "model")}
    right = sum(gone.get((row["line_id"], row["word_id"])) == row["label"] for row in rows)
    assert right > 0.6 * len(rows) > 0
    assert all(row["proposal_probability"] >= 0.5 for row in rows)


def test_the_home_is_as_it_was(partly, tmp_path):
    pipeline, _ = partly
    before = labels(pipeline)
    pipeline.propose_labels(tmp_path / "proposals.parquet")
    assert labels(pipeline) == before
    assert not any(pipeline.home.inbox.iterdir())


def test_the_file_is_taken_up_like_any_labels(partly, tmp_path):
    pipeline, _ = partly
    out = tmp_path / "proposals.parquet"
    result = cli(
        "propose-labels", "--from-model", "--least", 0.5, "--out", out, home=pipeline.home.root
    )
    assert result.returncode == 0, result.stderr
    count = pq.read_metadata(out).num_rows
    assert f"labels proposed: {count:,}, for receipts without any: 1" in result.stdout
    again = cli("propose-labels", "--from-model", "--out", out, home=pipeline.home.root)
    assert again.returncode == 2
    assert "--overwrite" in shown_error(again)


def test_without_a_model_it_says_what_is_missing(home, pipeline, tmp_path):
    pipeline.warehouse.migrate()
    with pytest.raises(InputError, match="200 labels"):
        pipeline.propose_labels(tmp_path / "proposals.parquet")
