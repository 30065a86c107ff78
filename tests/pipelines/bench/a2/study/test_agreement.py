from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bench.a2.study.agreement import correlation, krippendorff

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section D: four observers, twelve units, values missing.
OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
UNITS = [
    [float(v) for v in unit if v != "."] for unit in zip(*map(str.split, OBSERVERS.split("\n")[1:-1]), strict=True)
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level, alpha):
    assert krippendorff(UNITS, level) == pytest.approx(alpha, abs=5e-4)


def test_raters_who_agree_have_one_and_those_who_rate_at_random_nothing():
    assert krippendorff([[n % 5] * 3 for n in range(20)]) == 1.0
    chance = np.random.default_rng(0).integers(1, 6, (2000, 3)).tolist()
    assert krippendorff(chance) == pytest.approx(0, abs=0.03)


def test_what_says_nothing_about_agreement_gives_none():
    assert krippendorff([[3.0], [4.0]]) is None
    assert krippendorff([[3.0, 3.0], [3.0, 3.0]]) is None
    assert krippendorff([]) is None


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="choose ordinal, interval or nominal"):
        krippendorff(UNITS, "ratio")


@given(st.lists(st.lists(st.integers(1, 5), min_size=2, max_size=4), min_size=2, max_size=8))
def test_interval_alpha_is_observed_over_expected_variance(units):
    """Said in another way: the mean squared difference within units, over that of all pairs of ratings."""
    everything = [v for unit in units for v in unit]
    expected = np.mean([(a - b) ** 2 for a, b in combinations(everything, 2)])
    within = sum(sum((a - b) ** 2 for a, b in combinations(unit, 2)) * 2 / (len(unit) - 1) for unit in units)
    alpha = krippendorff(units, "interval")
    if expected == 0:
        assert alpha is None
    else:
        assert alpha == pytest.approx(1 - within / len(everything) / expected)


def test_correlations_are_those_of_a_hand_computation():
    """Ranks 1 2 3 4 and 1 3 2 4: squared differences 0 1 1 0; five of six pairs in order."""
    found = correlation([0.1, 0.2, 0.3, 0.9], [1, 4, 2, 5])
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["kendall"] == pytest.approx((5 - 1) / 6)


def test_two_pairs_or_one_value_have_no_correlation():
    assert correlation([1, 2], [3, 4]) is None
    assert correlation([1, 1, 1], [3, 4, 5]) is None
