from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harmonizer_assets.core.evaluation import evaluate
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.home import Home
from harmonizer_assets.core.merchants import merchant_key
from harmonizer_assets.core.partitions import PartitionKey
from harmonizer_assets.core.sample_data import SampleSpec, write_samples
from harmonizer_assets.core.settings import Settings, SimilaritySettings
from harmonizer_assets.core.stages import run_stage
from harmonizer_tests.receipts import Receipts, harmonize, shop_receipts, table

RESULTS = ("similarity_matches", "judgements", "outliers", "merchant_alarms", "label_decisions")


def results(harmonizer: Harmonizer) -> dict[str, list[dict]]:
    return {name: table(harmonizer, name) for name in RESULTS}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return write_samples(SampleSpec(labels=1_500), tmp_path_factory.mktemp("samples"))


def sampled(home: Home, samples, settings: Settings | None = None) -> Harmonizer:
    harmonizer = Harmonizer(home, settings)
    batch = home.inbox / "samples"
    batch.mkdir()
    for name in ("words", "labels"):
        shutil.copy(getattr(samples, name), batch / f"{name}.parquet")
    return harmonizer


def test_a_wrong_label_is_found_and_the_right_type_suggested(harmonizer, tmp_path):
    receipts = shop_receipts()
    receipts.submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    found = [row for row in table(harmonizer, "outliers") if row["is_outlier"]]
    assert {
        (r["image_id"], r["receipt_id"], r["line_id"], r["word_id"], r["label"]) for r in found
    } == set(receipts.wrong)
    assert {row["suggested_label"] for row in found} == {"GRAND_TOTAL"}
    assert all("GRAND_TOTAL" in row["reasoning"] for row in found)


def test_every_label_ends_in_exactly_one_state(home, samples):
    harmonizer = sampled(home, samples)
    harmonize(harmonizer)
    counts = harmonizer.counts()
    assert counts.labels == samples.n_labels
    assert counts.labels == counts.valid + counts.outliers + counts.unresolved
    assert sum(harmonizer.decided_by().values()) == counts.labels
    decisions = table(harmonizer, "label_decisions")
    assert all(0 <= row["outlier_score"] <= 1 for row in decisions)
    assert {row["is_outlier"] for row in decisions if row["decided_by"] == "unresolved"} <= {None}


def test_a_second_run_on_unchanged_input_embeds_nothing_and_changes_no_row(home, samples):
    harmonizer = sampled(home, samples)
    harmonize(harmonizer)
    before = {**results(harmonizer), "state": table(harmonizer, "partition_state")}
    shutil.move(home.inbox / ".done" / "samples", home.inbox / "again")
    assert harmonizer.ingest_pending().batches[0].unchanged
    assert harmonizer.index_documents().embedded == 0
    assert harmonizer.stale_partitions("offline") == []
    partitions = harmonizer.partitions()
    assert not any(result.changed for result in harmonizer.score_partitions(partitions))
    assert before == {**results(harmonizer), "state": table(harmonizer, "partition_state")}


def test_new_labels_make_only_their_merchant_stale_and_touch_no_other_row(harmonizer, tmp_path):
    shop_receipts(["Alpha Mart", "Beta Cafe"]).submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    beta = merchant_key("Beta Cafe")
    before = [row for row in table(harmonizer, "similarity_matches") if row["merchant_key"] == beta]
    more = Receipts()
    more.add_receipt("another", "Alpha Mart")
    more.submit(harmonizer, tmp_path / "more")
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    stale = harmonizer.stale_partitions("offline")
    assert {key.merchant_key for key in stale} == {merchant_key("Alpha Mart")}
    harmonize(harmonizer)
    after = [row for row in table(harmonizer, "similarity_matches") if row["merchant_key"] == beta]
    assert before == after


def test_a_label_that_moves_to_another_merchant_leaves_no_rows_behind(harmonizer, tmp_path):
    receipts = Receipts()
    receipts.add_receipt("one", "Alpha Mart")
    receipts.submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    moved = Receipts()
    moved.add_receipt("one", "Beta Cafe")
    moved.words.clear()
    moved.submit(harmonizer, tmp_path / "moved")
    harmonize(harmonizer)
    for name in ("similarity_matches", "partition_state"):
        keys = {row["merchant_key"] for row in table(harmonizer, name)}
        assert keys == {merchant_key("Beta Cafe")}
    assert harmonizer.stale_partitions("offline") == []


def test_unusual_merchant_names_are_partitions_like_any_other(harmonizer, tmp_path):
    names = ["Trader Joe's", "O'Reilly | Sons", "7/11", "日本", "x" * 500, "A&B", "A B", None]
    shop_receipts(names, each=2).submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    assert harmonizer.counts().merchants == len(names)
    assert {row["merchant_name"] for row in table(harmonizer, "label_decisions")} == set(names)
    assert all(row["outlier_score"] is not None for row in table(harmonizer, "label_decisions"))


def test_labels_without_positions_or_words_are_judged_or_left_open(harmonizer, tmp_path):
    receipts = shop_receipts()
    for row in receipts.words:
        row.update(x="", y="", width="", height="")
    gone = receipts.words.pop(0)
    receipts.submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    decisions = table(harmonizer, "label_decisions")
    open_ones = [row for row in decisions if row["word_text"] is None]
    assert [row["image_id"] for row in open_ones] == [gone["image_id"]]
    assert open_ones[0]["decided_by"] == "unresolved"
    assert "has not arrived" in open_ones[0]["reasoning"]
    found = [row for row in table(harmonizer, "outliers") if row["is_outlier"]]
    assert len(found) == len(receipts.wrong)


def test_a_receipt_under_the_wrong_merchant_raises_an_alarm_that_names_the_right_one(
    home, tmp_path
):
    samples = write_samples(SampleSpec(labels=3_000, merchants=8, error_rate=0.02), tmp_path)
    harmonizer = sampled(home, samples)
    harmonizer.ingest_pending()
    receipts = harmonizer.warehouse.query(
        "SELECT image_id, receipt_id, min(merchant_name) AS name FROM labels GROUP BY ALL "
        "HAVING count(merchant_name) > 20 ORDER BY ALL"
    ).to_pylist()
    by_name: dict[str, list[dict]] = {}
    for receipt in receipts:
        by_name.setdefault(receipt["name"], []).append(receipt)
    large = sorted(by_name, key=lambda name: -len(by_name[name]))
    victim, impostor = by_name[large[0]][0], large[1]
    harmonizer.warehouse.write(
        lambda con: con.execute(
            "UPDATE labels SET merchant_name = $1, merchant_key = $2 "
            "WHERE image_id = $3 AND receipt_id = $4",
            [impostor, merchant_key(impostor), victim["image_id"], victim["receipt_id"]],
        )
    )
    harmonize(harmonizer)
    alarms = table(harmonizer, "merchant_alarms")
    assert [(row["image_id"], row["merchant_name"]) for row in alarms] == [
        (victim["image_id"], impostor)
    ]
    assert alarms[0]["suggested_merchant_name"] == victim["name"]


def test_chromas_index_and_exact_search_agree(tmp_path, samples):
    scores = []
    for limit in (20_000, 0):
        settings = Settings(similarity=SimilaritySettings(exact_search_limit=limit))
        harmonizer = sampled(Home(tmp_path / str(limit)).ensure(), samples, settings)
        harmonize(harmonizer)
        scores.append([row["outlier_score"] for row in table(harmonizer, "label_decisions")])
    differing = [abs(a - b) > 0.05 for a, b in zip(*scores, strict=True)]
    assert sum(differing) < 0.02 * len(differing)


def test_the_classic_count_rule_can_be_chosen(home, samples):
    settings = Settings(similarity=SimilaritySettings(scorer="count_rule"))
    harmonizer = sampled(home, samples, settings)
    harmonize(harmonizer)
    for row in table(harmonizer, "similarity_matches"):
        expected = {True: "valid", False: "ambiguous"}[row["valid_matches"] >= 10]
        assert row["triage"] == ("outlier" if row["valid_matches"] == 0 else expected)


def test_another_taxonomy_needs_no_code_change(home, tmp_path):
    home.taxonomy.write_text("label_types:\n  HOLDER: Who holds the card.\n  BORN: Birthday.\n")
    harmonizer = Harmonizer(home)
    receipts = Receipts()
    for n in range(12):
        receipts.add_receipt(f"card-{n}", "Card Office")
    kept = []
    for row in receipts.labels:
        new = {"MERCHANT_NAME": "HOLDER", "DATE": "BORN"}.get(row["label"])
        if new is not None:
            kept.append({**row, "label": new})
    kept[0]["label"], kept[0]["validation_status"] = "BORN", "PENDING"
    receipts.labels = kept
    receipts.submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    [found] = [row for row in table(harmonizer, "outliers") if row["is_outlier"]]
    assert (found["label"], found["suggested_label"]) == ("BORN", "HOLDER")


def test_a_lost_vector_index_is_rebuilt(home, samples):
    harmonizer = sampled(home, samples)
    harmonize(harmonizer)
    total = harmonizer.index_documents().total
    shutil.rmtree(home.chroma)
    report = Harmonizer(home).index_documents()
    assert (report.rebuilt, report.embedded) == (True, total)
    assert Harmonizer(home).index_documents().embedded == 0


def test_vectors_carry_merchants_label_types_and_statuses(harmonizer, tmp_path):
    shop_receipts().submit(harmonizer, tmp_path)
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    with harmonizer._index.session() as session:
        found = session._collection.get(
            where={"merchants": {"$contains": merchant_key("Beta Cafe")}}, include=["metadatas"]
        )
    assert found["ids"]
    assert all({"VALID", "PENDING"} >= set(row["statuses"]) for row in found["metadatas"])
    assert {"GRAND_TOTAL"} <= {kind for row in found["metadatas"] for kind in row["label_types"]}


def test_a_run_killed_at_any_moment_ends_like_an_undisturbed_one(tmp_path, home, samples):
    undisturbed = sampled(Home(tmp_path / "undisturbed").ensure(), samples)
    harmonize(undisturbed)
    sampled(home, samples)
    code = (
        "from harmonizer_assets.core.harmonizer import Harmonizer\n"
        "from harmonizer_assets.core.home import Home\n"
        "from harmonizer_tests.receipts import harmonize\n"
        "print('ready', flush=True)\n"
        "harmonize(Harmonizer(Home.resolve()))\n"
    )
    root = Path(__file__).parents[1]
    for pause in (0.1, 0.4, 0.7, 1.0, 1.4):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, env={**os.environ}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    harmonizer = Harmonizer(home)
    harmonize(harmonizer)
    assert results(harmonizer) == results(undisturbed)


def test_chunks_hold_whole_merchants_and_every_partition_once(home, samples, monkeypatch):
    harmonizer = sampled(home, samples)
    harmonizer.ingest_pending()
    harmonizer.index_documents()
    partitions = harmonizer.partitions()
    merchants = []

    def spy(*args, **kwargs):
        return run_stage(*args, **{**kwargs, "labels_per_chunk": 300})

    monkeypatch.setattr("harmonizer_assets.core.harmonizer.run_stage", spy)
    done = list(harmonizer.score_partitions(partitions))
    assert sorted(result.partition for result in done) == partitions
    for result in done:
        if not merchants or merchants[-1] != result.partition.merchant_key:
            merchants.append(result.partition.merchant_key)
    assert len(merchants) == len(set(merchants))
    assert sum(result.labels for result in done) == samples.n_labels


def test_only_the_selected_partitions_are_stale(harmonizer, tmp_path):
    shop_receipts().submit(harmonizer, tmp_path)
    harmonizer.ingest_pending()
    beta = merchant_key("Beta Cafe")
    assert harmonizer.stale_partitions("offline", ["DATE"], [beta]) == [PartitionKey("DATE", beta)]


def test_quality_on_real_receipts(home, sroie):
    harmonizer = Harmonizer(home)
    batch = home.inbox / "sroie"
    batch.mkdir()
    for name in ("words", "labels"):
        shutil.copy(sroie / f"{name}.parquet", batch)
    harmonize(harmonizer)
    quality = evaluate(harmonizer.warehouse, sroie / "truth.parquet").overall
    assert quality.labels == 9_940
    assert quality.auprc > 0.95
    assert quality.suggestion_accuracy > 0.9
