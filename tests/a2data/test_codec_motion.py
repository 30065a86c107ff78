import cv2
import numpy as np

from a2data.codec_motion import codec_motion, lengths, mean_lengths
from a2data.media import video

NAMES = ["w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"]  # of FFmpeg's record, what is read


def texture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def moving(shift_px: int, part: slice = slice(None), count: int = 20) -> bytes:
    """A clip whose columns `part` move sideways by shift_px a frame."""
    still = texture(256, 512)
    frames = np.stack([still] * count)
    for n, frame in enumerate(frames):
        frame[:, part] = np.roll(still[:, part], shift_px * n, axis=1)
    return video.encode(frames, 15.0)


def vectors(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(list(rows), [(name, int) for name in NAMES])


def test_a_clip_that_stands_still_has_no_motion():
    assert codec_motion(moving(0))["codec_motion"] < 1e-6


def test_a_pan_is_found_everywhere_and_a_faster_one_is_more():
    slow, fast = codec_motion(moving(2)), codec_motion(moving(6))
    assert slow["codec_motion"] >= 2 / (256 + 512) * 0.8
    assert fast["codec_motion"] > 1.5 * slow["codec_motion"]
    assert slow["codec_motion_least"] > 0.5 * slow["codec_motion"]


def test_the_least_moving_patch_is_still_where_only_one_half_moves():
    half = codec_motion(moving(4, slice(256, None)))
    assert half["codec_motion_least"] < 0.05 * half["codec_motion"]


def test_light_that_changes_is_less_motion_than_a_pan():
    light = np.stack([(texture(256, 512) * share).astype(np.uint8) for share in np.linspace(0.6, 1, 20)])
    assert codec_motion(video.encode(light, 15.0))["codec_motion"] < 0.5 * codec_motion(moving(2))["codec_motion"]


def test_a_clip_of_one_frame_has_no_motion():
    assert codec_motion(moving(3, count=1)) == {"codec_motion": 0.0, "codec_motion_least": 0.0}


def test_a_block_covers_its_cells_and_two_vectors_of_one_block_are_averaged():
    found = lengths(vectors((16, 8, 16, 4, 12, 16, 4), (16, 8, 16, 4, 4, 0, 4), (8, 8, 4, 20, 0, 8, 4)), (3, 4))
    assert found.tolist() == [[0, 3, 3, 0], [0, 0, 0, 0], [2, 0, 0, 0]]


def test_blocks_that_reach_out_of_the_picture_do_not_wrap_round():
    assert lengths(vectors((16, 16, 0, 0, 4, 0, 4), (16, 16, 32, 24, 4, 0, 4)), (3, 4)).tolist() == [
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]


def test_most_blocks_of_a_pan_have_the_length_of_one_to_three_of_its_steps():
    cells, sides_px = mean_lengths(moving(4))
    assert sides_px == (256, 512)
    assert cells.shape == (32, 64)
    # x264 looks up to three frames ahead and back, and which frame it was is not told
    assert 4 <= np.median(cells) <= 12


def test_a_signing_person_moves_by_more_than_nothing(corpus):
    frames = [f.picture.to_ndarray(format="rgb24") for f in video.read(str(corpus / "video" / "intel_asl_again.mkv"))]
    found = codec_motion(video.encode(np.stack(frames[:40]), 15.0))
    assert 3e-4 < found["codec_motion"] < 3e-3
    assert found["codec_motion_least"] > 1e-6
