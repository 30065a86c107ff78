"""Clips cut again from a film whose frames say their numbers."""

import numbered_film as film
import pytest

from a2data.media import video
from pipelines.export import cut
from pipelines.export.clock import CLOCKS


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return film.write(tmp_path_factory.mktemp("film") / "film.mp4")


def plan(path, first, clock="h3", frames=81, margin=2):
    return cut.plan_from_source(film.clip(path, 0, first, frames).facts, CLOCKS[clock], margin)


def numbers(mp4):
    return [film.number_of(picture) for picture in video.decode(mp4)]


@pytest.mark.parametrize(("clock", "written"), [("h3", 126), ("wan", 83)])
def test_every_tick_shows_the_source_frame_that_is_due(path, clock, written):
    ((_, mp4),) = cut.cut_from_source(str(path), None, [plan(path, 10, clock)], 12)
    fps = CLOCKS[clock].fps
    # the film has 30 frames a second: tick k of the target is at source frame 10 + 30 k / fps, rounded down
    assert numbers(mp4) == [10 + int(k * 30 // fps) for k in range(written)]
    with video.open_bytes(mp4) as container:
        assert container.streams.video[0].average_rate == fps
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 64)


def test_the_clips_of_a_source_are_cut_in_one_pass_even_if_they_overlap(path):
    made = cut.cut_from_source(str(path), None, [plan(path, 20, "ltx", 21), plan(path, 0, "ltx", 21)], 12)
    starts = {each.first: numbers(mp4)[0] for each, mp4 in made}
    assert starts == {0: 0, 20: 20}


def test_a_margin_is_as_long_as_the_clip_allows(path):
    # 80 / 15 s are 129 ticks at 24 fps: 124 and 2 more; 129 = 8 x 16 + 1 leaves none for LTX
    assert (plan(path, 0).count, plan(path, 0).frames) == (124, 126)
    assert (plan(path, 0, "ltx").count, plan(path, 0, "ltx").frames) == (129, 129)


def test_another_film_at_the_same_path_is_told_from_its_times(path, tmp_path):
    other = film.write(tmp_path / "film.mp4", fps=25)
    with pytest.raises(ValueError, match=r"film\.mp4 has frame 10 at 0\.400 s, the sample .* at 0\.333 s"):
        list(cut.cut_from_source(str(other), None, [plan(path, 10)], 12))


def test_a_source_that_ends_too_early_is_named(path, tmp_path):
    short = film.write(tmp_path / "short.mp4", frames=100)
    with pytest.raises(ValueError, match=r"short\.mp4 ends before frame 170"):
        list(cut.cut_from_source(str(short), None, [plan(path, 10)], 12))


def test_a_clip_from_the_shard_repeats_its_frames(path):
    triplet = film.clip(path, 0, 10)
    wanted = cut.plan_from_shard(triplet.facts, CLOCKS["h3"], 2)
    # the clip has 15 frames a second, and shows every other frame of the film
    assert numbers(cut.cut_from_shard(triplet.video, wanted, 12)) == [10 + 2 * int(k * 15 // 24) for k in range(126)]
