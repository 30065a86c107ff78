import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.statistics import wilson


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
