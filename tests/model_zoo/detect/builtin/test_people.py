import cv2
import numpy as np
import pytest

from model_zoo.detect.builtin.people import Head, divided

SHAPE = (180, 320)
NAVY, KHAKI = (30, 36, 70), (150, 128, 92)


def figure(x):
    """A head on shoulders, (h, w) bool, and the head as a face detector gives it."""
    mask = cv2.ellipse(np.zeros(SHAPE, np.uint8), (x, 50), (18, 24), 0, 0, 360, 1, -1)
    cv2.fillPoly(
        mask, [np.array([(x - 55, 179), (x - 50, 100), (x - 12, 75), (x + 12, 75), (x + 50, 100), (x + 55, 179)])], 1
    )
    return mask > 0, Head(float(x), 50.0, 30.0, 1.0)


def picture_of(front, behind, coats, seed=0):
    """One in a coat of the first colour before one in a coat of the second, on a wall; no colour is quite even."""
    picture = np.full((*SHAPE, 3), (120, 150, 155), float)
    for mask, coat in ((behind, coats[1]), (front, coats[0])):
        picture[mask] = coat
        picture[: int(0.42 * SHAPE[0])][mask[: int(0.42 * SHAPE[0])]] = (205, 160, 135)
    return (picture + np.random.default_rng(seed).normal(0, 5, picture.shape)).clip(0, 255).astype(np.uint8)


def halved(joined, heads):
    """What is known so far: each has the side that is nearer to the own head."""
    nearer = np.abs(np.indices(SHAPE)[1] - heads[0].x) < np.abs(np.indices(SHAPE)[1] - heads[1].x)
    return joined & nearer, joined & ~nearer


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("apart", [50, 70])
def test_of_two_who_pass_each_gets_what_is_of_the_colours_of_their_clothes(apart):
    (front, head), (behind, other) = figure(120), figure(120 + apart)
    behind &= ~front
    picture = picture_of(front, behind, (NAVY, KHAKI))
    before = halved(front | behind, (head, other))
    after = divided(picture, (head, other), before)
    assert max(iou(before[0], front), iou(before[1], behind)) < 0.9
    assert min(iou(after[0], front), iou(after[1], behind)) > 0.95
    swapped = divided(picture, (other, head), before[::-1])
    assert min(iou(swapped[1], front), iou(swapped[0], behind)) > 0.95  # whoever is named first


def test_two_in_clothes_of_one_colour_are_left_as_they_were():
    (front, head), (behind, other) = figure(120), figure(190)
    behind &= ~front
    before = halved(front | behind, (head, other))
    after = divided(picture_of(front, behind, (NAVY, NAVY)), (head, other), before)
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_two_who_stand_apart_and_two_of_whom_one_hides_the_other_are_left_as_they_were():
    for x in (240, 140):
        (front, head), (behind, other) = figure(100 if x == 240 else 120), figure(x)
        behind &= ~front
        before = halved(front | behind, (head, other))
        after = divided(picture_of(front, behind, (NAVY, KHAKI)), (head, other), before)
        assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))
