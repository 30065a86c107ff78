import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2data import colours

PLAIN = {
    "black": (10, 10, 12),
    "white": (250, 250, 250),
    "grey": (128, 128, 128),
    "red": (200, 20, 25),
    "orange": (245, 140, 20),
    "yellow": (240, 225, 30),
    "green": (30, 150, 50),
    "cyan": (30, 200, 205),
    "blue": (25, 60, 190),
    "purple": (130, 40, 180),
    "pink": (250, 150, 180),
    "brown": (110, 65, 25),
}


@pytest.mark.parametrize("name", colours.NAMES)
def test_each_word_names_its_plain_colour(name):
    assert colours.name(np.array([PLAIN[name]], np.uint8)) == name


def test_the_name_is_that_of_most_pixels():
    assert colours.name(np.array([PLAIN["red"]] * 2 + [PLAIN["blue"]] * 3, np.uint8)) == "blue"


def test_no_pixels_have_no_colour():
    with pytest.raises(ValueError, match="no pixels"):
        colours.name(np.zeros((0, 3), np.uint8))


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_colour_has_a_name_and_greys_have_no_hue(rgb):
    assert colours.name(np.array([rgb], np.uint8)) in colours.NAMES
    assert colours.name(np.full((1, 3), rgb[0], np.uint8)) in ("black", "grey", "white")
