from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from harmonizer_assets.core.base.errors import StoreBusyError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.score.classifier import EVIDENCE_GROUPS
from harmonizer_assets.core.score.fitting import FittedModel, read_sample
from harmonizer_assets.core.score.folds import FOLDS, folds_of
from harmonizer_assets.core.score.registry import DUE, NO_MODEL
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import (
    OFFLINE,
    Receipts,
    harmonize,
    score,
    shop_receipts,
    table,
)

MERCHANTS = ("Alpha Mart", "Beta Cafe", "Gamma's | Deli", "Δelta 🛒")


def submitted(pipeline, tmp_path, receipts):
    receipts.submit(pipeline, tmp_path / "files")
    pipeline.ingest()
    pipeline.index()
    return pipeline


def shops(home: Home, tmp_path: Path, each: int) -> Pipeline:
    """The pipeline of a home with so many receipts of each merchant, and no model yet."""

    def make(fresh: Home) -> None:
        submitted(Pipeline(fresh), tmp_path, shop_receipts(MERCHANTS, each))

    copy_home(home, ("shops", each), make)
    return Pipeline(home)


def fitted(home: Home, tmp_path: Path) -> tuple[Pipeline, str]:
    """The pipeline of a home with a model, and the model's version."""

    def make(fresh: Home) -> None:
        submitted(Pipeline(fresh), tmp_path, shop_receipts(MERCHANTS, each=7))
        Pipeline(fresh).score.fit(OFFLINE)

    copy_home(home, "fitted", make)
    pipeline = Pipeline(home)
    return pipeline, pipeline.registry.version()


def scored(home: Home, tmp_path: Path) -> Pipeline:
    """The pipeline of a home with a model whose labels are scored."""

    def make(fresh: Home) -> None:
        score(fitted(fresh, tmp_path)[0])

    copy_home(home, "scored", make)
    return Pipeline(home)


def scores(pipeline):
    return pipeline.warehouse.query(
        "SELECT s.*, l.validation_status FROM similarity_matches s JOIN labels l "
        "USING (image_id, receipt_id, line_id, word_id, label) ORDER BY ALL"
    ).to_pylist()


def test_wrong_labels_are_the_most_suspicious_and_get_the_right_suggestion(home, tmp_path):
    rows = scores(scored(home, tmp_path))
    wrong = {tuple(key) for key in shop_receipts(MERCHANTS, each=7).wrong}
    key = ("image_id", "receipt_id", "line_id", "word_id", "label")
    ranked = sorted(rows, key=lambda row: -row["outlier_score"])
    assert {tuple(row[name] for name in key) for row in ranked[: len(wrong)]} == wrong
    assert {row["competing_label"] for row in ranked[: len(wrong)]} == {"GRAND_TOTAL"}
    assert {row["scorer"] for row in rows} == {"model"}


def test_contributions_name_every_group_of_evidence(home, tmp_path):
    found = (
        scored(home, tmp_path)
        .warehouse.query(
            "SELECT DISTINCT json_keys(contributions) AS groups FROM similarity_matches"
        )["groups"]
        .to_pylist()
    )
    assert found == [list(EVIDENCE_GROUPS)]


def test_a_fold_is_fitted_by_one_thread_and_others_get_theirs_back(home, tmp_path, monkeypatch):
    pipeline = shops(home, tmp_path, each=7)
    fit, while_fitting = LogisticRegression.fit, []

    def spy(*args, **kwargs):
        while_fitting.append(blas_threads())
        return fit(*args, **kwargs)

    monkeypatch.setattr(LogisticRegression, "fit", spy)
    with threadpool_limits(2, user_api="blas"):
        pipeline.score.fit(OFFLINE)
        assert blas_threads() == {2}
    assert while_fitting
    assert all(threads == {1} for threads in while_fitting)


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_scores_do_not_depend_on_how_many_words_are_held_at_once(home, tmp_path, monkeypatch):
    pipeline = scored(home, tmp_path)
    whole = scores(pipeline)
    pipeline.warehouse.write(lambda con: con.execute("DELETE FROM partition_state"))
    monkeypatch.setattr("harmonizer_assets.core.score.scoring._WORDS_PER_PART", 60)
    score(pipeline)
    assert scores(pipeline) == whole


def test_words_that_are_labelled_together_are_in_one_fold_of_each_assignment(home, tmp_path):
    pipeline = shops(home, tmp_path, each=7)
    label_types = pipeline.taxonomy.names
    _, page = pipeline.warehouse.read(lambda con: read_sample(con, label_types))
    folds = folds_of(page, np.arange(page.n_words))
    for assigned, together in ((folds.receipt, page.receipt), (folds.row, page.row)):
        found = np.unique(np.column_stack([together, assigned]), axis=0)
        assert len(found) == len(np.unique(together))
        # One assignment says nothing of the other.
        pairs = {tuple(pair) for pair in found[:, 1:].tolist()}
        assert pairs == {(a, b) for a in range(FOLDS) for b in range(FOLDS)}


def test_few_labels_are_judged_by_similar_words_alone(pipeline, tmp_path):
    submitted(pipeline, tmp_path, shop_receipts(each=3))
    assert pipeline.registry.version() == NO_MODEL
    score(pipeline)
    assert {row["scorer"] for row in scores(pipeline)} == {"evidence"}
    assert "no guarantee" in pipeline.score.guarantee()


def test_a_merchant_with_very_many_labels_is_sampled_by_receipt(home, tmp_path, monkeypatch):
    monkeypatch.setattr("harmonizer_assets.core.score.fitting.MOST_LABELS", 250)
    pipeline = submitted(Pipeline(home), tmp_path, shop_receipts(("Alpha Mart",), 40))
    label_types = pipeline.taxonomy.names
    labels, page = pipeline.warehouse.read(lambda con: read_sample(con, label_types))
    assert labels.num_rows == len(table(pipeline, "labels"))
    sampled = pc.sum(pa.array(page.receipts_of(labels) >= 0)).as_py()
    largest = max(Counter(page.receipt[page.label_word].tolist()).values())
    assert 250 <= sampled < 250 + largest
    model = pipeline.score.fit(OFFLINE)[1]
    assert model is not None
    assert model.labels == sampled
    score(pipeline)
    assert {row["scorer"] for row in scores(pipeline)} == {"model"}


def test_scores_are_the_same_on_another_machine_and_in_another_order(home, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=7)
    turned = Receipts(receipts.words[::-1], receipts.labels[::-1], receipts.wrong)
    second = Pipeline(Home(tmp_path / "second").ensure())
    submitted(second, tmp_path / "second", turned)
    score(second)
    assert scores(scored(home, tmp_path)) == scores(second)


def test_the_model_stays_in_force_until_the_labels_have_doubled(home, tmp_path):
    pipeline = shops(home, tmp_path, each=7)
    assert pipeline.registry.version() == DUE
    version, model = pipeline.score.fit(OFFLINE)
    assert isinstance(model, FittedModel)
    assert pipeline.registry.version() == version
    submitted(pipeline, tmp_path / "some", shop_receipts(("Epsilon",), 7, "new"))
    assert pipeline.registry.version() == version
    assert pipeline.score.fit(OFFLINE)[0] == version
    submitted(pipeline, tmp_path / "many", shop_receipts(["Zeta", "Eta", "Theta"], 9, "more"))
    assert pipeline.registry.version() == DUE
    assert pipeline.score.fit(OFFLINE)[0] != version


def test_a_model_dated_in_the_future_is_fitted_again_once_and_not_for_ever(home, tmp_path):
    pipeline, _ = fitted(home, tmp_path)
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE suspicion_models SET fitted_at = '2099-01-01', identity = 'another'"
        )
    )
    again = Pipeline(pipeline.home)
    assert again.registry.version() == DUE
    submitted(again, tmp_path / "more", shop_receipts(("Epsilon",), 1, "new"))
    version, _ = again.score.fit(OFFLINE)
    assert again.registry.version() == version


def test_new_labels_leave_other_partitions_alone_while_the_model_is_in_force(home, tmp_path):
    harmonize(scored(home, tmp_path))
    pipeline = Pipeline(home)
    submitted(pipeline, tmp_path / "b", shop_receipts(("Epsilon",), 2, "new"))
    stale = pipeline.stale(OFFLINE)
    assert {partition.merchant_key for partition in stale} == {merchant_key("Epsilon")}


def test_a_fit_is_logged_with_its_reason(home, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="harmonizer_assets.core.score")
    pipeline = shops(home, tmp_path, each=7)
    version, _ = pipeline.score.fit(OFFLINE)
    pipeline.score.fit(OFFLINE)
    pipeline.home.model_file(version).unlink()
    Pipeline(pipeline.home).score.fit(OFFLINE)
    first, second = caplog.messages
    assert first.startswith(f"fitted model {version} on ")
    assert first.endswith("(there is none yet)")
    assert second.endswith("(its file is gone)")


def test_another_alpha_is_another_model(home, tmp_path):
    fitted(home, tmp_path)
    assert Pipeline(home, with_alpha(0.001)).registry.version() == DUE


def with_alpha(alpha: float) -> Settings:
    return Settings.model_validate({"triage": {"alpha": alpha}})


def test_a_lost_model_file_is_fitted_again_to_the_same_model(home, tmp_path):
    pipeline, version = fitted(home, tmp_path)
    pipeline.home.model_file(version).unlink()
    assert pipeline.registry.version() == DUE
    assert Pipeline(pipeline.home).score.fit(OFFLINE)[0] == version


def test_a_broken_model_file_is_named(home, tmp_path):
    pipeline, version = fitted(home, tmp_path)
    pipeline.home.model_file(version).write_bytes(b"not a model")
    with pytest.raises(StoreError, match=f"{version}.npz: the model cannot be read .*: delete it"):
        Pipeline(pipeline.home).score.fit(OFFLINE)


def test_a_model_is_the_same_after_saving_and_loading_and_on_the_disk(home, tmp_path, synced):
    pipeline = shops(home, tmp_path, each=7)
    version, model = pipeline.score.fit(OFFLINE)
    file = pipeline.home.model_file(version)
    assert synced[-2:] == [file, file.parent]
    loaded = FittedModel.load(pipeline.home.model_file(version))
    assert loaded.calibration == model.calibration
    assert loaded.thresholds == model.thresholds
    assert loaded.examples == model.examples
    before, after = model.suspicion.arrays(), loaded.suspicion.arrays()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_statuses_decide_what_may_be_decided_without_a_question(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=10)
    receipts.labels[0]["validation_status"] = "INVALID"
    for label in receipts.labels:
        if label["label"] == "DATE" and label["line_id"] == 7:
            label["validation_status"] = "VALID"
    submitted(pipeline, tmp_path, receipts)
    score(pipeline)
    rows = scores(pipeline)
    invalid = [row for row in rows if row["validation_status"] == "INVALID"]
    assert [row["triage"] for row in invalid] == ["outlier"]
    assert invalid[0]["outlier_score"] > 0.5
    validated = [row for row in rows if row["validation_status"] == "VALID"]
    assert {row["triage"] for row in validated} <= {"valid", "ambiguous"}


def test_labels_of_rare_types_are_asked_about(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=7)
    moved = next(label for label in receipts.labels if label["label"] == "TIME")
    moved["label"] = "COUPON"
    moved["validation_status"] = "PENDING"
    submitted(pipeline, tmp_path, receipts)
    score(pipeline)
    assert [row["triage"] for row in scores(pipeline) if row["label"] == "COUPON"] == ["ambiguous"]


def test_the_classic_rule_and_similar_words_alone_stay_selectable(home, tmp_path):
    shops(home, tmp_path, each=7)
    for scorer in ("evidence", "count_rule"):
        chosen = Settings.model_validate({"similarity": {"scorer": scorer}})
        pipeline = Pipeline(home, chosen)
        list(pipeline.score.run(pipeline.stale(OFFLINE), OFFLINE))
        assert {row["scorer"] for row in scores(pipeline)} == {scorer}


_FIT = """
import sys
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.base.home import Home
print(Pipeline(Home.resolve(sys.argv[1])).score.fit(RunOptions())[0], flush=True)
"""


def fitting_process(home):
    return subprocess.Popen(
        [sys.executable, "-c", _FIT, str(home.root)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_fit_at_the_same_time_agree_on_one_model(home, tmp_path):
    pipeline = shops(home, tmp_path, each=7)
    processes = [fitting_process(pipeline.home) for _ in range(2)]
    versions = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(versions) == 1
    assert len(table(pipeline, "suspicion_models")) == 1


def test_files_of_models_that_are_no_longer_in_force_go_after_a_day(home, tmp_path):
    pipeline, first = fitted(home, tmp_path)
    folder = pipeline.home.models
    os.utime(pipeline.home.model_file(first), (time.time() - 90_000,) * 2)
    second, _ = Pipeline(home, with_alpha(0.001)).score.fit(OFFLINE)
    assert [path.stem for path in folder.glob("*.npz")] == [second]
    third, _ = Pipeline(home, with_alpha(0.002)).score.fit(OFFLINE)
    assert {path.stem for path in folder.glob("*.npz")} == {second, third}
    assert len({first, second, third}) == 3


def test_a_model_that_another_process_keeps_fitting_is_an_error_that_names_it(home, tmp_path):
    home.settings_file.write_text("[waits]\nmodel_seconds = 0.1\n")
    pipeline = shops(home, tmp_path, each=7)
    busy = pytest.raises(StoreBusyError, match=f"process {os.getpid()} has been fitting a model")
    with Lock(home.locks / "model.lock", "testing").held(), busy:
        pipeline.score.fit(OFFLINE)


def test_a_fit_that_was_killed_leaves_nothing_and_the_next_one_is_as_if_undisturbed(home, tmp_path):
    pipeline = shops(home, tmp_path, each=7)
    lock = pipeline.home.locks / "model.lock"
    for pause in (0.0, 0.1, 0.3):
        process = fitting_process(pipeline.home)
        while not lock.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    version, _ = Pipeline(pipeline.home).score.fit(OFFLINE)
    undisturbed = shops(Home(tmp_path / "other").ensure(), tmp_path, each=7)
    assert undisturbed.score.fit(OFFLINE)[0] == version
    assert [path.name for path in pipeline.home.model_file(version).parent.glob("[!.]*")] == [
        f"{version}.npz"
    ]
    assert os.path.getsize(pipeline.home.model_file(version)) > 0


def test_a_row_that_is_labelled_wrongly_as_a_whole_does_not_speak_for_itself(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=10)
    images = sorted({word["image_id"] for word in receipts.words})
    mislabelled = images[5]
    for number, image in enumerate(images):
        charges = [("Service", "TAX")] if number % 2 else []
        for line, (caption, label) in enumerate([("Voucher", "DISCOUNT"), *charges], start=9):
            given = "DISCOUNT" if image == mislabelled else label
            texts = (caption, "10%", f"1.{number:02}")
            for at, text in enumerate(texts, start=1):
                key = {"image_id": image, "receipt_id": 1, "line_id": line, "word_id": at}
                box = {"x": 0.2 * at, "y": line / 10, "width": 0.1, "height": 0.03}
                receipts.words.append({**key, "text": text, **box})
                receipts.labels.append(
                    {**key, "label": given, "validation_status": "PENDING", "merchant_name": None}
                )
    for label in receipts.labels:
        label["validation_status"] = "PENDING"
    submitted(pipeline, tmp_path, receipts)
    score(pipeline)
    rows = [row for row in scores(pipeline) if row["label"] in ("DISCOUNT", "TAX")]
    found = sorted(rows, key=lambda row: -row["outlier_score"])[:3]
    assert {(row["image_id"], row["line_id"], row["word_id"]) for row in found} == {
        (mislabelled, 10, word) for word in (1, 2, 3)
    }
    assert {row["competing_label"] for row in found} == {"TAX"}
