import numpy as np
import pytest

from model_zoo.caption import lighting as looks


def flat(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((5, 36, 64, 3), (red, green, blue), np.uint8)


def test_light_is_named_by_brightness_and_tint():
    assert looks.lighting(flat(30, 30, 30)) == "dim, with low contrast"
    assert looks.lighting(flat(230, 230, 230)) == "bright, with low contrast"
    assert looks.lighting(flat(190, 165, 140)) == "bright and warm, with low contrast"
    assert looks.lighting(flat(110, 120, 140)) == "cool, with low contrast"


def test_stripes_of_black_and_white_are_high_contrast():
    stripes = flat(0, 0, 0)
    stripes[:, :, ::4] = stripes[:, :, 1::4] = 255
    assert looks.lighting(stripes) == "neutral, with high contrast"


@pytest.mark.parametrize(
    ("colours", "luma", "words"),
    [
        ([], 0.5, ""),
        (["grey"], 0.5, "a grey background"),
        (["orange"], 0.5, "an orange background"),
        (["brown", "green"], 0.2, "a dark brown and green background"),
        (["white", "blue"], 0.9, "a white and blue background"),
        (["red", "green", "blue"], 0.7, "a bright red, green and blue background"),
        (["red", "green", "blue", "pink"], 0.5, "a colourful background"),
    ],
)
def test_a_background_is_a_noun_phrase(colours, luma, words):
    assert looks.environment(colours, luma) == words
