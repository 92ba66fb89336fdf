from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import chromadb
import numpy as np
import pyarrow as pa
import pytest
from chromadb.api.models.Collection import Collection
from chromadb.errors import InternalError
from threadpoolctl import threadpool_info, threadpool_limits

from harmonizer_assets.core.base import threads
from harmonizer_assets.core.base.errors import StoreBusyError, StoreError
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.base.locks import Lock
from harmonizer_assets.core.base.settings import Settings
from harmonizer_assets.core.index import stage, upkeep
from harmonizer_assets.core.index.vector_files import VectorPage, write_pages
from harmonizer_assets.core.index.vectors import (
    GRAPH_WRITTEN_FROM,
    HNSW,
    IndexSession,
    VectorIndex,
)
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_assets.core.score import similar_words, votes
from harmonizer_assets.core.score.searches import ExactSearch, IndexSearch
from harmonizer_assets.core.score.similar_words import read_merchant_labels
from harmonizer_tests.support.homes import copy_home
from harmonizer_tests.support.receipts import OFFLINE, score, shop_receipts, table

UPDATE = """
import sys
from pathlib import Path
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
print(Pipeline(Home(Path(sys.argv[1]))).index().embedded)
sys.exit(bool({"chromadb", "sklearn", "scipy"} & set(sys.modules)))
"""


@pytest.fixture
def indexed(home, tmp_path):
    def make(fresh):
        pipeline = Pipeline(fresh)
        shop_receipts().submit(pipeline, tmp_path)
        pipeline.ingest()
        pipeline.index()

    copy_home(home, "indexed", make)
    return Pipeline(home)


def lose(pipeline: Pipeline, count: int) -> None:
    """Remove documents behind the tables' back."""
    with pipeline.indexing.vectors.session(writes=count) as session:
        session.delete(sorted(session.ids())[:count])


def test_ids_are_read_as_chroma_reads_them(indexed):
    vectors = indexed.indexing.vectors
    with vectors.session() as session:
        assert vectors.ids() == session.ids()
        assert len(vectors.ids()) == len(session.ids()) > 3
    lose(indexed, 3)
    with vectors.session() as session:
        assert vectors.ids() == session.ids()


def test_where_there_is_no_index_yet_there_are_no_documents(pipeline):
    assert pipeline.indexing.vectors.ids() == set()


def test_an_index_that_is_complete_is_left_alone_without_importing_chroma(indexed):
    code = [sys.executable, "-c", UPDATE, str(indexed.home.root)]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    assert done.stdout == "0\n"


def test_an_index_that_lacks_documents_is_completed_and_that_is_logged(indexed, caplog):
    caplog.set_level(logging.INFO, logger="harmonizer_assets.core.index")
    lose(indexed, 3)
    report = Pipeline(indexed.home).index()
    assert (report.rebuilt, report.embedded) == (True, 3)
    missing, embedded = caplog.messages
    assert missing == (
        f"3 of {report.total} documents are missing from the vector index: they are embedded again"
    )
    assert embedded.startswith("embedded 3 documents in ")


def test_vectors_of_no_word_do_not_hide_that_others_are_lost(indexed):
    vectors = indexed.indexing.vectors
    before = vectors.ids()
    lose(indexed, 3)
    strays = np.eye(3, vectors.dimensions, dtype=np.float32)
    with vectors.session(writes=3) as session:
        session.add(["a", "b", "c"], strays, [{"labels": 1}] * 3)
    with pytest.raises(StoreError, match="3 documents are missing"):
        score(Pipeline(indexed.home))
    report = Pipeline(indexed.home).index()
    assert (report.embedded, report.removed) == (3, 3)
    assert vectors.ids() == before
    score(Pipeline(indexed.home))


def test_rewriting_the_index_changes_no_document_and_leaves_nothing_of_removed_ones(indexed):
    vectors = indexed.indexing.vectors
    ids = sorted(vectors.ids())
    with vectors.session(writes=2) as session:
        kept = session.vectors(ids)
        removed = np.full((1, vectors.dimensions), 0.125, dtype=np.float32)
        session.add(["removed-document"], removed, [{"merchants": ["Removed Merchant"]}])
        session.delete(["removed-document"])
    vectors.rewrite()
    with vectors.session() as session:
        assert (session.vectors(ids) == kept).all()
        assert len(session.ids()) == len(ids)
    content = b"".join(
        file.read_bytes() for file in indexed.home.root.glob("chroma*/**/*") if file.is_file()
    )
    for trace in (b"removed-document", b"Removed Merchant", removed.tobytes()):
        assert trace not in content


def test_a_rewrite_that_was_killed_between_its_two_renames_is_finished(indexed):
    vectors, chroma = indexed.indexing.vectors, indexed.home.chroma
    before = vectors.ids()
    shutil.copytree(chroma, chroma.with_suffix(".new"))
    chroma.rename(chroma.with_suffix(".old"))
    report = Pipeline(indexed.home.ensure()).index()
    assert (report.embedded, vectors.ids()) == (0, before)
    assert [path.name for path in indexed.home.root.glob("chroma*")] == ["chroma"]


@pytest.mark.parametrize("killed_in", ["_remove", "rewrite"])
def test_what_a_killed_process_has_begun_to_remove_the_next_one_removes(
    indexed, tmp_path, monkeypatch, killed_in
):
    changed = shop_receipts()
    for word in changed.words:
        word["text"] = f"New{word['text']}"
    changed.submit(indexed, tmp_path / "changed")
    indexed.ingest()

    def killed(*_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, killed_in, killed)
        with pytest.raises(SystemExit):
            indexed.index()
    chroma = indexed.home.chroma.stat().st_ino
    report = Pipeline(indexed.home).index()
    assert (report.embedded, report.rebuilt) == (0, False)
    assert indexed.home.chroma.stat().st_ino != chroma
    kept = {row["document_id"] for row in table(indexed, "documents")}
    assert indexed.indexing.vectors.ids() == kept
    assert [row["removed"] for row in table(indexed, "index_state")] == [0]


@pytest.mark.parametrize("exact_search_limit", [20_000, 0])
def test_a_home_that_grew_equals_one_made_at_once(home, tmp_path, exact_search_limit):
    settings = Settings(similarity={"exact_search_limit": exact_search_limit})
    first, changed = shop_receipts(), shop_receipts()
    for word in changed.words:
        if word["line_id"] in (4, 5):
            word["text"] = f"New{word['text']}"
    grown = Pipeline(home, settings)
    once = Pipeline(Home(tmp_path / "once").ensure(), settings)
    for number, receipts in enumerate((first, changed)):
        receipts.submit(grown, tmp_path / str(number))
        receipts.submit(once, tmp_path / str(number))
        grown.run(OFFLINE)
    once.run(OFFLINE)
    assert grown.indexing.vectors.ids() == once.indexing.vectors.ids()
    for name in ("documents", "document_metadata", "word_documents"):
        assert table(grown, name) == table(once, name)
    mine, theirs = (table(pipeline, "similarity_matches") for pipeline in (grown, once))
    scores = [[row["outlier_score"] for row in rows] for rows in (mine, theirs)]
    assert scores[0] == pytest.approx(scores[1], abs=0 if exact_search_limit else 1e-5)


@pytest.fixture
def four_shops(home, tmp_path):
    """A home in which Chroma's index finds similar words, and all labels by merchant."""
    pipeline = Pipeline(home, Settings(similarity={"exact_search_limit": 0}))
    shop_receipts(["Alpha", "Beta", "Gamma", "Delta"], 5).submit(pipeline, tmp_path)
    pipeline.ingest()
    pipeline.index()
    return pipeline, labels_by_merchant(pipeline)


def labels_by_merchant(pipeline):
    merchants = sorted({row["merchant_key"] for row in table(pipeline, "labels")})
    names = pipeline.taxonomy.names
    return {
        merchant: pipeline.warehouse.read(
            lambda con, m=merchant: read_merchant_labels(con, [m], names)
        )
        for merchant in merchants
    }


@pytest.fixture
def sessions(monkeypatch):
    """A list that grows with each opening of the index."""
    opened, session = [], VectorIndex.session
    monkeypatch.setattr(VectorIndex, "session", lambda self: opened.append(1) or session(self))
    return opened


def scored_anew(pipeline):
    again = Pipeline(pipeline.home, pipeline.settings)
    list(again.score.run(again.partitions.held(), replace(OFFLINE, refresh=True)))
    return table(again, "similarity_matches")


def fetch_at_once(monkeypatch, documents):
    name = "harmonizer_assets.core.score.similar_words._FETCHED_AT_ONCE"
    monkeypatch.setattr(name, documents)


def test_the_index_is_opened_for_many_merchants_together(four_shops, sessions, monkeypatch):
    pipeline, of_merchant = four_shops
    labels = pa.concat_tables(of_merchant.values())
    together, _ = pipeline.score.similar_words().votes(labels)
    assert len(sessions) == 2
    fetch_at_once(monkeypatch, labels.num_rows // 2)
    in_two_groups, _ = pipeline.score.similar_words().votes(labels)
    assert len(sessions) == 2 + 4
    for name in vars(together):
        assert getattr(in_two_groups, name) == pytest.approx(getattr(together, name)), name


def test_the_index_is_opened_for_the_units_of_many_merchants_together(
    four_shops, sessions, monkeypatch
):
    pipeline, of_merchant = four_shops
    everything = pa.concat_tables(of_merchant.values())
    look_up = pipeline.score.similar_words().neighbourhoods(everything)
    together = [look_up(labels) for labels in of_merchant.values()]
    assert len(sessions) == 2
    alone = [pipeline.score.similar_words().neighbourhoods(x)(x) for x in of_merchant.values()]
    most = max(len(near.own) for near in alone)
    fetch_at_once(monkeypatch, most)
    look_up = pipeline.score.similar_words().neighbourhoods(everything)
    one_by_one = [look_up(labels) for labels in of_merchant.values()]
    for found in (together, one_by_one):
        for near, expected in zip(found, alone, strict=True):
            assert near.corpus.document_ids.tolist() == expected.corpus.document_ids.tolist()
            assert near.own.tolist() == expected.own.tolist()
            assert near.vectors.tolist() == expected.vectors.tolist()
            assert near.rows.tolist() == expected.rows.tolist()
    fetch_at_once(monkeypatch, most - 1)
    assert None in [look_up(labels) for labels in of_merchant.values()]


def test_scoring_asks_the_index_about_no_document_that_fitting_has_asked_about(
    four_shops, monkeypatch
):
    pipeline, _ = four_shops
    asked, nearest = [], IndexSession.nearest

    def counted(session, vectors, k):
        asked.append(len(vectors))
        return nearest(session, vectors, k)

    monkeypatch.setattr(IndexSession, "nearest", counted)
    pipeline.score.fit(OFFLINE)
    assert sum(asked) == len(table(pipeline, "documents"))
    assert score(pipeline)
    assert sum(asked) == len(table(pipeline, "documents"))
    mine = table(pipeline, "similarity_matches")
    assert scored_anew(pipeline) == mine


def test_vectors_that_are_searched_exactly_are_read_once_for_fitting_and_scoring(indexed, sessions):
    indexed.score.fit(OFFLINE)
    assert score(indexed)
    assert len(sessions) == 1


@pytest.mark.parametrize("exact", [True, False])
def test_votes_do_not_depend_on_how_many_threads_blas_has(indexed, monkeypatch, exact):
    search = ExactSearch if exact else IndexSearch
    counts, nearest = [], search.nearest

    def watched(self, documents, eligible):
        counts.extend(
            blas["num_threads"] for blas in threadpool_info() if blas["user_api"] == "blas"
        )
        return nearest(self, documents, eligible)

    monkeypatch.setattr(search, "nearest", watched)
    limit = 20_000 if exact else 0
    pipeline = Pipeline(indexed.home, Settings(similarity={"exact_search_limit": limit}))
    with threadpool_limits(2, user_api="blas"):
        assert score(pipeline)
    assert set(counts) == {1}


@pytest.mark.parametrize("together", [5_000, 1])
@pytest.mark.parametrize("limit", [20_000, 0])
def test_votes_do_not_depend_on_the_threads_that_gather_them(
    four_shops, monkeypatch, limit, together
):
    pipeline, merchants = four_shops
    labels = pa.concat_tables(merchants.values())
    words = Pipeline(
        pipeline.home, Settings(similarity={"exact_search_limit": limit})
    ).score.similar_words()
    monkeypatch.setattr(similar_words, "_LABELS_TOGETHER", together)
    monkeypatch.setattr(votes, "_BLOCK_CELLS", 1_000)

    def gathered_in(most_threads):
        used, gather = set(), similar_words.gather_votes

        def watched(*arguments):
            used.add(threading.get_ident())
            time.sleep(0.02)
            return gather(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(threads, "_threads", lambda: most_threads)
            patched.setattr(similar_words, "gather_votes", watched)
            return words.votes(labels)[0], len(used)

    alone, one = gathered_in(1)
    shared, several = gathered_in(3)
    for field in fields(alone):
        np.testing.assert_array_equal(getattr(alone, field.name), getattr(shared, field.name))
    # Merchants that are large are gathered one after the other, each by several threads.
    assert (one, several > 1) == (1, together > 1)


def test_scoring_asks_about_all_documents_once_more_have_come(four_shops, tmp_path):
    pipeline, _ = four_shops
    pipeline.score.fit(OFFLINE)
    shop_receipts(["Late"], 5, images="later").submit(pipeline, tmp_path / "later")
    pipeline.ingest()
    pipeline.index()
    score(pipeline)
    mine = table(pipeline, "similarity_matches")
    assert scored_anew(pipeline) == mine


def test_scoring_asks_once_another_merchant_uses_the_documents_that_one_had_alone(home, tmp_path):
    pipeline = Pipeline(home, Settings(similarity={"exact_search_limit": 0}))
    alone, twin = shop_receipts(["Alone"], 20), shop_receipts(["Twin"], 20, images="twin")
    for mine, same in zip(alone.words, twin.words, strict=True):
        same["text"] = mine["text"]
    alone.submit(pipeline, tmp_path / "alone")
    pipeline.ingest()
    pipeline.index()
    documents = table(pipeline, "documents")
    assert pipeline.score.fit(OFFLINE)[1]
    twin.submit(pipeline, tmp_path / "twin")
    pipeline.ingest()
    pipeline.index()
    assert table(pipeline, "documents") == documents
    score(pipeline)
    mine = table(pipeline, "similarity_matches")
    assert any(row["nearest_document"] for row in mine)
    assert scored_anew(pipeline) == mine


def test_a_label_more_of_a_known_document_leaves_the_index_alone(indexed, tmp_path):
    labels = len(table(indexed, "labels"))
    shop_receipts(images="another").submit(indexed, tmp_path / "another")
    indexed.ingest()
    assert len(table(indexed, "labels")) == 2 * labels
    report = indexed.index()
    assert (report.embedded, report.metadata_updated) == (0, 0)


def test_documents_that_arrive_while_units_are_cut_do_not_change_what_is_found(
    four_shops, tmp_path, monkeypatch
):
    pipeline, of_merchant = four_shops
    labels = list(of_merchant.values())[-1]
    words = pipeline.score.similar_words()
    fetch_at_once(monkeypatch, len(words.neighbourhoods(labels)(labels).own))
    everything = pa.concat_tables(of_merchant.values())
    expected = pipeline.score.similar_words().neighbourhoods(everything)(labels)
    words = pipeline.score.similar_words()
    look_up = words.neighbourhoods(everything)
    arrived = shop_receipts(["Early"], 5, images="later")
    for word in arrived.words:
        word["text"] = f"A{word['text']}"
    arrived.submit(pipeline, tmp_path / "later")
    pipeline.ingest()
    pipeline.index()
    before = len(words.corpus.document_ids)
    words.cover(pa.concat_tables(labels_by_merchant(pipeline).values()))
    assert len(words.corpus.document_ids) > before
    near = look_up(labels)
    assert near.corpus.document_ids.tolist() == expected.corpus.document_ids.tolist()
    assert near.vectors.tolist() == expected.vectors.tolist()


def test_a_broken_index_is_named_with_the_remedy(indexed):
    (indexed.home.chroma / "chroma.sqlite3").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="Delete that folder to have it rebuilt"):
        Pipeline(indexed.home).indexing.vectors.ids()


KEY = b"Authorization: Bearer sk-test-very-secret"


@pytest.fixture
def segment(indexed) -> list[Path]:
    """The two files of a new segment that Chroma writes at their full capacity."""
    files = [
        *indexed.home.chroma.glob("*/length.bin"),
        *indexed.home.chroma.glob("*/data_level0.bin"),
    ]
    assert len(files) == 2
    return files


def leave_a_key_in(files: list[Path]) -> None:
    for file in files:
        size = file.stat().st_size
        file.write_bytes(file.read_bytes()[: size - len(KEY)] + KEY)


def test_a_segment_holds_nothing_that_the_process_had_in_its_memory(indexed, segment):
    for file in segment:
        assert not any(file.read_bytes()), file
    with indexed.indexing.vectors.session():
        leave_a_key_in(segment)
    for file in segment:
        assert not any(file.read_bytes()), file


def test_what_a_killed_process_left_in_a_segment_is_gone_in_the_next_session(indexed, segment):
    leave_a_key_in(segment)
    with indexed.indexing.vectors.session():
        for file in segment:
            assert not any(file.read_bytes()), file


def test_vectors_in_the_segment_files_stay_as_they_are(indexed):
    vectors = indexed.indexing.vectors
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(10_050, vectors.dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [f"row-{n}" for n in range(len(rows))]
    with vectors.session(writes=len(ids)) as session:
        session.add(ids, rows, [{"n": n} for n in range(len(rows))])
    (header,) = indexed.home.chroma.glob("*/header.bin")
    lengths = np.fromfile(header.with_name("length.bin"), dtype=np.float32)
    assert len(lengths) >= 10_000
    assert np.count_nonzero(lengths) >= 10_000
    with vectors.session() as session:
        assert np.allclose(session.vectors(ids), rows, atol=1e-6)


ADD_UNTIL_KILLED = """
import resource, signal, sys
from pathlib import Path
from harmonizer_assets.core.base.home import Home
from harmonizer_assets.core.pipeline import Pipeline
from harmonizer_tests.integration.test_vectors import FILE_BYTES, add

vectors = Pipeline(Home(Path(sys.argv[1]))).indexing.vectors
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
add(vectors, range(1_000, 1_150))
"""
FILE_BYTES = 1_100_000
"""More than 1,000 documents take in one of Chroma's files, and less than 1,150."""


def documents(numbers: range, dimensions: int) -> VectorPage:
    """Documents with these numbers."""
    rows = np.random.default_rng(7).normal(size=(numbers.stop, dimensions))[numbers]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [f"row-{n}" for n in numbers], rows.astype(np.float32), [{"n": n} for n in numbers]


def add(vectors: VectorIndex, numbers: range) -> None:
    """Add documents with these numbers."""
    with vectors.session(writes=len(numbers)) as session:
        session.add(*documents(numbers, vectors.dimensions))


def test_a_process_that_is_killed_while_chroma_writes_its_graph_leaves_the_index_as_it_was(home):
    """The system kills it at a file size, in the middle of a file."""
    vectors = Pipeline(home).indexing.vectors
    for start in range(0, 1_000, 250):
        add(vectors, range(start, start + 250))
    done = subprocess.run([sys.executable, "-c", ADD_UNTIL_KILLED, str(home.root)], check=False)
    assert done.returncode == -signal.SIGXFSZ
    assert len(vectors.ids()) == 1_000
    with vectors.session() as session:
        first = session.vectors(["row-0"])
        assert session.nearest(first, 1).ids.tolist() == [["row-0"]]
    add(vectors, range(1_000, 1_150))
    assert len(vectors.ids()) == 1_150
    assert [path.name for path in home.root.glob("chroma*")] == ["chroma"]


def test_what_is_written_at_once_grows_with_the_index(pipeline, tmp_path, monkeypatch):
    """Each time the index is copied as a whole."""
    monkeypatch.setattr(stage, "_DOCUMENTS_PER_CHUNK", 3)
    monkeypatch.setattr(stage, "_SHARE_PER_CHUNK", 1.0)
    shop_receipts().submit(pipeline, tmp_path)
    pipeline.ingest()
    written, session = [], VectorIndex.session

    def noted(vectors, writes=0):
        written.append(writes)
        return session(vectors, writes)

    monkeypatch.setattr(VectorIndex, "session", noted)
    report = pipeline.index()
    *grown, last = [writes for writes in written if writes]
    assert grown == [3, 3, 6, 12, 24][: len(grown)]
    assert len(grown) > 2
    assert sum(grown) + last == report.embedded == report.total


def test_what_is_added_is_in_the_graph_of_the_files_unless_it_is_little(home):
    """A process that opens the index adds the rest to the graph, which takes its time."""
    vectors = Pipeline(home).indexing.vectors
    add(vectors, range(150))
    assert vectors._logged() < GRAPH_WRITTEN_FROM
    add(vectors, range(150, 210))
    assert vectors._logged() >= 60
    add(vectors, range(210, 270))
    assert vectors._logged() < GRAPH_WRITTEN_FROM / 2


@pytest.fixture
def from_before(home) -> VectorIndex:
    """The index of a home whose graph is not written until there are many changes."""
    vectors = Pipeline(home).indexing.vectors
    client = chromadb.PersistentClient(path=str(home.chroma))
    collection = client.create_collection(
        vectors.collection_name, configuration={"hnsw": HNSW}, embedding_function=None
    )
    collection.add(*documents(range(200), vectors.dimensions))
    client.close()
    assert vectors._logged() >= 200
    return vectors


def read_twice(vectors: VectorIndex) -> None:
    for _ in range(2):
        with vectors.session() as session:
            assert len(session.vectors(["row-0", "row-199"])) == 2


def test_a_log_of_a_home_from_before_goes_into_the_graph(from_before):
    read_twice(from_before)
    assert from_before._logged() < GRAPH_WRITTEN_FROM


def test_a_log_that_cannot_go_into_the_graph_now_does_so_later(from_before, monkeypatch):
    """Chroma has several connections to its database, which are in each other's way at times."""

    def locked(*_, **__):
        raise InternalError("Database error: (code: 5) database is locked")

    monkeypatch.setattr(Collection, "modify", locked)
    read_twice(from_before)
    monkeypatch.undo()
    assert from_before._logged() >= 200
    read_twice(from_before)
    assert from_before._logged() < GRAPH_WRITTEN_FROM


def test_a_session_that_ends_with_an_error_adds_nothing_of_much(home):
    vectors = Pipeline(home).indexing.vectors
    add(vectors, range(150))

    def fail():
        with vectors.session(writes=150) as session:
            session.delete(sorted(session.ids()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(vectors.ids()) == 150


@pytest.mark.parametrize("write", ["add", "update_metadata", "delete"])
def test_a_session_writes_no_more_than_it_was_opened_for(home, write):
    """One that was opened for little writes in place, where a kill would leave no index."""
    vectors = Pipeline(home).indexing.vectors
    add(vectors, range(10))
    ids, rows, metadatas = documents(range(20), vectors.dimensions)
    arguments = {
        "add": (ids, rows, metadatas),
        "update_metadata": (ids[:10], [{"n": -1}] * 10),
        "delete": (ids[:10],),
    }[write]
    with vectors.session(writes=9) as session:
        session.delete(["row-8", "row-9"])
        with pytest.raises(ValueError, match="opened for 7 more"):
            getattr(session, write)(*arguments)
    with vectors.session() as session:
        [(found, _, stored)] = session.everything()
    assert found == [f"row-{n}" for n in range(8)]
    assert stored == [{"n": n} for n in range(8)]


def test_restored_vectors_stay_until_the_index_has_them(home, monkeypatch):
    vectors = Pipeline(home).indexing.vectors
    page = documents(range(150), vectors.dimensions)
    write_pages(home.restored_vectors, vectors.collection_name, [page])

    def killed(_):
        raise SystemExit

    monkeypatch.setattr(VectorIndex, "_replace", killed)
    with pytest.raises(SystemExit):
        vectors.ids()
    monkeypatch.undo()
    assert vectors.ids() == set(page[0])
    assert not home.restored_vectors.exists()


def test_an_index_for_whose_copy_there_is_no_room_is_an_error_and_stays(home):
    vectors = Pipeline(home).indexing.vectors
    add(vectors, range(150))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, usual[1]))
    try:
        with pytest.raises(StoreError, match="make room for another one of its size"):
            add(vectors, range(150, 300))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert len(vectors.ids()) == 150
    add(vectors, range(150, 300))
    assert len(vectors.ids()) == 300


@pytest.mark.timeout(60)
def test_an_index_that_another_process_keeps_is_an_error_that_names_it(home):
    home.settings_file.write_text("[waits]\nvector_index_seconds = 0.1\n")
    busy = pytest.raises(StoreBusyError, match=f"process {os.getpid()} has been using the vector")
    with (
        Lock(home.locks / "chroma.lock", "testing").held(),
        busy,
        Pipeline(home).indexing.vectors.session(),
    ):
        pass


def test_who_waits_for_the_index_is_patient_with_each_that_takes_it_in_between(home):
    home.settings_file.write_text("[waits]\nvector_index_seconds = 1.0\n")
    lock = Lock(home.locks / "chroma.lock", "testing")

    def others_take_turns() -> None:
        with lock.held():
            held.set()
            for number in range(6):
                time.sleep(0.3)
                lock.path.with_suffix(".holder").write_text(f"{number} 0")

    held = threading.Event()
    others = threading.Thread(target=others_take_turns)
    others.start()
    held.wait()
    with Pipeline(home).indexing.vectors.held():
        others.join()
