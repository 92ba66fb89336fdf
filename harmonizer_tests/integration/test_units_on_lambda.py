"""Units on Lambda: moto's server takes the invocations, processes of the real runtime client
answer them; see `support/lambda_functions.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, WorkersError
from harmonizer_assets.core.records.merchant import merchant_key
from harmonizer_assets.core.units.executors import aws_lambda
from harmonizer_assets.core.units.lambda_handler import STORES_VARIABLE
from harmonizer_assets.core.units.spread import unit_store
from harmonizer_tests.support.aws import aws_server
from harmonizer_tests.support.environment import use_aws
from harmonizer_tests.support.lambda_functions import NAME, Answer, function_on_aws
from harmonizer_tests.support.login_page import PAGES, login_page
from harmonizer_tests.support.units import (
    Errors,
    Poison,
    opened,
    poisoned_by,
    scored,
    scores,
)

SPOILED, CRASHING, HANGING = map(merchant_key, ("Gamma Bar", "Zeta Grill", "Beta Cafe"))


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    use_aws(monkeypatch)


@pytest.fixture
def function(request, shops, monkeypatch):
    """The function, with the poison that a test asks for, and the home's store for its own."""
    poisons = getattr(request, "param", ())
    stores = {STORES_VARIABLE: f"s3://other/units {shops.units.as_uri()}"}
    with function_on_aws(**stores, **poisoned_by(*poisons)) as function:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", function.url)
        yield function


def opened_on_lambda(home, **units):
    return opened(home, executor="lambda", function=NAME, **{"most_waiting": 2, **units})


def test_a_function_computes_what_the_run_itself_does_and_refused_invocations_come_again(
    shops, function, undisturbed, monkeypatch
):
    monkeypatch.setattr(aws_lambda, "_FIRST_PAUSE", 0.05)
    # A refused invocation is no attempt.
    results = scored(opened_on_lambda(shops, most_waiting=3, attempts=1))
    assert all(result.changed for result in results)
    assert scores(opened(shops)) == undisturbed
    assert list(shops.units.rglob("*.*")) == []
    assert function.invocations > function.at_once == function.most
    assert function.refused


@pytest.mark.parametrize(
    "function",
    [(Poison("raise", SPOILED), Poison("crash", CRASHING), Poison("hang", HANGING))],
    indirect=True,
    ids=["poisoned"],
)
def test_a_unit_that_fails_ends_its_process_or_hangs_is_given_up_and_others_go_on(
    shops, function, undisturbed
):
    function.seconds = 4.0
    pipeline = opened_on_lambda(shops, attempts=1)
    results = scored(pipeline)
    assert Errors.of(results).merchants == {SPOILED, CRASHING, HANGING}
    assert Errors.of(results, SPOILED).said == {"ValueError: a spoiled word"}
    assert Errors.of(results, CRASHING).said == {"Runtime.ExitError: Runtime exited: status -9"}
    assert Errors.of(results, HANGING).said == {
        "Sandbox.Timedout: Task timed out after 4.00 seconds"
    }
    spared = [r for r in undisturbed if r["merchant_key"] not in (SPOILED, CRASHING, HANGING)]
    assert scores(pipeline) == spared
    letters = unit_store(pipeline.settings.units, shops).dead_letters()
    assert [letter.attempts for letter in letters] == [1, 1, 1]


@pytest.mark.parametrize("begins", [True, False], ids=["at a unit", "before it begins"])
def test_each_invocation_that_ends_without_a_word_is_one_attempt(
    shops, function, monkeypatch, begins
):
    pipeline = opened_on_lambda(shops, labels_per_unit=10_000, most_waiting=1)
    store, asked = unit_store(pipeline.settings.units, shops), []

    def ended(event):
        asked.append(json.loads(event)["unit"])
        if begins:
            store.begin(asked[-1], 3)
        return Answer.failure("Runtime.ExitError", f"killed {asked.count(asked[-1])}")

    monkeypatch.setattr(function, "answer", ended)
    assert Errors.of(scored(pipeline)).said == {"Runtime.ExitError: killed 3"}
    assert {letter.attempts for letter in store.dead_letters()} == {3}
    assert len(asked) == 3 * len(set(asked))


def test_what_a_function_says_that_cannot_work_at_all_ends_the_run(shops, function, monkeypatch):
    monkeypatch.setattr(function, "answer", lambda _: Answer(b'{"error": "no such store"}'))
    with pytest.raises(WorkersError, match="function harmonizer-units says: no such store"):
        scored(opened_on_lambda(shops))


@pytest.mark.parametrize("page", PAGES)
def test_a_login_page_is_no_answer_of_the_function_and_no_attempt(shops, monkeypatch, page):
    with login_page(page) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        pipeline = opened_on_lambda(shops, attempts=1)
        with pytest.raises(WorkersError, match=r"harmonizer-units gives .* want a login\?"):
            scored(pipeline)
    assert unit_store(pipeline.settings.units, shops).dead_letters() == []


def test_a_function_that_is_not_there_is_a_clear_error(shops, monkeypatch):
    with aws_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", url)
        with pytest.raises(WorkersError, match=r"harmonizer-units cannot be invoked \(Resource"):
            scored(opened_on_lambda(shops))


def test_no_function_and_no_region_are_clear_errors(shops, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"set \[units\] function"):
        scored(opened(shops, executor="lambda"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(ConfigurationError, match="set AWS_DEFAULT_REGION"):
        scored(opened_on_lambda(shops))


HANDLED = """
import json, socket, sys
from harmonizer_assets.core.units.lambda_handler import handle

def refused(*_):
    raise OSError("there is no network")

socket.socket.connect = socket.socket.connect_ex = refused
for line in sys.stdin:
    print(json.dumps(handle(json.loads(line))))
"""


def handled(store, events):
    """The answers of the handler, in a process without network."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HANDLED],
        input="".join(f"{json.dumps(event)}\n" for event in events),
        env={**os.environ, STORES_VARIABLE: store},
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_handler_needs_no_network_and_an_event_that_comes_again_changes_nothing(
    shops, undisturbed, monkeypatch
):
    pipeline = opened_on_lambda(shops)
    store = unit_store(pipeline.settings.units, shops)

    class Handled(aws_lambda.LambdaExecutor):
        def submit(self, unit):
            event = {"unit": unit, "store": store.objects.url, "attempts": 3, "seconds": 60.0}
            first, again = handled(store.objects.url, [event, event])
            assert first == again == {"outcome": "done"}
            assert store.attempts(unit) == 1
            self._ended.put(unit)

    monkeypatch.setattr(aws_lambda, "LambdaExecutor", Handled)
    scored(opened_on_lambda(shops, labels_per_unit=10_000))
    assert scores(pipeline) == undisturbed


GOOD = {"unit": "a" * 64, "store": "file:///tmp/units", "attempts": 3, "seconds": 60.0}


@pytest.mark.parametrize(
    "change",
    [
        {"unit": "../../secrets"},
        {"store": "file:///etc"},
        {"attempts": 10_000},
        {"attempts": "3"},
        {"seconds": None},
        {"more": 1},
    ],
    ids=str,
)
def test_the_handler_refuses_events_that_name_no_unit_of_its_stores(monkeypatch, change):
    from harmonizer_assets.core.units.lambda_handler import handle

    monkeypatch.setenv(STORES_VARIABLE, GOOD["store"])
    assert "names no unit" in handle({**GOOD, **change})["error"]
    assert "names no unit" in handle("unit")["error"]
