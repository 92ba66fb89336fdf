from __future__ import annotations

import random

import pyarrow.parquet as pq
import pytest

from harmonizer_assets.core.measure.samples.receipts import (
    SampleSpec,
    make_merchant,
    make_receipt,
    write_samples,
)
from harmonizer_assets.core.records.taxonomy import Taxonomy

KEY = ("image_id", "receipt_id", "line_id", "word_id", "label")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    files = write_samples(SampleSpec(labels=6_000), tmp_path_factory.mktemp("samples"))
    return {
        "files": files,
        **{name: pq.read_table(getattr(files, name)) for name in ("words", "labels", "truth")},
    }


def keys(table, columns):
    return list(zip(*(table[name].to_pylist() for name in columns), strict=True))


def test_the_same_seed_makes_the_same_receipts_and_another_seed_others(tmp_path):
    tables = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = write_samples(SampleSpec(labels=500, seed=seed), folder)
        tables.append([pq.read_table(path) for path in (files.words, files.labels, files.truth)])
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_there_are_as_many_labels_as_asked_for(samples):
    assert 6_000 <= samples["labels"].num_rows < 6_100
    assert samples["files"].n_labels == samples["labels"].num_rows


def test_every_core_label_type_occurs_and_no_other(samples):
    assert set(samples["labels"]["label"].to_pylist()) == set(Taxonomy.default().names)


def test_keys_are_unique_and_truth_names_exactly_the_labels(samples):
    labels = keys(samples["labels"], KEY)
    assert len(set(labels)) == len(labels)
    assert labels == keys(samples["truth"], KEY)
    words = keys(samples["words"], KEY[:4])
    assert len(set(words)) == len(words)
    assert {key[:4] for key in labels} < set(words)


def test_words_lie_on_the_page(samples):
    for row in samples["words"].select(["x", "y", "width", "height"]).to_pylist():
        assert row["x"] >= 0
        assert row["x"] + row["width"] <= 1.0001
        assert 0 <= row["y"] <= 1 - row["height"]


def test_errors_are_about_as_many_as_asked_for_and_never_valid(samples):
    truth, labels = samples["truth"].to_pylist(), samples["labels"].to_pylist()
    errors = [row["is_error"] for row in truth]
    assert sum(errors) == samples["files"].n_errors
    assert 0.06 < sum(errors) / len(errors) < 0.10
    for label, row in zip(labels, truth, strict=True):
        assert row["is_error"] == (label["label"] != row["true_label"])
        assert not (row["is_error"] and label["validation_status"] == "VALID")


def test_merchants_have_a_long_tail_and_odd_names(samples):
    names = samples["labels"]["merchant_name"].to_pylist()
    receipts = {}
    for name, image in zip(names, samples["labels"]["image_id"].to_pylist(), strict=True):
        receipts.setdefault(name, set()).add(image)
    sizes = sorted(len(images) for images in receipts.values())
    assert sizes[len(sizes) // 2] <= 4
    assert sizes[-1] >= 3 * sizes[len(sizes) // 2]
    assert "O'Dell | Daughters" in receipts
    assert None in receipts


def test_there_are_as_many_merchants_as_asked_for(tmp_path):
    files = write_samples(SampleSpec(labels=6_000, merchants=80), tmp_path)
    names = set(pq.read_table(files.labels)["merchant_name"].to_pylist())
    assert len(names - {None}) == 80


def test_amounts_add_up():
    rng = random.Random(3)
    for index in range(50):
        receipt = make_receipt(rng, make_merchant(rng, index))
        assert receipt.subtotal == sum(receipt.line_totals)
        assert receipt.total == receipt.subtotal - receipt.discount + receipt.tax
        printed = {cell.label: cell.text for row in receipt.rows for cell in row if cell.label}
        assert printed["GRAND_TOTAL"].lstrip("$RM") == f"{receipt.total / 100:.2f}"
