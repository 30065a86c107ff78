import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2data.media import video
from stages.segment import clock

rng = np.random.default_rng(5)

gaps = st.lists(st.floats(0.005, 0.9), min_size=2, max_size=60)


@given(gaps, st.floats(-3, 3), st.sampled_from([8.0, 15.0, 24.0]))
def test_every_tick_shows_the_last_frame_that_is_due(steps, origin, fps):
    times = list(origin + np.cumsum([0.0, *steps]))
    frames = [video.Frame(n, t, None) for n, t in enumerate(times)]
    shown = [s.frame.index for s in clock.resample_to_fps(frames, fps, max_gap_s=1) for _ in range(s.ticks)]
    expected = [
        max(n for n, t in enumerate(times) if t - 0.002 <= times[0] + k / fps + 1e-9) for k in range(len(shown))
    ]
    assert shown == expected
    assert len(shown) >= (times[-1] - times[0]) * fps


def test_a_picture_that_stands_too_long_gets_no_more_ticks_and_ends_the_shot():
    frames = [video.Frame(n, t, None) for n, t in enumerate([0.0, 0.1, 60.0, 60.1])]
    shown = list(clock.resample_to_fps(frames, 10, max_gap_s=1))
    assert [s.ticks for s in shown] == [1, 10, 1, 1]
    assert [s.after_gap for s in shown] == [False, False, True, False]


@given(st.integers(2, 5000), st.integers(2, 5000), st.integers(100, 1080))
def test_a_clip_fits_and_is_even_and_keeps_its_shape(width, height, short):
    new_width, new_height = clock.fit_size(width, height, short)
    assert new_width % 2 == new_height % 2 == 0
    assert min(new_width, new_height) <= max(short + 1, 2)
    scale = min(1, short / min(width, height))
    assert abs(new_width - width * scale) <= 1 + (width < 3)
    assert abs(new_height - height * scale) <= 1 + (height < 3)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_are_turned_clockwise(rotation):
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    frame = np.stack([3 * x + 20, 4 * y + 20, x + 2 * y + 30], -1).astype(np.uint8)
    shrink = clock.Downscaler(*((48, 64) if rotation in (90, 270) else (64, 48)), rotation)
    planes = shrink.planes(av.VideoFrame.from_ndarray(frame, format="rgb24"))
    back = clock.to_frame(planes).to_ndarray(format="rgb24")
    assert np.abs(back.astype(int) - np.rot90(frame, -rotation // 90)).mean() < 4


@pytest.mark.parametrize("tags", [(1, 1), (5, 1), (5, 2)], ids=["bt709", "bt601", "bt601 full range"])
def test_colours_survive_whatever_matrix_the_source_was_coded_with(tags):
    frame = np.full((48, 64, 3), (200, 60, 30), np.uint8)
    coded = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=tags[0], dst_color_range=tags[1]
    )
    planes = clock.Downscaler(32, 24, 0).planes(coded)
    clip = video.decode(video.encode([clock.to_frame(planes)] * 3, 15))
    assert np.abs(clip.astype(int) - (200, 60, 30)).max() <= 6


def luma_with_bars(top: int, bottom: int, left: int = 0, right: int = 0) -> list[np.ndarray]:
    pictures = []
    for _ in range(4):
        luma = np.full((120, 160), 16, np.uint8)
        luma[top : 120 - bottom, left : 160 - right] = rng.integers(30, 230, (120 - top - bottom, 160 - left - right))
        pictures.append(luma)
    return pictures


def test_letterbox_and_pillarbox_bars_are_cut_off():
    assert clock.crop_box(luma_with_bars(14, 14)) == (0, 16, 160, 104)
    assert clock.crop_box(luma_with_bars(0, 0, 21, 20)) == (22, 0, 138, 120)
    assert clock.crop_box(luma_with_bars(10, 10, 10, 10)) == (12, 12, 148, 108)


def test_a_dark_floor_and_a_dark_picture_are_not_bars():
    whole = (0, 0, 160, 120)
    assert clock.crop_box(luma_with_bars(0, 30)) == whole
    assert clock.crop_box(luma_with_bars(50, 50)) == whole
    assert clock.crop_box([np.full((120, 160), 16, np.uint8)]) == whole
    assert clock.crop_box(luma_with_bars(0, 0)) == whole


def test_measurements_of_pictures_that_are_known():
    black, white = np.zeros((20, 30), np.uint8), np.full((20, 30), 255, np.uint8)
    assert (clock.luma(black), clock.luma(white)) == (0, 1)
    assert clock.sharpness(white) == 0
    assert clock.motion(black, white) == 1
    checkers = (np.indices((20, 30)).sum(0) % 2 * 255).astype(np.uint8)
    assert clock.sharpness(checkers) > 100_000


def test_grey_spans_black_to_white():
    flat = np.full((10, 20), 128, np.uint8)
    for y, expected in ((16, 0), (235, 255), (0, 0), (255, 255), (126, 128)):
        planes = clock.Planes(np.full((20, 40), y, np.uint8), flat, flat)
        assert (clock.grey(planes) == expected).all()
