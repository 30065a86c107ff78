from dataclasses import replace

import numpy as np
import pytest

from a2data import video
from a2data.records import Film
from stages.score import Score, measured, text

FRAMES = np.stack([np.full((32, 48, 3), level, np.uint8) for level in (10, 50, 90, 130, 170)])
FILM = Film(
    clip_id="v-00000000",
    video_id="v",
    shot=0,
    shot_start=0,
    shot_end=5,
    begins_with="start",
    fps=15.0,
    width=48,
    height=32,
    source_frames=list(range(5)),
    source_pts_s=[i / 15 for i in range(5)],
    crop=(0.0, 0.0, 48.0, 32.0),
    bars=0.25,
    luma=[0.2, 0.4, 0.6, 0.4, 0.4],
    sharpness=[10.0, 30.0, 20.0, 1000.0, 25.0],
    motion=[0.0, 0.0, 0.0004, 0.02, 0.0196],
    thumbs=b"",
    video=video.encode(FRAMES, 15.0),
)


def brightness(frame: np.ndarray) -> float:
    return float(frame.mean()) / 255


def test_scores_follow_from_what_was_measured_of_each_frame():
    assert measured(FILM, still=0.001) == pytest.approx(
        {"motion": 0.01, "static": 0.5, "sharpness": 25.0, "luma": 0.4, "luma_range": 0.4, "bars": 0.25}
    )


def test_a_clip_of_one_frame_is_static():
    one = replace(FILM, motion=[0.0], luma=[0.5], sharpness=[3.0])
    assert measured(one, still=0.001)["static"] == 1.0
    assert measured(one, still=0.001)["motion"] == 0.0


def test_the_text_score_is_the_worst_of_frames_spread_over_the_clip():
    seen = []
    assert text(lambda frame: float(seen.append(int(frame[0, 0, 0])) or frame[0, 0, 0]), FRAMES, 2) == 130
    assert seen == [50, 130]


def test_asking_for_more_frames_than_there_are_looks_at_each_once():
    seen = []
    text(lambda frame: float(seen.append(int(frame[0, 0, 0])) or 0), FRAMES, 50)
    assert seen == [10, 50, 90, 130, 170]


def test_a_row_for_each_metric_and_text_only_with_a_model():
    rows = list(Score().run(brightness, [FILM]))
    assert [r.metric for r in rows] == ["bars", "luma", "luma_range", "motion", "sharpness", "static", "text"]
    assert rows[-1].value == pytest.approx(130 / 255, abs=0.02)
    assert "text" not in [r.metric for r in Score(text_model="").run(None, [FILM])]


def test_the_table_is_called_score_and_an_unused_model_is_not_loaded():
    assert Score.name() == "score"
    assert Score(text_model="").models() == {}
    assert Score(text_model="").load() is None
    assert list(Score().models()) == ["rapidocr"]
