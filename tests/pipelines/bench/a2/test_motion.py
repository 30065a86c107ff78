import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_zoo.flow import interpolate
from pipelines.bench.a2 import motion


def fields(lengths, top=0.05):
    """A flow that says, pair by pair, that this share of the pixels moves by so many pixels, and the others do not move."""

    def flow(frames):
        out = np.zeros((len(frames) - 1, *frames.shape[1:3], 2), np.float32)
        for field, length in zip(out, lengths, strict=True):
            field.reshape(-1, 2)[: int(top * field[..., 0].size)] = (0.6 * length, -0.8 * length)
        return out

    return flow


def video(frames, height=256, width=256):
    return np.zeros((frames, height, width, 3), np.uint8)


def test_viclip_sees_the_middle_of_each_eighth():
    assert motion.middle_frames(81) == [4, 14, 24, 34, 44, 54, 64, 75]
    assert motion.middle_frames(16) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert motion.middle_frames(8) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_short_video_ends_with_its_last_frame_again():
    assert motion.middle_frames(3) == [0, 1, 2, 2, 2, 2, 2, 2]


@given(st.integers(1, 400), st.integers(1, 40))
def test_sampled_frames_are_in_order_and_inside(count, frames):
    middles, spread = motion.middle_frames(count, frames), motion.spread_frames(count, frames)
    assert len(middles) == frames
    assert len(spread) == min(count, frames)
    for numbers in (middles, spread):
        assert numbers == sorted(numbers)
        assert 0 <= numbers[0] <= numbers[-1] < count
    if frames > 1 or count == 1:
        assert (spread[0], spread[-1]) == (0, count - 1)


def test_a_video_without_frames_is_refused():
    for sample in (motion.middle_frames, motion.spread_frames):
        with pytest.raises(ValueError, match="no frame"):
            sample(0)


def test_a_video_is_dynamic_when_a_quarter_of_its_frames_moves_by_more_than_six_pixels():
    """16 sampled frames, so 15 pairs, of which round(4 * 16 / 16) = 4 must pass."""
    three, four = [7.0] * 3 + [0.0] * 12, [7.0] * 4 + [0.0] * 11
    assert motion.dynamic_degree(fields(three), video(16), 8) == 0.0
    assert motion.dynamic_degree(fields(four), video(16), 8) == 1.0


def test_six_pixels_themselves_do_not_pass():
    assert motion.dynamic_degree(fields([5.99] * 15), video(16), 8) == 0.0
    assert motion.dynamic_degree(fields([6.01] * 15), video(16), 8) == 1.0


def test_only_the_twentieth_that_moves_most_is_asked():
    """If half of that twentieth stands still, its mean is half."""
    assert motion.dynamic_degree(fields([11.0] * 15, top=0.025), video(16), 8) == 0.0
    assert motion.dynamic_degree(fields([13.0] * 15, top=0.025), video(16), 8) == 1.0


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 10), st.floats(2, 8))
def test_the_decision_is_vbenchs_on_any_flow(seed, frames, speed):
    """Said again in its own words: threshold 6 s / 256, the mean of the largest 5 %, round(4 n / 16) pairs of n frames."""
    fields = np.random.default_rng(seed).gamma(speed / 4, 1, (frames - 1, 256, 256, 2)).astype(np.float32)
    fields[::2] *= 0.5
    lengths = [np.sort(np.sqrt((field**2).sum(-1)), None)[::-1] for field in fields]
    moving = sum(float(np.mean(length[: int(256 * 256 * 0.05)])) > 6.0 * 256 / 256.0 for length in lengths)
    needed = max(1, round(4 * (frames / 16.0)))
    assert motion.dynamic_degree(lambda _: fields, video(frames), 8) == float(moving >= needed)


def test_frames_are_thinned_to_about_eight_a_second():
    """VBench takes every max(1, round(fps / 8))-th: at 24 fps every third, at 15 fps every second, at 8 and 6 all."""
    for fps, sampled in ((24, 16), (15, 24), (8, 48), (6, 48)):
        seen = []

        def flow(frames, seen=seen):
            seen.append(len(frames))
            return np.zeros((len(frames) - 1, *frames.shape[1:3], 2), np.float32)

        motion.dynamic_degree(flow, video(48, 32, 32), fps)
        assert seen == [sampled]


def test_the_threshold_grows_with_the_picture():
    """Twice as large a picture must move by 12 px; it is looked at at half the size, where the same motion is 6."""

    def seen(frames):
        assert frames.shape[1:3] == (256, 256)
        return fields([6.1] * (len(frames) - 1))(frames)

    assert motion.dynamic_degree(seen, video(16, 512, 512), 8) == 1.0


def blend(a, b):
    return ((a.astype(np.uint16) + b) // 2).astype(np.uint8)


def test_a_linear_cross_fade_is_perfectly_smooth_to_an_exact_interpolator():
    fade = np.stack([np.full((8, 8, 3), 2 * n, np.uint8) for n in range(21)])
    assert motion.smoothness(fade, blend) == 1.0
    assert motion.smoothness(fade[:20], blend) == 1.0  # the last of an even number is not looked at


def test_a_frame_that_does_not_follow_costs_its_difference():
    fade = np.stack([np.full((8, 8, 3), 2 * n, np.uint8) for n in range(9)])
    fade[3] += 51  # one of the four frames that are looked at is off by a fifth of the range
    assert motion.smoothness(fade, blend) == pytest.approx(1 - 0.2 / 4)
    fade[4] += 40  # a neighbour of two of them: each interpolation is off by 20
    assert motion.smoothness(fade, blend) == pytest.approx(1 - ((51 - 20) + 20) / 255 / 4)


def test_two_frames_say_nothing_about_smoothness():
    assert motion.smoothness(video(2), blend) is None


def test_the_leaderboards_scale_is_bounded():
    assert motion.normalised_smoothness(0.706) == 0.0
    assert motion.normalised_smoothness(0.9975) == pytest.approx(1.0)
    assert motion.normalised_smoothness(0.5) == 0.0
    assert motion.normalised_smoothness(0.96575) == pytest.approx(0.891, abs=1e-3)


def shifted(step, frames=7):
    """A texture that moves to the right by `step` pixels a frame; the flow of two frames is known where it is not new."""
    wide = np.random.default_rng(3).integers(0, 256, (16, 34, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    return np.stack([wide[:, 60 - step * n : 124 - step * n] for n in range(frames)])


def test_an_interpolation_by_the_true_flow_beats_a_cross_fade():
    moving = shifted(4)

    def flow(frames):
        forward = np.abs(frames[0, :, :-8].astype(int) - frames[1, :, 8:]).max() == 0
        return np.full((1, *frames.shape[1:3], 2), (8 if forward else -8, 0), np.float32)

    by_flow, by_blend = motion.smoothness(moving, interpolate.by_flow(flow)), motion.smoothness(moving, blend)
    assert by_flow > 0.96
    assert by_blend < 0.9
