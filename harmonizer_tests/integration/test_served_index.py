"""Vectors on a Chroma server: the same scores as with Chroma in the process, and nobody else's."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.index.embedders import make_embedder
from harmonizer_assets.core.index.served import ServedIndex
from harmonizer_assets.core.index.vectors import QUERY_BATCH, IndexSession
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.store.deletions import Scope
from harmonizer_tests.support.chroma_server import chroma_server
from harmonizer_tests.support.receipts import OFFLINE
from harmonizer_tests.support.units import copy_shops, scored, scores

IMAGES_OF_THE_RAREST_WORD = """
SELECT list(DISTINCT image_id) AS images FROM word_documents
GROUP BY document_id ORDER BY len(images), document_id LIMIT 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with chroma_server(tmp_path_factory.mktemp("chroma") / "data") as url:
        yield url


def opened(home: Home, server: str | None, *, exact: bool, database: str = "shops") -> Pipeline:
    content = {
        "similarity": {"exact_search_limit": 20_000 if exact else 0},
        "index": {"server": server, "database": database},
    }
    return Pipeline(home, Settings.model_validate(content))


@pytest.mark.parametrize("exact", [True, False])
def test_scores_are_those_of_chroma_in_the_process_and_votes_are_asked_in_batches(
    home, tmp_path, server, exact, monkeypatch
):
    beside = Home(tmp_path / "embedded").ensure()
    for one in (home, beside):
        copy_shops(one)
    embedded = opened(beside, None, exact=exact)
    scored(embedded)
    asked = []
    nearest = IndexSession.nearest
    monkeypatch.setattr(
        IndexSession,
        "nearest",
        lambda self, vectors, k: asked.append(len(vectors)) or nearest(self, vectors, k),
    )
    pipeline = opened(home, server, exact=exact)
    indexed = pipeline.index()
    assert (indexed.embedded, indexed.rebuilt) == (indexed.total if exact else 0, exact)
    scored(pipeline)
    assert scores(pipeline) == scores(embedded)
    assert asked == [] if exact else 1 <= len(asked) <= 1 + sum(asked) // QUERY_BATCH


def test_homes_have_databases_of_their_own_and_a_deletion_leaves_no_vector(home, tmp_path, server):
    other = Home(tmp_path / "other").ensure()
    for one, database in ((home, "first-home"), (other, "second-home")):
        copy_shops(one)
        opened(one, server, exact=True, database=database).index()
    pipeline = opened(home, server, exact=True, database="first-home")
    before = pipeline.indexing.vectors.ids()
    assert any(home.chroma.iterdir()), "the shops were indexed without a server"
    [images] = pipeline.warehouse.query(IMAGES_OF_THE_RAREST_WORD)["images"].to_pylist()
    for image in images:
        pipeline.deletion.delete(Scope(image, None, None, None, None))
    known = pipeline.warehouse.query("SELECT document_id AS d FROM document_metadata")
    assert pipeline.indexing.vectors.ids() == {*known["d"].to_pylist()} < before
    assert (
        opened(other, server, exact=True, database="second-home").indexing.vectors.ids() == before
    )
    assert not any(home.chroma.iterdir())
    with pipeline.indexing.vectors.session() as session:
        assert session.vectors(sorted(known["d"].to_pylist())).shape[0] == known.num_rows
        assert {found.name for found in session._client.list_collections()} == {
            pipeline.indexing.vectors.collection_name
        }


def test_a_copy_that_was_interrupted_is_made_anew(home, server, monkeypatch):
    copy_shops(home)
    pipeline = opened(home, server, exact=True, database="interrupted")
    pipeline.index()
    vectors = pipeline.indexing.vectors
    before = vectors.ids()

    def dies(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(IndexSession, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        vectors.rewrite()
    monkeypatch.undo()
    assert vectors.ids() == before
    vectors.rewrite()
    assert vectors.ids() == before
    with vectors.session() as session:
        assert len(session._client.list_collections()) == 1


def test_a_session_keeps_nobody_else_out(home, server):
    copy_shops(home)
    vectors = opened(home, server, exact=True, database="at-once").indexing.vectors
    found = []
    with vectors.session():
        reader = threading.Thread(target=lambda: found.append(vectors.ids()))
        reader.start()
        reader.join(10)
    assert found == [set()]


def test_no_server_is_a_clear_error_without_the_token(home, monkeypatch):
    copy_shops(home)
    monkeypatch.setenv("HARMONIZER_CHROMA_TOKEN", "hidden-word")
    with pytest.raises(StoreError, match=r"the vector index on http://127\.0\.0\.1:9 ") as raised:
        opened(home, "http://127.0.0.1:9", exact=True).harmonize(OFFLINE)
    assert "hidden-word" not in str(raised.value)


def test_the_token_is_sent_and_a_server_that_refuses_it_is_named(home, monkeypatch):
    copy_shops(home)
    monkeypatch.setenv("HARMONIZER_CHROMA_TOKEN", "hidden-word")
    sent = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            sent.append(self.headers["Authorization"])
            self.send_error(401, "who is hidden-word?")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(
            StoreError, match="is the token in HARMONIZER_CHROMA_TOKEN right"
        ) as raised:
            opened(home, f"http://127.0.0.1:{server.server_port}", exact=True).index()
    finally:
        server.shutdown()
    assert set(sent) == {"Bearer hidden-word"}
    assert "hidden-word" not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("server", "token", "is_allowed"),
    [
        ("http://127.0.0.1:8000", "", True),
        ("http://localhost:8000", "", True),
        ("https://chroma.example.com", "a-token", True),
        ("https://chroma.example.com", "", False),
        ("http://chroma.example.com:8000", "a-token", False),
        ("http://127.0.0.1.example.com", "", False),
    ],
)
def test_another_machine_takes_tls_and_a_token(home, server, token, is_allowed):
    embedder = make_embedder(Settings().embedding)
    environment = {"HARMONIZER_CHROMA_TOKEN": token}
    if is_allowed:
        ServedIndex(home, embedder, server, "home", environment=environment)
    else:
        with pytest.raises(ConfigurationError, match="is not this machine"):
            ServedIndex(home, embedder, server, "home", environment=environment)
