from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from harmonizer_assets.core.base.settings import TriageSettings
from harmonizer_assets.core.score.calibration import Calibration, probability
from harmonizer_assets.core.score.thresholds import choose_thresholds, upper_bound


def margins(seed, n, wrong_share):
    """Margins and truth of n labels: right ones around -5, wrong ones around 3."""
    random = np.random.RandomState(seed)
    wrong = random.random_sample(n) < wrong_share
    return np.where(wrong, random.normal(3, 2, n), random.normal(-5, 2, n)), wrong


def calibrated(seed, n=4_000, validated=2_000, wrong_share=0.1):
    margin, wrong = margins(seed, n, wrong_share)
    right, _ = margins(seed + 1, validated, 0.0)
    swapped, _ = margins(seed + 2, validated, 1.0)
    under_wrong_types, _ = margins(seed + 3, n, 1.0)
    calibration = Calibration.fit(margin, right, swapped, under_wrong_types)
    return calibration, margin, wrong, right, swapped


def test_a_probability_of_being_wrong_means_what_it_says():
    calibration, margin, wrong, _, _ = calibrated(0, n=40_000)
    stated = expit(calibration.log_odds(margin))
    assert calibration.wrong_share == pytest.approx(0.1, abs=0.01)
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        inside = (stated >= low) & (stated <= high)
        assert stated[inside].mean() == pytest.approx(wrong[inside].mean(), abs=0.08)


def test_wrong_labels_are_estimated_without_any_validated_one():
    margin, wrong = margins(3, 20_000, 0.08)
    nothing = np.empty(0)
    calibration = Calibration.fit(margin, nothing, nothing, margins(4, 20_000, 1.0)[0])
    assert calibration.doubt() == ""
    assert calibration.wrong_share == pytest.approx(0.08, abs=0.03)
    assert calibration.slope > 0
    stated = expit(calibration.log_odds(margin))
    assert stated[wrong].mean() > 0.7
    assert stated[~wrong].mean() < 0.05


@pytest.mark.parametrize("wrong_share", [0.003, 0.02, 0.1, 0.2])
@pytest.mark.parametrize("hard_share", [0.05, 0.15])
def test_labels_that_are_right_and_hard_to_tell_are_not_taken_for_wrong_ones(
    wrong_share, hard_share
):
    random = np.random.RandomState(5)
    n = 20_000
    wrong = random.random_sample(n) < wrong_share
    hard = random.random_sample(n) < hard_share
    right = np.where(hard, random.normal(-2, 2, n), random.normal(-9, 1, n))
    margin = np.where(wrong, random.normal(6, 2.5, n), right)
    nothing = np.empty(0)
    calibration = Calibration.fit(margin, nothing, nothing, random.normal(6, 2.5, n))
    assert 0.5 * wrong.mean() < calibration.wrong_share < 2 * wrong.mean()
    flagged = expit(calibration.log_odds(margin)) > 0.5
    assert f1(flagged, wrong) > 0.8 * max(
        f1(margin > limit, wrong) for limit in np.linspace(-5, 10, 151)
    )


@pytest.mark.parametrize("wrong_share", [0.02, 0.08])
@pytest.mark.parametrize("kind", ["hard to tell", "random"])
def test_mistakes_may_all_be_easier_or_harder_to_see_than_swaps_are(wrong_share, kind):
    """Half of the swaps are with the type that is hardest to tell, half are random."""
    random = np.random.RandomState(8)
    n = 20_000
    wrong = random.random_sample(n) < wrong_share

    def of(kind):
        return random.normal(4.5, 3, n) if kind == "hard to tell" else random.normal(6.8, 1.8, n)

    margin = np.where(wrong, of(kind), random.normal(-12, 2, n))
    swapped = np.where(np.arange(n) % 2, of("hard to tell"), of("random"))
    calibration = Calibration.fit(margin, np.empty(0), np.empty(0), swapped)
    assert calibration.doubt() == ""
    stated = expit(calibration.log_odds(margin))
    assert stated.mean() == pytest.approx(wrong.mean(), rel=0.1)
    assert f1(stated > 0.5, wrong) > 0.95
    assert np.mean((stated > 0.001) & (stated < 0.999)) < 3 * wrong_share


@pytest.mark.parametrize("wrong_share", [0.02, 0.1, 0.3])
def test_wrong_labels_that_speak_for_each_other_are_found_by_what_right_ones_look_like(wrong_share):
    random = np.random.RandomState(7)
    n = 10_000
    wrong = random.random_sample(n) < wrong_share
    margin = np.where(wrong, random.normal(-1, 2, n), random.normal(-9, 2, n))
    right, swapped = random.normal(-9, 2, 2_000), random.normal(8, 2, n)
    calibration = Calibration.fit(margin, right, swapped[:2_000], swapped)
    assert 0.7 * wrong.mean() < calibration.wrong_share < 1.4 * wrong.mean()
    flagged = expit(calibration.log_odds(margin)) > 0.5
    assert f1(flagged, wrong) > 0.9 * max(
        f1(margin > limit, wrong) for limit in np.linspace(-9, 5, 141)
    )


def test_two_estimates_that_contradict_each_other_are_both_stated():
    random = np.random.RandomState(6)
    margin = np.concatenate([random.normal(-9, 1, 8_000), random.normal(-1, 1.5, 2_000)])
    nothing = np.empty(0)
    calibration = Calibration.fit(margin, nothing, nothing, random.normal(6, 2, 10_000))
    assert calibration.wrong_share < 0.01 < calibration.doubted_share
    assert f"{calibration.doubted_share:.1%} by another" in calibration.doubt()


def f1(flagged, wrong):
    return 2 * (flagged & wrong).sum() / (flagged.sum() + wrong.sum())


@settings(max_examples=40)
@given(st.lists(st.floats(-30, 30), max_size=120), st.integers(0, 400), st.integers(0, 400))
def test_any_margins_give_a_rising_curve(unknown, right, wrong):
    random = np.random.RandomState(0)
    calibration = Calibration.fit(
        np.array(unknown),
        random.normal(-4, 1, right),
        random.normal(2, 1, wrong),
        random.normal(2, 1, len(unknown)),
    )
    assert calibration.slope > 0
    assert np.isfinite([calibration.slope, calibration.intercept]).all()
    assert 0 < calibration.wrong_share <= 0.5


def test_a_status_shifts_the_probability_and_pending_does_not():
    pending, valid, invalid, review = probability(
        np.zeros(4), ["PENDING", "VALID", "INVALID", "NEEDS_REVIEW"]
    )
    assert pending == pytest.approx(0.5)
    assert valid < 0.01
    assert invalid > 0.99
    assert review > pending


def test_the_guarantee_on_accepted_labels_holds_as_often_as_stated():
    kept = 0
    trials = 60
    for seed in range(trials):
        calibration, margin, wrong, right, swapped = calibrated(10 * seed, n=2_000, validated=600)
        thresholds = choose_thresholds(
            expit(calibration.log_odds(right)),
            expit(calibration.log_odds(swapped)),
            expit(calibration.log_odds(margin)),
            calibration.wrong_share,
            TriageSettings(accept_at_most=0.5),
        )
        accepted = expit(calibration.log_odds(margin)) <= thresholds.accept
        assert accepted.any()
        kept += wrong[accepted].mean() <= 0.01
    assert kept >= 0.9 * trials


def test_few_right_labels_are_rejected():
    shares = []
    for seed in range(30):
        calibration, margin, wrong, right, swapped = calibrated(10 * seed, wrong_share=0.2)
        stated = expit(calibration.log_odds(margin))
        thresholds = choose_thresholds(
            expit(calibration.log_odds(right)),
            expit(calibration.log_odds(swapped)),
            stated,
            calibration.wrong_share,
            TriageSettings(reject_at_least=0.5),
        )
        rejected = stated >= thresholds.reject
        assert thresholds.rejected_right_level == 0.01
        shares.append((~wrong)[rejected].mean() if rejected.any() else 0.0)
    assert np.mean(shares) <= 0.01 + 2 * np.std(shares) / np.sqrt(len(shares))


def test_without_enough_validated_labels_it_asks_and_says_so():
    few = np.full(299, 0.001)
    many = np.full(2_000, 0.001)
    thresholds = choose_thresholds(few, few, many, 0.1, TriageSettings())
    assert thresholds.accepted_wrong_bound is None
    assert thresholds.accept == pytest.approx(0.001)
    assert thresholds.reject > 1
    assert "too few" in thresholds.reason


def asked_about(unknown, **chosen):
    """Choose thresholds without a guarantee; say how many labels are asked about, and why."""
    few = np.full(10, 0.001)
    thresholds = choose_thresholds(few, few, unknown, 0.2, TriageSettings(**chosen))
    # They are the most suspicious of those that are not accepted.
    return (unknown > max(thresholds.ask, thresholds.accept)).sum(), thresholds.reason


def test_without_a_guarantee_only_the_most_suspicious_are_asked_about_where_many_are_open():
    unknown = np.linspace(0.01, 0.6, 1_000)
    asked, reason = asked_about(unknown)
    assert asked == 250
    assert reason.endswith("only the most suspicious 25% are asked about")
    assert asked_about(unknown, ask_at_most=0.1)[0] == 100
    assert asked_about(unknown, ask_at_most=1)[0] == 1_000


def test_without_a_guarantee_all_open_labels_are_asked_about_where_they_are_few():
    unknown = np.concatenate([np.full(800, 0.0005), np.linspace(0.01, 0.6, 200)])
    asked, reason = asked_about(unknown)
    assert asked == 200
    assert "asked about" not in reason


@given(
    st.lists(st.sampled_from([0.0, 0.0005, 0.002, 0.1, 0.5, 1.0]), max_size=60),
    st.floats(0.01, 1.0),
)
def test_without_a_guarantee_no_more_than_the_share_is_asked_about(unknown, share):
    asked, _ = asked_about(np.array(unknown), ask_at_most=share)
    assert asked <= share * len(unknown)


def test_with_a_guarantee_all_open_labels_are_asked_about():
    calibration, margin, _, right, swapped = calibrated(3)
    right, swapped, unknown = (
        expit(calibration.log_odds(each)) for each in (right, swapped, margin)
    )
    thresholds = choose_thresholds(right, swapped, unknown, 0.1, TriageSettings(ask_at_most=0.01))
    assert thresholds.accepted_wrong_bound is not None
    assert thresholds.ask < 0


@pytest.mark.parametrize(("shown_first", "is_guaranteed"), [("any", True), ("suspicious", False)])
def test_labels_that_people_were_asked_about_first_give_no_guarantee(shown_first, is_guaranteed):
    """They say nothing about how many of the others are right."""
    margin, wrong = margins(8, 6_000, 0.08)
    order = np.argsort(-margin) if shown_first == "suspicious" else np.arange(len(margin))
    right = margin[order][~wrong[order]][:500]
    unknown = margin[order][1_000:]
    swapped, _ = margins(9, 6_000, 1.0)
    calibration = Calibration.fit(unknown, right, swapped[:500], swapped)
    thresholds = choose_thresholds(
        expit(calibration.log_odds(right)),
        expit(calibration.log_odds(swapped[:500])),
        expit(calibration.log_odds(unknown)),
        calibration.wrong_share,
        TriageSettings(),
    )
    assert (thresholds.accepted_wrong_bound is not None) == is_guaranteed
    assert ("validate some at random" in thresholds.reason) != is_guaranteed


def test_where_every_label_is_validated_nothing_is_said_to_look_less_suspicious():
    calibration, _, _, right, swapped = calibrated(3)
    right, swapped = (expit(calibration.log_odds(margin)) for margin in (right, swapped))
    thresholds = choose_thresholds(right, swapped, np.empty(0), 0.1, TriageSettings())
    assert thresholds.accepted_wrong_bound is not None


def test_where_wrong_labels_look_like_right_ones_nothing_is_accepted():
    random = np.random.RandomState(0)
    alike = random.random_sample(1_000)
    thresholds = choose_thresholds(alike, alike, alike, 0.2, TriageSettings())
    assert thresholds.accept < 0
    assert "no label is accepted without a question" in thresholds.reason
    assert (alike > thresholds.ask).sum() == 250


def test_thresholds_keep_within_the_bounds_of_the_settings():
    random = np.random.RandomState(1)
    right, wrong = random.random_sample(2_000) * 0.01, 1 - random.random_sample(2_000) * 0.01
    chosen = TriageSettings(accept_at_most=0.05, reject_at_least=0.95)
    thresholds = choose_thresholds(right, wrong, np.concatenate([right, wrong]), 0.5, chosen)
    assert thresholds.accept == pytest.approx(0.05)
    assert thresholds.reject >= 0.95


def test_the_bound_is_clopper_and_pearsons():
    # Rule of three: no hit in 300 trials, 95 %.
    assert upper_bound(0, 300, 0.95) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert upper_bound(5, 5, 0.95) == 1.0
