"""Names that are one merchant share their partitions; a split and a merge lose nothing."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from contextlib import contextmanager

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.decide.patterns import pattern_id
from harmonizer_assets.core.decide.rules import accept_rule
from harmonizer_assets.core.ingest.inbox import submit_batch
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_tests.support.chat_server import ChatServer, chat_server
from harmonizer_tests.support.environment import use_endpoint
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table

NAMES = ("Sprouts Farmers Market", "SPROUTS FARMERS MARKET ", "7-Eleven", "7-ELEVEN #12")
SPROUTS, ELEVEN = merchant_key(NAMES[0]), merchant_key(NAMES[2])
APART = "apart: ['7-ELEVEN #12', 'SPROUTS FARMERS MARKET', 'Sprouts Farmers Market']\n"
FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
RESULTS = ("labels", "similarity_matches", "judgements", "outliers", "label_decisions")
UNMERGED = Settings.model_validate({"merchants": {"merge_spellings": False}})
ASKING = {"judge": {"skip_high_confidence": False}, "similarity": {"scorer": "evidence"}}


def submit(pipeline, tmp_path, names=NAMES, images="image", days=0):
    receipts = shop_receipts(names, each=3, images=images)
    words, labels = receipts.write(tmp_path / images)
    submit_batch(pipeline.home, words, labels, time=FIRST + dt.timedelta(days=days))


@pytest.fixture
def merged(home, tmp_path) -> Pipeline:
    """A home with receipts of all names, on which the pipeline has run once."""

    def make(fresh: Home) -> None:
        submit(Pipeline(fresh), tmp_path)
        harmonize(Pipeline(fresh))

    copy_home(home, "four names, run", make)
    return Pipeline(home)


def merchants(pipeline):
    return {row["merchant_key"] for row in table(pipeline, "labels")}


def contents(pipeline):
    return {
        **{name: table(pipeline, name) for name in RESULTS},
        "merchant_names": table(pipeline, "merchant_names"),
        "partition_state": table(pipeline, "partition_state", "run_id", "computed_at"),
    }


def say(home, yaml):
    home.merchants.write_text(yaml, encoding="utf-8")
    return Pipeline(home)


def test_spellings_share_partitions_and_keep_their_names(pipeline, tmp_path):
    submit(pipeline, tmp_path)
    report = harmonize(pipeline)
    assert merchants(pipeline) == {SPROUTS, ELEVEN}
    assert {row["merchant_name"] for row in table(pipeline, "labels")} == set(NAMES)
    named = {
        row["name"]: (row["merchant"], row["how"]) for row in table(pipeline, "merchant_names")
    }
    assert named == {
        NAMES[0]: (NAMES[0], "itself"),
        NAMES[1]: (NAMES[0], "spelling"),
        NAMES[2]: (NAMES[2], "itself"),
        NAMES[3]: (NAMES[2], "store number"),
    }
    assert report.ingested.merchants.remarks() == [
        f"{NAMES[3]!r} is {NAMES[2]!r} (store number; 36 labels)",
        f"{NAMES[1]!r} is {NAMES[0]!r} (spelling; 36 labels)",
    ]
    assert pipeline.stale(OFFLINE) == []


def test_a_second_run_changes_nothing(merged):
    pipeline = merged
    state = pipeline.warehouse.state()
    again = harmonize(Pipeline(pipeline.home))
    assert again.ingested.merchants.moves == ()
    assert pipeline.warehouse.state() == state


def test_the_merchant_is_that_of_the_name_seen_first_in_whatever_order_batches_come(home, tmp_path):
    found = []
    for number, order in enumerate(((0, 1), (1, 0))):
        pipeline = Pipeline(Home(tmp_path / f"home-{number}").ensure())
        for day in order:
            submit(pipeline, tmp_path, [NAMES[day]], f"image-{day}", day)
            pipeline.ingest()
        found.append((merchants(pipeline), table(pipeline, "merchant_names")))
    assert found[0] == found[1]
    assert found[0][0] == {SPROUTS}


def test_a_later_spelling_joins_and_nothing_else_moves(pipeline, tmp_path):
    submit(pipeline, tmp_path, [NAMES[0], NAMES[2]])
    harmonize(pipeline)
    submit(pipeline, tmp_path, [NAMES[1]], "later", days=1)
    report = harmonize(pipeline)
    assert merchants(pipeline) == {SPROUTS, ELEVEN}
    assert [moved.name for moved in report.ingested.merchants.moves] == [NAMES[1]]
    computed = {stage.asset: stage.computed for stage in report.harmonized.stages}
    # The partitions of one merchant, and those that the name had for a moment do not count.
    assert computed["similarity_matches"] == len(pipeline.partitions.held(merchants=[SPROUTS]))


def test_a_file_splits_and_its_removal_merges_with_equal_tables(merged):
    pipeline = merged
    before = contents(pipeline)
    split = harmonize(say(pipeline.home, APART))
    assert merchants(pipeline) == {merchant_key(name) for name in NAMES}
    assert [str(moved) for moved in split.ingested.merchants.moves] == [
        f"{NAMES[3]!r} moved from {NAMES[2]!r} to {NAMES[3]!r} (itself; 36 labels)",
        f"{NAMES[1]!r} moved from {NAMES[0]!r} to {NAMES[1].strip()!r} (itself; 36 labels)",
    ]
    assert pipeline.stale(OFFLINE) == []
    pipeline.home.merchants.unlink()
    again = harmonize(Pipeline(pipeline.home))
    assert len(again.ingested.merchants.moves) == 2
    assert contents(pipeline) == before


def test_a_split_home_equals_one_that_was_never_merged(merged, tmp_path):
    pipeline = merged
    harmonize(say(pipeline.home, APART))
    never = Pipeline(Home(tmp_path / "never").ensure())
    never.home.merchants.write_text(APART)
    never = Pipeline(never.home)
    submit(never, tmp_path)
    harmonize(never)
    for name in RESULTS:
        leave_out = ("batch_id", "batch_time") if name == "labels" else ()
        assert table(pipeline, name, *leave_out) == table(never, name, *leave_out), name


def test_decisions_stay_with_their_labels_until_the_partitions_are_computed_again(merged):
    pipeline = merged
    before = table(pipeline, "label_decisions", "merchant_key")
    assert {row["decided_by"] for row in before} != {"unresolved"}
    split = say(pipeline.home, APART)
    split.ingest()
    assert table(split, "label_decisions", "merchant_key") == before
    assert len(merchants(split)) == 4


def test_names_of_a_home_from_before_are_looked_at_by_the_next_run(home, tmp_path):
    before = Pipeline(home, UNMERGED)
    submit(before, tmp_path)
    harmonize(before)
    assert len(merchants(before)) == 4
    # What the home had before there were merchants of names.
    before.warehouse.write(lambda con: con.execute("DELETE FROM merchant_state") and None)
    report = harmonize(Pipeline(home))
    assert merchants(before) == {SPROUTS, ELEVEN}
    assert [moved.is_new for moved in report.ingested.merchants.moves] == [False, False]
    assert Pipeline(home).stale(OFFLINE) == []


def test_merging_can_be_switched_off_and_the_file_still_holds(home, tmp_path):
    home.merchants.write_text(f"merchants: {{'{NAMES[0]}': ['{NAMES[2]}']}}\n")
    pipeline = Pipeline(home, UNMERGED)
    submit(pipeline, tmp_path)
    harmonize(pipeline)
    # Both came in one batch, as often: the shorter name gives the key.
    assert merchants(pipeline) == {ELEVEN, merchant_key(NAMES[1]), merchant_key(NAMES[3])}


def test_a_mistake_in_the_file_stops_before_anything_is_ingested(home):
    home.merchants.write_text("apart: {7-Eleven: }\n")
    with pytest.raises(ConfigurationError) as raised:
        Pipeline(home)
    assert f"{home.merchants}: apart: " in str(raised.value)


def test_a_merchant_is_found_by_each_of_its_names_and_keys(merged):
    pipeline = merged
    for name in (NAMES[0], NAMES[1], "sprouts farmers market", SPROUTS, merchant_key(NAMES[1])):
        assert pipeline.partitions.merchant_keys([name]) == [SPROUTS]


def test_a_rule_about_one_merchant_follows_its_name(pipeline, tmp_path):
    home = pipeline.home
    split = say(home, APART)
    submit(split, tmp_path)
    harmonize(split)
    own = merchant_key(NAMES[1])
    row = next(one for one in table(split, "label_decisions") if one["merchant_key"] == own
               and one["validation_status"] == "PENDING")  # fmt: skip
    _accept_rule(split, row, own)
    decided = {row["merchant_name"] for row in _by_rule(split)}
    assert decided == {NAMES[1]}
    home.merchants.unlink()
    merged = Pipeline(home)
    harmonize(merged)
    # They are one merchant now, so the rule is about all of it.
    assert {row["merchant_name"] for row in _by_rule(merged)} == {NAMES[0], NAMES[1]}
    again = say(home, APART)
    harmonize(again)
    assert {row["merchant_name"] for row in _by_rule(again)} == decided


def _by_rule(pipeline):
    return [row for row in table(pipeline, "label_decisions") if row["decided_by"] == "rule"]


def _accept_rule(pipeline, row, merchant):
    """Make a pattern of a word at one merchant, and a rule of it."""
    [(mask,)] = pipeline.warehouse.read(
        lambda con: con.execute(
            "SELECT DISTINCT mask FROM documents JOIN word_documents USING (document_id) "
            "JOIN words USING (image_id, receipt_id, line_id, word_id) WHERE text = $1 LIMIT 1",
            [row["word_text"]],
        ).fetchall()
    )
    found = pattern_id("DATE", mask, None, merchant)
    pipeline.warehouse.write(
        lambda con: (
            con.execute("DELETE FROM label_rules")
            and con.execute(
                "INSERT INTO label_patterns VALUES "
                "($1, 'DATE', $2, NULL, $3, NULL, NULL, 3, 0, 1.0, 2, 'it is wrong')",
                [found, mask, merchant],
            )
            and None
        )
    )
    accept_rule(pipeline.warehouse, found, decided_by="test")


def test_the_name_of_a_deleted_receipt_leaves_no_trace(pipeline, tmp_path):
    submit(pipeline, tmp_path, [NAMES[3]], "first")
    submit(pipeline, tmp_path, [NAMES[2]], "second", days=1)
    harmonize(pipeline)
    assert merchants(pipeline) == {merchant_key(NAMES[3])}
    for copy in range(3):
        pipeline.deletion.delete(Scope(f"first-0-{copy}"))
    assert merchants(pipeline) == {ELEVEN}
    assert [row["name"] for row in table(pipeline, "merchant_names")] == [NAMES[2]]
    assert table(pipeline, "merchant_names")[0]["merchant"] == NAMES[2]


def test_nothing_moves_while_a_batch_job_is_open(merged):
    pipeline = merged
    pipeline.warehouse.write(
        lambda con: (
            con.execute(
                "INSERT INTO llm_batch_items VALUES ('s', 'c', '1', 'k', 'DATE', $1, 'x', 0.5)",
                [SPROUTS],
            )
            and None
        )
    )
    split = say(pipeline.home, APART)
    report = split.ingest().merchants
    assert (report.moves, report.waiting) == ((), 2)
    assert "until batch jobs are collected" in report.remarks()[0]
    assert merchants(split) == {SPROUTS, ELEVEN}
    split.warehouse.write(lambda con: con.execute("DELETE FROM llm_batch_items") and None)
    assert len(split.ingest().merchants.moves) == 2


def test_nothing_moves_while_another_run_asks(pipeline, tmp_path):
    submit(pipeline, tmp_path)
    pipeline.ingest()
    split = say(pipeline.home, APART)
    with started_asking(pipeline.home):
        assert split.ingest().merchants.waiting == 2
        assert merchants(split) == {SPROUTS, ELEVEN}
    assert len(split.ingest().merchants.moves) == 2


@contextmanager
def started_asking(home):
    """Hold the lease on asking in another process."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from harmonizer_assets.core.base.home import Home\n"
        "from harmonizer_assets.core.judge.llm.lease import asking\n"
        "with asking(Home(Path(sys.argv[1]))):\n"
        "    print('asking', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
        yield
        process.communicate()


def test_labels_without_a_merchant_stay_in_one_partition_per_type(pipeline, tmp_path):
    submit(pipeline, tmp_path, [None, ""])
    harmonize(pipeline)
    assert merchants(pipeline) == {"unknown"}
    assert table(pipeline, "merchant_names") == []


@pytest.fixture
def server(home, monkeypatch):
    with chat_server() as state:
        state.decide = lambda text: text[-1] in "13579e"
        use_endpoint(monkeypatch, state.url)
        yield state


def decided(pipeline):
    what = ("is_outlier", "suggested_label")
    return {
        tuple(row[name] for name in ("image_id", "line_id", "word_id", "label")): tuple(
            row[name] for name in what
        )
        for row in table(pipeline, "label_decisions")
    }


@pytest.mark.parametrize("starts", ["merged", "split"])
def test_no_answer_is_bought_again_after_a_split_and_a_merge(
    home, tmp_path, server: ChatServer, starts
):
    settings = Settings.model_validate(ASKING)
    files = {"merged": "", "split": APART}
    other = "split" if starts == "merged" else "merged"

    def run(state, judge="openai"):
        home.merchants.write_text(files[state] or "apart: []\n")
        pipeline = Pipeline(home, settings)
        pipeline.run(RunOptions(judge=judge))
        return pipeline

    home.merchants.write_text(files[starts] or "apart: []\n")
    submit(Pipeline(home, settings), tmp_path)
    pipeline = run(starts)
    before, asked = decided(pipeline), len(server.requests)
    assert asked
    for state in (other, starts):
        pipeline = run(state)
        assert len(merchants(pipeline)) == (2 if state == "merged" else 4)
        assert len(server.requests) == asked
        assert decided(pipeline) == before
        assert pipeline.stale(RunOptions(judge="openai")) == []
    # Nor does it matter who runs first after a move.
    for state, judge in ((other, "offline"), (starts, "offline"), (starts, "openai")):
        assert decided(run(state, judge)) == before
    assert len(server.requests) == asked


def test_an_answer_about_another_text_does_not_come_along(home, tmp_path, server: ChatServer):
    settings = Settings.model_validate(ASKING)
    submit(Pipeline(home, settings), tmp_path)
    pipeline = Pipeline(home, settings)
    pipeline.run(RunOptions(judge="openai"))
    asked = len(server.requests)
    receipts = shop_receipts(NAMES, each=3)
    changed = [{**row, "text": "Cofee"} for row in receipts.words if row["text"] == "Coffee"]
    receipts.words = changed
    receipts.labels = []
    home.merchants.write_text(APART)
    words, _ = receipts.write(tmp_path / "changed")
    submit_batch(home, words, None, time=FIRST + dt.timedelta(days=1))
    Pipeline(home, settings).run(RunOptions(judge="openai"))
    assert len(server.requests) > asked
