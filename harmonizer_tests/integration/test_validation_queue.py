"""The validation queue: uncertain labels of numerous kinds that nobody has validated come first."""

from __future__ import annotations

import json

import pytest

from harmonizer_assets.core.decide.validation_queue import rank_for_validation
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.support.cli import cli
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table

KEY = ("image_id", "receipt_id", "line_id", "word_id", "label")


@pytest.fixture
def pending(home, tmp_path):
    """A harmonized home in which nobody has validated anything; some totals are labelled dates."""
    receipts = shop_receipts(("Alpha Mart", "Beta Cafe", "Gamma Deli"), each=5)
    receipts.labels = [{**row, "validation_status": "PENDING"} for row in receipts.labels]

    def make(fresh):
        pipeline = Pipeline(fresh)
        receipts.submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "nobody has validated", make)
    return Pipeline(home)


def ranked(pipeline: Pipeline):
    return pipeline.warehouse.read(lambda con: rank_for_validation(con, None)).to_pylist()


def change(pipeline: Pipeline, sql: str) -> None:
    pipeline.warehouse.write(lambda con: con.execute(sql))


def score(pipeline: Pipeline, where: str, value: float) -> None:
    change(pipeline, f"UPDATE similarity_matches SET outlier_score = {value} WHERE {where}")


def test_the_table_holds_what_nobody_has_validated_in_order(pending):
    rows = table(pending, "validation_queue")
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    labels = table(pending, "labels")
    assert {tuple(row[name] for name in KEY) for row in rows} == {
        tuple(row[name] for name in KEY) for row in labels
    }
    teaches = [row["teaches"] for row in rows]
    assert teaches == sorted(teaches, reverse=True)


def test_uncertain_labels_come_before_certain_ones_of_their_kind(pending):
    score(pending, "true", 0.01)
    score(pending, "label = 'TIME' AND image_id = 'image-1-3'", 0.5)
    assert (ranked(pending)[0]["label"], ranked(pending)[0]["image_id"]) == ("TIME", "image-1-3")


def test_a_numerous_kind_comes_before_a_rare_one(pending):
    score(pending, "true", 0.3)
    counts = {(row["label"], row["likeliest_label"]): row["n_alike"] for row in ranked(pending)}
    first = ranked(pending)[0]
    assert first["n_alike"] == max(counts.values()) > min(counts.values())


def test_a_kind_that_people_have_validated_comes_later(pending):
    score(pending, "true", 0.3)
    first = ranked(pending)[0]
    where = " AND ".join(
        f"{name} = '{first[name]}'" for name in ("label_type", "merchant_key")
    ).replace("label_type", "label")
    change(pending, f"UPDATE labels SET validation_status = 'VALID' WHERE {where}")
    after = ranked(pending)
    assert after[0]["label"] != first["label"]
    assert min(row["n_validated"] for row in after if row["label"] == first["label"]) > 0
    validated = table(pending, "labels")
    valid = {tuple(r[n] for n in KEY) for r in validated if r["validation_status"] == "VALID"}
    assert valid.isdisjoint(tuple(row[name] for name in KEY) for row in after)


def test_equal_texts_are_not_asked_about_one_after_the_other(pending):
    score(pending, "true", 0.3)
    first = ranked(pending)[:8]
    assert len({(row["label"], row["word_text"]) for row in first}) == len(first)


def test_next_lists_as_many_as_asked_for(pending, tmp_path):
    file = tmp_path / "next.json"
    result = cli("next", "3", "--json", file, home=pending.home.root)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text(encoding="utf-8"))["validation_queue"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["word_text"] in result.stdout
    assert "the score says" in " ".join(result.stdout.split())
