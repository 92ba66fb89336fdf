"""Endpoints as they are: one table of behaviours, and what a run makes of each.

Every row is an endpoint that answers each request in its own way: with this status, body and finish
reason. A row says how the run ends, how the words are decided, what dead letters say, and how many
calls are allowed at most.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, HarmonizerError, JudgeError
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_assets.core.records.reports import HarmonizeReport
from harmonizer_tests.support.chat_server import (
    USAGE,
    Answer,
    Response,
    chat_server,
    completion,
)
from harmonizer_tests.support.environment import KEY, use_endpoint
from harmonizer_tests.support.labels import scored_copy
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.unpublished import Unpublished

QUICK = {"skip_high_confidence": False, "backoff_seconds": 0.001, "timeout_seconds": 5.0}
WORDS = 5
FEW = 5 + 4 * 5
"""Five different questions in vain, and four in flight meanwhile, each tried five times at most."""

Behaviour = Callable[[dict[str, Any], list[Answer]], Response | None]


@dataclass(frozen=True)
class Case:
    """An endpoint's behaviour, and the right outcome.

    Attributes:
        behave: how it answers a request, given the right verdicts.
        calls: at most so many are allowed.
        decided: how the words end.
        error: what the run says when it fails; None where it must not.
        letters: what the dead letters say.
        sent: parameters of the last request that show how it was adapted; None: not sent.
        judge: settings of the judge.
        words: how many are asked about.
    """

    behave: Behaviour
    calls: int
    decided: dict[str, int] = field(default_factory=lambda: {"llm": WORDS})
    error: str | None = None
    letters: str | None = None
    sent: dict[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=lambda: {"llm_batch_size": WORDS})
    words: int = WORDS


def refuses(
    parameter: str, status: int, body: Any, when: Callable[[Any], bool] = lambda value: True
) -> Behaviour:
    """An endpoint that takes no request with this parameter, or with such a value of it."""

    def behave(request: dict[str, Any], verdicts: list[Answer]) -> Response | None:
        refused = parameter in request and when(request[parameter])
        return Response(status, body) if refused else None

    return behave


def openai_error(message: str, param: str | None = None, code: str | None = None) -> Any:
    return {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }
    }


def answers(wrap: Callable[[str], Any], reason: str = "stop", **message: Any) -> Behaviour:
    """An endpoint that answers rightly, in a wrapping of its own."""

    def behave(request: dict[str, Any], verdicts: list[Answer]) -> Response:
        content = wrap(json.dumps({"verdicts": verdicts}))
        return Response(200, completion(content, reason, USAGE, **message))

    return behave


def always(status: int, body: Any) -> Behaviour:
    return lambda request, verdicts: Response(status, body)


def chain(*behaviours: Behaviour) -> Behaviour:
    """An endpoint with several peculiarities; the first that objects answers."""

    def behave(request: dict[str, Any], verdicts: list[Answer]) -> Response | None:
        found = (behaviour(request, verdicts) for behaviour in behaviours)
        return next((response for response in found if response is not None), None)

    return behave


def declines(how: Response) -> Behaviour:
    """An endpoint that declines all calls with the word that it was asked about first."""
    declined: list[str] = []

    def behave(request: dict[str, Any], verdicts: list[Answer]) -> Response | None:
        texts = [item["text"] for item in document(request)["items"]]
        if not declined:
            declined.append(texts[0])
        return how if declined[0] in texts else None

    return behave


def document(request: dict[str, Any]) -> dict[str, Any]:
    """The questions of a request."""
    found: dict[str, Any] = json.loads(request["messages"][-1]["content"])
    return found


def thinks(tokens: int) -> Behaviour:
    """A model that uses up so many tokens before it writes anything."""

    def behave(request: dict[str, Any], verdicts: list[Answer]) -> Response | None:
        if request["max_completion_tokens"] >= tokens:
            return None
        return Response(200, completion("", "length", {"prompt_tokens": 1, "completion_tokens": 9}))

    return behave


JSON_OBJECT = {"type": "json_object"}
REFUSAL = Response(200, completion(None, "stop", USAGE, refusal="I cannot."))
FILTERED = Response(200, completion(None, "content_filter", USAGE))
FILTERED_400 = Response(400, openai_error("Filtered.", "prompt", "content_filter"))
TOO_NEW = "Unsupported value: 'temperature' does not support 0.0 with this model."
SCHEMA_REFUSED = "Invalid parameter: 'response_format' of type 'json_schema' is not supported."
PYDANTIC = {
    "detail": [
        {
            "type": "extra_forbidden",
            "loc": ["body", "max_completion_tokens"],
            "msg": "Extra inputs are not permitted",
            "input": {"temperature": 0, "response_format": "…"},
        }
    ]
}
NO_SCHEMA = refuses("response_format", 400, openai_error(SCHEMA_REFUSED, "response_format"))

TABLE: dict[str, Case] = {
    # Parameters that are not supported
    "temperature": Case(
        refuses("temperature", 400, openai_error(TOO_NEW, "temperature", "unsupported_value")),
        calls=2,
        sent={"temperature": None},
    ),
    "length by its former name only": Case(
        refuses(
            "max_completion_tokens",
            400,
            openai_error("Unrecognized request argument supplied: max_completion_tokens"),
        ),
        calls=2,
        sent={"max_completion_tokens": None},
    ),
    "length by its former name only, FastAPI": Case(
        refuses("max_completion_tokens", 422, PYDANTIC),
        calls=2,
        sent={"max_completion_tokens": None},
    ),
    "strict schema": Case(
        refuses(
            "response_format",
            400,
            openai_error(SCHEMA_REFUSED, "response_format"),
            when=lambda value: value["type"] == "json_schema",
        ),
        calls=2,
        sent={"response_format": JSON_OBJECT},
    ),
    "any response format, text alone": Case(
        NO_SCHEMA,
        calls=3,
        sent={"response_format": None},
    ),
    "reasoning effort": Case(
        refuses("reasoning_effort", 400, {"error": "unknown field reasoning_effort"}),
        calls=2,
        sent={"reasoning_effort": None},
        judge={"llm_batch_size": WORDS, "reasoning_effort": "low"},
    ),
    "everything at once": Case(
        chain(
            refuses("max_completion_tokens", 400, openai_error("max_completion_tokens: unknown")),
            refuses("temperature", 400, openai_error(TOO_NEW, "temperature")),
            NO_SCHEMA,
        ),
        calls=5,
        sent={"max_completion_tokens": None, "temperature": None, "response_format": None},
    ),
    "both names of the length": Case(
        chain(
            refuses("max_completion_tokens", 400, openai_error("max_completion_tokens: unknown")),
            refuses("max_tokens", 400, openai_error("max_tokens: unknown")),
        ),
        calls=2,
        decided={},
        error="rejects the request.*'max_tokens: unknown'",
    ),
    "something else in the request": Case(
        always(400, openai_error("The deployment is paused, ask sk-secret-admin.")),
        calls=1,
        decided={},
        error=r"rejects the request \(HTTP 400\): 'The deployment is paused, ask \[secret\]",
    ),
    "a call that is too long": Case(
        lambda request, verdicts: (
            Response(400, openai_error("maximum context length is 4096 tokens", None))
            if len(verdicts) > 2
            else None
        ),
        calls=5,
    ),
    # Answers in a wrapping
    "a fence": Case(answers(lambda text: f"```json\n{text}\n```"), calls=1),
    "a sentence before": Case(answers(lambda text: f"Here you are:\n\n{text}"), calls=1),
    "content in parts": Case(
        lambda request, verdicts: Response(
            200,
            {
                **completion(None, usage=USAGE),
                "choices": [
                    {
                        "finish_reason": "stop",
                        "message": {
                            "content": [
                                {"type": "thinking", "thinking": []},
                                {"type": "text", "text": json.dumps({"verdicts": verdicts})},
                            ]
                        },
                    }
                ],
            },
        ),
        calls=1,
    ),
    # Words that are declined
    "refuses one word": Case(
        declines(REFUSAL),
        calls=7,
        decided={"llm": 4, "unresolved": 1},
        letters="the model refused to answer",
    ),
    "filters one word": Case(
        declines(FILTERED),
        calls=7,
        decided={"llm": 4, "unresolved": 1},
        letters="a content filter stopped the answer",
    ),
    "filters one word, with a 400": Case(
        declines(FILTERED_400),
        calls=7,
        decided={"llm": 4, "unresolved": 1},
        letters="a content filter stopped the question",
    ),
    "refuses all words": Case(
        always(200, REFUSAL.body),
        calls=WORDS,
        decided={"unresolved": WORDS},
        letters="the model refused to answer",
        judge={"llm_batch_size": 1},
    ),
    # Answers that are cut off
    "thinks for 1,000 tokens": Case(thinks(1_000), calls=4),
    "thinks for ever": Case(
        thinks(10**9),
        calls=5,
        decided={"unresolved": 1},
        letters="the answer was truncated",
        words=1,
    ),
    # Nothing usable
    "an HTML page": Case(
        always(200, "<html><body>Welcome</body></html>"),
        calls=FEW,
        decided={},
        error="none of the first 5 answers can be used.*OPENAI_BASE_URL",
        judge={},
        words=24,
    ),
    "prose": Case(
        answers(lambda text: "I think that they are all fine."),
        # The whole call and its halves come first.
        calls=FEW + 4,
        decided={},
        error="none of the first 5 answers can be used.*HARMONIZER_MODEL",
    ),
    "no entries": Case(
        answers(lambda text: '{"verdicts": []}'),
        calls=FEW,
        decided={},
        error="none of the first 5 answers can be used",
        judge={"llm_batch_size": 1},
        words=24,
    ),
    "nothing": Case(
        always(200, completion("", "stop", USAGE)),
        calls=FEW,
        decided={},
        error=r"none of the first 5 answers can be used \(the answer is empty\)",
        judge={"llm_batch_size": 1},
        words=24,
    ),
    # Addresses and keys
    "an address without an API": Case(
        always(404, "<html><title>Not Found</title></html>"),
        calls=1,
        decided={},
        error=r"check OPENAI_BASE_URL, which mostly ends in /v1; it says: 'Not Found'",
    ),
    "a model that it does not have": Case(
        always(404, {"error": {"message": 'model "gpt-4o-mini" not found, try pulling it first'}}),
        calls=1,
        decided={},
        error=r"does not know model 'gpt-4o-mini' \(HTTP 404\): check HARMONIZER_MODEL",
    ),
    "a key that it does not take": Case(
        always(401, openai_error(f"Incorrect API key provided: {KEY}.", None, "invalid_api_key")),
        calls=1,
        decided={},
        error=r"refuses the key \(HTTP 401\): check OPENAI_API_KEY; it says: '.*\[secret\]",
    ),
    "no quota": Case(
        always(429, openai_error("You exceeded your quota.", None, "insufficient_quota")),
        calls=1,
        decided={},
        error="quota is used up",
    ),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, home):
    with chat_server() as state:
        use_endpoint(monkeypatch, state.url)
        yield state


def prepare(home, words: int = WORDS) -> None:
    scored_copy(home, words=words)


def judge(home, run_id: str = "run", **judge: Any) -> tuple[Pipeline, HarmonizeReport]:
    pipeline = Unpublished(home, Settings().with_judge(**{**QUICK, **judge}))
    report = pipeline.harmonize(
        RunOptions(judge="openai", run_id=run_id),
        partitions=pipeline.partitions.held(),
        assets=["llm_verdicts"],
    )
    return pipeline, report


def decided_by(pipeline: Pipeline) -> Counter[str]:
    return Counter(row["decided_by"] for row in table(pipeline, "label_decisions"))


def letters(pipeline: Pipeline) -> set[str]:
    return {row["error"] for row in table(pipeline, "dead_letters")}


@pytest.mark.parametrize("name", TABLE)
def test_every_endpoint_has_its_outcome_within_the_calls_allowed(home, server, name):
    case = TABLE[name]
    prepare(home, case.words)
    server.behave = case.behave
    if case.error is not None:
        with pytest.raises(JudgeError, match=case.error) as failed:
            judge(home, **case.judge)
        assert failed.value.exit_code == 1
        assert KEY not in str(failed.value)
    else:
        pipeline, _ = judge(home, **case.judge)
        assert decided_by(pipeline) == case.decided
        assert letters(pipeline) == ({case.letters} if case.letters else set())
    assert 0 < len(server.requests) <= case.calls
    last = server.requests[-1]
    assert {name: last.get(name) for name in case.sent} == case.sent


# Adapting


def test_what_an_endpoint_does_not_take_is_remembered_for_the_endpoint_and_the_model(
    home, server, monkeypatch
):
    prepare(home)
    server.behave = TABLE["temperature"].behave
    pipeline, _ = judge(home, llm_batch_size=WORDS)
    forget(pipeline)
    judge(home, "again", llm_batch_size=WORDS)
    forget(pipeline)
    monkeypatch.setenv("HARMONIZER_MODEL", "another-model")
    judge(home, "other", llm_batch_size=WORDS)
    sent = ["temperature" in request for request in server.requests]
    assert sent == [True, False, False, True, False]


def forget(pipeline: Pipeline) -> None:
    """Forget all answers, so that the same questions are asked once more."""

    def delete(con: Any) -> None:
        con.execute("DELETE FROM llm_verdicts")
        con.execute("UPDATE partition_state SET fingerprint = 'outdated'")

    pipeline.warehouse.write(delete)


def test_an_adapted_run_leaves_nothing_stale_and_its_answers_are_not_bought_again(home, server):
    prepare(home)
    server.behave = chain(TABLE["temperature"].behave, NO_SCHEMA)
    pipeline, _ = judge(home)
    asked = len(server.requests)
    before = table(pipeline, "label_decisions")
    again, _ = judge(home, "again")
    assert table(again, "label_decisions") == before
    assert len(server.requests) == asked
    again.warehouse.write(
        lambda con: con.execute("UPDATE partition_state SET fingerprint = 'outdated'") and None
    )
    judge(home, "refreshed")
    assert len(server.requests) == asked
    assert decided_by(again) == {"cache": WORDS}


def test_an_answer_of_another_dialect_is_another_answer(home, server):
    prepare(home)
    judge(home)
    asked = len(server.requests)
    server.behave = TABLE["temperature"].behave
    pipeline = Pipeline(home)
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE partition_state SET fingerprint = 'outdated'") and None
    )
    judge(home, "cached")
    assert len(server.requests) == asked
    forget(pipeline)
    judge(home, "adapted")
    keys = {row["verdict_key"] for row in table(pipeline, "llm_verdicts")}
    assert len(keys) == WORDS
    server.behave = lambda request, verdicts: None
    pipeline.warehouse.write(lambda con: con.execute("DELETE FROM llm_dialects") and None)
    forget(pipeline)
    judge(home, "usual")
    assert keys.isdisjoint(row["verdict_key"] for row in table(pipeline, "llm_verdicts"))


def test_answers_that_were_bought_in_a_dialect_decide_in_a_run_without_a_model(
    home, server, monkeypatch
):
    prepare(home)
    server.behave = TABLE["any response format, text alone"].behave
    pipeline, _ = judge(home)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HARMONIZER_MODEL"):
        monkeypatch.delenv(name)
    Pipeline(home).harmonize(RunOptions(judge="offline"))
    assert decided_by(pipeline) == {"cache": WORDS}


def test_where_no_schema_is_taken_the_prompt_shows_it(home, server):
    prepare(home)
    judge(home)
    usual = server.requests[-1]["messages"][0]["content"]
    schema = server.requests[-1]["response_format"]["json_schema"]["schema"]
    forget(Pipeline(home))
    server.behave = NO_SCHEMA
    judge(home, "again")
    shown = server.requests[-1]["messages"][0]["content"]
    assert shown.startswith(usual)
    assert json.loads(shown[shown.index('{"type"') :]) == schema


def test_what_is_refused_costs_nothing_of_the_budget(home, server):
    prepare(home)
    server.behave = TABLE["everything at once"].behave
    _, report = judge(home, budget_tokens=12_000, llm_batch_size=WORDS)
    assert report.totals.answered == WORDS


def test_many_calls_in_flight_adapt_once(home, server):
    prepare(home, 24)
    server.behave = TABLE["temperature"].behave
    server.delay = 0.02
    pipeline, _ = judge(home, llm_batch_size=2)
    refused = [request for request in server.requests if "temperature" in request]
    assert 1 <= len(refused) <= 4
    assert decided_by(pipeline) == {"llm": 24}


# Usage that the endpoint does not tell


@pytest.mark.parametrize(
    "usage",
    [None, {**USAGE, "prompt_tokens": -5}, {**USAGE, "completion_tokens": 10**20}, "12 tokens"],
    ids=["none", "negative", "more than a column holds", "text"],
)
def test_usage_that_is_not_told_is_estimated_and_said_and_the_budget_counts_the_reservation(
    home, server, usage
):
    prepare(home)
    server.behave = lambda request, verdicts: Response(
        200, completion({"verdicts": verdicts}, usage=usage)
    )
    pipeline, report = judge(home, llm_batch_size=1, budget_tokens=8_000)
    totals = report.totals
    assert totals.stopped_at_budget
    assert totals.estimated_calls == totals.calls == len(server.requests) > 0
    assert totals.cost_usd is not None
    assert totals.cost_usd > 0
    used = table(pipeline, "llm_usage")
    assert sum(row["estimated_calls"] for row in used) == totals.calls
    assert 0 < sum(row["prompt_tokens"] for row in used) < 8_000
    # Of what it has reserved, the run has most likely used a part only.
    assert sum(row["prompt_tokens"] + row["completion_tokens"] for row in used) < 5_000


# Addresses


@pytest.mark.parametrize(
    "address",
    ["localhost:8000/v1", "example.org", "/v1", "ftp://host/v1", "http://", "http://h:x/"],
)
def test_an_address_that_is_none_is_refused_before_anything_is_sent(home, monkeypatch, address):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(ConfigurationError, match=r"OPENAI_BASE_URL.*http://localhost:8000/v1"):
        Pipeline(home).judge.check("openai")


def test_an_address_without_v1_is_named_as_the_cause(home, server, monkeypatch):
    prepare(home)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url.removesuffix("/v1"))
    with pytest.raises(JudgeError, match=r"check OPENAI_BASE_URL, which mostly ends in /v1"):
        judge(home, llm_batch_size=WORDS)
    assert len(server.requests) == 1


def test_a_port_that_is_closed_from_the_first_call_on_ends_the_run_and_no_word(home, server):
    prepare(home, 24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        with pytest.raises(HarmonizerError, match=r"cannot be reached.*OPENAI_BASE_URL"):
            judge(home)
    assert table(Pipeline(home), "dead_letters") == []
    pipeline, _ = judge(home, "again")
    assert decided_by(pipeline) == {"llm": 24}
