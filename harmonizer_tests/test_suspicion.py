from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harmonizer_assets.core.errors import StoreError
from harmonizer_assets.core.fitting import FittedModel
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.core.models import DUE, NO_MODEL
from harmonizer_assets.core.settings import Settings
from harmonizer_assets.core.suspicion import EVIDENCE_GROUPS
from harmonizer_tests.receipts import Receipts, harmonize, shop_receipts, table

MERCHANTS = ("Alpha Mart", "Beta Cafe", "Gamma's | Deli", "Δelta 🛒")


def submitted(harmonizer, tmp_path, receipts):
    receipts.submit(harmonizer, tmp_path / "files")
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    return harmonizer


def scores(harmonizer):
    return harmonizer.warehouse.query(
        "SELECT s.*, l.validation_status FROM similarity_matches s JOIN labels l "
        "USING (image_id, receipt_id, line_id, word_id, label) ORDER BY ALL"
    ).to_pylist()


def test_wrong_labels_are_the_most_suspicious_and_get_the_right_suggestion(harmonizer, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    submitted(harmonizer, tmp_path, receipts)
    list(harmonizer.score_partitions(harmonizer.partitions()))
    rows = scores(harmonizer)
    wrong = {tuple(key) for key in receipts.wrong}
    key = ("image_id", "receipt_id", "line_id", "word_id", "label")
    ranked = sorted(rows, key=lambda row: -row["outlier_score"])
    assert {tuple(row[name] for name in key) for row in ranked[: len(wrong)]} == wrong
    assert {row["competing_label"] for row in ranked[: len(wrong)]} == {"GRAND_TOTAL"}
    assert {row["scorer"] for row in rows} == {"model"}


def test_contributions_name_every_group_of_evidence(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=8))
    list(harmonizer.score_partitions(harmonizer.partitions()))
    found = harmonizer.warehouse.query(
        "SELECT DISTINCT json_keys(contributions) AS groups FROM similarity_matches"
    )["groups"].to_pylist()
    assert found == [list(EVIDENCE_GROUPS)]


def test_few_labels_are_judged_by_similar_words_alone(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(each=3))
    assert harmonizer.models.version() == NO_MODEL
    list(harmonizer.score_partitions(harmonizer.partitions()))
    assert {row["scorer"] for row in scores(harmonizer)} == {"evidence"}
    assert "no promise" in harmonizer.guarantee()


def test_scores_are_the_same_on_another_machine_and_in_another_order(tmp_path):
    def run(name, receipts):
        harmonizer = Harmonizer(Home(tmp_path / name).ensure())
        submitted(harmonizer, tmp_path / name, receipts)
        list(harmonizer.score_partitions(harmonizer.partitions()))
        return scores(harmonizer)

    receipts = shop_receipts(MERCHANTS, each=7)
    turned = Receipts(receipts.words[::-1], receipts.labels[::-1], receipts.wrong)
    assert run("first", receipts) == run("second", turned)


def test_the_model_stays_in_force_until_the_labels_have_doubled(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=7))
    assert harmonizer.models.version() == DUE
    version, model = harmonizer.fit_model()
    assert isinstance(model, FittedModel)
    assert harmonizer.models.version() == version
    submitted(harmonizer, tmp_path / "some", shop_receipts(("Epsilon",), 7, "new"))
    assert harmonizer.models.version() == version
    assert harmonizer.fit_model()[0] == version
    submitted(harmonizer, tmp_path / "many", shop_receipts(["Zeta", "Eta", "Theta"], 9, "more"))
    assert harmonizer.models.version() == DUE
    assert harmonizer.fit_model()[0] != version


def test_new_labels_leave_other_partitions_alone_while_the_model_is_in_force(harmonizer, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=7)
    receipts.submit(harmonizer, tmp_path / "a")
    harmonize(harmonizer)
    submitted(harmonizer, tmp_path / "b", shop_receipts(("Epsilon",), 2, "new"))
    stale = harmonizer.stale_partitions("offline")
    assert {partition.merchant_key for partition in stale} == {merchant_key("Epsilon")}


def test_another_alpha_is_another_model(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=7))
    harmonizer.fit_model()
    stricter = Settings.model_validate({"triage": {"alpha": 0.001}})
    assert Harmonizer(harmonizer.home, stricter).models.version() == DUE


def test_a_lost_model_file_is_fitted_again_to_the_same_model(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=7))
    version, _ = harmonizer.fit_model()
    harmonizer.home.model_file(version).unlink()
    assert harmonizer.models.version() == DUE
    assert Harmonizer(harmonizer.home).fit_model()[0] == version


def test_a_broken_model_file_is_named(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=7))
    version, _ = harmonizer.fit_model()
    harmonizer.home.model_file(version).write_bytes(b"not a model")
    with pytest.raises(StoreError, match=f"{version}.npz: the model cannot be read"):
        Harmonizer(harmonizer.home).fit_model()


def test_a_model_is_the_same_after_saving_and_loading(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=7))
    version, model = harmonizer.fit_model()
    loaded = FittedModel.load(harmonizer.home.model_file(version))
    assert loaded.calibration == model.calibration
    assert loaded.thresholds == model.thresholds
    assert loaded.examples == model.examples
    assert np.array_equal(loaded.suspicion.coefficients, model.suspicion.coefficients)


def test_statuses_decide_what_may_be_decided_without_a_question(harmonizer, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=10)
    receipts.labels[0]["validation_status"] = "INVALID"
    for label in receipts.labels:
        if label["label"] == "DATE" and label["line_id"] == 7:
            label["validation_status"] = "VALID"
    submitted(harmonizer, tmp_path, receipts)
    list(harmonizer.score_partitions(harmonizer.partitions()))
    rows = scores(harmonizer)
    invalid = [row for row in rows if row["validation_status"] == "INVALID"]
    assert [row["triage"] for row in invalid] == ["outlier"]
    assert invalid[0]["outlier_score"] > 0.5
    validated = [row for row in rows if row["validation_status"] == "VALID"]
    assert {row["triage"] for row in validated} <= {"valid", "ambiguous"}


def test_labels_of_rare_types_are_asked_about(harmonizer, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    moved = next(label for label in receipts.labels if label["label"] == "TIME")
    moved["label"] = "COUPON"
    moved["validation_status"] = "PENDING"
    submitted(harmonizer, tmp_path, receipts)
    list(harmonizer.score_partitions(harmonizer.partitions()))
    assert [row["triage"] for row in scores(harmonizer) if row["label"] == "COUPON"] == [
        "ambiguous"
    ]


def test_the_classic_rule_and_similar_words_alone_stay_selectable(home, tmp_path):
    submitted(Harmonizer(home), tmp_path, shop_receipts(MERCHANTS, each=8))
    for scorer in ("evidence", "count_rule"):
        chosen = Settings.model_validate({"similarity": {"scorer": scorer}})
        harmonizer = Harmonizer(home, chosen)
        list(harmonizer.score_partitions(harmonizer.stale_partitions("offline")))
        assert {row["scorer"] for row in scores(harmonizer)} == {scorer}


_FIT = """
import sys
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
print(Harmonizer(Home.resolve(sys.argv[1])).fit_model()[0], flush=True)
"""


def fitting_process(home):
    return subprocess.Popen(
        [sys.executable, "-c", _FIT, str(home.root)], stdout=subprocess.PIPE, text=True
    )


def test_processes_that_fit_at_the_same_time_agree_on_one_model(harmonizer, tmp_path):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=8))
    processes = [fitting_process(harmonizer.home) for _ in range(3)]
    versions = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert len(versions) == 1
    assert len(table(harmonizer, "suspicion_models")) == 1


def test_a_fit_that_was_killed_leaves_nothing_and_the_next_one_is_as_if_undisturbed(
    harmonizer, tmp_path
):
    submitted(harmonizer, tmp_path, shop_receipts(MERCHANTS, each=8))
    lock = harmonizer.home.locks / "model.lock"
    for pause in (0.0, 0.1, 0.3):
        process = fitting_process(harmonizer.home)
        while not lock.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    version, _ = Harmonizer(harmonizer.home).fit_model()
    undisturbed = Harmonizer(Home(tmp_path / "other").ensure())
    submitted(undisturbed, tmp_path / "again", shop_receipts(MERCHANTS, each=8))
    assert undisturbed.fit_model()[0] == version
    assert [path.name for path in harmonizer.home.model_file(version).parent.glob("[!.]*")] == [
        f"{version}.npz"
    ]
    assert os.path.getsize(harmonizer.home.model_file(version)) > 0
