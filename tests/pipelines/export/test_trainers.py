"""What the trainers' own arithmetic says of a file, on examples worked by hand; the code is cited in each module."""

import pytest

from pipelines.export import ai_toolkit, h3, ltx, wan
from pipelines.export.probe import Media


def media(frames, fps=24.0, width=96, height=64):
    return Media(frames, fps, width, height, 0, 0)


@pytest.mark.parametrize(
    ("frames", "fps", "taken"),
    [
        (126, 24.0, 124),  # num_frames = 124
        (123, 24.0, 107),  # 17 x 6 + 5
        (81, 15.0, 124),  # 5.4 s are 129 frames at 24 fps
        (60, 15.0, 90),  # 4 s are 96: 17 x 5 + 5
    ],
)
def test_diffsynth_takes_the_frames_within_the_duration(frames, fps, taken):
    assert h3.diffsynth_frames(media(frames, fps), 124) == taken


@pytest.mark.parametrize(("frames", "fps", "taken"), [(126, 24.0, 126), (81, 15.0, 129), (150, 30.0, 120)])
def test_musubi_resamples_by_time(frames, fps, taken):
    assert h3.musubi_frames(media(frames, fps)) == taken


@pytest.mark.parametrize(
    ("frames", "taken"),
    [
        (125, 124),
        (141, 141),
        (140, 124),
        (4, 0),
    ],
)
def test_ai_toolkit_snaps_down_to_17n_plus_5(frames, taken):
    assert ai_toolkit.frames(media(frames)) == taken


def test_a_margin_of_frames_outlasts_the_rounding_of_a_duration():
    # int(n / 24 * 24) is n - 1 for some n, for which a clip of exactly 17n+5 frames would lose 17
    assert all(ai_toolkit.frames(media(count + 2)) == count for count in h3.RELEASED_FRAME_COUNTS)


@pytest.mark.parametrize(("frames", "stride", "taken"), [(83, 1, 81), (47, 1, 45), (83, 2, 41), (1, 2, 0)])
def test_videox_fun_takes_every_strideth_frame_and_cuts_to_4n_plus_1(frames, stride, taken):
    assert wan.videox_frames(media(frames, 16.0), stride=stride) == taken


@pytest.mark.parametrize(("frames", "taken"), [(83, 81), (81, 81), (80, 77), (47, 45)])
def test_refalign_reads_81_frames_or_4n_plus_1(frames, taken):
    assert wan.refalign_frames(media(frames, 16.0)) == taken


def test_ltx_chooses_the_nearest_aspect_then_the_most_frames_then_the_largest():
    buckets = [(49, 64, 96), (121, 64, 96), (121, 96, 64), (121, 128, 192)]
    assert ltx.nearest_bucket(buckets, (123, 64, 96)) == (121, 128, 192)
    assert ltx.nearest_bucket(buckets, (100, 64, 96)) == (49, 64, 96)
    assert ltx.nearest_bucket(buckets, (123, 96, 64)) == (121, 96, 64)


def test_ltx_skips_a_video_shorter_than_every_bucket():
    with pytest.raises(ValueError, match="48 frames are fewer than in every bucket"):
        ltx.nearest_bucket([(49, 64, 96)], (48, 64, 96))
