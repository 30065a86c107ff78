"""The rendered moves: do they do what they are called, and does the table count right?"""

import numpy as np
import pytest

from benchmarks import camera as bench

pytest.importorskip("skimage")


@pytest.mark.parametrize(
    ("truth", "axis", "sign"), [("pan_left", 0, -1), ("tilt_up", 1, 1), ("zoom_out", 2, -1), ("roll_cw", 3, 1)]
)
def test_a_path_goes_where_its_name_says_at_its_speed(truth, axis, sign):
    at = bench.path(truth, "medium", 46, np.random.default_rng(0))
    gone = at[-1] - at[0]
    low, high = bench.PER_S[truth.partition("_")[0]]["medium"]
    assert low <= sign * gone[axis] / 3 <= high  # 46 frames are three seconds
    assert np.delete(gone, axis) == pytest.approx([0, 0, 0])


def test_moves_that_follow_one_another_share_the_time():
    at = bench.path("pan_right>pan_left", "medium", 41, np.random.default_rng(0))
    assert at[:, 0].argmax() == 20
    assert (np.diff(at[:20, 0]) > 0).all()
    assert (np.diff(at[21:, 0]) < 0).all()


def test_a_rendered_pan_is_called_a_pan():
    clip = bench.render("pan_left", "medium", "clean", bench.TUNED_ON, np.random.default_rng(3))
    assert clip.frames.shape[1:] == (bench.HEIGHT, bench.WIDTH, 3)
    assert bench.called(clip) == ("pan_left", ["medium"])


def test_the_table_counts_answers_with_several_names():
    lines = bench.table([("a", "a"), ("a", "b"), ("b", "a+b"), ("b", "")], ("a", "b"))
    assert [line.split() for line in lines] == [
        ["a", "b", "else", "none"],
        ["a", "1", "1", ".", "."],
        ["b", ".", ".", "1", "1"],
    ]
