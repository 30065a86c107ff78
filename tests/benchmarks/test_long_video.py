"""What the benchmark of joins measures, on videos whose joins are known; and that windows with a history join."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from benchmarks import long_video  # noqa: E402


def test_the_bar_itself_never_leaves_its_motion():
    assert np.allclose(long_video.places_px(long_video.pattern(5, 40)), (5 + 2 * np.arange(40)) % 64, atol=0.05)
    found = long_video.measured(long_video.pattern(5, 61), [21, 41])
    assert max(found.off_joins_px, found.off_inside_px) < 0.05
    assert found.ratio() == pytest.approx(1, rel=0.05)


def test_a_video_that_jumps_at_a_join_is_seen_there_and_only_there():
    parts = [long_video.pattern(start, 21) for start in (0, 20, 2)]
    found = long_video.measured(np.concatenate(parts), [21, 42])
    assert found.off_joins_px > 10
    assert found.off_inside_px < 0.05
    assert found.ratio() > 2


def test_joins_lie_where_windows_begin():
    # 21 frames of the first window behind the reference's 4, then 4 frames of latents a window: 7 less 1 and 2 that are known
    assert long_video.joins() == [21, 37, 53, 69, 85]


def test_it_trains_on_noise_that_never_falls_along_time_behind_what_is_known():
    torch.manual_seed(0)
    for _ in range(20):
        level, known = long_video.levels()
        assert (level.diff(dim=1) >= -1e-6)[~known[:, :-1]].all()
        assert (level[known] <= 0.05).all()
        assert (level >= 0).all()
        assert (level <= 1).all()
        assert not known[:, -1].all()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a minute and a half of one core
def test_windows_with_a_history_join_and_windows_without_do_not(tmp_path):
    pytest.importorskip("diffusers")
    pipe = long_video.overfitted(tmp_path, steps=800)
    at = long_video.joins()
    joined = long_video.measured(long_video.sampled(pipe, 0), at)
    alone = long_video.measured(long_video.independent(pipe, 0), at)
    assert joined.off_joins_px < 2
    assert joined.ratio() < 1.5
    # after 800 steps its windows are not yet steady inside either, so that their ratio of changes depends on the processor
    assert alone.off_joins_px > 5 * joined.off_joins_px
    assert alone.ratio() > joined.ratio()
