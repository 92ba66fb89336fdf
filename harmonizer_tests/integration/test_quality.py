from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.cli.show_evaluation import show_evaluation
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.measure import history as quality_history
from harmonizer_assets.core.measure.evaluation import evaluate
from harmonizer_assets.core.measure.history import record_evaluation
from harmonizer_assets.core.measure.metrics import BINS, Decisions, curves, measure, reliability
from harmonizer_assets.core.measure.plots import draw
from harmonizer_assets.core.measure.truth import read_truth
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.definitions import build_definitions
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import harmonize, shop_receipts, table, write_csv

TRUTH_COLUMNS = ("image_id", "receipt_id", "line_id", "word_id", "label", "is_error", "true_label")


def truth_set_in(pipeline: Pipeline) -> Path:
    truth = pipeline.settings.evaluation.truth_file(pipeline.home.root)
    assert truth is not None
    return truth


def decisions(wrong, score, **given):
    n = len(wrong)
    score = np.array(score, dtype=float)
    nothing = np.full(n, None, dtype=object)
    accepted, rejected = given.get("accepted", score < 0.2), given.get("rejected", score > 0.8)
    return Decisions(
        wrong=np.array(wrong, dtype=bool),
        score=score,
        flagged=given.get("flagged", score > 0.5),
        unresolved=np.zeros(n, dtype=bool),
        accepted=accepted,
        rejected=rejected,
        asked=given.get("asked", ~(accepted | rejected)),
        validated=given.get("validated", np.zeros(n, dtype=bool)),
        true_label=given.get("true_label", nothing),
        suggested=given.get("suggested", nothing),
    )


def test_figures_are_those_of_a_small_example_by_hand():
    found = measure(decisions([1, 0, 1, 0, 0], [0.9, 0.85, 0.6, 0.3, 0.1]))
    assert (found.labels, found.errors, found.flagged, found.found) == (5, 2, 3, 2)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == 1.0
    assert found.f1 == pytest.approx(0.8)
    # Errors stand at ranks 1 and 3.
    assert found.auprc == pytest.approx((1 + 2 / 3) / 2)
    assert found.auroc == pytest.approx(5 / 6)
    assert found.precision_at_errors == pytest.approx(0.5)
    assert found.best_f1 == pytest.approx(0.8)
    assert found.asked == 2
    assert found.accepted_wrong_share == 0.0
    assert found.rejected_right_share == pytest.approx(0.5)
    assert found.brier == pytest.approx((0.01 + 0.7225 + 0.16 + 0.09 + 0.01) / 5)


def test_labels_that_nothing_decides_and_no_model_is_asked_about_count_as_neither():
    asked = np.array([True, False, False, False])
    found = measure(decisions([1, 0, 0, 0], [0.7, 0.6, 0.5, 0.1], asked=asked))
    assert (found.asked, found.asked_share) == (1, 0.25)


def test_calibration_looks_at_labels_that_nobody_has_validated():
    validated = np.array([False, False, True])
    found = measure(decisions([1, 0, 0], [0.95, 0.05, 0.95], validated=validated))
    assert found.ece == pytest.approx(0.05)
    table = reliability(decisions([1, 0, 0], [0.95, 0.05, 0.95], validated=validated))
    assert [each.labels for each in table] == [1, *[0] * (BINS - 2), 1]


def test_suggestions_count_for_found_errors_with_a_true_type():
    found = measure(
        decisions(
            [1, 1, 1],
            [0.9, 0.9, 0.1],
            true_label=np.array(["TAX", None, "TAX"], dtype=object),
            suggested=np.array(["TAX", "DATE", "DATE"], dtype=object),
        )
    )
    assert found.suggestion_accuracy == 1.0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=60))
def test_any_decisions_have_a_quality_within_bounds(rows):
    given_ = decisions([wrong for wrong, _ in rows], [score for _, score in rows])
    found = measure(given_)
    assert found.asked + int(given_.accepted.sum()) + int(given_.rejected.sum()) == found.labels
    for name in ("precision", "recall", "f1", "auprc", "auroc", "best_f1", "ece", "brier"):
        value = getattr(found, name)
        assert value is None or 0 <= value <= 1 + 1e-9, name
    for name in ("accepted_wrong", "rejected_right"):
        share, bound = getattr(found, f"{name}_share"), getattr(found, f"{name}_bound")
        assert (share is None) == (bound is None)
        assert share is None or share <= bound
    drawn = curves(given_)
    assert list(drawn.asked_recall) == sorted(drawn.asked_recall)


def truth_of(receipts, folder: Path) -> Path:
    wrong = {tuple(key) for key in receipts.wrong}
    rows = []
    for label in receipts.labels:
        key = tuple(label[name] for name in TRUTH_COLUMNS[:5])
        rows.append(
            dict(zip(TRUTH_COLUMNS[:5], key, strict=True))
            | {
                "is_error": str(key in wrong).lower(),
                "true_label": "GRAND_TOTAL" if key in wrong else label["label"],
            }
        )
    return write_csv(folder / "truth.csv", TRUTH_COLUMNS, rows)


@pytest.fixture
def evaluated(home, tmp_path):
    """A harmonized home whose settings name a truth file."""
    receipts = shop_receipts(("Alpha Mart", "Beta Cafe", "Gamma's | Deli"), each=8)
    receipts.add_receipt("single", "Once Only 🛒")

    def make(fresh):
        pipeline = Pipeline(fresh)
        receipts.submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "to be evaluated", make)
    truth_of(receipts, home.root)
    home.settings_file.write_text('[evaluation]\ntruth = "truth.csv"\n')
    return Pipeline(home)


def test_an_evaluation_tells_types_and_sizes_of_merchants_apart(evaluated, capsys):
    found = evaluate(evaluated.warehouse, truth_set_in(evaluated))
    assert found.overall.errors == 3
    assert found.overall.recall == 1.0
    assert found.per_label_type["DATE"].errors == 3
    assert found.per_label_type["GRAND_TOTAL"].errors == 0
    assert {name: each.labels for name, each in found.per_merchant_size.items()} == {
        "1 receipt": 12,
        "6 to 20": 24 * 12,
    }
    assert sum(each.labels for each in found.reliability) == 3
    show_evaluation(found)
    text = capsys.readouterr().out
    assert "over 20" not in text
    assert "labels asked about" in text


def test_each_evaluation_is_kept_and_told_by_its_truth(evaluated, tmp_path):
    first = record_evaluation(evaluated.warehouse, truth_set_in(evaluated), run_id="a")
    record_evaluation(evaluated.warehouse, truth_set_in(evaluated), run_id="b")
    other = tmp_path / "other.csv"
    lines = truth_set_in(evaluated).read_text().splitlines()[:50]
    other.write_text("\n".join(lines) + "\n")
    record_evaluation(evaluated.warehouse, other)
    history = quality_history.read(evaluated.warehouse, first.truth_sha256)
    assert [row["run_id"] for row in history] == ["a", "b"]
    assert history[0]["auprc"] == pytest.approx(first.overall.auprc, abs=1e-6)
    kinds = {row["label_type"] for row in table(evaluated, "quality_history")}
    assert kinds == {None, *first.per_label_type}


def with_rows(truth: Path, file: Path, change) -> Path:
    """The truth file with its data rows changed."""
    header, *rows = truth.read_text().splitlines()
    file.write_text("\n".join([header, *change(rows)]) + "\n")
    return file


def test_a_row_that_is_there_twice_counts_once_and_is_mentioned(evaluated, tmp_path, capsys):
    truth = truth_set_in(evaluated)
    once = evaluate(evaluated.warehouse, truth)
    twice = evaluate(
        evaluated.warehouse, with_rows(truth, tmp_path / "t.csv", lambda rows: rows + rows[:7])
    )
    assert twice.overall == once.overall
    assert (twice.doubled, twice.contradicting) == (7, 0)
    show_evaluation(twice)
    assert "7 rows of the truth file repeat others, and count once" in capsys.readouterr().out


def test_rows_that_contradict_each_other_do_not_count_and_are_mentioned(
    evaluated, tmp_path, capsys
):
    def contradict(rows):
        other = rows[0].replace(",false,", ",true,")
        assert other != rows[0]
        return [*rows, other]

    truth = truth_set_in(evaluated)
    found = evaluate(evaluated.warehouse, with_rows(truth, tmp_path / "t.csv", contradict))
    assert (found.doubled, found.contradicting) == (0, 2)
    assert found.overall.labels == evaluate(evaluated.warehouse, truth).overall.labels - 1
    assert found.without_truth == 1
    show_evaluation(found)
    text = capsys.readouterr().out
    assert "2 rows of the truth file contradict others: none counts" in text


def test_labels_without_truth_and_truth_without_labels_are_mentioned(evaluated, tmp_path, capsys):
    def change(rows):
        return [*rows[5:], "nowhere,1,1,1,DATE,false,DATE"]

    truth = with_rows(truth_set_in(evaluated), tmp_path / "t.csv", change)
    found = evaluate(evaluated.warehouse, truth)
    assert (found.unmatched, found.without_truth) == (1, 5)
    show_evaluation(found)
    text = capsys.readouterr().out
    assert "1 labels of the truth file are not in the home" in text
    assert "5 labels of the home are not in the truth file" in text


@pytest.mark.parametrize(
    ("yes", "no"),
    [("1.0", "0.0"), ("yes", "no"), ("True", "False"), ("1", "0"), (" T ", "f"), ("Y", "N")],
)
def test_wrong_is_said_in_whatever_way_people_and_tools_say_it(evaluated, tmp_path, yes, no):
    def change(rows):
        return [row.replace(",true,", f",{yes},").replace(",false,", f",{no},") for row in rows]

    truth = truth_set_in(evaluated)
    found = evaluate(evaluated.warehouse, with_rows(truth, tmp_path / "t.csv", change))
    assert found.overall == evaluate(evaluated.warehouse, truth).overall


@pytest.mark.parametrize(
    "kind", [pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.decimal128(20, 1)]
)
def test_a_column_of_whatever_type_says_which_are_wrong(tmp_path, kind):
    values = {pa.string(): ["1.0", "0"], pa.bool_(): [True, False]}.get(kind, [1, 0])
    keys = {"image_id": ["a", "b"], "receipt_id": [1, 1], "line_id": [1, 1], "word_id": [1, 1]}
    table_ = pa.table({**keys, "label": ["TAX"] * 2, "is_error": pa.array(values).cast(kind)})
    pq.write_table(table_, tmp_path / "truth.parquet")
    rows = read_truth(tmp_path / "truth.parquet").rows.to_pylist()
    assert {row["image_id"]: row["is_error"] for row in rows} == {"a": True, "b": False}


def test_rows_about_missing_labels_are_kept_apart_from_those_about_labels(evaluated, tmp_path):
    header, *rows = truth_set_in(evaluated).read_text().splitlines()
    gone = "image-1,1,99,1,TAX,false,TAX,yes"
    file = tmp_path / "t.csv"
    file.write_text("\n".join([f"{header},missing", *(f"{row}," for row in rows), gone]) + "\n")
    assert read_truth(file).missing.to_pylist() == [
        {"image_id": "image-1", "receipt_id": 1, "line_id": 99, "word_id": 1, "label": "TAX"}
    ]
    once = evaluate(evaluated.warehouse, truth_set_in(evaluated))
    found = evaluate(evaluated.warehouse, file)
    assert found.overall == once.overall
    assert found.unmatched == 0


def pixels(image: bytes) -> tuple[int, int, bytes]:
    """Width, height and the bytes of the picture of a PNG image."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, size = 8, b"", (0, 0)
    while at < len(image):
        length, kind = struct.unpack(">I4s", image[at : at + 8])
        if kind == b"IHDR":
            size = struct.unpack(">II", image[at + 8 : at + 16])
        if kind == b"IDAT":
            data += image[at + 8 : at + 8 + length]
        at += 12 + length
    return *size, zlib.decompress(data)


def test_plots_are_pictures_with_something_on_them(evaluated):
    drawn = draw(evaluate(evaluated.warehouse, truth_set_in(evaluated)))
    assert set(drawn) == {"precision_recall", "reliability", "cost_recall"}
    for image in drawn.values():
        width, height, picture = pixels(image)
        assert (width, height) == (480, 360)
        assert len(set(picture)) > 20


def test_the_asset_shows_figures_tables_and_pictures(home, evaluated):
    result = (
        build_definitions(home)
        .resolve_job_def("evaluate_labels")
        .execute_in_process(instance=DagsterInstance.ephemeral())
    )
    [event] = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["recall"].value == 1.0
    assert metadata["errors"].value == 3
    assert "no guarantee" in metadata["guarantee"].value or "at most" in metadata["guarantee"].value
    assert metadata["reliability"].value.startswith("![](data:image/png;base64,")
    assert [record.data["group"] for record in metadata["by_merchant_size"].records] == [
        "1 receipt",
        "6 to 20",
    ]
    files = (evaluated.home.reports / "quality").iterdir()
    assert sorted(file.name for file in files) == [
        "cost_recall.png",
        "precision_recall.png",
        "reliability.png",
    ]
    [row] = [row for row in table(evaluated, "quality_history") if row["label_type"] is None]
    assert row["run_id"] == result.run_id


def test_without_a_truth_file_the_asset_says_what_to_set(home):
    result = (
        build_definitions(home)
        .resolve_job_def("evaluate_labels")
        .execute_in_process(instance=DagsterInstance.ephemeral())
    )
    [event] = result.get_asset_materialization_events()
    assert "[evaluation] truth" in event.materialization.metadata["truth"].value


@pytest.mark.parametrize(
    ("header", "row", "complaint"),
    [
        ("image_id,receipt_id", "a,1", "lacks"),
        (",".join(TRUTH_COLUMNS), "a,one,1,1,DATE,true,TIME", "column receipt_id"),
        (",".join(TRUTH_COLUMNS), "a,1,1,1,DATE,,TIME", "column is_error: 1 rows have no value"),
        (",".join(TRUTH_COLUMNS), "a,1,1,1,DATE,maybe,TIME", "is_error, row 1: 'maybe' is neither"),
        (",".join(TRUTH_COLUMNS), "a,1,1,1,DATE,2.0,TIME", "is_error, row 1: '2.0' is neither"),
        (",".join(TRUTH_COLUMNS), "a,1,1,1,DATE,true,TIME", "none of its 1 rows names a label"),
    ],
)
def test_a_truth_file_that_is_not_usable_is_named(pipeline, tmp_path, header, row, complaint):
    file = tmp_path / "truth.csv"
    file.write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=complaint) as raised:
        evaluate(pipeline.warehouse, file)
    assert str(file) in str(raised.value)


def test_a_truth_setting_is_relative_to_the_home(home):
    settings_ = Settings.model_validate({"evaluation": {"truth": "known/truth.csv"}})
    assert settings_.evaluation.truth_file(home.root) == home.root / "known" / "truth.csv"
    assert Settings().evaluation.truth_file(home.root) is None
