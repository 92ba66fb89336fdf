from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonizer_assets.core.base.errors import ConfigurationError
from harmonizer_assets.core.base.settings import Settings, SimilaritySettings
from harmonizer_assets.core.index.documents import UNKNOWN_PLACE
from harmonizer_assets.core.index.embedders import LocalEmbedder
from harmonizer_assets.core.judge.offline import OfflineJudge
from harmonizer_assets.core.records.label import LabelKey, Question
from harmonizer_assets.core.score.corpus import Corpus, status_votes
from harmonizer_assets.core.score.scoring import score_labels
from harmonizer_assets.core.score.searches import ExactSearch
from harmonizer_assets.core.score.unknown import NO_SIMILAR_WORD
from harmonizer_assets.core.score.votes import (
    MerchantLabels,
    gather_votes,
)

TYPES = ("DATE", "TIME", "TAX")


def votes_on(labels, vectors, limits=None, wanted=None):
    """Votes on (document, type, status) labels of one merchant without a corpus around it."""
    ids = [f"{document:03d}" for document, _, _ in labels]
    counts = pa.table(
        {
            "document_id": ids,
            "label": [kind for _, kind, _ in labels],
            "validation_status": [status for _, _, status in labels],
            "n": [1] * len(labels),
        }
    )
    corpus = Corpus.from_counts(counts, TYPES)
    rows = corpus.rows(ids)
    documents = np.unique(rows)
    unit = np.asarray(vectors, dtype=np.float32)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    merchant = MerchantLabels(
        document=rows,
        label_type=np.array([TYPES.index(kind) for _, kind, _ in labels]),
        vote=status_votes([status for _, _, status in labels]),
        valid=np.array([status == "VALID" for _, _, status in labels]),
        receipt=np.arange(len(labels)),
    )
    chosen = limits or SimilaritySettings()
    search = ExactSearch(unit, 5)
    return gather_votes(merchant, documents, unit.__getitem__, corpus, search, chosen, wanted)


def test_a_label_has_no_vote_on_itself():
    votes = votes_on([(0, "DATE", "VALID"), (1, "TIME", "VALID")], [[1, 0], [0, 1]])
    assert votes.n_matches.tolist() == [0, 0]
    assert votes.merchant_for == pytest.approx([0, 0])
    assert votes.best_similarity == pytest.approx([0, 0])


def test_equal_words_with_the_same_label_support_each_other():
    labels = [(0, "DATE", "VALID"), (0, "DATE", "PENDING"), (0, "TIME", "PENDING")]
    votes = votes_on(labels, [[1, 0]])
    assert votes.n_matches.tolist() == [1, 1, 0]
    assert votes.valid_matches.tolist() == [0, 1, 0]
    assert votes.merchant_for == pytest.approx([0.4, 1.0, 0.0])
    assert votes.merchant_against == pytest.approx([0.4, 0.4, 1.4])
    scores = score_labels(votes, [status for _, _, status in labels], SimilaritySettings())
    assert scores.outlier_score[2] > scores.outlier_score[1] > scores.outlier_score[0]


def test_an_invalid_label_speaks_against_its_type():
    without = votes_on([(0, "DATE", "VALID"), (0, "DATE", "PENDING")], [[1, 0]])
    rejected = [(0, "DATE", "VALID"), (0, "DATE", "PENDING"), (0, "DATE", "INVALID")]
    assert votes_on(rejected, [[1, 0]]).label_probability[1] < without.label_probability[1]


def test_a_validated_label_is_less_suspicious_and_a_rejected_one_more():
    votes = votes_on([(0, "DATE", "PENDING"), (1, "TIME", "PENDING")], [[1, 0.5], [0.5, 1]])
    suspicion = [
        score_labels(votes, [status] * 2, SimilaritySettings()).outlier_score[0]
        for status in ("VALID", "PENDING", "INVALID")
    ]
    assert suspicion == sorted(suspicion)


merchants = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(TYPES),
        st.sampled_from(["VALID", "PENDING", "NEEDS_REVIEW", "NONE", "INVALID"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(merchants)
def test_scores_and_probabilities_are_within_bounds_whatever_the_labels(labels):
    rng = np.random.RandomState(0)
    used = sorted({document for document, _, _ in labels})
    dense = [(used.index(document), kind, status) for document, kind, status in labels]
    votes = votes_on(dense, rng.standard_normal((len(used), 8)))
    total = votes.label_probability + votes.competing_probability
    assert (votes.label_probability >= 0).all()
    assert (total <= 1 + 1e-9).all()
    assert (votes.n_matches >= 0).all()
    assert (votes.valid_matches <= votes.n_matches).all()
    assert (votes.validated_for >= votes.valid_matches).all()
    assert (votes.best_similarity <= 1).all()
    assert (votes.competing_type != [TYPES.index(kind) for _, kind, _ in dense]).all()
    scores = score_labels(votes, [status for _, _, status in dense], SimilaritySettings())
    assert ((scores.outlier_score >= 0) & (scores.outlier_score <= 1)).all()


def test_computing_in_small_blocks_gives_the_same_votes(monkeypatch):
    rng = np.random.RandomState(1)
    labels = [(n, TYPES[n % 3], "VALID" if n % 2 else "PENDING") for n in range(40)]
    vectors = rng.standard_normal((40, 8))
    whole = votes_on(labels, vectors)
    monkeypatch.setattr("harmonizer_assets.core.score.votes._BLOCK_CELLS", 41)
    blocks = votes_on(labels, vectors)
    for name in vars(whole):
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name), abs=1e-5), name


def test_votes_on_some_labels_are_those_among_all():
    rng = np.random.RandomState(3)
    labels = [(n // 2, TYPES[n % 3], "VALID" if n % 2 else "PENDING") for n in range(40)]
    vectors, some = rng.standard_normal((20, 8)), np.array([3, 4, 17, 38])
    whole, part = votes_on(labels, vectors), votes_on(labels, vectors, wanted=some)
    for name in vars(whole):
        assert getattr(part, name) == pytest.approx(getattr(whole, name)[some], abs=1e-5), name


def test_a_limited_reference_still_gives_votes_on_every_label():
    rng = np.random.RandomState(2)
    labels = [(n, TYPES[n % 3], "VALID" if n < 120 else "PENDING") for n in range(150)]
    votes = votes_on(labels, rng.standard_normal((150, 8)), SimilaritySettings(reference_limit=100))
    assert len(votes.n_matches) == 150
    assert (votes.n_matches >= 0).all()
    assert (votes.valid_matches >= 0).all()


# Documents and vectors


def documents(*rows):
    names = ("mask", "left_context", "right_context", "row_context")
    places = ("x_bin", "y_bin", "row_bin", "column_bin")
    return pa.table(
        {
            "document_id": [str(n) for n in range(len(rows))],
            **{name: [row[at] for row in rows] for at, name in enumerate(names)},
            **{
                name: pa.array([row[4 + at] for row in rows], pa.uint8())
                for at, name in enumerate(places)
            },
        }
    )


def test_the_local_embedder_gives_unit_vectors_that_do_not_change_between_processes():
    table = documents(
        ("total", "^", "00.00", "total 00.00", 0, 6, 6, 0), ("", "", "", "", *[255] * 4)
    )
    vectors = LocalEmbedder().embed(table)
    assert vectors.shape == (2, LocalEmbedder.dimensions)
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors, LocalEmbedder().embed(table))


def test_words_in_like_places_are_more_alike_than_words_elsewhere():
    vectors = LocalEmbedder().embed(
        documents(
            ("00.00", "total", "$", "total 00.00", 7, 6, 6, 3),
            ("0.00", "total", "$", "total 0.00", 7, 6, 6, 3),
            ("0.00", "coffee", "$", "coffee 0.00", 7, 3, 3, 3),
        )
    )
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_unknown_places_are_no_likeness():
    known = ("00.00", "a", "b", "a 00.00 b", 7, 6, 6, 3)
    unknown = (*known[:4], *[UNKNOWN_PLACE] * 4)
    vectors = LocalEmbedder().embed(documents(known, unknown))
    assert vectors[0] @ vectors[1] < 0.95


# The offline judge


def question(score, unknown=None):
    key = LabelKey("i", 1, 1, 1, "DATE")
    return Question(key, "m", "M", "14:05", score, 1 - score, "TIME", score, unknown)


@pytest.mark.parametrize(
    ("score", "unknown", "expected"),
    [(0.85, None, True), (0.3, None, False), (0.5, None, None), (0.85, NO_SIMILAR_WORD, None)],
)
def test_the_offline_judge_decides_clear_cases_and_leaves_the_others_open(score, unknown, expected):
    [verdict] = OfflineJudge().decide([question(score, unknown)])
    assert verdict.is_outlier is expected
    assert verdict.decided_by == ("unresolved" if expected is None else "offline_judge")
    assert verdict.reasoning


# Settings


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[similarity\n", "not valid TOML"),
        ("[similarity]\nscorer = 'magic'", "similarity.scorer"),
        ("[similarity]\nvalid_below = 0.9\noutlier_above = 0.1", "must not exceed"),
        ("[judge]\nbudget = 3", "judge.budget"),
    ],
)
def test_wrong_settings_are_refused_with_their_place(tmp_path, content, complaint):
    path = tmp_path / "harmonizer.toml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=complaint):
        Settings.load(path)


def test_settings_are_read_from_the_home(tmp_path):
    path = tmp_path / "harmonizer.toml"
    path.write_text("[similarity]\nscorer = 'count_rule'\n")
    assert Settings.load(path).similarity.scorer == "count_rule"
    assert Settings.load(tmp_path / "none.toml") == Settings()
