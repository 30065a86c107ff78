"""Moving objects by their difference from the plate."""

import cv2
import numpy as np

from model_zoo.detect.builtin.things import moving_masks

NIGHT = np.full((180, 320, 3), (18, 20, 40), np.uint8)
PEOPLE = np.zeros(NIGHT.shape[:2], bool)


def rocket(x):
    """A white hull with a dark tank above it, at night."""
    out = NIGHT.copy()
    cv2.rectangle(out, (x, 80), (x + 35, 140), (230, 230, 230), -1)
    cv2.rectangle(out, (x + 10, 40), (x + 25, 79), (50, 30, 20), -1)
    return out


def test_a_dark_part_of_a_moving_object_is_not_lost_to_the_night():
    (mask,) = moving_masks(rocket(140), NIGHT, PEOPLE)
    assert mask[45:75, 153:163].all()
    assert mask[85:135, 145:170].all()
    assert mask.sum() < 1.2 * (36 * 61 + 16 * 40)
