"""The arithmetic of the targets' clocks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.export.clock import CLOCKS, TooSmallError, num_ticks, scale_and_crop, segment_settings
from pipelines.run.recipe import Recipe
from pipelines.triplets import triplets
from stages.segment.stage import Segment


@pytest.mark.parametrize(
    ("clock", "frames", "count"),
    [
        ("h3", 124, 124),
        ("h3", 140, 124),  # 141 = 17 x 8 + 5 is one too many
        ("h3", 141, 141),
        ("h3", 400, 345),  # 15 s at most
        ("ltx", 128, 121),  # 8 x 15 + 1
        ("ltx", 129, 129),
        ("wan", 80, 77),  # 4 x 19 + 1
        ("wan", 200, 81),
    ],
)
def test_a_clip_gets_the_largest_count_of_the_rule(clock, frames, count):
    assert CLOCKS[clock].count(frames) == count


def test_a_clip_shorter_than_the_least_count_is_refused_with_both():
    with pytest.raises(TooSmallError, match=r"123 frames at 24 fps .* 124 to 345 .* 17n\+5"):
        CLOCKS["h3"].count(123)


@given(st.sampled_from(sorted(CLOCKS)), st.integers(5, 500))
def test_a_count_obeys_the_rule_and_no_larger_one_does(name, frames):
    clock = CLOCKS[name]
    allowed = [n for n in range(clock.min_frames, min(frames, clock.max_frames) + 1) if n % clock.step == clock.rest]
    if not allowed:
        with pytest.raises(TooSmallError):
            clock.count(frames)
    else:
        assert clock.count(frames) == max(allowed)


def test_81_frames_at_15_fps_are_129_at_24_and_86_at_16():
    # 80 / 15 s = 5.333 s: ticks 0 to 128 at 24 fps, 0 to 85 at 16 fps
    assert num_ticks(80 / 15, 24) == 129
    assert num_ticks(80 / 15, 16) == 86


@given(st.integers(32, 2000), st.integers(32, 2000), st.sampled_from(sorted(CLOCKS)))
def test_sides_are_multiples_and_never_larger_than_the_picture(width, height, name):
    clock = CLOCKS[name]
    try:
        made = clock.size(width, height)
    except TooSmallError:
        scale = min(1, clock.short_side_px / min(width, height))
        assert min(width, height) * scale < clock.side_px
        return
    assert made[0] <= width
    assert made[1] <= height
    assert all(side % clock.side_px == 0 for side in made)


@given(
    st.integers(64, 2000), st.integers(64, 2000), st.integers(0, 400), st.integers(0, 400), st.sampled_from(sorted(CLOCKS))
)  # fmt: skip
def test_the_box_of_a_crop_lies_inside_the_scaled_source(width, height, left, top, name):
    crop = (left, top, left + width, top + height)
    out = CLOCKS[name].size(width, height)
    made = scale_and_crop(left + width, top + height, crop, out)
    x0, y0, x1, y1 = made.box
    assert (x1 - x0, y1 - y0) == out
    assert 0 <= x0 < x1 <= made.whole[0]
    assert 0 <= y0 < y1 <= made.whole[1]
    assert not any(edge % 2 for edge in (*made.whole, *made.box))


@pytest.mark.parametrize("clock", CLOCKS)
def test_segment_cuts_no_clip_that_the_clock_would_refuse(clock):
    recipe = Recipe()
    recipe.set(triplets(), segment_settings(clock))
    settings = Segment(**recipe.settings["segment"])
    shortest = math.ceil(settings.min_clip_s * settings.fps)  # frames, as ShotBuffer.close compares
    assert CLOCKS[clock].count(shortest) >= CLOCKS[clock].min_frames
    assert CLOCKS[clock].count(settings.max_frames) == CLOCKS[clock].max_frames


def test_the_clock_a2_is_the_default_of_segment():
    recipe = Recipe()
    recipe.set(triplets(), segment_settings("a2"))
    assert Segment(**recipe.settings["segment"]) == Segment()
