"""The benchmark, tested: what is right in everything scores 1, and each fault is seen where it is."""

import pytest
from toy_truth import truth

from pipelines.bench.triplets.score import score
from pipelines.bench.triplets.self_test import FAULTS, oracle


@pytest.fixture(scope="module")
def world():
    known = truth()
    return known, oracle(known), score(known, oracle(known))


def test_the_oracle_scores_one_everywhere(world):
    _, _, result = world
    assert {s.name: s.value for s in result.scores if s.value is not None and s.value < 1 - 1e-9} == {}
    assert result.headline == 1.0
    assert (result.histogram, result.lost) == ({}, {})


def test_every_figure_is_measured_on_it(world):
    _, _, result = world
    assert {s.name for s in result.scores if s.value is None} == set()


MOVED = {  # fault -> what the histogram calls it; figures that it must lower
    "frames shifted by one": ("frame offset", ["frames as stated", "cuts, F1 at 0"]),
    "two captions swapped": ("wrong phrase", ["phrases, on the right entity"]),
    "ids restarted": ("wrong identity", ["pairing, precision", "identities, B3 precision"]),
    "paired within the clip": ("same clip", ["references from another clip", "pairing, precision"]),
    "paired at random": ("wrong identity", ["pairing, precision", "pairing, recall"]),
    "masks dilated by 9 px": ("dirty reference", ["references, purity", "references, clean"]),
    "masks eroded by 9 px": ("dirty reference", ["references, completeness", "references, clean"]),
    "the whole frame as the place": ("background leak", ["places, clean", "places, without a subject"]),
    "a clip dropped": ("lost in segment", ["triplets, recall", "pairing, recall", "entities, recall"]),
}


@pytest.mark.parametrize("fault", sorted(MOVED))
def test_each_fault_lowers_its_own_figures_and_is_named_first(world, fault):
    known, right, before = world
    after = score(known, FAULTS[fault](known, right))
    named, figures = MOVED[fault]
    assert after.headline < before.headline
    assert after.worst[0][0] == named
    for figure in figures:
        assert after.value(figure) < before.value(figure), figure
