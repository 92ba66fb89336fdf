from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from harmonizer_assets.core.score.classifier import KINDS, ROW, TEXT, SuspicionModel
from harmonizer_assets.core.score.features import group_ranges
from harmonizer_assets.core.score.folds import FOLDS, Folds
from harmonizer_assets.core.score.view import TrainingData, View, fit_views

UNSEEN = -30.0
ONE_WORD = Folds(np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64))
COLUMNS = max(end for _, end in group_ranges(2).values())


def view(kind, label):
    """A view that gives the word's own label this probability, whatever it looks at."""
    logs = [UNSEEN if label == 0 else np.log(label), np.log(1 - label), UNSEEN]
    intercepts = np.tile(np.array(logs, dtype=np.float32), (1, FOLDS, 1))
    return View(kind, np.empty(0, np.int64), np.zeros((1, FOLDS, 3, 0), np.float32), intercepts)


def margin(page, row, text, share=(0.5, 0.5)):
    """The margin of a label whose own type has these probabilities in the three views."""
    views = tuple(view(*each) for each in zip(KINDS, (page, row, text), strict=True))
    model = SuspicionModel(views, np.array(share), 0.0)
    features = sparse.csr_matrix((1, COLUMNS), dtype=np.float32)
    opinions = model.opinions(features, ONE_WORD, np.full((1, 2), 0.5))
    return model.margin(opinions, np.zeros(1, np.int64))[0]


def test_labels_around_a_word_do_not_drown_what_the_word_itself_says():
    assert margin(page=0.9, row=0.001, text=0.001) > 1


def test_the_view_of_the_row_sees_no_label_of_the_row():
    assert "around" in ROW.groups
    assert "neighbours" not in ROW.groups


def test_a_text_that_is_labelled_so_elsewhere_speaks_for_a_label():
    assert margin(page=0.001, row=0.001, text=0.9) < margin(page=0.001, row=0.001, text=0.001) - 2


def test_a_view_that_contradicts_counts_for_more_than_one_that_agrees():
    contradicts, agrees = margin(0.001, 0.001, 0.001), margin(0.999, 0.999, 0.999)
    for opinions in ((0.999, 0.001, 0.001), (0.001, 0.999, 0.999)):
        assert (contradicts + agrees) / 2 + 1 < margin(*opinions) < contradicts


def test_each_view_moves_the_margin():
    middle = margin(page=0.5, row=0.5, text=0.5)
    assert middle == pytest.approx(0)
    for name in ("page", "row", "text"):
        assert margin(**{"page": 0.5, "row": 0.5, "text": 0.5, name: 0.9}) < -0.2
        assert margin(**{"page": 0.5, "row": 0.5, "text": 0.5, name: 0.1}) > 0.2


def test_a_view_that_has_never_seen_a_type_is_not_asked_about_it():
    assert margin(page=0, row=0.4, text=0.4) == pytest.approx(margin(0.4, 0.4, 0.4), abs=0.01)


def test_a_label_of_a_rare_type_needs_more_against_it():
    assert margin(0.2, 0.2, 0.2, share=(0.01, 0.99)) < margin(0.2, 0.2, 0.2) - 0.5


def test_a_rare_type_is_learned_from_what_the_first_fit_does_not_see():
    """Twelve labels on receipts of one fold, which nothing but the labels around them tells."""
    common, rare = 1_000, 12
    is_rare = np.arange(common + rare) >= common
    features = sparse.lil_matrix((common + rare, COLUMNS), dtype=np.float32)
    features[:, 0] = 1
    features[common:, group_ranges(2)["around"][0] + 1] = 6
    row = np.arange(common + rare)[:, None] % FOLDS
    folds = Folds(np.where(is_rare[:, None], 0, row), row)
    votes = np.full((common + rare, 2), 0.5)
    words, label_type = np.arange(common + rare), is_rare.astype(np.int64)
    weight = np.full(common + rare, 0.5)
    model = SuspicionModel.fit(features.tocsr(), words, label_type, weight, folds, votes, 2)
    margins = model.margin(model.opinions(features.tocsr(), folds, votes), label_type)
    assert margins[is_rare].mean() < 1
    assert margins[~is_rare].mean() < -5


def test_a_view_of_nothing_that_occurs_often_says_how_frequent_the_types_are():
    """As where every text is another one."""
    n = 40
    label_type = (np.arange(n) % 4 == 0).astype(np.int64)
    features = sparse.lil_matrix((n, COLUMNS), dtype=np.float32)
    features[:, group_ranges(2)["place"][0]] = 1
    features[np.arange(n), np.arange(n)] = 1
    row = np.arange(n)[:, None] // 4
    data = TrainingData(
        features.tocsr(), label_type, np.ones(n), Folds(row % FOLDS, row % FOLDS), 2
    )
    (fitted,) = fit_views([TEXT], data)
    found = np.exp(fitted.log_probability(data.features, data.folds))
    assert found == pytest.approx(np.tile([0.75, 0.25, 0.0], (n, 1)), abs=1e-6)


def test_contributions_of_the_groups_add_up_to_the_log_odds_of_two_types():
    random = np.random.RandomState(0)
    starts = np.array([start for start, _ in group_ranges(2).values()])
    columns = np.sort(np.concatenate([starts, starts + 1]))
    shape = (1, FOLDS, 3, len(columns))
    fitted = View(KINDS[0], columns, random.normal(size=shape), random.normal(size=shape[:-1]))
    features = sparse.lil_matrix((5, COLUMNS))
    for row in range(5):
        features[row, random.choice(columns, 6, replace=False)] = random.random_sample(6)
    folds = Folds(np.array([[0, 1, 2, 0, 1]]).T, np.zeros((5, 1), dtype=np.int64))
    own, competing = np.array([0, 1, 0, 1, 0]), np.array([1, 0, 1, 0, 1])
    parts = fitted.contributions(features.tocsr(), folds, own, competing)
    every = np.arange(5)
    logs = fitted.log_probability(features.tocsr(), folds)
    intercepts = fitted.intercepts[0, folds.receipt[:, 0]]
    expected = logs[every, competing] - logs[every, own]
    expected -= intercepts[every, competing] - intercepts[every, own]
    assert parts.sum(axis=1) == pytest.approx(expected)
    only_text = features.copy()
    only_text[:, columns[2] :] = 0
    text = fitted.contributions(only_text.tocsr(), folds, own, competing)
    assert text[:, 0] == pytest.approx(parts[:, 0])
    assert not text[:, 1:].any()


def test_what_is_learned_with_each_assignment_of_folds_is_averaged():
    random = np.random.RandomState(0)
    columns = np.arange(4)
    shape = (2, FOLDS, 3, len(columns))
    both = View(TEXT, columns, random.normal(size=shape), random.normal(size=shape[:-1]))
    alone = [View(TEXT, columns, both.coefficients[[a]], both.intercepts[[a]]) for a in (0, 1)]
    n = 9
    features = sparse.csr_matrix(random.random_sample((n, COLUMNS)) * (np.arange(COLUMNS) < 4))
    assigned = np.column_stack([np.arange(n) % FOLDS, np.arange(n) // FOLDS])
    folds = Folds(assigned, assigned)
    apart = [Folds(assigned[:, [a]], assigned[:, [a]]) for a in (0, 1)]
    first, second = (
        np.exp(view.log_probability(features, each))
        for view, each in zip(alone, apart, strict=True)
    )
    assert np.abs(first - second).max() > 0.1
    found = np.exp(both.log_probability(features, folds))
    assert found == pytest.approx((first + second) / 2)
    own, competing = np.zeros(n, np.int64), np.ones(n, np.int64)
    parts = [
        view.contributions(features, each, own, competing)
        for view, each in zip(alone, apart, strict=True)
    ]
    averaged = both.contributions(features, folds, own, competing)
    assert averaged == pytest.approx((parts[0] + parts[1]) / 2)


def test_a_type_counts_as_seen_if_the_folds_of_all_assignments_have_seen_it():
    """Otherwise it would be improbable for being new, with half of the probability."""
    intercepts = np.zeros((2, FOLDS, 3), np.float32)
    intercepts[:, 0, 1] = UNSEEN
    fitted = View(TEXT, np.empty(0, np.int64), np.zeros((2, FOLDS, 3, 0), np.float32), intercepts)
    assigned = np.array([[0, 0], [0, 1], [2, 1]])
    seen = fitted.seen_types(Folds(assigned, assigned))
    assert seen.tolist() == [[True, False], [True, False], [True, True]]


def test_no_fold_has_learned_from_the_words_that_it_judges():
    """Each word is the only one with its text and its type is told by nothing else."""
    n = 60
    random = np.random.RandomState(0)
    features = sparse.lil_matrix((n, COLUMNS), dtype=np.float32)
    # A text that three words of one receipt share, and no other.
    receipt = np.arange(n) // 3
    features[np.arange(n), receipt] = 1
    label_type = random.randint(0, 2, n // 3)[receipt]
    assigned = np.column_stack([receipt % FOLDS, receipt // FOLDS % FOLDS])
    folds = Folds(assigned, assigned)
    data = TrainingData(features.tocsr(), label_type, np.ones(n), folds, 2)
    (fitted,) = fit_views([TEXT], data)
    for assignment in range(2):
        for fold in range(FOLDS):
            inside = np.unique(receipt[assigned[:, assignment] == fold])
            used = fitted.coefficients[assignment, fold][:, np.isin(fitted.columns, inside)]
            assert used.shape[1]
            assert not used.any()
