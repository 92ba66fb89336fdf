"""Units of `similarity_matches`: what labels are scored from, as a bundle and back."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harmonizer_assets.core.base.settings import SimilaritySettings, TriageSettings
from harmonizer_assets.core.records.label import WORD_KEY
from harmonizer_assets.core.score.corpus import Corpus
from harmonizer_assets.core.score.fitting import FittedModel
from harmonizer_assets.core.score.pages import Page, trust_of
from harmonizer_assets.core.score.rows import Gathered, Scorer
from harmonizer_assets.core.score.scoring import SCORER_VERSION
from harmonizer_assets.core.score.similar_words import ExactWords, Neighbourhood
from harmonizer_assets.core.score.stage import ASSET
from harmonizer_assets.core.units.unit import Bundle

Shared = Callable[[str, Callable[[bytes], Any]], Any]
"""Reads what many units need: by its name, with what makes an object of its bytes."""


def score_bundle(
    labels: pa.Table,
    page: Page | None,
    words: Neighbourhood | None,
    scorer: Scorer,
    shared: Mapping[str, str],
) -> Bundle:
    """Bundle the labels of some merchants with all that they are scored from.

    Args:
        labels: n rows as `read_merchant_labels` gives them.
        page: the words of their receipts; None where similar words alone score them.
        words: what is needed of the corpus; None where the worker has the shared one.
        scorer: scores the labels.
        shared: names of the `model` and of the `corpus` in the store, where they are needed.
    """
    tables = {"labels": labels}
    if page is not None:
        tables |= _page_tables(page)
    if words is not None:
        tables |= _neighbourhood_tables(words)
    meta = {
        "stage": ASSET,
        "scorer_version": SCORER_VERSION,
        "model_version": scorer.version,
        "label_types": list(scorer.label_types),
        "similarity": scorer.similarity.model_dump(mode="json"),
        "triage": scorer.triage.model_dump(mode="json"),
        "prior": None if words is None else words.corpus.prior.tolist(),
        "shared": dict(shared),
    }
    return Bundle(tables, meta)


def score_unit(bundle: Bundle, shared: Shared) -> pa.Table:
    """Score the labels of a unit; return one row per label, in their order.

    Args:
        bundle: made by `score_bundle`.
        shared: reads the model and the corpus that it names.

    Raises:
        ValueError: another version of the scorer has made the bundle.
    """
    meta, labels = bundle.meta, bundle.tables["labels"]
    if meta["scorer_version"] != SCORER_VERSION:
        raise ValueError(
            f"the unit is for version {meta['scorer_version']} of the scorer, this worker has "
            f"{SCORER_VERSION}: install the same version of the package on all machines"
        )
    similarity = SimilaritySettings.model_validate(meta["similarity"])
    triage = TriageSettings.model_validate(meta["triage"])
    model_name = meta["shared"].get("model")
    model = None if model_name is None else shared(model_name, FittedModel.from_bytes)
    names = tuple(meta["label_types"])
    scorer = Scorer(names, meta["model_version"], model, similarity, triage)
    if "documents" in bundle.tables:
        near = _read_neighbourhood(bundle.tables, meta["prior"], names)
        corpus, (votes, known) = near.corpus, near.votes(labels, similarity)
    else:
        corpus, vectors = shared(meta["shared"]["corpus"], read_corpus)
        votes, known = ExactWords(corpus, vectors, similarity).votes(labels)
    nearest = corpus.ids_of(votes.corpus_nearest)
    page = _read_page(bundle.tables, len(names)) if "words" in bundle.tables else None
    return scorer.rows(Gathered(labels, page, votes, known, nearest))


def write_corpus(words: ExactWords) -> bytes:
    """Write a corpus with its vectors; equal ones give equal bytes."""
    corpus, file = words.corpus, io.BytesIO()
    np.savez(
        file,
        allow_pickle=False,
        document_ids=corpus.document_ids,
        votes=corpus.votes,
        validated=corpus.validated,
        prior=corpus.prior,
        label_types=np.array(json.dumps(corpus.label_types)),
        vectors=words.vectors,
    )
    return file.getvalue()


def read_corpus(content: bytes) -> tuple[Corpus, npt.NDArray[np.float32]]:
    """Read a corpus that `write_corpus` has written, and its vectors."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        corpus = Corpus(
            arrays["document_ids"],
            arrays["votes"],
            arrays["validated"],
            arrays["prior"],
            tuple(json.loads(str(arrays["label_types"]))),
        )
        return corpus, arrays["vectors"]


def _page_tables(page: Page) -> dict[str, pa.Table]:
    words = page.keys.select(WORD_KEY)
    for name in ("texts", "receipt", "row", "x", "y", "height"):
        words = words.append_column(name, pa.array(getattr(page, name)))
    labels = pa.table(
        {
            "word": pa.array(page.label_word),
            "label_type": pa.array(page.label_type),
            "status": pa.array(list(page.statuses), pa.string()),
        }
    )
    return {"words": words, "word_labels": labels}


def _read_page(tables: Mapping[str, pa.Table], n_types: int) -> Page:
    words, labels = tables["words"], tables["word_labels"]
    statuses = labels["status"].to_pylist()
    return Page(
        keys=words.select(WORD_KEY),
        texts=words["texts"].to_pylist(),
        receipt=words["receipt"].to_numpy(),
        row=words["row"].to_numpy(),
        x=words["x"].to_numpy(),
        y=words["y"].to_numpy(),
        height=words["height"].to_numpy(),
        label_word=labels["word"].to_numpy(),
        label_type=labels["label_type"].to_numpy(),
        trust=trust_of(statuses),
        statuses=statuses,
        n_types=n_types,
    )


def _neighbourhood_tables(words: Neighbourhood) -> dict[str, pa.Table]:
    corpus = words.corpus
    documents = pa.table(
        {
            "document_id": pa.array(corpus.document_ids.tolist(), pa.string()),
            "votes": _packed(corpus.votes),
            "validated": _packed(corpus.validated),
        }
    )
    own = pa.table(
        {
            "document": pa.array(words.own),
            "vector": _packed(words.vectors),
            "neighbours": _packed(words.rows),
            "similarities": _packed(words.similarities),
        }
    )
    return {"documents": documents, "own_documents": own}


def _read_neighbourhood(
    tables: Mapping[str, pa.Table], prior: list[float], label_types: tuple[str, ...]
) -> Neighbourhood:
    documents, own = tables["documents"], tables["own_documents"]
    corpus = Corpus(
        np.asarray(documents["document_id"].to_pylist(), dtype="<U32"),
        _unpacked(documents["votes"], np.float32),
        _unpacked(documents["validated"], np.int32),
        np.array(prior),
        label_types,
    )
    return Neighbourhood(
        corpus,
        own["document"].to_numpy(),
        _unpacked(own["vector"], np.float32),
        _unpacked(own["neighbours"], np.int32),
        _unpacked(own["similarities"], np.float32),
    )


def _packed(rows: npt.NDArray[Any]) -> pa.Array:
    """Make a column of the bytes of each row, which Parquet writes as they are."""
    width = rows.shape[1] * rows.dtype.itemsize
    content = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(width), len(rows), [None, content])


def _unpacked(column: pa.ChunkedArray, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Read the rows that `_packed` has written."""
    packed = column.combine_chunks()
    width = packed.type.byte_width
    content = packed.buffers()[1]
    start = packed.offset * width
    values = np.frombuffer(content, dtype=np.uint8)[start : start + len(packed) * width]
    return values.view(kind).reshape(len(packed), width // np.dtype(kind).itemsize)
