"""What the benchmark of joins measures, on videos whose joins are known."""

import numpy as np
import pytest

pytest.importorskip("torch")
from benchmarks import long_video


def test_the_square_itself_never_leaves_its_motion():
    found = long_video.jumps(long_video.pattern(5, 61).astype(float), [21, 41])
    assert found.off_inside == found.off_joins == 0
    assert found.inside == pytest.approx(found.joins, rel=0.1)


def test_a_video_that_jumps_at_a_join_is_seen_there_and_only_there():
    parts = [long_video.pattern(start, 21) for start in (0, 20, 2)]
    found = long_video.jumps(np.concatenate(parts).astype(float), [21, 42])
    assert found.joins > 2 * found.inside
    assert found.off_joins > 5
    assert found.off_inside == 0


def test_joins_lie_where_windows_begin():
    # 21 frames of the first window behind the reference's 4, then 4 frames of latents a window: 7 less 1 and 2 that are known
    assert long_video.joins(97) == [21, 37, 53, 69, 85]
