"""Vectors on a Chroma server: the same scores as with Chroma in the process, and nobody else's."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from harmonizer_assets.core.backup import back_up, restore
from harmonizer_assets.core.backup.archive import open_archive
from harmonizer_assets.core.base.errors import ConfigurationError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.index.embedders import make_embedder
from harmonizer_assets.core.index.served import ServedIndex
from harmonizer_assets.core.index.vectors import QUERY_BATCH, IndexSession
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.records.options import RunOptions
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


def all_vectors(pipeline: Pipeline) -> list[tuple[str, list[float], dict[str, object]]]:
    with pipeline.indexing.vectors.session() as session:
        return [
            (document_id, vector.tolist(), dict(metadata))
            for ids, vectors, metadatas in session.everything()
            for document_id, vector, metadata in zip(ids, vectors, metadatas, strict=True)
        ]


@pytest.fixture
def backed_up(home, server, request, tmp_path):
    """A scored home whose vectors are on the server, and the address of its backup."""
    copy_shops(home)
    pipeline = opened(home, server, exact=True, database=f"of-{abs(hash(request.node.name))}")
    pipeline.index()
    scored(pipeline)
    archive = open_archive(str(tmp_path / "backups"))
    back_up(pipeline.warehouse, pipeline.indexing.vectors, archive)
    return pipeline, archive


@pytest.mark.parametrize("place", ["another server", "the home"])
def test_a_restored_home_has_its_vectors_and_embeds_nothing_again(backed_up, tmp_path, place):
    pipeline, archive = backed_up
    copy = Home(tmp_path / "copy")
    restore(archive, copy)
    with chroma_server(tmp_path / "another") as another:
        there = opened(copy, another if place == "another server" else None, exact=True)
        indexed = there.index()
        assert (indexed.embedded, indexed.rebuilt) == (0, False)
        assert all_vectors(there) == all_vectors(pipeline)
        assert not copy.restored_vectors.exists()
        before = scores(there)
        scored(there, RunOptions(run_id="again", refresh=True))
        assert scores(there) == before == scores(pipeline)


def test_files_of_a_server_in_the_home_are_not_in_a_backup_and_its_vectors_are(home, tmp_path):
    """Where `deploy/server` has them: a copy of files that are written meanwhile may be damaged."""
    copy_shops(home)
    home.chroma_server.mkdir()
    archive = open_archive(str(tmp_path / "backups"))
    with chroma_server(home.chroma_server) as server:
        pipeline = opened(home, server, exact=True)
        embedded = pipeline.index().embedded
        report = back_up(pipeline.warehouse, pipeline.indexing.vectors, archive)
        vectors = all_vectors(pipeline)
    files = archive.manifest(report.name).files
    assert [file.path for file in files if file.path.startswith("chroma_server")] == []
    copy = Home(tmp_path / "copy")
    restore(archive, copy)
    copy.chroma_server.mkdir()
    with chroma_server(copy.chroma_server) as server:
        there = opened(copy, server, exact=True)
        assert there.index().embedded == 0 < embedded
        assert all_vectors(there) == vectors


def test_a_restored_home_whose_run_is_killed_takes_the_rest_up_the_next_time(
    backed_up, tmp_path, server, monkeypatch
):
    pipeline, archive = backed_up
    copy = Home(tmp_path / "copy")
    restore(archive, copy)
    there = opened(copy, server, exact=True, database="killed-there")
    add = IndexSession.add

    def dies_half_way(session, ids, vectors, metadatas):
        half = len(ids) // 2
        add(session, ids[:half], vectors[:half], metadatas[:half])
        raise KeyboardInterrupt

    monkeypatch.setattr(IndexSession, "add", dies_half_way)
    with pytest.raises(KeyboardInterrupt):
        there.index()
    monkeypatch.undo()
    # It is backed up meanwhile, too.
    again = open_archive(str(tmp_path / "backups of the copy"))
    back_up(there.warehouse, there.indexing.vectors, again)
    assert there.index().embedded == 0
    assert all_vectors(there) == all_vectors(pipeline)
    third = Home(tmp_path / "third")
    restore(again, third)
    assert opened(third, server, exact=True, database="third").index().embedded == 0


def test_what_is_deleted_in_a_restored_home_is_not_in_its_files_any_more(backed_up, tmp_path):
    pipeline, archive = backed_up
    copy = Home(tmp_path / "copy")
    restore(archive, copy)
    there = opened(copy, None, exact=True)
    [images] = there.warehouse.query(IMAGES_OF_THE_RAREST_WORD)["images"].to_pylist()
    for image in images:
        there.deletion.delete(Scope(image, None, None, None, None))
    assert not copy.restored_vectors.exists()
    assert there.indexing.vectors.ids() < pipeline.indexing.vectors.ids()
    assert there.index().embedded == 0


def test_damaged_vectors_of_a_restored_home_are_named(backed_up, tmp_path, server):
    _, archive = backed_up
    copy = Home(tmp_path / "copy")
    restore(archive, copy)
    [file] = copy.restored_vectors.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    there = opened(copy, server, exact=True, database="damaged")
    with pytest.raises(StoreError, match=f"{file.name} is damaged: delete it"):
        there.index()
    file.unlink()
    assert there.index().embedded > 0
