"""What people are asked, what they answer, and which corrections follow."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from harmonizer_assets.core.apply.undo import Selection, undo
from harmonizer_assets.core.base.errors import InputError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.label import LABEL_COLUMNS, LabelKey, label_key, word_key
from harmonizer_assets.core.review.answers import Answer
from harmonizer_assets.core.review.queue import ReviewFilter
from harmonizer_assets.core.score.similar_words import read_merchant_labels
from harmonizer_assets.core.store.database import Connection
from harmonizer_tests.support.cli import cli, shown_error
from harmonizer_tests.support.corrections import label
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, Receipts, harmonize, shop_receipts, table

NO_RULES = "rules: []\n"
ALL_BLIND = "blind_share: 1.0\nrules: [{name: all, tier: automatic, agreement: 0.3}]\n"
NONE_BLIND = "blind_share: 0.001\nrules: [{name: all, tier: by_kind, agreement: 0.3}]\n"
LATER_SHOPS = ["Epsilon Bar", "Zeta Grill", "Eta Inn", "Theta Pub", "Iota Spa", "Kappa Gym"]


@pytest.fixture
def pipeline(home) -> Pipeline:
    """Four shops with six receipts each; the total of the last one is labelled DATE."""
    return reviewed(home)


def reviewed(home: Home, policy: str = NO_RULES, settings: Settings | None = None) -> Pipeline:
    """The same shops, found without rules; the queue is then drawn by this policy."""
    shops = ("Alpha Mart", "Beta Cafe", "Gamma Deli", "Delta Store")
    copy_home(
        home, "four shops to review", lambda fresh: found(fresh, shop_receipts(shops, each=6))
    )
    if policy != NO_RULES:
        home.review_policy.write_text(policy)
        Pipeline(home).review.update()
    return Pipeline(home, settings)


def found(home: Home, receipts: Receipts) -> None:
    home.review_policy.write_text(NO_RULES)
    pipeline = Pipeline(home)
    receipts.submit(pipeline, home.scratch / "files")
    harmonize(pipeline)


def dates(pipeline: Pipeline, reviewer: str = "ann"):
    """The totals that are labelled DATE, as they are asked about one by one."""
    rows = pipeline.review.items(reviewer, ReviewFilter(label_type="DATE", action="move"))
    return [item for row in rows for item in pipeline.review.kind(reviewer, row["kind_id"])]


def test_each_decision_is_a_proposal(pipeline):
    actions = {row["action"] for row in table(pipeline, "proposals")}
    assert actions == {"keep", "move"}
    moved = [row for row in table(pipeline, "proposals") if row["action"] == "move"]
    assert {(row["label"], row["to_label"]) for row in moved} == {("DATE", "GRAND_TOTAL")}
    assert {row["n_alike"] for row in moved} == {4}


@pytest.mark.parametrize(
    ("status", "triage", "competing", "no_label", "action", "to_label"),
    [
        ("PENDING", "outlier", "GRAND_TOTAL", False, "move", "GRAND_TOTAL"),
        ("PENDING", "outlier", "GRAND_TOTAL", True, "mark_invalid", None),
        ("PENDING", "valid", "GRAND_TOTAL", False, "confirm", None),
        ("VALID", "valid", "GRAND_TOTAL", False, "keep", None),
        ("INVALID", "outlier", "GRAND_TOTAL", False, "ask", None),
    ],
)
def test_what_is_known_of_a_label_and_its_status_say_what_is_proposed(
    pipeline, status, triage, competing, no_label, action, to_label
):
    key = label_key(dates(pipeline)[0])
    named = "image_id = $1 AND label = 'DATE' AND line_id = $2"

    def know(con: Connection) -> None:
        con.execute(
            f"UPDATE similarity_matches SET triage = $3, competing_label = $4, no_label = $5, "
            f"looks_right = true WHERE {named}",
            [key.image_id, key.line_id, triage, competing, no_label],
        )
        con.execute(
            f"UPDATE labels SET validation_status = $3 WHERE {named}",
            [key.image_id, key.line_id, status],
        )
        con.execute("DELETE FROM judgements")

    pipeline.warehouse.write(know)
    [found] = [row for row in table(pipeline, "proposals") if label_key(row) == key]
    assert (found["action"], found["to_label"]) == (action, to_label)


def test_a_question_that_has_failed_proposes_nothing(pipeline):
    key = label_key(dates(pipeline)[0])

    def fail(con: Connection) -> None:
        con.execute("UPDATE similarity_matches SET triage = 'ambiguous'")
        con.execute("DELETE FROM judgements")

    pipeline.warehouse.write(fail)
    assert key not in {label_key(row) for row in table(pipeline, "proposals")}


def test_what_people_have_answered_is_learned_from(home, tmp_path):
    pipeline = reviewed(home)
    before = {row["image_id"]: row["outlier_score"] for row in dates(pipeline)}
    first, *others = [label_key(row) for row in dates(pipeline)]
    for key in others:
        pipeline.review.answer(key, "ann", Answer.RIGHT)
    pipeline.apply("ann", commit=True)
    pipeline.run(replace(OFFLINE, refresh=True))
    scores = {
        row["image_id"]: row["outlier_score"]
        for row in table(pipeline, "similarity_matches")
        if row["label"] == "DATE"
        and (row["line_id"], row["word_id"]) == (first.line_id, first.word_id)
    }
    assert scores[first.image_id] < before[first.image_id]


def test_a_label_that_has_gone_since_it_was_asked_about_can_be_added_again(pipeline):
    key = label_key(dates(pipeline)[0])
    pipeline.warehouse.write(
        lambda con: con.execute(
            "DELETE FROM labels WHERE (image_id, line_id, word_id, label) = ($1, $2, $3, $4)",
            [key.image_id, key.line_id, key.word_id, key.label],
        )
    )
    pipeline.review.answer(key, "ann", Answer.ADD)
    assert [row["seen_status"] for row in table(pipeline, "review_answers")] == [None]
    assert pipeline.apply("ann", commit=True).actions == {"add": 1}
    assert label(pipeline, key)["validation_status"] == "VALID"


def test_the_later_answer_counts_although_the_clock_was_set_back_between_them(pipeline):
    key = label_key(dates(pipeline)[0])
    pipeline.review.answer(key, "ann", Answer.RIGHT)
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE review_answers SET answered_at = answered_at + INTERVAL 1 DAY"
        )
    )
    pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert [row["verdict"] for row in table(pipeline, "standing_answers")] == ["wrong"]


def test_what_a_person_says_is_applied_and_nothing_else_is(pipeline):
    first, second, *_ = dates(pipeline)
    pipeline.review.answer(label_key(first), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.review.answer(label_key(second), "ann", Answer.RIGHT, note="it is one")
    report = pipeline.apply("ann", commit=True)
    assert report.actions == {"move": 1, "confirm": 1}
    assert label(pipeline, label_key(first))["validation_status"] == "INVALID"
    assert label(pipeline, label_key(second))["validation_status"] == "VALID"
    assert pipeline.apply("ann", commit=True).corrections == []


def test_one_answer_settles_all_labels_of_a_kind(pipeline):
    shown = dates(pipeline)
    keys = [label_key(row) for row in shown]
    kind = shown[0]["kind_id"]
    pipeline.review.answer_kind(kind, "ann", Answer.WRONG, to_label="GRAND_TOTAL", expected=keys)
    assert len(pipeline.apply("ann", commit=True).corrections) == len(keys) == 4
    assert dates(pipeline) == []
    [answer] = {row["answer_id"] for row in table(pipeline, "review_answers")}
    undone = undo(pipeline.warehouse, Selection(answer=answer), actor="ann", commit=True)
    assert len(undone.corrections) == 4


def test_a_list_of_a_kind_that_is_out_of_date_is_refused_and_nothing_is_stored(pipeline):
    shown = dates(pipeline)
    with pytest.raises(InputError, match="others by now"):
        pipeline.review.answer_kind(
            shown[0]["kind_id"], "ann", Answer.RIGHT, expected=[label_key(shown[0])]
        )
    assert table(pipeline, "review_answers") == []


@pytest.fixture
def two_kinds(home) -> Pipeline:
    """Four shops, two of them dear: their wrong totals look otherwise, as a kind of their own."""
    receipts = Receipts()
    shops = {"Alpha Mart": "1", "Beta Cafe": "1", "Gamma Deli": "1,01", "Delta Store": "1,01"}
    for number, (shop, begin) in enumerate(shops.items()):
        for copy in range(6):
            wrong = "DATE" if copy == 5 else None
            receipts.add_receipt(
                f"image-{number}-{copy}", shop, total=f"{begin}{copy}.50", wrong_total=wrong
            )
    copy_home(home, "two kinds to review", lambda fresh: found(fresh, receipts))
    return Pipeline(home)


def test_one_answer_settles_what_is_ticked_of_a_list_with_the_same_proposal(two_kinds):
    review = two_kinds.review
    [item, other] = review.items("ann")
    assert (item["n_open"], item["n_listed"]) == (2, 4)
    assert item["kind_id"] != other["kind_id"]
    shown = review.listed("ann", ReviewFilter().same_proposal(item))
    left_out, *ticked = [label_key(row) for row in shown]
    review.answer_listed(ticked, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert two_kinds.apply("ann", commit=True).actions == {"move": 3}
    assert [label_key(row) for row in review.items("ann")] == [left_out]
    assert {row["kind_id"] for row in table(two_kinds, "review_answers")} == {None}


def test_a_list_holds_the_most_suspicious_and_those_alike_stand_together(two_kinds):
    rows = table(two_kinds, "review_queue")
    two_kinds.warehouse.write(
        lambda con: con.execute(
            "UPDATE review_queue SET outlier_score = 0.1 WHERE image_id = 'image-2-5'"
        )
    )
    listed = two_kinds.review.listed("ann", ReviewFilter(), limit=3)
    assert {row["image_id"] for row in rows} - {row["image_id"] for row in listed} == {"image-2-5"}
    kinds = [row["kind_id"] for row in two_kinds.review.listed("ann", ReviewFilter())]
    assert len(kinds) == 4
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize(
    "change", ["to_label = 'SUBTOTAL'", "action = 'mark_invalid'", "is_blind = true"]
)
def test_one_answer_about_labels_that_are_not_proposed_for_alike_is_refused(two_kinds, change):
    keys = [label_key(row) for row in two_kinds.review.listed("ann", ReviewFilter())]
    two_kinds.warehouse.write(
        lambda con: con.execute(f"UPDATE review_queue SET {change} WHERE image_id = 'image-2-5'")
    )
    with pytest.raises(InputError, match="look at the list again"):
        two_kinds.review.answer_listed(keys, "ann", Answer.WRONG)
    assert table(two_kinds, "review_answers") == []


def test_one_answer_about_a_label_that_is_settled_by_now_is_refused(two_kinds):
    keys = [label_key(row) for row in two_kinds.review.listed("ann", ReviewFilter())]
    two_kinds.review.answer(keys[0], "bob", Answer.RIGHT)
    with pytest.raises(InputError, match="look at the list again"):
        two_kinds.review.answer_listed(keys, "ann", Answer.WRONG)
    assert {row["reviewer"] for row in table(two_kinds, "review_answers")} == {"bob"}


def values(pipeline: Pipeline, **scores: float) -> dict[str, float]:
    """The value of asking about the wrong totals of these images, if they had these scores."""
    for image, score in scores.items():
        pipeline.warehouse.write(
            lambda con, image=image, score=score: con.execute(
                "UPDATE similarity_matches SET outlier_score = $2 "
                "WHERE image_id = replace($1, '_', '-') AND label = 'DATE' AND outlier_score > 0.5",
                [image, score],
            )
        )
    pipeline.review.update()
    return {
        row["image_id"].replace("-", "_"): row["value"]
        for row in table(pipeline, "review_queue")
        if row["action"] == "move"
    }


def test_an_answer_is_worth_more_the_more_suspicious_the_label_is(two_kinds):
    # Both scores are as undecided, and each label is of a kind of two.
    worth = values(two_kinds, image_0_5=0.7, image_1_5=0.3)
    assert worth["image_0_5"] / worth["image_1_5"] == pytest.approx(7 / 3, rel=1e-3)


def test_an_answer_is_worth_more_where_the_score_is_undecided(two_kinds):
    worth = values(two_kinds, image_0_5=0.5, image_1_5=0.99)
    assert worth["image_0_5"] / 0.5 > 1.8 * worth["image_1_5"] / 0.99


def test_an_answer_is_worth_more_the_more_labels_it_can_settle(two_kinds):
    before = values(two_kinds, image_0_5=0.7)["image_0_5"]
    two_kinds.warehouse.write(
        lambda con: con.execute("DELETE FROM labels WHERE image_id = 'image-3-5'")
    )
    assert before / values(two_kinds)["image_0_5"] == pytest.approx(4 / 3, rel=1e-3)


def test_an_answer_that_is_withdrawn_or_given_anew_counts_no_more(pipeline):
    first, second, *_ = dates(pipeline)
    answer = pipeline.review.answer(label_key(first), "ann", Answer.RIGHT)
    pipeline.review.answer(label_key(second), "ann", Answer.RIGHT)
    pipeline.review.answer(label_key(second), "ann", Answer.WRONG)
    pipeline.review.withdraw(answer, "ann")
    assert pipeline.apply("ann").actions == {"mark_invalid": 1}
    with pytest.raises(InputError, match="no answer"):
        pipeline.review.withdraw(answer, "ann")
    with pytest.raises(InputError, match="no answer"):
        pipeline.review.withdraw(pipeline.review.last_answer("ann")["answer_id"], "bob")


def test_what_was_undone_is_not_applied_again_by_itself(pipeline):
    [first, *_] = dates(pipeline)
    pipeline.review.answer(label_key(first), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    done = pipeline.apply("ann", commit=True)
    undo(pipeline.warehouse, Selection(operation=done.operation_id), actor="bob", commit=True)
    assert pipeline.apply("ann").corrections == []


def test_skipped_labels_are_not_shown_again_and_decide_nothing(pipeline):
    [first, *_] = dates(pipeline)
    pipeline.review.answer(label_key(first), "ann", Answer.SKIP)
    assert label_key(first) not in {label_key(row) for row in dates(pipeline)}
    assert label_key(first) in {label_key(row) for row in dates(pipeline, "bob")}
    assert pipeline.apply("ann").corrections == []


def say(pipeline, key, **answers):
    for reviewer, right in answers.items():
        pipeline.review.answer(key, reviewer, Answer.RIGHT if right else Answer.WRONG)


def test_where_people_disagree_nothing_is_done_until_most_agree(pipeline):
    key = label_key(dates(pipeline)[0])
    say(pipeline, key, ann=True, bob=False)
    assert pipeline.apply("ann").corrections == []
    [disputed] = pipeline.review.disagreements()
    assert [(one["reviewer"], one["verdict"]) for one in disputed["answers"]] == [
        ("ann", "right"),
        ("bob", "wrong"),
    ]
    assert pipeline.review.items("cleo")[0]["is_disputed"]
    say(pipeline, key, cleo=False)
    assert pipeline.apply("ann").actions == {"mark_invalid": 1}
    say(pipeline, key, dan=True)
    assert pipeline.apply("ann").corrections == []


def test_the_third_decides_alone_where_the_settings_say_so(home, tmp_path):
    settings = Settings(review={"settlement": "third"})
    pipeline = reviewed(home, settings=settings)
    key = label_key(dates(pipeline)[0])
    say(pipeline, key, ann=True, bob=False)
    assert pipeline.apply("ann").corrections == []
    say(pipeline, key, cleo=True, dan=False)
    assert pipeline.apply("ann").actions == {"confirm": 1}


def test_a_rule_applies_nothing_before_people_agree_with_its_blind_sample(home, tmp_path):
    pipeline = reviewed(home, ALL_BLIND)
    items = pipeline.review.items("ann")
    assert {row["is_blind"] for row in items} == {True}
    assert pipeline.apply("ann").corrections == []
    pipeline.review.answer(label_key(items[0]), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert not pipeline.review.tiers()["all"].is_open
    pipeline.review.answer(label_key(items[1]), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.review.answer(label_key(items[2]), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert pipeline.review.tiers()["all"].is_open
    report = pipeline.apply("ann", commit=True)
    assert [row["source"] for row in report.corrections] == ["person"] * 3


def half_blind(home, tier: str) -> tuple[Pipeline, list[LabelKey], list[LabelKey]]:
    """A home with four wrong totals, two of them in the blind sample: these, and the others."""
    pipeline = reviewed(home)
    drawn = pipeline.warehouse.query(
        f"SELECT md5_number(concat_ws(chr(31), {LABEL_COLUMNS})) % 1000 AS number FROM proposals "
        "WHERE action = 'move' ORDER BY number"
    )["number"].to_pylist()
    home.review_policy.write_text(
        f"blind_share: {(int(drawn[1]) + 1) / 1000}\n"
        f"rules: [{{name: all, tier: {tier}, agreement: 0.2, actions: [move]}}]\n"
    )
    pipeline = Pipeline(home)
    pipeline.review.update()
    queue = [row for row in table(pipeline, "review_queue") if row["action"] == "move"]
    blind, shown = (
        [label_key(r) for r in queue if r["is_blind"] is is_it] for is_it in (True, False)
    )
    assert (len(blind), len(shown)) == (2, 2)
    return pipeline, blind, shown


def test_an_open_rule_is_applied_to_what_nobody_was_asked_about_and_leaves_its_sample_to_people(
    home, tmp_path
):
    pipeline, blind, shown = half_blind(home, "automatic")
    for key in blind:
        pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    shop_receipts(LATER_SHOPS, each=6, images="new").submit(pipeline, tmp_path / "more")
    harmonize(pipeline)
    asked = {
        label_key(row)
        for row in table(pipeline, "review_queue")
        if row["is_blind"] and label_key(row) not in blind
    }
    assert asked, "one of the new labels is in the sample"
    made = {label_key(row): row["source"] for row in pipeline.apply("ann", commit=True).corrections}
    assert {key: made[key] for key in blind} == dict.fromkeys(blind, "person")
    assert {key: made[key] for key in shown} == dict.fromkeys(shown, "policy")
    assert asked.isdisjoint(made)


def test_what_a_rule_alone_has_retired_is_out_of_use_but_no_evidence_that_its_type_is_wrong(
    home, tmp_path
):
    pipeline, blind, shown = half_blind(home, "automatic")
    for key in blind:
        pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    applied = pipeline.apply("ann", commit=True)
    harmonize(pipeline)
    decided = {label_key(row): row for row in table(pipeline, "label_decisions")}
    assert {decided[key]["decided_by"] for key in blind} == {"human"}
    assert {decided[key]["reasoning"] for key in blind} == {"a person has rejected it"}
    assert {decided[key]["decided_by"] for key in shown} == {"policy"}
    assert {decided[key]["reasoning"] for key in shown} == {
        "the rule all of the review policy has retired it"
    }
    assert {decided[key]["validation_status"] for key in (*blind, *shown)} == {"INVALID"}
    assert statuses_as_evidence(pipeline, shown) == {"RETIRED"}
    assert statuses_as_evidence(pipeline, blind) == {"INVALID"}
    assert {row["reasoning"] for row in table(pipeline, "rejected_labels")} == {
        "a person has rejected it",
        "the rule all of the review policy has retired it",
    }
    listed = {label_key(row) for row in table(pipeline, "validation_queue")}
    assert listed.isdisjoint({*blind, *shown})
    undo(pipeline.warehouse, Selection(operation=applied.operation_id), actor="ann", commit=True)
    assert statuses_as_evidence(pipeline, shown) == {"PENDING"}


def test_a_label_that_a_rule_has_retired_has_no_vote_and_one_that_a_person_rejects_votes_against(
    home, tmp_path
):
    pipeline, blind, shown = half_blind(home, "automatic")
    for key in blind:
        pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.apply("ann", commit=True)
    harmonize(pipeline)
    words = pipeline.score.similar_words()
    date = words.label_types.index("DATE")
    documents = {word_key(row): row["document_id"] for row in table(pipeline, "word_documents")}

    rows = {int(words.corpus.rows([documents[key.word]])[0]) for key in (*blind, *shown)}
    assert sum(float(words.corpus.votes[row, date]) for row in rows) == -len(blind)
    labels = pipeline.warehouse.read(lambda con: con.execute("FROM labels").to_arrow_table())
    merchants = sorted({*labels["merchant_key"].to_pylist()})
    read = pipeline.warehouse.read(lambda con: read_merchant_labels(con, merchants, ["DATE"]))
    status = {label_key(row): row["validation_status"] for row in read.to_pylist()}
    assert {status[key] for key in shown} == {"RETIRED"}
    assert {status[key] for key in blind} == {"INVALID"}


def statuses_as_evidence(pipeline: Pipeline, keys: list[LabelKey]) -> set[str]:
    rows = pipeline.warehouse.query("FROM labels_as_evidence").to_pylist()
    return {row["validation_status"] for row in rows if label_key(row) in keys}


def test_a_kind_that_a_person_has_said_yes_to_is_applied_to_all_labels_of_it(home, tmp_path):
    pipeline, blind, shown = half_blind(home, "by_kind")
    for key in blind:
        pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert pipeline.review.tiers()["all"].is_open
    assert {row["source"] for row in pipeline.apply("ann", commit=True).corrections} == {"person"}
    [kind] = {row["kind_id"] for row in dates(pipeline)}
    expected = [label_key(row) for row in pipeline.review.kind("ann", kind)]
    assert {*expected} == {*shown}
    pipeline.review.answer_kind(
        kind, "ann", Answer.WRONG, to_label="GRAND_TOTAL", expected=expected
    )
    pipeline.apply("ann", commit=True)
    shop_receipts(LATER_SHOPS, each=6, images="new").submit(pipeline, tmp_path / "more")
    harmonize(pipeline)
    new = [row for row in table(pipeline, "review_queue") if row["kind_id"] == kind]
    made = {label_key(row): row["source"] for row in pipeline.apply("ann").corrections}
    assert made == {label_key(row): "policy" for row in new if not row["is_blind"]}
    assert made


def test_a_disagreement_with_the_blind_sample_closes_the_rule_until_it_is_reopened(home, tmp_path):
    policy = ALL_BLIND.replace("0.3", "0.2")
    pipeline = reviewed(home, policy)
    first, second, third, _ = pipeline.review.items("ann")
    pipeline.review.answer(label_key(first), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.review.answer(label_key(second), "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    assert pipeline.review.tiers()["all"].is_open
    pipeline.review.answer(label_key(third), "ann", Answer.RIGHT)
    state = pipeline.review.tiers()["all"]
    assert (state.is_open, state.was_closed) == (False, True)
    sources = {row["source"] for row in pipeline.apply("ann").corrections}
    assert sources == {"person"}
    # The clock is set back before it is reopened.
    pipeline.warehouse.write(
        lambda con: con.execute(
            "UPDATE review_answers SET answered_at = answered_at + INTERVAL 1 DAY"
        )
    )
    pipeline.review.reopen("all", "bob", "it was a mistake")
    assert pipeline.review.tiers()["all"].answers == 0
    with pytest.raises(InputError, match="no rule"):
        pipeline.review.reopen("none", "bob")


def test_a_yes_to_a_kind_applies_nothing_later_while_the_rule_is_closed(home, tmp_path):
    pipeline = reviewed(home, NONE_BLIND)
    shown = dates(pipeline)
    assert not any(row["is_blind"] for row in shown)
    keys = [label_key(row) for row in shown]
    kind = shown[0]["kind_id"]
    pipeline.review.answer_kind(kind, "ann", Answer.WRONG, to_label="GRAND_TOTAL", expected=keys)
    pipeline.apply("ann", commit=True)
    shop_receipts(["Epsilon Bar"], each=6, images="new").submit(pipeline, tmp_path / "more")
    harmonize(pipeline)
    assert pipeline.apply("ann").corrections == []


def test_an_answer_needs_a_name_a_label_that_is_there_and_a_type_that_exists(pipeline):
    key = label_key(dates(pipeline)[0])
    with pytest.raises(InputError, match="needs a reviewer"):
        pipeline.review.answer(key, " ", Answer.RIGHT)
    with pytest.raises(InputError, match="is not there any more"):
        pipeline.review.answer(key._replace(label="TAX"), "ann", Answer.RIGHT)
    with pytest.raises(InputError, match="no label type"):
        pipeline.review.answer(key, "ann", Answer.WRONG, to_label="NONSENSE'")
    with pytest.raises(InputError, match="not of one that is right"):
        pipeline.review.answer(key, "ann", Answer.RIGHT, to_label="TIME")
    assert table(pipeline, "review_answers") == []


def test_reviewers_at_the_same_time_lose_no_answer(pipeline):
    shown = dates(pipeline)

    def answer(reviewer: str) -> None:
        own = Pipeline(pipeline.home)
        for row in shown:
            own.review.answer(label_key(row), reviewer, Answer.RIGHT)

    threads = [threading.Thread(target=answer, args=(name,)) for name in ("a'b", "🙂", "c|d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(table(pipeline, "review_answers")) == 3 * len(shown)


def test_progress_counts_what_is_open_settled_answered_and_disputed(pipeline):
    total = pipeline.review.progress("ann").open
    first, second, *_ = [label_key(row) for row in dates(pipeline)]
    say(pipeline, first, ann=True)
    say(pipeline, second, ann=True, bob=False)
    found = pipeline.review.progress("ann")
    assert (found.open, found.settled, found.answered, found.disputed) == (total - 2, 1, 2, 1)


def test_the_report_says_how_often_people_agree_with_what_was_found(pipeline):
    first, second, third, _ = [label_key(row) for row in dates(pipeline)]
    pipeline.review.answer(first, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.review.answer(second, "ann", Answer.WRONG, to_label="TAX")
    pipeline.review.answer(third, "ann", Answer.RIGHT)
    [row] = table(pipeline, "decision_precision")
    assert (row["answers"], row["wrong"]) == (3, 2)
    assert (round(row["precision"], 3), round(row["suggestion_precision"], 3)) == (0.667, 0.333)
    assert "How often people agree" in pipeline.publication.write_report().read_text()


def test_how_often_people_agree_is_told_by_week_and_by_who_has_found_it(pipeline):
    first, second, third, fourth = [label_key(row) for row in dates(pipeline)]
    for key in (first, second, third):
        pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL")
    pipeline.review.answer(fourth, "ann", Answer.RIGHT)
    changes = (
        ("answered_at = '2026-11-16 09:00:00+00'", "true"),
        ("answered_at = '2026-11-24 09:00:00+00'", "verdict = 'right' OR image_id = $1"),
        ("decided_by = 'llm'", "image_id = $1"),
    )
    for change, where in changes:
        given = [third.image_id] if "$1" in where else []
        pipeline.warehouse.write(
            lambda con, change=change, where=where, given=given: con.execute(
                f"UPDATE review_answers SET {change} WHERE {where}", given
            )
        )
    found = {
        (str(row["week"]), row["decided_by"]): (row["answers"], row["precision"])
        for row in table(pipeline, "decision_precision")
    }
    assert found == {
        ("2026-11-16", "offline_judge"): (2, 1.0),
        ("2026-11-23", "offline_judge"): (1, 0.0),
        ("2026-11-23", "llm"): (1, 1.0),
    }


def test_the_commands_show_correct_undo_and_tell(pipeline, home, tmp_path):
    key = label_key(dates(pipeline)[0])
    pipeline.review.answer(key, "ann", Answer.WRONG, to_label="GRAND_TOTAL", note="a [total]")
    assert "1 label would be corrected" in cli("apply", home=home.root).stdout
    found = tmp_path / "applied.json"
    done = cli("apply", "--commit", "--as", "bob", "--json", found, home=home.root)
    assert "DATE to GRAND_TOTAL" in done.stdout
    assert "ann: a [total]" in done.stdout
    operation = json.loads(found.read_text())["operation_id"]
    assert operation in cli("history", home=home.root).stdout
    told = cli("history", *key.word, home=home.root).stdout
    assert "PENDING to INVALID" in told
    assert "none to VALID" in told
    assert "Nothing was changed" in cli("undo", "--operation", operation, home=home.root).stdout
    undone = cli("undo", "--by", "ann", "--commit", "--note", "no", home=home.root).stdout
    [undo_id] = [word for word in undone.split() if word.startswith("undo-")]
    assert "1 label made again" in cli("redo", undo_id, "--commit", home=home.root).stdout
    assert "say what is to be undone" in shown_error(cli("undo", home=home.root))
    assert "four ids" in shown_error(cli("history", "image", home=home.root))
