"""Pictures of people."""

import numpy as np

from model_zoo.detect.builtin.prints import Head, is_print


def test_a_still_face_is_a_persons_if_the_background_goes_by_although_the_camera_seems_to_follow_it():
    rng = np.random.default_rng(0)
    wall, face = rng.integers(0, 256, (200, 400, 3), np.uint8), rng.integers(0, 256, (60, 50, 3), np.uint8)

    def picture(t, step):
        out = wall[:, 20 + step * t : 340 + step * t].copy()
        out[70:130, 135:185] = face
        return out

    views = [np.array([[1.0, 0, 1e-3 * t], [0, 1, 0], [0, 0, 1]]) for t in range(6)]
    heads = [Head(160, 100, 50, 1.0)] * 6
    assert is_print([picture(t, 0) for t in range(6)], views, heads)
    assert not is_print([picture(t, 1) for t in range(6)], views, heads)
