import numpy as np
import pytest

from pipelines.bench.triplets import statistics


def test_a_proportion_has_wilsons_interval():
    score = statistics.proportion("found", 8, 10)
    assert (score.value, score.right, score.of) == (0.8, 8, 10)
    assert (score.low, score.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Brown, Cai & DasGupta 2001


def test_an_unmeasured_score_does_not_have_a_value():
    score = statistics.proportion("found", 0, 0)
    assert score.value is None
    assert str(score) == "found: not measured (nothing to measure it on)"
    assert statistics.f_score("F", score, score, 0.5).value is None


def test_f_half_prefers_precision():
    assert statistics.f_beta(0.9, 0.3, 0.5) == pytest.approx(1.25 * 0.9 * 0.3 / (0.25 * 0.9 + 0.3))
    assert statistics.f_beta(0.9, 0.3, 0.5) > statistics.f_beta(0.3, 0.9, 0.5)
    assert statistics.f_beta(0.0, 0.0, 0.5) == 0.0


def test_average_precision_is_that_of_a_ranking_done_by_hand():
    similarity, same = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert statistics.average_precision(similarity, same) == pytest.approx((1 + 2 / 3) / 2)
    assert statistics.roc_auc(similarity, same) == pytest.approx(3 / 4)


def test_ties_are_taken_together():
    similarity, same = np.array([0.5, 0.5]), np.array([True, False])
    assert statistics.average_precision(similarity, same) == 0.5
    assert statistics.roc_auc(similarity, same) == 0.5
    assert statistics.accept_rate(similarity, same, 0.01) == 0.0


def test_true_accepts_are_counted_where_few_others_are_let_in():
    similarity = np.concatenate([np.linspace(0.5, 1, 100), np.linspace(0, 0.75, 1000)])
    same = np.arange(1100) < 100
    for rate in (0.01, 0.001):
        threshold = np.sort(similarity[~same])[-int(rate * 1000) - 1]  # so many of the others lie above it
        assert statistics.accept_rate(similarity, same, rate) == pytest.approx((similarity[same] > threshold).mean())


def test_b_cubed_of_the_classic_example():
    # Bagga & Baldwin 1998: {1-5}, {6, 7}, {8-C}; the response joins the two large ones
    truth = [0] * 5 + [1] * 2 + [2] * 5
    assert statistics.b_cubed([0] * 5 + [1] * 2 + [0] * 5, truth) == pytest.approx((7 / 12, 1.0))
    assert statistics.b_cubed([0] * 5 + [1] * 7, truth) == pytest.approx((0.762, 1.0), abs=1e-3)
