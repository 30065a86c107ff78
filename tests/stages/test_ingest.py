import numpy as np
import pytest

from a2data.media import video
from a2data.records import Reject, Source, Video
from stages.ingest import Ingest


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(video.encode(np.zeros((45, 240, 320, 3), np.uint8), 15))
    return Source("0123456789abcdef", str(path), "CC0", "attic", "cats", path.stat().st_size, "")


def run(stage: Ingest, *sources: Source):
    return list(stage.run(None, list(sources)))


def test_a_video_is_described_by_its_container_and_its_first_frame(source):
    assert run(Ingest()) == []
    [found] = run(Ingest(), source)
    assert found == Video(
        "0123456789abcdef", source.path, "CC0", "attic", "cats", 320, 240, 0, 15.0, pytest.approx(3), "h264", 0
    )


@pytest.mark.parametrize(
    ("settings", "reason", "detail"),
    [
        ({"min_short_side_px": 241}, "too small", "320 x 240: the short side is under 241 px"),
        ({"min_duration_s": 3.5}, "too short", "3 s is under 3.5 s"),
        ({"max_duration_s": 2.5}, "too long", "3 s is over 2.5 s"),
        ({"min_fps": 16}, "too few fps", "15 fps is under 16"),
        ({"labels": "dogs, mice"}, "label", "label 'cats' is not one of dogs, mice"),
        ({"sources": "cellar"}, "source", "source 'attic' is not one of cellar"),
        ({"licenses": "MIT"}, "license", "license 'CC0' is not one of MIT"),
    ],
)
def test_each_rule_names_itself(source, settings, reason, detail):
    assert run(Ingest(**settings), source) == [Reject(source.video_id, reason, detail)]


@pytest.mark.parametrize(
    "settings",
    [
        {"min_short_side_px": 240},
        {"min_duration_s": 3},
        {"max_duration_s": 3},
        {"min_fps": 15},
        {"labels": "dogs, cats"},
    ],
)
def test_a_value_on_the_threshold_passes(source, settings):
    assert isinstance(run(Ingest(**settings), source)[0], Video)


def test_a_copy_is_rejected_without_being_opened():
    copy = Source("x-dup-1", "/nowhere.mp4", "", "", "", 0, "/first.mp4")
    assert run(Ingest(), copy) == [Reject("x-dup-1", "duplicate", "same bytes as /first.mp4")]


def test_a_file_that_has_changed_since_it_was_listed_is_not_taken_for_the_old_one(source):
    with open(source.path, "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="has changed since it was listed"):
        run(Ingest(), source)
