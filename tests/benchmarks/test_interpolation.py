"""What the figures of the interpolations say of patterns with known answers."""

import numpy as np
import pytest

from benchmarks.interpolation import FILTERS, measure, moved


def test_the_filter_of_references_agrees_with_itself_and_enlarges_a_ramp_without_loss():
    ramp = np.broadcast_to(np.arange(160, dtype=np.uint8)[None, :, None], (80, 160, 3))
    detail, _, like, _ = measure(FILTERS["pillow bicubic"], np.ascontiguousarray(ramp), 0.5)
    assert like == float("inf")
    assert detail > 45


def test_a_filter_that_is_not_antialiased_is_less_steady():
    noise = np.random.default_rng(0).integers(0, 256, (80, 160, 3), np.uint8)
    steady = {
        name: measure(FILTERS[name], noise, 0.25)[1] for name in ("opencv cubic", "opencv area", "pillow bicubic")
    }
    assert steady["opencv cubic"] < steady["opencv area"] < steady["pillow bicubic"]


def test_a_picture_is_moved_by_whole_pixels_exactly():
    noise = np.random.default_rng(0).integers(0, 256, (8, 33, 3), np.uint8)
    assert moved(noise, 2.0) == pytest.approx(np.roll(noise, 2, axis=1), abs=1e-9)
