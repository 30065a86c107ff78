"""What each distortion does to the frames, told by frames that are numbered."""

import numpy as np
import pytest

from pipelines.prefer import compare
from pipelines.prefer.distort import DISTORTIONS, GRADES

RNG = np.random.default_rng(0)
NUMBERED = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 12, 3), np.uint8)
NOISE = RNG.integers(0, 256, (12, 48, 64, 3), np.uint8)


def order(kind, grade):
    return DISTORTIONS[kind](NUMBERED, grade, RNG)[:, 0, 0, 0].tolist()


def test_reversed_plays_the_end_backwards():
    assert order("reversed", 1) == [0, 1, 2, 3, 4, 5, 6, 7, 11, 10, 9, 8]
    assert order("reversed", 3) == list(range(12))[::-1]


def test_frozen_repeats_a_frame_until_the_end():
    assert order("frozen", 2) == [0, 1, 2, 3] + [4] * 8
    assert order("frozen", 3) == [0] * 12


def test_frame_rate_repeats_every_frame():
    assert order("frame-rate", 1) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert order("frame-rate", 3) == [0] * 4 + [1] * 4 + [2] * 4


def test_jitter_shifts_whole_frames_by_the_grade_at_most():
    shaken = DISTORTIONS["jitter"](NOISE, 3, np.random.default_rng(1))
    for frame, before in zip(shaken, NOISE, strict=True):
        centre = frame[4:-4, 4:-4]
        places = [(y, x) for y in range(9) for x in range(9) if (before[y : y + 40, x : x + 56] == centre).all()]
        assert len(places) == 1
        assert max(abs(y - 4) for y, _ in places) <= 2  # 4 % of 48 px


def test_local_shows_an_earlier_frame_where_the_clip_moves():
    moving = np.full((12, 48, 64, 3), 90, np.uint8)
    moving[:, 8:20, 40:60] = NOISE[:, 8:20, 40:60]
    damaged = DISTORTIONS["local"](moving, 1, RNG)
    assert (damaged[:, 40:] == moving[:, 40:]).all()
    assert np.abs(damaged[11, 12:16, 48:52].astype(int) - moving[4, 12:16, 48:52]).mean() < 10
    assert np.abs(damaged[11, 12:16, 48:52].astype(int) - moving[11, 12:16, 48:52]).mean() > 50


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_heavier_grade_changes_more_and_keeps_shape_and_input(kind):
    steps = np.linspace(0, 20, 12)
    ramp = 8.0 * np.arange(64)[None, None, :, None] % 200 + steps[:, None, None, None] * np.ones((1, 48, 1, 3))
    frames = ramp.astype(np.uint8)
    before = frames.copy()
    made = [DISTORTIONS[kind](frames, grade, np.random.default_rng(0)) for grade in GRADES]
    changed = [compare.measure_differences(frames, each)["motion"] for each in made]
    assert changed == sorted(changed)
    assert changed[0] > 0
    assert (frames == before).all()
    assert {(each.shape, each.dtype) for each in made} == {(frames.shape, frames.dtype)}


def test_the_order_of_frames_changes_motion_alone():
    found = compare.measure_differences(NUMBERED, NUMBERED[::-1])
    assert found["motion"] == pytest.approx(np.abs(np.arange(12) - np.arange(12)[::-1]).mean() / 255)
    assert (found["sharpness"], found["luma"], found["content"]) == (0, 0, pytest.approx(1))


def test_a_text_video_model_compares_both_videos_with_the_prompt():
    found = compare.measure_differences(
        NUMBERED, NUMBERED + 1, "a cup", lambda frames, text: float(frames[0].mean()) / len(text)
    )
    assert found["text"] == pytest.approx(0.2)
