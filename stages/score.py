"""Scores of a clip, without thresholds: motion, stillness, sharpness, luma, letterbox bars, text, quality."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np

from a2data import records
from a2data.codec_motion import codec_motion
from a2data.records import Clip, ClipVideo
from a2data.stage import Stage
from model_zoo import cards
from model_zoo.flow.motion import measure
from model_zoo.quality.overlays import burnt_in

TextModel = Callable[[np.ndarray], np.ndarray]
QualityModel = Callable[[np.ndarray, float], dict[str, float]]

HELD_S = 0.5  # time for which text laid over a picture stays as it is; subtitles stay for a second or more


class Models(NamedTuple):
    """The result of `load`: the text detector, or None, and the quality models by card name."""

    text: TextModel | None
    quality: dict[str, QualityModel]


@dataclass(frozen=True)
class Score(Stage):
    """Clips -> one row per clip and metric. Only text, quality and flow need networks; segment measured the rest.

    In addition to `measured`: text and burnt_text, the fractions of the picture under text and under text laid over it, such as
    subtitles (role text); the metrics of the quality models, in the
    catalogue aesthetic (about 1 to 10, laion-aesthetic), nsfw (0 to 1, falconsai-nsfw), flow, flow_top5 and flow_dynamic
    (raft-small, see model_zoo/flow/motion.py); and codec_motion, codec_motion_least (see a2data/codec_motion.py).
    """

    reads = {"segment": ClipVideo}
    writes = records.Score
    row_noun = "scores"
    accounts_for = "clip_id"
    version = 2

    text_model: str = "rapidocr"
    """card of the text detector; "" = text is not measured"""
    text_frames: int = 2
    """frames of each clip searched for text"""
    freeze_threshold: float = 0.001
    """mean absolute difference below which a frame equals the one before it, 0 to 1"""
    quality_models: str = ""
    """cards of role quality or flow, comma-separated"""
    quality_frames: int = 3
    """frames of each clip per quality model; optical flow is measured on all frames"""
    codec_motion: bool = False
    """measure the motion vectors of the encoded clip: a second decode, without pictures"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return max(map(cards.gpus, self._names()), default=0)

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in self._names()}

    def load(self) -> Models:
        device = cards.device()
        text_model = cards.load(self.text_model, device) if self.text_model else None
        return Models(text_model, {name: _quality(name, device) for name in split(self.quality_models)})

    def run(self, models: Models, films: list[ClipVideo]) -> Iterator[Any]:
        for film in films:
            scores = measured(film, self.freeze_threshold)
            if models.text is not None:
                scores |= text(models.text, film.frames, self.text_frames, round(HELD_S * film.fps))
            if self.codec_motion:
                scores |= codec_motion(film.video)
            for name, model in models.quality.items():
                quality_scores = quality(
                    model, film, 0 if cards.base_card(name).role == "flow" else self.quality_frames
                )
                if duplicates := sorted(scores.keys() & quality_scores.keys()):
                    raise ValueError(
                        f"{name} measures {', '.join(duplicates)}, which another model or setting measures: remove one of the two"
                    )
                scores |= quality_scores
            for metric in sorted(scores):
                yield records.Score(film.clip_id, metric, scores[metric])

    def _names(self) -> list[str]:
        """Return the cards that `load` loads. Raises ValueError for a quality model whose card has another role."""
        names = split(self.quality_models)
        for name in names:
            if (role := cards.base_card(name).role) not in ("quality", "flow"):
                raise ValueError(f"score.quality_models: {name} has role {role}, expected role quality or flow")
        return [self.text_model, *names] if self.text_model else names


def _quality(name: str, device: str) -> QualityModel:
    model = cards.load(name, device)
    return partial(measure, model) if cards.base_card(name).role == "flow" else model


def split(names: str) -> list[str]:
    """Split a comma-separated list of names: "a, b" -> ["a", "b"]."""
    return [name.strip() for name in names.split(",") if name.strip()]


def measured(clip: Clip, freeze_threshold: float) -> dict[str, float]:
    """Return the scores that follow from segment's measurements of each frame.

    motion: mean difference from frame to frame, 0 to 1. static: fraction of steps that differ by less than `freeze_threshold`.
    sharpness: median variance of the Laplacian. luma: mean, 0 to 1. luma_range: brightest minus darkest frame, 0 to 1; large for
    flashes and fades. bars: fraction of the source picture under letterbox bars. A clip of one frame is wholly static.
    """
    steps = np.asarray(clip.motion[1:], np.float64)
    luma = np.asarray(clip.luma, np.float64)
    return {
        "motion": float(steps.mean()) if steps.size else 0.0,
        "static": float((steps < freeze_threshold).mean()) if steps.size else 1.0,
        "sharpness": float(np.median(clip.sharpness)),
        "luma": float(luma.mean()),
        "luma_range": float(np.ptp(luma)),
        "bars": float(clip.bars),
    }


def text(model: TextModel, frames: np.ndarray, count: int, still_frames: int) -> dict[str, float]:
    """Return the largest fraction of the picture under text, and under text laid over it, in `count` frames spread over a clip.

    frames: (t, h, w, 3) uint8; still_frames: frames for which text that is laid over the picture stays as it is. The maximum, not
    the mean: a subtitle shown for half of the clip spoils all of it.
    """
    fractions = {"text": 0.0, "burnt_text": 0.0}
    for i in evenly_spaced(len(frames), count):
        mask = model(frames[i])
        grey, *others = (
            cv2.cvtColor(frames[k], cv2.COLOR_RGB2GRAY)
            for k in (i, i - still_frames, i + still_frames)
            if 0 <= k < len(frames)
        )
        burnt_mask = burnt_in(mask, grey, others)
        fractions = {
            "text": max(fractions["text"], float(mask.mean())),
            "burnt_text": max(fractions["burnt_text"], float(burnt_mask.mean())),
        }
    return fractions


def quality(model: QualityModel, film: ClipVideo, count: int) -> dict[str, float]:
    """Return a quality model's metrics over `count` frames spread over a clip, or over all frames if 0."""
    frames = film.frames
    if not count:
        return model(frames, film.fps)
    sampled = frames[evenly_spaced(len(frames), count)]
    return model(sampled, film.fps * len(sampled) / len(frames))


def evenly_spaced(length: int, count: int) -> list[int]:
    """Return the middles of `count` equal parts of `length` frames, each frame once."""
    middles = (np.arange(count) + 0.5) * length / count
    return sorted(set(middles.astype(int).tolist()))
