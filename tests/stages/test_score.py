from dataclasses import replace

import cv2
import numpy as np
import pytest

from a2data.media import video
from a2data.records import ClipVideo
from model_zoo import cards
from stages.score import Models, Score, measured, text

FRAMES = np.stack([np.full((32, 48, 3), level, np.uint8) for level in (10, 50, 90, 130, 170)])
FILM = ClipVideo(
    clip_id="v-00000000",
    video_id="v",
    shot=0,
    shot_start=0,
    shot_end=5,
    transition_in="start",
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
    thumbnails=b"",
    video=video.encode(FRAMES, 15.0),
)


def bright_rows(frame: np.ndarray) -> np.ndarray:
    """A detector that takes as many rows for text as the first pixel is bright, of 255."""
    return np.arange(len(frame))[:, None] + np.zeros(frame.shape[:2]) < frame[0, 0, 0] / 255 * len(frame)


def test_scores_follow_from_what_was_measured_of_each_frame():
    assert measured(FILM, freeze_threshold=0.001) == pytest.approx(
        {"motion": 0.01, "static": 0.5, "sharpness": 25.0, "luma": 0.4, "luma_range": 0.4, "bars": 0.25}
    )


def test_a_clip_of_one_frame_is_static():
    one = replace(FILM, motion=[0.0], luma=[0.5], sharpness=[3.0])
    assert measured(one, freeze_threshold=0.001)["static"] == 1.0
    assert measured(one, freeze_threshold=0.001)["motion"] == 0.0


def test_the_text_score_is_the_worst_of_frames_spread_over_the_clip():
    seen = []
    assert text(lambda frame: seen.append(int(frame[0, 0, 0])) or bright_rows(frame), FRAMES, 2, 1)["text"] == 17 / 32
    assert seen == [50, 130]


def test_asking_for_more_frames_than_there_are_looks_at_each_once():
    seen = []
    text(lambda frame: seen.append(int(frame[0, 0, 0])) or bright_rows(frame), FRAMES, 50, 1)
    assert seen == [10, 50, 90, 130, 170]


def typed(shift: int, y: int, still: bool) -> np.ndarray:
    """A frame of a noisy scene, moved by `shift` pixels, with type at a height that stays or moves with the scene."""
    scene = np.random.default_rng(0).integers(0, 120, (180, 320), np.uint8)
    frame = np.repeat(np.roll(scene, shift, axis=1)[..., None], 3, axis=2)
    return cv2.putText(frame, "TYPE", (90 + (0 if still else shift), y), cv2.FONT_HERSHEY_DUPLEX, 1.2, (255,) * 3, 2)


def burnt(shifts: list[int], y: int, still: bool) -> float:
    def lettering(frame: np.ndarray) -> np.ndarray:
        return cv2.dilate((frame[..., 0] > 200).astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)

    return text(lettering, np.stack([typed(shift, y, still) for shift in shifts]), 1, 1)["burnt_text"]


def test_type_that_stays_while_the_scene_moves_is_laid_over_the_picture():
    assert burnt([0, 5, 10], 90, still=True) > 0.01
    assert burnt([0, 5, 10], 90, still=False) == 0


def test_in_a_still_scene_only_type_at_the_edge_is_taken_for_a_subtitle():
    assert burnt([0, 0, 0], 90, still=True) == 0
    assert burnt([0, 0, 0], 165, still=True) > 0.01


def test_a_subtitle_that_ends_within_the_clip_is_found():
    frames = np.stack([typed(0, 165, True), typed(5, 165, True), typed(10, 300, True)])
    assert text(lambda frame: frame[..., 0] > 200, frames, 1, 1)["burnt_text"] > 0.005


def test_a_row_for_each_metric_and_text_only_with_a_model():
    rows = list(Score().run(Models(bright_rows, {}), [FILM]))
    assert [r.metric for r in rows] == [
        "bars",
        "burnt_text",
        "luma",
        "luma_range",
        "motion",
        "sharpness",
        "static",
        "text",
    ]
    assert rows[-1].value == pytest.approx(130 / 255, abs=0.04)
    assert "text" not in [r.metric for r in Score(text_model="").run(Models(None, {}), [FILM])]


def test_the_table_is_called_score_and_an_unused_model_is_not_loaded():
    assert Score.name() == "score"
    assert Score(text_model="").models() == {}
    assert Score(text_model="").load() == Models(None, {})
    assert list(Score().models()) == ["rapidocr"]


def seen_by(name: str, **settings) -> list:
    """What a model called by that name is given of the film, and what its stage then writes."""
    seen = []

    def model(frames, fps):
        seen.append((frames[:, 0, 0, 0].round(-1).tolist(), fps))
        return {"looks": 7.0}

    stage = Score(text_model="", quality_models=name, **settings)
    rows = list(stage.run(Models(None, {name: model}), [FILM]))
    assert [r.value for r in rows if r.metric == "looks"] == [7.0]
    return seen


def test_a_model_of_looks_sees_a_few_frames_and_one_of_flow_sees_them_all():
    assert seen_by("laion-aesthetic", quality_frames=2) == [([50, 130], 6.0)]
    assert seen_by("raft-small", quality_frames=2) == [([10, 50, 90, 130, 170], 15.0)]


def test_two_models_that_measure_the_same_are_refused():
    both = Models(
        None, {"laion-aesthetic": lambda *_: {"aesthetic": 5.0}, "laion-aesthetic-v1": lambda *_: {"aesthetic": 6.0}}
    )
    with pytest.raises(ValueError, match="laion-aesthetic-v1 measures aesthetic, which"):
        list(Score().run(both, [FILM]))


def test_motion_vectors_are_measured_when_asked_for():
    rows = {r.metric: r.value for r in Score(text_model="", codec_motion=True).run(Models(None, {}), [FILM])}
    assert rows["codec_motion"] >= rows["codec_motion_least"] >= 0
    assert "codec_motion" not in {r.metric for r in Score(text_model="").run(Models(None, {}), [FILM])}


def test_the_stage_asks_for_the_largest_share_of_a_gpu_among_its_models():
    assert Score().gpus == 0
    assert Score(text_model="").gpus == 0
    assert Score(quality_models="laion-aesthetic, falconsai-nsfw").gpus == cards.gpus("falconsai-nsfw") == 0.25


def test_a_model_of_another_role_is_not_a_quality_model():
    with pytest.raises(ValueError, match="yolo has role detect"):
        Score(quality_models="yolo").models()


def test_a_quality_model_that_there_is_not_is_an_error_with_the_known_names():
    with pytest.raises(KeyError, match="raft-small"):
        Score(quality_models="raft-tiny").models()


def test_flow_is_loaded_named_by_its_weights_and_measured(corpus):
    pytest.importorskip("torch")
    name = f"raft-small:{corpus / 'weights' / 'raft-small.pth'}"
    stage = Score(text_model="", quality_models=name)
    assert stage.models() == {name: cards.revision(name)}
    still = replace(FILM, video=video.encode(np.stack([FRAMES[0, :, :32]] * 2), 15.0))
    rows = {r.metric: r.value for r in stage.run(stage.load(), [still])}
    assert rows["flow_dynamic"] == 0
    assert rows["flow"] < 0.05
