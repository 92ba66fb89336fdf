from __future__ import annotations

import json

import pytest
from dagster import DagsterInstance, materialize

from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.decide.patterns import pattern_id
from harmonizer_assets.core.decide.rules import accept_rule, list_rules, retire_rule
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.definitions import build_definitions
from harmonizer_assets.defs.assets.publish import publish
from harmonizer_assets.defs.resources import HomeResource
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, Receipts, harmonize, shop_receipts, table

MERCHANTS = ("Alpha Mart", 'Beta "Cafe" [red]', "Gamma's | Deli", "Δelta 🛒")


def mistimed(images: str = "image", each: int = 8, times: int = 2) -> Receipts:
    """Receipts of which some have their time labelled as a date."""
    receipts = shop_receipts(MERCHANTS, each, images)
    for label in receipts.labels:
        copy = int(label["image_id"].rpartition("-")[2])
        if label["label"] == "TIME" and copy < times:
            label.update(label="DATE", validation_status="PENDING")
    return receipts


@pytest.fixture
def home_with_errors(home, tmp_path):
    def make(fresh):
        pipeline = Pipeline(fresh)
        mistimed().submit(pipeline, tmp_path / "files")
        harmonize(pipeline)

    copy_home(home, "times labelled as dates", make)
    return Pipeline(home)


def time_pattern(pipeline):
    [found] = [
        row
        for row in table(pipeline, "label_patterns")
        if (row["mask"], row["label_type"]) == ("00:00", "DATE")
    ]
    return found


def dated_times(pipeline):
    return pipeline.warehouse.query(
        "SELECT * FROM label_decisions WHERE word_text = '14:05' AND label = 'DATE' ORDER BY ALL"
    ).to_pylist()


def test_equal_wrong_texts_are_one_finding_with_their_count(home_with_errors):
    found = {(row["mask"], row["label_type"]): row for row in table(home_with_errors, "findings")}
    time = found["00:00", "DATE"]
    assert (time["n_labels"], time["n_merchants"], time["n_receipts"]) == (8, 4, 8)
    assert time["sentence"] == "words like '14:05': labelled DATE, 8 times; it looks like TIME"
    assert time["line"] == "2024-03-07 [14:05]"
    totals = found["00.00", "DATE"]
    assert totals["sentence"] == (
        "words like '17.50': labelled DATE, 4 times; it looks like GRAND_TOTAL"
    )


def test_a_text_that_is_always_labelled_wrongly_is_a_pattern_over_all_merchants(home_with_errors):
    found = time_pattern(home_with_errors)
    assert (found["support"], found["against"], found["precision"]) == (8, 0, 1.0)
    assert found["merchant_key"] is None
    assert found["before"] is None
    assert found["sentence"] == "a word like '14:05' is not DATE: it is TIME"
    assert found["pattern_id"] == pattern_id("DATE", "00:00", None, None)


def test_a_text_that_is_wrong_in_one_place_only_is_a_pattern_of_that_place(home_with_errors):
    """'00.00' is a GRAND_TOTAL nearly everywhere, so being a DATE is what is always wrong."""
    rows = [row for row in table(home_with_errors, "label_patterns") if row["mask"] == "00.00"]
    assert {row["label_type"] for row in rows} == {"DATE"}
    assert {row["suggested_label"] for row in rows} == {"GRAND_TOTAL"}


def test_patterns_are_found_again_under_the_same_name(home_with_errors):
    before = table(home_with_errors, "label_patterns")
    assert home_with_errors.publish("again").patterns == len(before)
    assert table(home_with_errors, "label_patterns") == before


def test_an_accepted_rule_decides_labels_that_come_later(home_with_errors, tmp_path):
    pipeline = home_with_errors
    change = accept_rule(
        pipeline.warehouse, time_pattern(pipeline)["pattern_id"], decided_by="Ann", note="!"
    )
    assert change.version == 1
    mistimed("later", each=2, times=1).submit(pipeline, tmp_path / "later")
    harmonize(pipeline)
    decided = dated_times(pipeline)
    assert len(decided) == 12
    for row in decided:
        assert row["decided_by"] == "rule"
        assert row["is_outlier"] is True
        assert row["confidence"] == 1.0
        assert row["reasoning"].startswith(f"rule {change.rule_id} (version 1): a word like ")
    published = [row for row in table(pipeline, "outliers") if row["word_text"] == "14:05"]
    assert {row["decided_by"] for row in published} == {"rule"}
    assert all(row["reasoning"].startswith(f"rule {change.rule_id}") for row in published)
    [rule] = list_rules(pipeline.warehouse)
    assert (rule["decided_by"], rule["note"], rule["decides"]) == ("Ann", "!", 12)


def test_the_review_policy_can_name_accepted_rules(home_with_errors, home):
    rule_id = accept_rule(
        home_with_errors.warehouse, time_pattern(home_with_errors)["pattern_id"]
    ).rule_id
    harmonize(home_with_errors)
    home.review_policy.write_text(
        f"rules: [{{name: times, tier: automatic, rule_ids: [{rule_id}]}}]\n"
    )
    Pipeline(home).review.update()
    moved = [row for row in table(home_with_errors, "review_queue") if row["action"] == "move"]
    assert {row["word_text"] for row in moved if row["policy"] == "times"} == {"14:05"}
    assert {row["word_text"] for row in moved if row["policy"] is None} == {"17.50"}


def test_nobody_is_asked_about_what_a_rule_decides(home_with_errors):
    pipeline = home_with_errors
    accept_rule(pipeline.warehouse, time_pattern(pipeline)["pattern_id"])
    harmonize(pipeline)
    judged = table(pipeline, "judgements")
    assert not [
        row for row in judged if (row["label"], row["line_id"], row["word_id"]) == ("DATE", 3, 2)
    ]


def test_a_rule_invalidates_what_it_is_about_and_nothing_else(home_with_errors):
    pipeline = home_with_errors
    assert pipeline.stale(OFFLINE) == []
    change = accept_rule(pipeline.warehouse, time_pattern(pipeline)["pattern_id"])
    stale = pipeline.stale(OFFLINE)
    assert {partition.label_type for partition in stale} == {"DATE"}
    assert len(stale) == change.partitions == len(MERCHANTS)
    harmonize(pipeline)
    assert pipeline.stale(OFFLINE) == []


def test_a_person_who_has_validated_a_label_is_not_overruled(home_with_errors, tmp_path):
    pipeline, receipts = home_with_errors, mistimed()
    validated = next(
        label for label in receipts.labels if (label["label"], label["word_id"]) == ("DATE", 2)
    )
    accept_rule(pipeline.warehouse, time_pattern(pipeline)["pattern_id"])
    again = Receipts(labels=[{**validated, "validation_status": "VALID"}])
    again.words = [
        word
        for word in receipts.words
        if (word["image_id"], word["line_id"]) == (validated["image_id"], 3)
    ]
    again.submit(pipeline, tmp_path / "b")
    harmonize(pipeline)
    [rule] = list_rules(pipeline.warehouse)
    assert (rule["decides"], rule["overruled"]) == (7, 1)
    [kept] = [row for row in dated_times(pipeline) if row["validation_status"] == "VALID"]
    assert kept["decided_by"] != "rule"


def test_a_retired_rule_decides_nothing_and_stays_on_record(home_with_errors):
    pipeline = home_with_errors
    before = table(pipeline, "outliers")
    rule = accept_rule(pipeline.warehouse, time_pattern(pipeline)["pattern_id"]).rule_id
    harmonize(pipeline)
    assert retire_rule(pipeline.warehouse, rule, note="was wrong").version == 2
    harmonize(pipeline)
    assert {row["decided_by"] for row in dated_times(pipeline)} & {"rule"} == set()
    assert table(pipeline, "outliers") == before
    versions = table(pipeline, "label_rules")
    assert sorted((row["version"], row["status"]) for row in versions) == [
        (1, "accepted"),
        (2, "retired"),
    ]
    assert accept_rule(pipeline.warehouse, rule).version == 3


def test_what_is_a_rule_is_no_longer_proposed(home_with_errors):
    pipeline = home_with_errors
    accept_rule(pipeline.warehouse, time_pattern(pipeline)["pattern_id"])
    harmonize(pipeline)
    assert "00:00" not in {row["mask"] for row in table(pipeline, "label_patterns")}


def test_unknown_doubled_and_absent_rules_are_refused(home_with_errors):
    warehouse = home_with_errors.warehouse
    pattern = time_pattern(home_with_errors)["pattern_id"]
    with pytest.raises(InputError, match="no pattern 'magic'"):
        accept_rule(warehouse, "magic")
    with pytest.raises(InputError, match=r"no rule .* in force"):
        retire_rule(warehouse, pattern)
    accept_rule(warehouse, pattern)
    with pytest.raises(InputError, match="is a rule already"):
        accept_rule(warehouse, pattern)


def test_validated_labels_that_contradict_each_other_are_reported(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=4)
    wrong = next(
        label for label in receipts.labels if (label["label"], label["line_id"]) == ("DATE", 7)
    )
    wrong["validation_status"] = "VALID"
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    [found] = pipeline.tables.contradictions()
    assert (found["label_a"], found["n_a"]) == ("DATE", 1)
    assert (found["label_b"], found["n_b"]) == ("GRAND_TOTAL", 3)
    assert "is validated as DATE (1) and as GRAND_TOTAL (3)" in found["sentence"]


def test_types_that_words_carry_together_do_not_contradict(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=4)
    totals = [label for label in receipts.labels if label["label"] == "GRAND_TOTAL"]
    receipts.labels.append({**totals[0], "label": "SUBTOTAL"})
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    assert pipeline.tables.contradictions() == []


SHIFT = {"PRODUCT_NAME": "LINE_TOTAL", "LINE_TOTAL": "PRODUCT_NAME"}


def test_columns_that_have_shifted_are_one_alarm_on_the_receipt(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    for label in receipts.labels:
        if label["image_id"] == "image-1-2" and label["label"] in SHIFT:
            label.update(label=SHIFT[label["label"]], validation_status="PENDING")
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    [alarm] = table(pipeline, "receipt_alarms")
    assert alarm["image_id"] == "image-1-2"
    assert alarm["kind"] == "columns_shifted"
    assert alarm["n_outliers"] == 4
    assert alarm["reasoning"] == (
        "labels have moved together, 4 of them: LINE_TOTAL like PRODUCT_NAME, PRODUCT_NAME like "
        "LINE_TOTAL"
    )


def test_a_receipt_whose_labels_are_wrong_throughout_is_an_alarm(pipeline, tmp_path):
    receipts = shop_receipts(MERCHANTS, each=8)
    turn = ("DATE", "TIME", "PRODUCT_NAME", "LINE_TOTAL", "MERCHANT_NAME", "SUBTOTAL")
    ours = [label for label in receipts.labels if label["image_id"] == "image-2-1"]
    for number, label in enumerate(ours):
        wrong = turn[number % len(turn)]
        if wrong != label["label"]:
            label.update(label=wrong, validation_status="PENDING")
    receipts.submit(pipeline, tmp_path / "files")
    harmonize(pipeline)
    assert [row["image_id"] for row in table(pipeline, "receipt_alarms")] == ["image-2-1"]


def test_the_command_line_lists_accepts_and_retires(home_with_errors, tmp_path):
    root = home_with_errors.home.root
    listed = cli("patterns", "--json", tmp_path / "patterns.json", home=root)
    assert listed.returncode == 0, listed.stderr
    pattern = time_pattern(home_with_errors)["pattern_id"]
    assert pattern in listed.stdout
    written = json.loads((tmp_path / "patterns.json").read_text())
    assert set(written) == {"patterns", "findings", "contradictions"}
    accepted = cli("rules", "accept", pattern, "--by", "Ann", "--note", "a clock", home=root)
    assert accepted.returncode == 0, accepted.stderr
    assert "computes 4 partitions again" in accepted.stdout
    result = cli("run", home=root)
    assert result.returncode == 0, result.stderr
    shown = cli("rules", "list", home=root).stdout
    assert f"{pattern}  accepted (version 1, by Ann)" in shown
    assert "decides 8 labels" in shown
    assert "0 rows changed" in cli("run", home=root).stdout
    assert cli("rules", "retire", pattern, home=root).returncode == 0
    refused = cli("rules", "retire", pattern, home=root)
    assert refused.returncode == 2
    assert "in force" in shown_error(refused)
    exported = cli("export", "label_rules", "--out", tmp_path / "rules.csv", home=root)
    assert exported.returncode == 0
    assert "a clock" in (tmp_path / "rules.csv").read_text()


def test_patterns_and_contradictions_show_in_dagster(home, home_with_errors):
    result = materialize(
        [publish],
        selection=["label_patterns"],
        resources={"home": HomeResource()},
        instance=DagsterInstance.ephemeral(),
    )
    [event] = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["dagster/row_count"].value == home_with_errors.tables.counts().patterns
    sentences = [record.data["sentence"] for record in metadata["findings"].records]
    assert "words like '14:05': labelled DATE, 8 times; it looks like TIME" in sentences
    checked = (
        build_definitions(home)
        .resolve_job_def("check_labels")
        .execute_in_process(instance=DagsterInstance.ephemeral())
    )
    passed = {each.check_name: each.passed for each in checked.get_asset_check_evaluations()}
    assert passed["no_contradictions"] is True
