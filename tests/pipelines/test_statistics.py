import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.statistics import cluster_bootstrap, percentile_interval, student, wilson


def test_wilsons_interval_is_that_of_the_book():
    low, high = wilson(8, 10)  # Brown, Cai and DasGupta 2001 give 0.49 and 0.94
    assert (round(low, 2), round(high, 2)) == (0.49, 0.94)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 3838)[1] == pytest.approx(0.001, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share(hits, more):
    low, high = wilson(hits, hits + more)
    assert 0 <= low <= hits / (hits + more) <= high <= 1


def test_students_interval_is_that_of_the_table():
    mean, low, high = student(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert high - mean == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)  # t of 2 degrees of freedom
    assert mean - low == pytest.approx(high - mean)
    assert all(math.isnan(v) for v in student(np.array([1.0]))[1:])


def test_every_resample_draws_as_many_clusters_as_there_are_and_a_seed_repeats_them():
    drawn = np.stack([*cluster_bootstrap(7, 50, seed=1)])
    assert (drawn.sum(1) == 7).all()
    assert (drawn == np.stack([*cluster_bootstrap(7, 50, seed=1)])).all()
    assert (drawn != np.stack([*cluster_bootstrap(7, 50, seed=2)])).any()


def test_the_interval_of_a_mean_of_clusters_is_as_wide_as_the_clusters_differ():
    values = np.repeat(np.random.default_rng(0).normal(0, 1, 200), 5)  # five equal samples a cluster
    cluster = np.repeat(np.arange(200), 5)
    means = [np.average(values, weights=drawn[cluster]) for drawn in cluster_bootstrap(200, 1000, seed=0)]
    low, high = percentile_interval(np.array(means))
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(200), rel=0.1)


def test_resamples_without_a_number_are_left_out_of_the_percentiles():
    assert percentile_interval(np.array([1.0, np.nan, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(v) for v in percentile_interval(np.array([np.nan])))
