from __future__ import annotations

import numpy as np
import pytest

from harmonizer_assets.core.errors import ConfigurationError, HarmonizerError
from harmonizer_assets.core.harmonizer import Harmonizer
from harmonizer_assets.core.settings import EmbeddingSettings, Settings
from harmonizer_tests.chat_server import chat_server
from harmonizer_tests.receipts import harmonize, shop_receipts

OPENAI = Settings(embedding=EmbeddingSettings(embedder="openai", openai_dimensions=16))


@pytest.fixture
def server(home, monkeypatch):
    with chat_server() as state:
        monkeypatch.setenv("OPENAI_BASE_URL", state.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test-very-secret")
        yield state


def test_each_document_is_embedded_once_by_the_endpoint(home, server, tmp_path):
    harmonizer = Harmonizer(home, OPENAI)
    shop_receipts().submit(harmonizer, tmp_path)
    harmonize(harmonizer)
    asked = [text for request in server.requests for text in request["input"]]
    total = harmonizer.index_documents().total
    assert len(asked) == len(set(asked)) == total
    assert all(request["dimensions"] == 16 for request in server.requests)


def test_another_embedder_rebuilds_the_index_knowingly(home, server, tmp_path):
    local = Harmonizer(home)
    shop_receipts().submit(local, tmp_path)
    harmonize(local)
    total = local.index_documents().total
    other = Harmonizer(home, OPENAI)
    report = other.index_documents()
    assert (report.rebuilt, report.embedded, report.total) == (True, total, total)
    assert other.stale_partitions("offline") == other.partitions()
    with other._index.session() as session:
        collections = [c.name for c in session._client.list_collections()]
    assert len(collections) == 1


def test_vectors_have_length_1(home, server):
    harmonizer = Harmonizer(home, OPENAI)
    row = {"mask": "total", "row_context": "total 0.00", "y_bin": 3}
    vectors = harmonizer._embedder.embed(_table(row, {**row, "y_bin": 255}))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert not np.array_equal(vectors[0], vectors[1])


def _table(*rows):
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows))


def test_a_failing_endpoint_says_how_far_it_got_without_the_key(home, server, tmp_path):
    harmonizer = Harmonizer(home, OPENAI)
    shop_receipts().submit(harmonizer, tmp_path)
    harmonizer.ingest_pending()
    server.faults = [401]
    with pytest.raises(HarmonizerError, match="embedding failed after 0 of") as error:
        harmonizer.index_documents()
    assert "sk-" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_missing_key_is_a_clear_error(home):
    with pytest.raises(ConfigurationError, match="set OPENAI_API_KEY"):
        Harmonizer(home, OPENAI).index_documents()
