"""Similar words: gather the votes on the labels of many merchants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.settings import SimilaritySettings
from harmonizer_assets.core.base.sql import text_list, texts_in
from harmonizer_assets.core.base.threads import in_threads, one_blas_thread
from harmonizer_assets.core.index.embedders import Vectors
from harmonizer_assets.core.index.vectors import QUERY_BATCH, VectorIndex
from harmonizer_assets.core.records.label import LABEL_KEY, WORD_COLUMNS, qualified
from harmonizer_assets.core.records.status import Status
from harmonizer_assets.core.score.corpus import Corpus, status_votes
from harmonizer_assets.core.score.searches import (
    CorpusSearch,
    ExactSearch,
    IndexSearch,
    KnownNeighbours,
)
from harmonizer_assets.core.score.votes import (
    Ints,
    MerchantLabels,
    Singles,
    VectorsOf,
    Votes,
    gather_votes,
    joined_votes,
)
from harmonizer_assets.core.store.warehouse import Warehouse

_FETCHED_AT_ONCE: Final = 60_000
"""Vectors of so many labels are fetched together: opening the index takes most of a second."""
_LABELS_TOGETHER: Final = 5_000
"""Labels of merchants that the cores share: enough for all of them, and no merchant among them that
the others would wait for."""

_CORPUS_COUNTS: Final = f"""
SELECT d.document_id, l.label, l.validation_status, count(*) AS n
FROM labels_as_evidence l JOIN word_documents d USING ({WORD_COLUMNS})
GROUP BY ALL ORDER BY ALL
"""

_MERCHANT_LABELS: Final = f"""
SELECT {qualified("l", LABEL_KEY)}, l.validation_status,
    l.merchant_key, d.document_id,
    dense_rank() OVER (PARTITION BY l.merchant_key ORDER BY l.image_id, l.receipt_id) AS receipt
FROM labels_as_evidence l LEFT JOIN word_documents d USING ({WORD_COLUMNS})
WHERE l.merchant_key IN {texts_in("$merchants")} AND l.label IN {texts_in("$label_types")}
ORDER BY l.merchant_key, {qualified("l", LABEL_KEY)}
"""


def read_merchant_labels(
    con: duckdb.DuckDBPyConnection, merchants: Sequence[str], label_types: Sequence[str]
) -> pa.Table:
    """Read all labels of some merchants, ordered by merchant and key.

    Returns:
        The labels' keys, `validation_status`, `merchant_key`, `document_id` (null for words that
        have not arrived) and `receipt`, numbered within the merchant.
    """
    parameters = {"merchants": text_list(merchants), "label_types": text_list(label_types)}
    return con.execute(_MERCHANT_LABELS, parameters).to_arrow_table()


class SimilarWords:
    """Gathers votes on the labels of merchants against one corpus.

    The corpus is read once: votes of all labels from the database, and, while the corpus is small,
    all vectors from Chroma. Larger corpora are searched through Chroma's index batch by batch.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        index: VectorIndex,
        label_types: Sequence[str],
        settings: SimilaritySettings,
        before: SimilarWords | None = None,
    ) -> None:
        """Read the corpus.

        Args:
            warehouse: holds the labels.
            index: holds the vectors.
            label_types: the taxonomy's names.
            settings: of similarity.
            before: another one with the same index and settings: what it has found in the index
                is used again as long as the documents are the same.
        """
        self._warehouse = warehouse
        self._index = index
        self.label_types = tuple(label_types)
        self._settings = settings
        self._load_corpus(before)

    def _load_corpus(self, before: SimilarWords | None = None) -> None:
        counts, merchants = self._warehouse.read(_read_corpus)
        self.corpus = Corpus.from_counts(counts, self.label_types)
        n, k = len(self.corpus.document_ids), self._settings.neighbours
        self.exact: ExactWords | None = None
        # Another run may have documents added, and the corpus read again, while one is in use.
        ask = partial(self._ask, self.corpus) if merchants > 1 else None
        self._search = IndexSearch(n, k, ask)
        vectors = None
        if before is not None and before.corpus.has_documents_of(self.corpus):
            if before._search.asks == self._search.asks:
                self._search = before._search
            vectors = None if before.exact is None else before.exact.vectors
        if n <= self._settings.exact_search_limit:
            if vectors is None:
                vectors = self._fetch(self.corpus, np.arange(n))
            self.exact = ExactWords(self.corpus, vectors, self._settings)

    def votes(
        self, labels: pa.Table, wanted: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Votes, npt.NDArray[np.bool_]]:
        """Gather votes on labels.

        Args:
            labels: n rows as `read_merchant_labels` gives them: all labels of each merchant.
            wanted: shape (n,), the labels to gather the votes on; None means all.

        Returns:
            The votes on the m wanted labels whose words have arrived, in their order, and which
            those are, shape (n,).
        """
        document = self.cover(labels)
        if self.exact is not None:
            return self.exact.votes(labels, wanted)
        judged = document >= 0 if wanted is None else (document >= 0) & wanted
        votes = _gather(
            labels, document, judged, self._vectors_of, self.corpus, self._search, self._settings
        )
        return votes, judged

    def cover(self, labels: pa.Table) -> Ints:
        """Look up the corpus rows of labels' documents, -1 for words that have not arrived.

        The corpus is read again where another run has added documents of these labels to it.
        """
        ids = labels["document_id"].to_pylist()
        document = self.corpus.rows(ids)
        if (labels["document_id"].is_valid().to_numpy() & (document < 0)).any():
            self._load_corpus()
            document = self.corpus.rows(ids)
        return document

    def neighbourhoods(self, labels: pa.Table) -> NeighbourhoodOf:
        """Look up what the votes on labels need of the corpus, so that it is not needed itself.

        Args:
            labels: all labels of some merchants, as `read_merchant_labels` gives them.

        Returns:
            What selects the neighbourhood of some of these merchants by their labels. The index is
            asked about all of them now, unless they have too many documents to be held at once.
        """
        document = self.cover(labels)
        vectors_of = self._vectors_of(document, document >= 0)
        corpus, search = self.corpus, self._search

        def of(part: pa.Table) -> Neighbourhood | None:
            known = corpus.rows(part["document_id"].to_pylist())
            own = np.unique(known[known >= 0])
            if len(own) > _FETCHED_AT_ONCE:
                return None
            vectors = vectors_of(own)
            search.prepare(own, vectors)
            rows, similarities = search.found(own)
            needed = np.union1d(own, rows[rows >= 0])
            there = np.where(rows >= 0, np.searchsorted(needed, rows), -1).astype(np.int32)
            return Neighbourhood(
                corpus.of(needed),
                np.searchsorted(needed, own),
                vectors,
                there,
                similarities,
                f"{self._index.collection_name} {corpus.digest}",
            )

        return of

    def _vectors_of(self, document: Ints, judged: npt.NDArray[np.bool_]) -> VectorsOf:
        """Return what looks up vectors: those of all labels at once, unless they are too many.

        Only a single merchant has too many.
        """
        distinct = np.unique(document[document >= 0])
        if len(distinct) > _FETCHED_AT_ONCE:
            return partial(self._fetch, self.corpus)
        vectors = self._fetch(self.corpus, distinct)
        asked = np.unique(document[judged])
        self._search.prepare(asked, vectors[np.searchsorted(distinct, asked)])
        return lambda rows: vectors[np.searchsorted(distinct, rows)]

    def _fetch(self, corpus: Corpus, documents: Ints) -> Vectors:
        """Fetch the vectors of corpus rows from the index."""
        with self._index.session() as session:
            return session.vectors(corpus.document_ids[documents].tolist())

    def _ask(self, corpus: Corpus, vectors: Vectors) -> tuple[Ints, Singles]:
        """Ask the index for the nearest documents; see `searches.Ask`."""
        k = self._settings.neighbours
        rows = np.empty((len(vectors), k), dtype=np.int64)
        similarities = np.empty((len(vectors), k), dtype=np.float32)
        with self._index.session() as session:

            def ask_batch(start: int) -> None:
                batch = slice(start, start + QUERY_BATCH)
                found = session.nearest(vectors[batch], k)
                rows[batch] = corpus.rows(found.ids.ravel().tolist()).reshape(-1, k)
                similarities[batch] = found.similarities

            in_threads(ask_batch, range(0, len(vectors), QUERY_BATCH))
        return rows, similarities


@dataclass(frozen=True)
class Neighbourhood:
    """All that is needed of a corpus to gather the votes on the labels of some merchants.

    Attributes:
        corpus: the m documents of the merchants and their neighbours, with their votes.
        own: shape (m,), the merchants' documents in it, ascending.
        vectors: shape (m, d), their unit vectors.
        rows: shape (m, k), their neighbours in it, -1 for none.
        similarities: shape (m, k).
        searched: identifies the documents that were searched, their votes and vectors.
    """

    corpus: Corpus
    own: Ints
    vectors: Vectors
    rows: npt.NDArray[np.int32]
    similarities: Singles
    searched: str

    def votes(
        self, labels: pa.Table, settings: SimilaritySettings
    ) -> tuple[Votes, npt.NDArray[np.bool_]]:
        """Gather votes on the labels that it was looked up for; see `SimilarWords.votes`."""
        document = self.corpus.rows(labels["document_id"].to_pylist())
        judged = document >= 0
        search = KnownNeighbours(self.own, self.rows, self.similarities)
        votes = _gather(labels, document, judged, self._vectors_of, self.corpus, search, settings)
        return votes, judged

    def _vectors_of(self, _document: Ints, _judged: npt.NDArray[np.bool_]) -> VectorsOf:
        return lambda rows: self.vectors[np.searchsorted(self.own, rows)]


NeighbourhoodOf = Callable[[pa.Table], Neighbourhood | None]
"""Selects the neighbourhood of some merchants by all of their labels; None where their documents
are too many to be held at once."""


class ExactWords:
    """Gathers votes against a corpus with all its vectors at hand; needs no index.

    Attributes:
        corpus: every document, with its votes.
        vectors: shape (n, d), unit rows, in the order of the documents.
    """

    def __init__(self, corpus: Corpus, vectors: Vectors, settings: SimilaritySettings) -> None:
        self.corpus = corpus
        self.vectors = vectors
        self._settings = settings
        self._search = ExactSearch(vectors, settings.neighbours)

    def votes(
        self, labels: pa.Table, wanted: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Votes, npt.NDArray[np.bool_]]:
        """Gather votes on labels; see `SimilarWords.votes`."""
        document = self.corpus.rows(labels["document_id"].to_pylist())
        judged = document >= 0 if wanted is None else (document >= 0) & wanted
        votes = _gather(
            labels, document, judged, self._vectors_of, self.corpus, self._search, self._settings
        )
        return votes, judged

    def _vectors_of(self, _document: Ints, _judged: npt.NDArray[np.bool_]) -> VectorsOf:
        return self.vectors.__getitem__


def _gather(
    labels: pa.Table,
    document: Ints,
    judged: npt.NDArray[np.bool_],
    vectors_of: Callable[[Ints, npt.NDArray[np.bool_]], VectorsOf],
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
) -> Votes:
    """Gather the votes on the judged ones among all labels of some merchants, in their order."""
    parts = []
    runs = [run for run in _runs(labels["merchant_key"]) if judged[slice(*run)].any()]
    for group in _grouped(runs, _FETCHED_AT_ONCE):
        inside = np.concatenate([np.arange(*run) for run in group])
        vectors = vectors_of(document[inside], judged[inside])

        def of_merchant(run: tuple[int, int], vectors: VectorsOf = vectors) -> Votes:
            first, end = run
            return _merchant_votes(
                labels.slice(first, end - first),
                document[first:end],
                judged[first:end],
                vectors,
                corpus,
                search,
                settings,
            )

        with one_blas_thread():
            # The words of a large merchant are spread over the cores, small merchants whole.
            for together in _grouped(group, _LABELS_TOGETHER):
                parts += in_threads(of_merchant, together)
    return joined_votes(parts) if parts else _no_votes(len(corpus.label_types))


def _merchant_votes(
    labels: pa.Table,
    document: Ints,
    judged: npt.NDArray[np.bool_],
    vectors: VectorsOf,
    corpus: Corpus,
    search: CorpusSearch,
    settings: SimilaritySettings,
) -> Votes:
    known = document >= 0
    statuses = labels["validation_status"].to_pylist()
    merchant = MerchantLabels(
        document=document[known],
        label_type=label_type_columns(labels, corpus.label_types)[known],
        vote=status_votes(statuses)[known],
        valid=np.array([status == Status.VALID for status in statuses])[known],
        receipt=labels["receipt"].to_numpy()[known],
    )
    return gather_votes(
        merchant,
        np.unique(merchant.document),
        vectors,
        corpus,
        search,
        settings,
        np.flatnonzero(judged[known]),
    )


def _read_corpus(con: duckdb.DuckDBPyConnection) -> tuple[pa.Table, int]:
    """Read the labels of each document by type and status, and how many merchants there are."""
    merchants = con.execute("SELECT count(DISTINCT merchant_key) FROM labels").fetchall()[0][0]
    return con.execute(_CORPUS_COUNTS).to_arrow_table(), merchants


def label_type_columns(labels: pa.Table, label_types: Sequence[str]) -> Ints:
    """Look up the number of each label's type: shape (n,)."""
    column_of = {name: column for column, name in enumerate(label_types)}
    return np.array([column_of[name] for name in labels["label"].to_pylist()], dtype=np.int64)


def _no_votes(n_types: int) -> Votes:
    whole = (
        *("n_matches", "valid_matches", "validated_for", "validated_against"),
        *("competing_type", "corpus_nearest"),
    )
    columns: dict[str, Any] = {field.name: np.empty(0) for field in fields(Votes)}
    columns.update({name: np.empty(0, dtype=np.int64) for name in whole})
    return Votes(**{**columns, "type_probability": np.empty((0, n_types))})


def _runs(keys: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of equal keys in a sorted column."""
    encoded = keys.combine_chunks().dictionary_encode().indices.to_numpy()
    if len(encoded):
        starts = np.flatnonzero(np.diff(encoded, prepend=-1)).tolist()
        yield from zip(starts, [*starts[1:], len(encoded)], strict=True)


def _grouped(runs: Sequence[tuple[int, int]], most: int) -> Iterator[list[tuple[int, int]]]:
    """Put runs that follow each other together, up to so many rows or a single run."""
    group: list[tuple[int, int]] = []
    rows = 0
    for first, end in runs:
        if group and rows + end - first > most:
            yield group
            group, rows = [], 0
        group.append((first, end))
        rows += end - first
    if group:
        yield group
