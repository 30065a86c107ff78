import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2data.media import colours

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
    "beige": (222, 200, 165),
}
# Colours of cloth and walls as people name them, by their sRGB values (CSS's, where CSS has the word).
CLOTH = {
    "burgundy": ((128, 0, 32), {"red"}),
    "maroon": ((128, 0, 0), {"red"}),
    "crimson": ((170, 20, 50), {"red"}),
    "teal": ((0, 128, 128), {"green", "cyan"}),
    "dark teal": ((15, 95, 95), {"green", "cyan"}),
    "navy": ((0, 0, 128), {"blue"}),
    "dark navy": ((20, 24, 48), {"blue", "black"}),
    "denim": ((62, 78, 104), {"blue"}),
    "olive": ((85, 90, 40), {"green"}),
    "mustard hoodie": ((200, 130, 0), {"orange"}),
    "space suit": ((225, 105, 60), {"orange"}),
    "wood": ((170, 120, 75), {"brown"}),
    "saddle brown": ((139, 69, 19), {"brown"}),
    "chocolate hair": ((70, 40, 25), {"brown"}),
    "cream wall": ((235, 222, 195), {"beige"}),
    "white T-shirt": ((235, 236, 238), {"white"}),
    "white in shade": ((205, 206, 209), {"white"}),
    "charcoal": ((60, 62, 64), {"grey", "black"}),
    "salmon": ((250, 150, 140), {"pink"}),
    "sky": ((135, 190, 235), {"blue"}),
}
TINTS = {"day": (1.0, 1.0, 1.0), "cloudy": (0.93, 0.98, 1.0), "dusk": (0.86, 0.74, 0.66)}
# What dusk does to near-neutral colours no name survives: a cream wall is brown, a white shirt beige.
DUSK_ALLOWS = {
    "cream wall": {"brown", "beige"},
    "white T-shirt": {"beige", "white"},
    "white in shade": {"beige", "brown"},
    "charcoal": {"grey", "black", "brown"},
    "dark navy": {"blue", "black", "purple"},
    "denim": {"grey", "blue"},
    "sky": {"grey", "blue", "cyan"},
    "salmon": {"pink", "red", "orange", "brown"},
    "mustard hoodie": {"orange", "brown"},
    "space suit": {"orange", "brown", "red"},
    "dark teal": {"green"},
}


@pytest.mark.parametrize("name", colours.NAMES)
def test_each_word_names_its_plain_colour(name):
    assert colours.name(np.array([PLAIN[name]], np.uint8)) == name


@pytest.mark.parametrize("light", TINTS)
@pytest.mark.parametrize("swatch", CLOTH)
def test_cloth_keeps_its_name_in_the_light_of_day_and_dusk(swatch, light):
    rgb, names = CLOTH[swatch]
    lit = np.clip(np.array(rgb) * TINTS[light], 0, 255).astype(np.uint8)
    allowed = names | (DUSK_ALLOWS.get(swatch, set()) if light == "dusk" else set())
    assert colours.name(lit[None]) in allowed


def test_folds_and_highlights_of_a_cloth_do_not_rename_it():
    light = np.linspace(0.35, 1.0, 400)[:, None]
    burgundy = np.clip(np.array([[140, 25, 45]]) * light, 0, 255)
    shine = np.full((60, 3), 240)
    assert colours.name(np.vstack([burgundy, shine]).astype(np.uint8)) == "red"


def test_the_dominant_colour_is_one_of_those_present_and_not_their_mean():
    pixels = np.array([PLAIN["blue"]] * 60 + [PLAIN["yellow"]] * 40, np.uint8)
    assert tuple(colours.dominant(pixels)) == PLAIN["blue"]


@given(st.permutations(list(range(12))))
def test_the_order_of_the_pixels_does_not_matter(order):
    pixels = np.array([PLAIN[n] for n in ("red", "green", "blue", "grey") for _ in range(3)], np.uint8)
    assert colours.name(pixels[order]) == colours.name(pixels)


def test_the_rim_of_a_mask_does_not_name_what_is_inside():
    picture = np.full((60, 60, 3), PLAIN["white"], np.uint8)
    picture[20:40, 20:40] = PLAIN["green"]
    mask = np.zeros((60, 60), bool)
    mask[19:41, 19:41] = True
    assert colours.name_in(picture, mask) == "green"
    line = np.zeros((60, 60), bool)
    line[30, 5:15] = True
    assert colours.name_in(picture, line) == "white"  # too thin to have an inside


def test_the_name_is_that_of_most_pixels():
    assert colours.name(np.array([PLAIN["red"]] * 2 + [PLAIN["blue"]] * 3, np.uint8)) == "blue"


def test_no_pixels_have_no_colour():
    with pytest.raises(ValueError, match="pixels is empty"):
        colours.name(np.zeros((0, 3), np.uint8))


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_colour_has_a_name_and_greys_have_no_hue(rgb):
    assert colours.name(np.array([rgb], np.uint8)) in colours.NAMES
    assert colours.name(np.full((1, 3), rgb[0], np.uint8)) in ("black", "grey", "white")


def test_hues_are_opposed_unless_light_may_have_turned_one_into_the_other():
    assert colours.incompatible("blue", "green")
    assert colours.incompatible("red", "cyan")
    for a, b in (
        ("blue", "blue"),
        ("blue", "cyan"),
        ("red", "orange"),
        ("blue", "black"),
        ("white", "red"),
        ("", "red"),
    ):
        assert not colours.incompatible(a, b)
        assert not colours.incompatible(b, a)


def test_a_share_counts_the_pixels_of_a_name():
    pixels = np.array([(250, 10, 10)] * 30 + [(10, 10, 250)] * 70, np.uint8)
    assert colours.fraction_of(pixels, "red") == 0.3
    assert colours.fraction_of(pixels, "blue") == 0.7
    with pytest.raises(ValueError, match="pixels is empty"):
        colours.fraction_of(pixels[:0], "red")


@pytest.mark.parametrize(("level", "certain"), [(60, False), (110, True), (175, False)])
def test_a_grey_is_certain_unless_it_may_be_black_in_the_sun_or_white_in_shade(level, certain):
    pixels = np.full((50, 3), level, np.uint8)
    assert colours.name(pixels) == "grey"
    assert colours.is_certain(pixels, "grey") is certain


def test_a_colour_of_less_than_half_of_the_pixels_is_not_certain():
    pixels = np.array([PLAIN["red"]] * 45 + [PLAIN["blue"]] * 55, np.uint8)
    assert not colours.is_certain(pixels, "red")
    assert colours.is_certain(pixels, "blue")
