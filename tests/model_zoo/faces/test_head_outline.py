"""Heads drawn on a ground, outlined again."""

import numpy as np
import pytest

from model_zoo.faces import head_outline

SHAPE = (160, 200)
GROUND, HEAD = (40, 110, 60), (200, 150, 130)


def picture(drawn: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 12, (*SHAPE, 3), np.uint8)
    return np.where(drawn[..., None], HEAD, GROUND).astype(np.uint8) + noise


@pytest.mark.parametrize("tilt", [-25.0, 0.0, 25.0])
def test_the_outline_is_that_of_the_head_and_not_of_the_ellipse_round_it(tilt):
    drawn = head_outline.ellipse((100, 80), (30, 48), tilt, SHAPE)
    found = head_outline.outline(picture(drawn), (100, 80), (42, 56), tilt)
    assert (found & drawn).sum() / (found | drawn).sum() > 0.93


def test_an_outline_is_one_piece_without_holes():
    drawn = head_outline.ellipse((100, 80), (30, 48), 0, SHAPE)
    drawn[60:66, 90:96] = False  # an eye as green as the ground
    found = head_outline.outline(picture(drawn), (100, 80), (42, 56))
    assert found[60:66, 90:96].all()


@pytest.mark.parametrize("centre", [(0.0, 0.0), (199.0, 80.0), (-300.0, 40.0)])
def test_a_head_at_the_border_or_outside_is_not_an_error(centre):
    drawn = head_outline.ellipse(centre, (30, 48), 0, SHAPE)
    found = head_outline.outline(picture(drawn), centre, (40, 56))
    assert found.shape == SHAPE
    assert found.any() == (centre[0] > -300)


def test_the_largest_piece_is_kept_without_holes():
    mask = head_outline.ellipse((100, 80), (30, 48), 0, SHAPE)
    solid = mask.copy()
    mask[60:66, 90:96] = False
    mask[5:9, 5:9] = True
    assert np.array_equal(head_outline.largest_filled(mask), solid)
    assert not head_outline.largest_filled(np.zeros(SHAPE, bool)).any()
