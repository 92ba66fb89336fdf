"""Units on the processes of one machine: the same tables, whatever happens to the processes."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import boto3
import pytest

from harmonizer_assets.core.base.errors import StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.score.stage import SimilarityScorer
from harmonizer_assets.core.stages.run import StageRun
from harmonizer_assets.core.units import commit, spread
from harmonizer_assets.core.units.cut import Cutter, unit_chunks
from harmonizer_assets.core.units.executors.processes import ProcessExecutor
from harmonizer_assets.core.units.spread import unit_store
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import use_aws
from harmonizer_tests.support.receipts import OFFLINE
from harmonizer_tests.support.units import (
    PER_UNIT,
    SHOPS,
    Errors,
    Poison,
    copy_shops,
    opened,
    poisoned_by,
    scored,
    scores,
)

SPOILED = merchant_key("Gamma Bar")
REFRESH = RunOptions(refresh=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The scores that the run's own process computes, with and without exact search."""
    tables = {}
    for exact in (True, False):
        home = Home(tmp_path_factory.mktemp("inline") / "home").ensure()
        copy_shops(home)
        pipeline = opened(home, exact=exact, executor="inline")
        scored(pipeline)
        tables[exact] = scores(pipeline)
    return tables


def poisoned(monkeypatch, *arguments, **more) -> None:
    for name, value in poisoned_by(Poison(*arguments, **more)).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("exact", [True, False])
def test_processes_compute_what_the_run_itself_does(shops, undisturbed, exact):
    pipeline = opened(shops, exact=exact, executor="processes", processes=2 if exact else 1)
    results = scored(pipeline)
    assert all(result.changed for result in results)
    assert scores(pipeline) == undisturbed[exact]
    assert list(shops.units.rglob("*.*")) == []


@pytest.fixture
def started(monkeypatch):
    """How many processes each run has started that had its labels computed by some."""
    found = []

    def start(self, store, processes, *arguments):
        found.append(processes)
        starting(self, store, processes, *arguments)

    starting = ProcessExecutor.__init__
    monkeypatch.setattr(ProcessExecutor, "__init__", start)
    monkeypatch.setattr(spread, "cores", lambda: 3)
    monkeypatch.setattr(spread, "WORTH_PROCESSES", 2)
    monkeypatch.setattr(spread, "LABELS_PER_PROCESS", PER_UNIT)
    monkeypatch.setattr(spread, "WORTH_LABELS", 2 * PER_UNIT)
    return found


def test_processes_compute_where_that_pays_and_leave_nothing(shops, undisturbed, started):
    scored(opened(shops, executor="auto", processes=None))
    scored(opened(shops, executor="auto", processes=2), REFRESH)
    assert started == [3, 2]
    assert scores(opened(shops)) == undisturbed[True]
    assert list(shops.units.rglob("*.*")) == []


@pytest.mark.parametrize("case", ["few labels", "few cores", "an index", "another run's units"])
def test_the_run_itself_computes_where_processes_do_not_pay(
    shops, undisturbed, started, monkeypatch, case
):
    if case == "few labels":
        monkeypatch.setattr(spread, "WORTH_LABELS", 10_000)
    if case == "few cores":
        monkeypatch.setattr(spread, "WORTH_PROCESSES", 4)
    exact = case != "an index"
    with ExitStack() as stack:
        if case == "another run's units":
            stack.enter_context(spread._lock(shops).held())
        scored(opened(shops, exact=exact, executor="auto", processes=None))
    assert started == []
    assert scores(opened(shops)) == undisturbed[exact]
    assert not shops.units.exists()


def test_what_processes_have_computed_for_a_run_that_broke_off_is_used_by_the_next(
    shops, undisturbed, started, monkeypatch
):
    def break_off(_self):
        raise StoreError("no good")

    with monkeypatch.context() as broken:
        broken.setattr(commit.Committer, "_commit", break_off)
        with pytest.raises(StoreError, match="no good"):
            scored(opened(shops, executor="auto"))
    assert list(shops.units.glob("results/*"))
    monkeypatch.setattr(spread, "WORTH_LABELS", 10_000)
    scored(opened(shops, executor="auto"))
    assert started == [2, 2]
    assert scores(opened(shops)) == undisturbed[True]
    assert list(shops.units.rglob("*.*")) == []


def test_a_unit_that_nobody_asked_for_and_that_failed_is_tried_again_by_the_next_run(
    shops, undisturbed, started, monkeypatch
):
    with monkeypatch.context() as spoiled:
        poisoned(spoiled, "raise", SPOILED)
        results = scored(opened(shops, executor="auto", attempts=1))
        assert Errors.of(results).merchants == {SPOILED}
        assert list(shops.units.rglob("*.*")) == []
    assert Errors.of(scored(opened(shops, executor="auto"))) == Errors()
    assert scores(opened(shops)) == undisturbed[True]
    assert len(started) == 1, "one shop is few labels"


def test_units_and_results_may_be_in_a_bucket(shops, undisturbed, monkeypatch):
    use_aws(monkeypatch)
    with aws_server() as url:
        bucket = boto3.resource("s3", endpoint_url=url).create_bucket(Bucket="units")
        place = {"store": "s3://units/home", "store_endpoint_url": url}
        pipeline = opened(shops, executor="processes", processes=1, **place)
        scored(pipeline)
        assert list(bucket.objects.all()) == []
    assert scores(pipeline) == undisturbed[True]
    assert not shops.units.exists()


def test_similar_words_alone_score_in_processes_as_well(shops, tmp_path):
    tables = []
    for executor in ("inline", "processes"):
        home = Home(tmp_path / executor).ensure()
        copy_shops(home)
        pipeline = opened(home, scorer="count_rule", executor=executor, processes=1)
        scored(pipeline)
        tables.append(scores(pipeline))
    assert tables[0] == tables[1]


def test_a_unit_that_fails_is_cut_until_the_merchant_fails_alone_and_stays_dead_until_forgotten(
    shops, undisturbed, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "harmonizer_assets")
    poisoned(monkeypatch, "raise", SPOILED)
    pipeline = opened(shops, executor="processes", processes=1, labels_per_unit=10_000)
    failed = Errors.of(scored(pipeline))
    assert failed == Errors({SPOILED}, {"ValueError: a spoiled word"})
    assert scores(pipeline) == [r for r in undisturbed[True] if r["merchant_key"] != SPOILED]
    assert "spoiled word" in pipeline.tables.failures()[0].traceback
    store = unit_store(pipeline.settings.units, shops)
    [letter] = store.dead_letters()
    assert (letter.attempts, letter.error) == (3, "ValueError: a spoiled word")
    [again, failed] = re.findall(r"(\d+) tried again, 0 waiting, (\d+) failed", caplog.text)[-1]
    assert int(again) == 2 * int(failed) > 0

    # It is not tried again by itself, although it would do now.
    monkeypatch.setenv("HARMONIZER_TEST_POISON", "[]")
    assert Errors.of(scored(pipeline)) == Errors({SPOILED}, {"ValueError: a spoiled word"})
    store.remove([letter.unit for letter in store.dead_letters(split=True)])
    assert Errors.of(scored(pipeline)) == Errors()
    assert scores(pipeline) == undisturbed[True]


@pytest.mark.parametrize(
    ("how", "seconds"), [("crash", 600), ("hang", 3)], ids=["crash", "time-out"]
)
def test_a_unit_that_ends_its_process_is_given_up_and_others_go_on(
    shops, undisturbed, monkeypatch, how, seconds
):
    poisoned(monkeypatch, how, SPOILED)
    pipeline = opened(shops, executor="processes", attempts=2, seconds=seconds)
    failed = Errors.of(scored(pipeline))
    assert failed.merchants == {SPOILED}
    assert all("attempt 2: its process ended without a word" in said for said in failed.said)
    assert scores(pipeline) == [r for r in undisturbed[True] if r["merchant_key"] != SPOILED]


@pytest.fixture
def commits_at_once(monkeypatch):
    """Have no result wait for others."""
    monkeypatch.setattr(commit, "_LONGEST_WAIT", 0.0)


@pytest.mark.usefixtures("commits_at_once")
def test_processes_that_are_killed_at_random_change_nothing(shops, undisturbed, monkeypatch):
    poisoned(monkeypatch, "sleep", seconds=0.2)
    pipeline = opened(shops, executor="processes", attempts=20)
    started = []
    start = ProcessExecutor.__init__

    def noted(executor, *arguments, **more):
        started.append(executor)
        start(executor, *arguments, **more)

    monkeypatch.setattr(ProcessExecutor, "__init__", noted)
    results, killed = [], 0
    draw = random.Random(7)
    for result in pipeline.score.run(pipeline.partitions.held(), OFFLINE):
        results.append(result)
        pids = started[0].pids()
        if pids and killed < 3 and len(results) % 9 == 1:
            os.kill(draw.choice(pids), signal.SIGKILL)
            killed += 1
    assert killed == 3
    assert Errors.of(results) == Errors()
    assert scores(pipeline) == undisturbed[True]


RUN = """
import sys
from pathlib import Path
from harmonizer_assets.core.base.home import Home
from harmonizer_tests.support.units import opened, scored
scored(opened(Home(Path(sys.argv[1])), exact=False, executor="processes"))
"""


def test_a_run_that_is_killed_goes_on_and_computes_nothing_twice(shops, undisturbed, monkeypatch):
    slow = {**os.environ, **poisoned_by(Poison("sleep", seconds=0.3))}
    run = subprocess.Popen([sys.executable, "-c", RUN, str(shops.root)], env=slow)
    results = shops.units / "results"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (results.exists() and any(results.iterdir())):
        time.sleep(0.01)
    run.kill()
    run.wait()
    time.sleep(1.5)  # for what its processes are still working on
    store = unit_store(opened(shops).settings.units, shops)
    computed = {name for name in store.objects.list("results/") if name.endswith(".parquet")}
    assert computed
    pipeline = opened(shops, exact=False, executor="processes")
    submitted = []
    submit = ProcessExecutor.submit
    monkeypatch.setattr(
        ProcessExecutor, "submit", lambda self, unit: (submitted.append(unit), submit(self, unit))
    )
    scored(pipeline)
    assert not {f"results/{unit}.parquet" for unit in submitted} & computed
    assert scores(pipeline) == undisturbed[False]
    assert store.objects.list("results/") == []


def test_a_damaged_result_is_computed_again_and_a_unit_that_is_gone_is_cut_again(
    shops, undisturbed, monkeypatch
):
    poisoned(monkeypatch, "sleep", seconds=0.0)
    pipeline = opened(shops, executor="processes", processes=1)
    store, submit = unit_store(pipeline.settings.units, shops), ProcessExecutor.submit
    submitted = []

    def submit_spoiled(executor, unit):
        submitted.append(unit)
        if len(submitted) == 1:
            store.put_result(unit, b"PAR1 half of it")
        if len(submitted) == 2:
            store.remove([unit])
        submit(executor, unit)

    monkeypatch.setattr(ProcessExecutor, "submit", submit_spoiled)
    assert Errors.of(scored(pipeline)) == Errors()
    assert len(submitted) > 2
    assert scores(pipeline) == undisturbed[True]


def commits(monkeypatch) -> list[int]:
    """Note how many partitions each transaction with rows is about."""
    noted = []
    committed = StageRun._committed

    def counted(run, chunk, rows):
        noted.append(len({partition.merchant_key for partition in chunk.partitions}))
        return committed(run, chunk, rows)

    monkeypatch.setattr(StageRun, "_committed", counted)
    return noted


def test_units_that_have_ended_meanwhile_are_committed_together(shops, undisturbed, monkeypatch):
    monkeypatch.setattr(commit, "COMMITTING_SHARE", 1e-9)
    monkeypatch.setattr(commit, "_LONGEST_WAIT", 600.0)
    pipeline, noted = opened(shops, executor="processes"), commits(monkeypatch)
    scored(pipeline)
    assert noted[0] <= 2  # of the first unit or two: people see that the run does something
    assert len(noted) == 2
    assert scores(pipeline) == undisturbed[True]


def test_results_do_not_wait_for_others_any_longer_than_they_may(shops, undisturbed, monkeypatch):
    poisoned(monkeypatch, "sleep", seconds=0.5)
    monkeypatch.setattr(commit, "_LONGEST_WAIT", 0.2)
    pipeline = opened(shops, executor="processes", processes=1)
    noted = commits(monkeypatch)
    scored(pipeline)
    assert sum(noted) == len(SHOPS)
    assert len(noted) > 2
    assert scores(pipeline) == undisturbed[True]


def test_so_many_results_as_a_run_commits_at_once_do_not_wait(shops, undisturbed, monkeypatch):
    poisoned(monkeypatch, "sleep", seconds=0.1)
    monkeypatch.setattr(commit, "COMMITTING_SHARE", 1e-9)
    monkeypatch.setattr(commit, "_LONGEST_WAIT", 600.0)
    monkeypatch.setattr(commit, "LABELS_PER_CHUNK", 2 * PER_UNIT)
    pipeline = opened(shops, executor="processes", processes=1)
    noted = commits(monkeypatch)
    scored(pipeline)
    assert len(noted) > 2
    assert scores(pipeline) == undisturbed[True]


@pytest.mark.usefixtures("commits_at_once")
def test_a_caller_who_stops_leaves_what_is_computed_for_the_next_run(shops, undisturbed):
    pipeline = opened(shops, executor="processes", processes=1)
    results = pipeline.score.run(pipeline.partitions.held(), OFFLINE)
    next(results)
    results.close()
    scored(pipeline)
    assert scores(pipeline) == undisturbed[True]


def test_a_unit_is_the_same_whether_its_merchants_are_read_alone_or_with_others(shops):
    pipeline = opened(shops, executor="processes")
    stage = pipeline.score
    run = StageRun(pipeline.warehouse, stage.definition(), pipeline.partitions.held(), OFFLINE)
    scorer = SimilarityScorer(
        pipeline.warehouse, stage.similar_words(), stage._scorer(*stage.fit(OFFLINE))
    )
    cutter = Cutter(unit_store(pipeline.settings.units, shops), scorer)
    chunks = list(unit_chunks(run.stale, run.labels, 60))
    assert len(chunks) > 3
    alone = [unit for chunk in chunks[::-1] for _, unit in cutter.cut([[chunk]])]
    assert [unit for _, unit in cutter.cut([chunks[::-1]])] == alone
