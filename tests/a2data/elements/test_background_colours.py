import numpy as np

from a2data.elements.background_colours import background_colours, free_cells


def halves() -> np.ndarray:
    """Two thirds blue, one third white."""
    picture = np.full((120, 200, 3), (20, 60, 220), np.uint8)
    picture[:, 130:] = 255
    return picture


def test_colours_are_named_largest_first():
    assert background_colours(halves(), []) == ["blue", "white"]


def test_what_a_box_covers_has_no_say():
    assert background_colours(halves(), [(128.0, 0.0, 200.0, 120.0)]) == ["blue"]
    assert background_colours(halves(), [(0.0, 0.0, 130.0, 120.0)]) == ["white"]


def test_a_small_patch_is_not_worth_a_word():
    picture = halves()
    picture[:20, :20] = (220, 30, 30)
    assert background_colours(picture, []) == ["blue", "white"]


def test_a_covered_picture_has_no_background():
    assert background_colours(halves(), [(-5.0, -5.0, 300.0, 300.0)]) == []


def test_cells_that_a_box_only_touches_are_not_free():
    free = free_cells([(9.0, 9.0, 11.0, 11.0)], 120, 200)  # cells of 10 x 10
    assert np.argwhere(~free).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
