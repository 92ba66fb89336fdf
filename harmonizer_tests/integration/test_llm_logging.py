"""What the language-model path tells in its log lines, and what it never tells."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, StoreBusyError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.judge.llm.calls.limits import Circuit
from harmonizer_assets.core.judge.llm.lease import asking_async
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
from harmonizer_tests.support.chat_server import ChatServer, chat_server
from harmonizer_tests.support.environment import KEY, use_endpoint
from harmonizer_tests.support.labels import scored_copy, scored_home
from harmonizer_tests.support.receipts import table
from harmonizer_tests.support.simulated_endpoint import FAULTS, Endpoint, simulated_endpoint

PASSWORD = "hunter2"
QUICK = {"skip_high_confidence": False, "backoff_seconds": 0.01, "timeout_seconds": 1.0}
FAST = {"first_token_seconds": 0.02, "tokens_per_second": 20_000.0}


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    # The clients' loggers get a level of their own from the first endpoint on; others start anew.
    clients = [logging.getLogger(name) for name in ("openai", "httpx", "httpx2", "httpcore")]
    before = [logger.level for logger in clients]
    for logger in clients:
        logger.setLevel(logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    yield
    for logger, level in zip(clients, before, strict=True):
        logger.setLevel(level)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, home: Home) -> Iterator[ChatServer]:
    with chat_server() as state:
        use_endpoint(monkeypatch, state.url)
        yield state


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, home: Home) -> Iterator[Endpoint]:
    with simulated_endpoint(**FAST) as simulated:
        use_endpoint(monkeypatch, simulated.url)
        yield simulated


def judged(home: Home, **judge: Any) -> Pipeline:
    pipeline = Pipeline(home, Settings().with_judge(**{**QUICK, **judge}))
    pipeline.harmonize(
        RunOptions(judge="openai"),
        partitions=pipeline.partitions.held(),
        assets=["llm_verdicts"],
    )
    return pipeline


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("harmonizer_assets") and record.levelno == level
    ]


def test_a_retry_is_told_with_its_outcome_its_attempt_and_its_pause(home, server, caplog):
    scored_copy(home, words=3)
    server.faults = [500, 503]
    judged(home, llm_batch_size=3)
    retries = [line for line in told(caplog, logging.INFO) if line.startswith("retry")]
    assert len(retries) == len(server.requests) - 1
    assert re.fullmatch(
        r"retry of a call of 3 words \(whole\) after attempt 1: "
        r"endpoint failed \(HTTP 500\), in \d\.\d\d s",
        retries[0],
    )
    assert any("attempt 2" in line and "HTTP 503" in line for line in retries)


def test_a_refusal_for_the_rate_is_told_with_its_pause(home, server, caplog):
    scored_copy(home, words=3)
    server.faults, server.headers = [429], {"Retry-After": "0.05"}
    judged(home)
    lines = told(caplog, logging.INFO)
    assert "rate limited (HTTP 429): nothing is sent for 0.05 s" in lines
    assert any("attempt 1: rate limited (HTTP 429), in 0.05 s" in line for line in lines)


def test_words_that_are_given_up_or_left_to_a_later_run_are_told(home, server, caplog):
    scored_copy(home, words=1)
    server.faults = [500] * 2
    judged(home, max_attempts=2)
    lines = told(caplog, logging.INFO)
    assert "1 words are given up after 2 attempts: endpoint failed (HTTP 500)" in lines


def test_each_call_is_told_in_detail(home, server, caplog):
    scored_copy(home, words=3)
    judged(home, llm_batch_size=3)
    [line] = [line for line in told(caplog, logging.DEBUG) if line.startswith("call")]
    assert re.fullmatch(
        r"call: 3 words, 100 \+ 12 tokens, \d+\.\d{3} s, status 200, answered", line
    )


def test_a_run_that_stops_at_its_budget_says_so_once(home, server, caplog):
    scored_copy(home, words=3)
    judged(home, budget_tokens=0)
    lines = [line for line in told(caplog, logging.INFO) if "budget" in line]
    assert lines == ["the budget stops the run after 0 calls: 0 tokens, 0.000000 USD spent"]


def test_waiting_for_another_runs_lock_is_told_once(home, caplog):
    home.locks.mkdir(parents=True, exist_ok=True)

    async def hold_and_wait() -> None:
        async with asking_async(home):
            waiting = asyncio.create_task(_pass_through(home))
            await asyncio.sleep(0.5)
        await waiting

    asyncio.run(hold_and_wait())
    lines = [line for line in told(caplog, logging.INFO) if "waiting for its lock" in line]
    assert len(lines) == 1


def test_a_lease_that_is_not_given_back_is_an_error_in_the_configured_time(home):
    async def hold_and_wait() -> None:
        async with asking_async(home), asking_async(home, timeout=0.1):
            pass

    with pytest.raises(StoreBusyError, match=f"process {os.getpid()} has been asking a model"):
        asyncio.run(hold_and_wait())


async def _pass_through(home: Home) -> None:
    async with asking_async(home):
        pass


def test_a_circuit_tells_that_it_opens_and_that_it_closes(caplog):
    now = [0.0]
    circuit = Circuit(60.0, lambda: now[0])
    for _ in range(15):
        circuit.failed()
    now[0] = 4.0
    circuit.answered()
    circuit.answered()
    opened, closed = told(caplog, logging.INFO)
    assert opened == "12 calls in a row have failed: the circuit opens, one call at a time tries"
    assert closed == "the endpoint answers again after 4.0 s: the circuit closes"


def test_no_log_line_holds_the_key_the_address_or_a_text_of_a_receipt(home, endpoint, caplog):
    pipeline = scored_home(home, label_types=3, merchants=3, words=10)
    pipeline.warehouse.write(
        lambda con: con.execute("UPDATE words SET text = 'zebra' || line_id || text") and None
    )
    endpoint.configure(**FAST, faults=dict.fromkeys(FAULTS, 0.1), max_in_flight=3)
    judged(home, llm_batch_size=3, timeout_seconds=0.5)
    assert len(table(pipeline, "llm_verdicts")) > 60
    formatter = logging.Formatter()
    lines = [formatter.format(record) for record in caplog.records]
    assert len(told(caplog, logging.INFO)) > 10
    assert len(told(caplog, logging.DEBUG)) > 20
    for secret in (KEY, endpoint.url, "zebra", "Shop 0"):
        assert not [line for line in lines if secret in line]


def test_credentials_in_the_address_are_refused_and_not_shown(home, monkeypatch, caplog):
    use_endpoint(monkeypatch, f"http://somebody:{PASSWORD}@127.0.0.1:9/v1")
    scored_copy(home, words=1)
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL") as error:
        judged(home)
    assert PASSWORD not in str(error.value)
    assert PASSWORD not in caplog.text


def test_the_clients_own_loggers_stay_as_somebody_has_set_them(home, server):
    logging.getLogger("httpx").setLevel(logging.INFO)
    scored_copy(home, words=1)
    judged(home)
    assert logging.getLogger("httpx").level == logging.INFO
    assert logging.getLogger("openai").level == logging.WARNING
