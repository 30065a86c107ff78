import cv2
import numpy as np
import pytest

from model_zoo.detect.mask_confidence import (
    agreement,
    colour_contrast,
    edge,
    mask_confidence,
    on_edge,
    separated_fraction,
)

SHAPE = (90, 160)
NOISE = np.random.default_rng(0)
WALL = cv2.GaussianBlur(NOISE.integers(60, 120, (*SHAPE, 3), np.uint8), (0, 0), 2)
COAT = cv2.GaussianBlur(NOISE.integers(150, 250, (*SHAPE, 3), np.uint8), (0, 0), 2)


def disk(x, y=45, radius=20):
    return cv2.circle(np.zeros(SHAPE, np.uint8), (x, y), radius, 1, -1) > 0


def moving(xs=(40, 46, 52, 58, 64)):
    """A person in a bright coat who walks along a wall: frames and masks."""
    masks = [disk(x) for x in xs]
    coats = [np.roll(COAT, x, axis=1) for x in xs]
    return np.stack([np.where(m[..., None], c, WALL) for m, c in zip(masks, coats, strict=True)]), masks


def test_a_mask_that_follows_the_edges_and_goes_along_is_trusted():
    frames, masks = moving()
    (found,) = mask_confidence(frames, [list(enumerate(masks))])
    assert min(found) > 0.9


def test_a_mask_that_spilt_in_one_frame_is_trusted_least():
    frames, masks = moving()
    masks[2] = masks[2] | disk(85, 30)
    (found,) = mask_confidence(frames, [list(enumerate(masks))])
    assert np.argmin(found) == 2
    assert found[2] < 0.6 < min(found[:2] + found[3:])


def test_a_shape_is_compared_where_it_went_not_where_it_stood():
    alike = [(0, disk(40)), (5, disk(110)), (10, disk(60))]
    assert agreement(alike, 0) == pytest.approx(1.0)
    halved = disk(40)
    halved[:45] = False
    assert agreement([(0, disk(40)), (5, halved)], 0) < 0.7
    assert agreement(alike[:1], 0) == 1.0


def test_an_outline_through_one_colour_lies_on_no_edge():
    grey = np.full((*SHAPE, 3), 90, np.uint8)
    grey[disk(60)] = (170, 60, 60)
    half = disk(60)
    half[:, 60:] = False
    assert on_edge(disk(60), edge(grey)) == 1.0
    chord, arc = 40, np.pi * 20  # of the half: what is cut through the coat, and what is its outline
    assert on_edge(half, edge(grey)) == pytest.approx(arc / (arc + chord), abs=0.1)
    assert on_edge(np.ones(SHAPE, bool), edge(grey)) == 1.0  # the picture's border is not an outline


def test_masks_near_one_another_are_trusted_less_and_those_of_other_frames_are_near_nothing():
    mine, beside, far = disk(50), disk(92), disk(140)
    assert separated_fraction(mine, []) == separated_fraction(mine, [far]) == 1.0
    assert 0.5 < separated_fraction(mine, [beside]) < 0.95
    frames, masks = moving()
    track = list(enumerate(masks))
    there = mask_confidence(frames, [track, [(2, disk(92))]])[0]
    alone = mask_confidence(frames, [track])[0]
    assert there[2] < alone[2]
    assert there[:2] + there[3:] == alone[:2] + alone[3:]


def test_a_coat_of_the_colour_of_the_wall_is_not_to_be_told_from_it():
    assert colour_contrast(WALL, disk(60)) < 0.5
    red = WALL.copy()
    red[disk(60)] = (220, 20, 20)
    assert colour_contrast(red, disk(60)) == pytest.approx(1.0, abs=0.02)


def test_a_mask_of_nothing_is_not_trusted():
    frames, masks = moving((40, 46))
    assert mask_confidence(frames, [[(0, np.zeros(SHAPE, bool)), (1, masks[1])]])[0][0] == 0.0
