from __future__ import annotations

import threading

import numpy as np
import pytest

from harmonizer_assets.core.base.errors import (
    BudgetReached,
    ConfigurationError,
    HarmonizerError,
)
from harmonizer_assets.core.base.settings import EmbeddingSettings, Settings
from harmonizer_assets.core.index.embedders import make_embedder
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.account import Account
from harmonizer_tests.support import chat_server as chat_server_module
from harmonizer_tests.support.chat_server import chat_server
from harmonizer_tests.support.login_page import PAGES, login_page
from harmonizer_tests.support.receipts import OFFLINE, harmonize, shop_receipts, table

OPENAI = Settings(embedding=EmbeddingSettings(embedder="openai", openai_dimensions=16))


@pytest.fixture
def server(home, monkeypatch):
    with chat_server() as state:
        monkeypatch.setenv("OPENAI_BASE_URL", state.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-very-secret")
        yield state


def test_each_document_is_embedded_once_by_the_endpoint(home, server, tmp_path):
    pipeline = Pipeline(home, OPENAI)
    shop_receipts().submit(pipeline, tmp_path)
    harmonize(pipeline)
    asked = [text for request in server.requests for text in request["input"]]
    total = pipeline.index().total
    assert len(asked) == len(set(asked)) == total
    assert all(request["dimensions"] == 16 for request in server.requests)


def test_another_embedder_rebuilds_the_index_knowingly(home, server, tmp_path):
    local = Pipeline(home)
    shop_receipts().submit(local, tmp_path)
    harmonize(local)
    total = local.index().total
    other = Pipeline(home, OPENAI)
    report = other.index()
    assert (report.rebuilt, report.embedded, report.total) == (True, total, total)
    assert other.stale(OFFLINE) == other.partitions.held()
    with other.indexing.vectors.session() as session:
        collections = [c.name for c in session._client.list_collections()]
    assert len(collections) == 1


@pytest.mark.parametrize(
    "answered",
    [
        lambda data: data[:-1],
        lambda data: [data[0], data[0]],
        lambda data: [data[0], {**data[1], "index": 7}],
        lambda data: [data[0], {**data[1], "index": -1}],
        lambda data: [*data, data[1]],
    ],
    ids=["one is missing", "doubled", "unknown", "negative", "one too many"],
)
def test_an_answer_that_is_not_about_each_document_once_is_refused(server, monkeypatch, answered):
    answer = chat_server_module._embeddings
    monkeypatch.setattr(
        chat_server_module,
        "_embeddings",
        lambda body: {**(whole := answer(body)), "data": answered(whole["data"])},
    )
    row = {"mask": "total", "row_context": "total 0.00", "y_bin": 3}
    with pytest.raises(HarmonizerError, match="does not answer about each of 2 texts once"):
        make_embedder(OPENAI.embedding).embed(_table(row, {**row, "y_bin": 255}))


@pytest.mark.parametrize("page", PAGES)
def test_a_login_page_is_no_answer_of_the_embedder(home, monkeypatch, page):
    with login_page(page) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-very-secret")
        row = {"mask": "total", "row_context": "total 0.00", "y_bin": 3}
        with pytest.raises(HarmonizerError, match=r"OPENAI_BASE_URL, .* network wants a login"):
            make_embedder(OPENAI.embedding).embed(_table(row))


@pytest.mark.parametrize("data", [[], 5, [3], None], ids=str)
def test_json_that_holds_no_embeddings_is_no_answer_of_the_embedder(server, monkeypatch, data):
    monkeypatch.setattr(chat_server_module, "_embeddings", lambda _: {"data": data})
    row = {"mask": "total", "row_context": "total 0.00", "y_bin": 3}
    with pytest.raises(HarmonizerError, match="something else than embeddings"):
        make_embedder(OPENAI.embedding).embed(_table(row))


def test_vectors_have_length_1(server):
    row = {"mask": "total", "row_context": "total 0.00", "y_bin": 3}
    vectors = make_embedder(OPENAI.embedding).embed(_table(row, {**row, "y_bin": 255}))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert not np.array_equal(vectors[0], vectors[1])


def _table(*rows):
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows))


def test_a_failing_endpoint_says_how_far_it_got_without_the_key(home, server, tmp_path):
    pipeline = Pipeline(home, OPENAI)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    server.faults = [401]
    with pytest.raises(HarmonizerError, match="embedding failed after 0 of") as error:
        pipeline.index()
    assert "sk-" not in str(error.value)
    assert error.value.__context__ is None


def test_a_missing_key_is_a_clear_error(home):
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        Pipeline(home, OPENAI).index()


def usage(pipeline):
    return [row for row in table(pipeline, "llm_usage") if row["label_type"] == "(embeddings)"]


def test_embeddings_count_in_the_usage_and_in_the_ledger(home, server, tmp_path):
    pipeline = Pipeline(home, OPENAI)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    pipeline.index(account=Account("run", "run"))
    [used], [entry] = usage(pipeline), table(pipeline, "llm_ledger")
    # The server counts one token for each call.
    assert (used["run_id"], used["calls"], used["prompt_tokens"]) == ("run", 1, 1)
    assert used["cost_usd"] == pytest.approx(0.02 / 1e6)
    assert (entry["purpose"], entry["tokens"], entry["unconfirmed_tokens"]) == ("embeddings", 1, 0)
    pipeline.index(account=Account("again", "again"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("told", [-5, 10**12, "many", ["5"], None], ids=str)
def test_usage_of_embeddings_that_cannot_be_right_counts_as_the_most_it_may_be(
    home, server, tmp_path, monkeypatch, told
):
    answer = chat_server_module._embeddings
    monkeypatch.setattr(
        chat_server_module,
        "_embeddings",
        lambda body: {**answer(body), "usage": told and {"prompt_tokens": told, "total_tokens": 1}},
    )
    pipeline = Pipeline(home, OPENAI)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    assert pipeline.index(account=Account("run", "run")).embedded > 0
    [entry] = table(pipeline, "llm_ledger")
    assert entry["tokens"] == entry["unconfirmed_tokens"] > 1_000


def test_embeddings_end_at_the_budget_and_go_on_with_the_next(home, server, tmp_path):
    poor = Pipeline(home, OPENAI.with_judge(daily_budget_tokens=10))
    shop_receipts().submit(poor, tmp_path)
    poor.ingest()
    with pytest.raises(BudgetReached, match="before all documents were embedded"):
        poor.index()
    assert server.requests == []
    assert Pipeline(home, OPENAI).index().embedded > 0


def test_an_embedding_call_that_failed_counts_with_the_most_that_it_may_have_cost(
    home, server, tmp_path, monkeypatch
):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    pipeline = Pipeline(home, OPENAI)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    server.faults = [500] * 3
    with pytest.raises(HarmonizerError, match="embedding failed"):
        pipeline.index()
    [entry] = table(pipeline, "llm_ledger")
    assert entry["tokens"] == entry["unconfirmed_tokens"] > 1_000


def test_a_budget_in_usd_needs_the_price_of_the_embedder(home, server):
    unknown = EmbeddingSettings(embedder="openai", openai_dimensions=16, openai_model="mine")
    with pytest.raises(ConfigurationError, match=r"'mine'.*prices\.yaml"):
        Pipeline(home, Settings(embedding=unknown).with_judge(daily_budget_usd=1.0)).index()


def test_two_processes_do_not_embed_the_same_documents(home, server, tmp_path):
    one, other = Pipeline(home, OPENAI), Pipeline(home, OPENAI)
    shop_receipts().submit(one, tmp_path)
    one.ingest()
    server.delay = 0.5
    reports = []
    beside = threading.Thread(target=lambda: reports.append(other.index()))
    beside.start()
    reports.append(one.index())
    beside.join()
    assert len(server.requests) == 1
    assert sorted(report.embedded for report in reports)[0] == 0
