"""Answers that homes share: the same promises of each cache, and homes that ask the same."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import boto3
import psycopg2
import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.judge.llm.memory.shared.sharing import open_cache
from harmonizer_assets.core.judge.llm.wire.answers import Answer
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import use_aws, use_endpoint
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.postgres import UnreachableError, temporary_database
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.simulated_endpoint import simulated_endpoint
from harmonizer_tests.support.unpublished import Unpublished

CACHES = ("duckdb", "postgresql", "german postgresql", "dynamodb")
RIGHT = Answer(is_outlier=False, suggested_label=None, confidence=0.9, reasoning=None)
WRONG = Answer(is_outlier=True, suggested_label="TIME", confidence=0.7, reasoning="Zürich's | 🥐")


@pytest.fixture
def url(request, tmp_path, monkeypatch):
    """An empty cache of the kind that the test names."""
    kind = request.param
    with ExitStack() as stack:
        if kind == "duckdb":
            yield f"duckdb://{tmp_path}/answers.duckdb"
        elif kind == "dynamodb":
            yield stack.enter_context(dynamodb(monkeypatch))
        else:
            server = [request.getfixturevalue("german").url] if kind.startswith("german") else []
            try:
                yield stack.enter_context(temporary_database(*server))
            except UnreachableError as error:
                pytest.skip(str(error))


@contextmanager
def dynamodb(monkeypatch) -> Iterator[str]:
    """A table on moto's server, with the key that `deploy/aws` gives it."""
    use_aws(monkeypatch)
    with aws_server(empty=True) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        make_table("answer_key")
        yield "dynamodb://answers"


def make_table(key: str) -> None:
    boto3.client("dynamodb").create_table(
        TableName="answers",
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


@pytest.fixture
def cache(url):
    opened = open_cache(url)
    yield opened
    opened.close()


every_cache = pytest.mark.parametrize("url", CACHES, indirect=True)


@every_cache
def test_a_question_is_claimed_by_one_and_its_answer_found_by_all(cache):
    cache.renew("first", 60)
    cache.renew("second", 60)
    assert cache.claim(["a", "b"], "first").mine == {"a", "b"}
    assert cache.claim(["b", "a"], "first").mine == {"a", "b"}, "they are its own already"
    claim = cache.claim(["b", "c"], "second")
    assert (claim.mine, claim.found) == ({"c"}, {})
    cache.put({"a": RIGHT, "b": WRONG}, "first")
    for holder in ("first", "second"):
        claim = cache.claim(["a", "b"], holder)
        assert (claim.mine, claim.found) == (set(), {"a": RIGHT, "b": WRONG})


@every_cache
def test_who_looks_answers_up_claims_nothing(cache):
    cache.renew("first", 60)
    assert cache.look_up(["a", "b"]) == {}
    assert cache.claim(["a", "b"], "first").mine == {"a", "b"}
    cache.put({"a": WRONG}, "first")
    assert cache.look_up(["b", "a", "c"]) == {"a": WRONG}


@every_cache
def test_what_a_dead_holder_has_claimed_is_another_s_when_its_lease_has_run_out(cache):
    cache.renew("dead", 1.8)
    cache.renew("alive", 60)
    cache.claim(["a", "b"], "dead")
    cache.put({"b": WRONG}, "dead")
    assert cache.claim(["a"], "alive").mine == set()
    time.sleep(0.9)
    cache.renew("dead", 1.8)
    time.sleep(1.2)
    assert cache.claim(["a"], "alive").mine == set(), "it was alive"
    time.sleep(0.9)
    claim = cache.claim(["a", "b"], "alive")
    assert (claim.mine, claim.found) == ({"a"}, {"b": WRONG})


@every_cache
def test_what_a_holder_gives_up_is_another_s_at_once(cache):
    cache.renew("first", 60)
    cache.renew("second", 60)
    cache.claim(["a"], "first")
    cache.release("first")
    assert cache.claim(["a"], "second").mine == {"a"}


@every_cache
def test_of_two_answers_the_first_one_stays(cache):
    cache.renew("late", 60)
    cache.claim(["a"], "late")
    cache.put({"a": WRONG, "b": RIGHT}, "other")
    cache.put({"a": RIGHT, "b": WRONG}, "late")
    assert cache.claim(["a", "b"], "late").found == {"a": WRONG, "b": RIGHT}


@every_cache
def test_of_many_who_claim_the_same_at_once_each_question_goes_to_one(url):
    keys = [f"key-{n}" for n in range(150)]

    def claimed(number: int) -> frozenset[str]:
        cache = open_cache(url)
        try:
            cache.renew(f"holder-{number}", 60)
            # Each in another order, as far as that goes.
            started.wait()
            return cache.claim(keys[number * 20 :] + keys[: number * 20], f"holder-{number}").mine
        finally:
            cache.close()

    started = threading.Barrier(4)
    with ThreadPoolExecutor(4) as threads:
        times = Counter(key for mine in threads.map(claimed, range(4)) for key in mine)
    assert times == dict.fromkeys(keys, 1)


def test_the_messages_of_the_german_server_are_german(german):
    with pytest.raises(psycopg2.Error, match="existiert nicht"):
        psycopg2.connect(german.url).cursor().execute("SELECT * FROM nowhere")


def test_a_cache_that_cannot_be_used_is_a_clear_error_without_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("PGPASSWORD", "hidden-word")
    with pytest.raises(StoreError, match=r"check \[judge\] answers") as raised:
        open_cache("postgresql://ann@127.0.0.1:9/answers")
    assert "hidden-word" not in str(raised.value)
    (tmp_path / "answers.duckdb").write_text("no database")
    with pytest.raises(StoreError, match=r"check \[judge\] answers"):
        open_cache(f"duckdb://{tmp_path}/answers.duckdb")


def test_a_table_with_another_key_is_refused(monkeypatch):
    with dynamodb(monkeypatch):
        boto3.client("dynamodb").delete_table(TableName="answers")
        with pytest.raises(StoreError, match=r"answers cannot be used \(ResourceNotFound"):
            open_cache("dynamodb://answers")
        make_table("another_key")
        with pytest.raises(StoreError, match="its only key must be answer_key"):
            open_cache("dynamodb://answers")


def test_a_password_does_not_belong_into_the_settings(home):
    home.settings_file.write_text('[judge]\nanswers = "postgresql://ann:hidden-word@host/db"\n')
    with pytest.raises(ConfigurationError, match="answers") as raised:
        Settings.load(home.settings_file)
    assert "hidden-word" not in str(raised.value)


# Homes


FAST = {"first_token_seconds": 0.02, "tokens_per_second": 20_000.0}


@pytest.fixture(scope="module")
def simulated():
    with simulated_endpoint(**FAST) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(simulated, monkeypatch, home):
    simulated.configure(**FAST)
    use_endpoint(monkeypatch, simulated.url)
    return simulated


def shared_by(url: str, **judge: object) -> Settings:
    quick = {"skip_high_confidence": False, "backoff_seconds": 0.01}
    return Settings.model_validate({"judge": {**quick, "answers": url, **judge}})


def homes(folder, number: int, **size: object) -> list[Home]:
    """Homes with the same labels."""
    made = [Home(folder / f"home-{n}").ensure() for n in range(number)]
    for home in made:
        scored_copy(home, **size)
    return made


def ask(home: Home, settings: Settings) -> Pipeline:
    pipeline = Unpublished(home, settings)
    pipeline.harmonize(
        RunOptions(judge="openai"),
        partitions=pipeline.partitions.held(),
        assets=["llm_verdicts"],
    )
    return pipeline


def answers_of(pipeline: Pipeline) -> list[tuple[object, ...]]:
    columns = ("verdict_key", "is_outlier", "suggested_label", "confidence", "reasoning")
    rows = table(pipeline, "llm_verdicts")
    return sorted((tuple(row[name] for name in columns) for row in rows), key=repr)


@pytest.mark.parametrize(
    ("url", "number", "words"),
    [("postgresql", 8, 500), ("dynamodb", 2, 12)],
    indirect=["url"],
    ids=["8 homes on PostgreSQL", "2 homes on DynamoDB"],
)
def test_homes_that_ask_the_same_at_once_buy_each_answer_once(
    endpoint, url, number, words, tmp_path
):
    asked = homes(tmp_path, number, label_types=2, words=words)
    with ThreadPoolExecutor(number) as threads:
        pipelines = list(threads.map(lambda home: ask(home, shared_by(url)), asked))
    assert endpoint.stats()["words_asked"] == 2 * words
    assert set(endpoint.words().values()) == {1}
    [answers] = {tuple(answers_of(pipeline)) for pipeline in pipelines}
    assert len(answers) == 2 * words


@pytest.mark.parametrize("url", ["duckdb"], indirect=True)
def test_a_home_takes_what_another_has_bought_as_answers_out_of_a_cache(endpoint, url, tmp_path):
    first, second = (
        ask(home, shared_by(url)) for home in homes(tmp_path, 2, label_types=2, words=12)
    )
    assert endpoint.stats()["words_asked"] == 24
    assert answers_of(first) == answers_of(second)
    decided = [{row["decided_by"] for row in table(p, "label_decisions")} for p in (first, second)]
    assert decided == [{"llm"}, {"cache"}]
    used = table(second, "llm_usage")
    assert [sum(row[name] for row in used) for name in ("calls", "cache_hits")] == [0, 24]
    assert sum(row["cost_usd"] for row in table(second, "llm_verdicts")) == 0


@pytest.mark.parametrize("url", ["german postgresql"], indirect=True)
def test_a_postgresql_that_restarts_is_waited_for_and_nothing_is_bought_twice(
    endpoint, url, german, tmp_path, caplog
):
    first, second = homes(tmp_path, 2, label_types=2, words=12)
    endpoint.configure(first_token_seconds=0.2, tokens_per_second=20_000.0)
    slowly = shared_by(url, llm_batch_size=2, max_requests_in_flight=1)
    run = threading.Thread(target=ask, args=(first, slowly))
    run.start()
    deadline = time.monotonic() + 30
    while endpoint.stats()["requests"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    german.restart()
    run.join(60)
    assert endpoint.stats()["words_asked"] == 24
    assert "PostgreSQL with the shared answers does not answer: trying again" in caplog.text
    answered = ask(second, shared_by(url))
    assert endpoint.stats()["words_asked"] == 24
    assert len(answers_of(answered)) == 24


@pytest.mark.parametrize("url", ["duckdb"], indirect=True)
def test_a_plan_counts_what_another_home_has_bought_as_free(endpoint, url, tmp_path):
    first, second = homes(tmp_path, 2, label_types=2, words=12)
    before = Pipeline(second, shared_by(url)).plan(RunOptions())
    assert (before.words, before.cache_hits) == (24, 0)
    ask(first, shared_by(url))
    after = Pipeline(second, shared_by(url)).plan(RunOptions())
    assert (after.words, after.calls, after.cache_hits) == (0, 0, 24)
    assert after.usd == 0
    assert endpoint.stats()["words_asked"] == 24
    assert len(answers_of(ask(second, shared_by(url)))) == 24, "a plan claims nothing"


KILLED = """
import sys
from pathlib import Path
from harmonizer_assets.core.base.home import Home
from harmonizer_tests.integration.test_shared_answers import ask, shared_by
ask(Home(Path(sys.argv[1])), shared_by(sys.argv[2], answers_lease_seconds=3))
"""


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_home_that_is_killed_blocks_the_others_until_its_lease_has_run_out(
    endpoint, url, tmp_path
):
    endpoint.configure(first_token_seconds=5.0, tokens_per_second=20_000.0)
    first, second = homes(tmp_path, 2, label_types=2, words=12)
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(first.root), url], env={**os.environ}
    )
    deadline = time.monotonic() + 60
    while not endpoint.stats()["requests"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    endpoint.configure(**FAST)
    began = time.monotonic()
    answered = ask(second, shared_by(url, answers_lease_seconds=3))
    assert time.monotonic() - began < 20
    assert len(answers_of(answered)) == 24
    assert endpoint.stats()["words_asked"] == 24


@pytest.mark.parametrize("url", ["duckdb"], indirect=True)
def test_a_run_at_its_budget_leaves_to_a_later_run_what_others_ask(endpoint, url, cache, tmp_path):
    first, second = homes(tmp_path, 2, label_types=2, words=12)
    keys = [key for key, *_ in answers_of(ask(first, Settings()))]
    cache.renew("another", 600)
    cache.claim(keys[1:], "another")
    stopped = ask(second, shared_by(url, budget_tokens=1))
    assert answers_of(stopped) == []
    decided = table(stopped, "label_decisions")
    assert {row["decided_by"] for row in decided} == {"unresolved"}
    assert table(stopped, "dead_letters") == []
    cache.release("another")
    assert len(answers_of(ask(second, shared_by(url)))) == len(keys)
