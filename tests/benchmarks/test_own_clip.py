import numpy as np
import pytest

pytest.importorskip("diffusers")

from benchmarks import own_clip

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 160, 40), (40, 60, 190), (128, 128, 128)


def scene(coat: tuple[int, int, int], ground: tuple[int, int, int], frames: int = 5) -> np.ndarray:
    """A person in a coat, in the lower middle, in front of a plain background."""
    shown = np.full((frames, 48, 80, 3), ground, np.uint8)
    shown[:, 20:, 24:56] = coat
    return shown


def on_white(coat: tuple[int, int, int]) -> np.ndarray:
    return scene(coat, (255, 255, 255), 1)


def test_a_video_that_is_the_clip_scores_minus_one_and_one_that_is_the_reference_one():
    truth, reference = scene(GREEN, GREY), on_white(RED)
    assert own_clip.copy_paste_score(truth, truth, reference) == pytest.approx(-1, abs=0.05)
    assert own_clip.copy_paste_score(scene(RED, GREY), truth, reference) == pytest.approx(1, abs=0.05)


def test_what_lies_beside_the_reference_does_not_count():
    truth, reference = scene(GREEN, GREY), on_white(RED)
    assert own_clip.copy_paste_score(scene(RED, BLUE), truth, reference) == pytest.approx(1, abs=0.05)


def test_a_video_between_the_two_scores_between():
    truth, reference = scene(GREEN, GREY), on_white(RED)
    half = ((truth.astype(int) + scene(RED, GREY)) // 2).astype(np.uint8)
    assert -0.7 < own_clip.copy_paste_score(half, truth, reference) < 0.7


def test_a_reference_that_is_the_clip_leaves_nothing_to_compare():
    truth = scene(GREEN, GREY)
    with pytest.raises(ValueError, match="nothing to compare"):
        own_clip.copy_paste_score(truth, truth, truth[:1])


def test_the_difference_is_that_of_the_kinds_over_clips(capsys):
    made = {("other clips", 0): {"a": -0.5, "b": -0.3, "c": -0.4}, ("own clip", 0): {"a": 0.1, "b": 0.1, "c": 0.3}}
    own_clip.show_copied(made, [0])
    told = capsys.readouterr().out
    assert "trained with own clip     +0.167" in told
    assert "changes it by +0.567 (95 % over 3 held-out clips" in told
