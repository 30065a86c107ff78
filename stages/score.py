"""Scores of a clip that no threshold has judged yet: motion, stillness, sharpness, light, letterbox bars, text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from a2data import records
from a2data.records import Clip, Film
from a2data.stage import Stage
from model_zoo import cards

TextModel = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Score(Stage):
    """Films -> one row per clip and metric. Only the text score looks at pixels; segment measured the rest."""

    reads = {"segment": Film}
    writes = records.Score

    text_model: str = "rapidocr"  # card of the text detector; "" leaves text unmeasured
    text_frames: int = 2  # frames of each clip that are searched for text
    still: float = 0.001  # a frame that differs from the one before by less (mean absolute, 0 to 1) counts as static

    def models(self) -> dict[str, str]:
        return {self.text_model: cards.revision(self.text_model)} if self.text_model else {}

    def load(self) -> TextModel | None:
        return cards.load(self.text_model) if self.text_model else None

    def run(self, model: TextModel | None, films: list[Film]) -> Iterator[Any]:
        for film in films:
            scores = measured(film, self.still)
            if model is not None:
                scores["text"] = text(model, film.frames, self.text_frames)
            for metric in sorted(scores):
                yield records.Score(film.clip_id, metric, scores[metric])


def measured(clip: Clip, still: float) -> dict[str, float]:
    """The scores that follow from what segment measured of each frame.

    motion: mean difference from frame to frame, 0 to 1. static: share of the steps that differ by less than `still`, 0 to 1.
    sharpness: median variance of the Laplacian. luma: mean, 0 to 1. luma_range: brightest less darkest frame, 0 to 1; large
    for flashes and fades. bars: share of the source picture under letterbox bars. A clip of one frame is wholly static.
    """
    steps = np.asarray(clip.motion[1:], np.float64)
    luma = np.asarray(clip.luma, np.float64)
    return {
        "motion": float(steps.mean()) if steps.size else 0.0,
        "static": float((steps < still).mean()) if steps.size else 1.0,
        "sharpness": float(np.median(clip.sharpness)),
        "luma": float(luma.mean()),
        "luma_range": float(np.ptp(luma)),
        "bars": float(clip.bars),
    }


def text(model: TextModel, frames: np.ndarray, count: int) -> float:
    """The largest share of the picture under text in `count` frames spread over (t, h, w, 3) uint8 frames, 0 to 1.

    The largest, not the mean: a subtitle that is there for half of the clip spoils all of it.
    """
    middles = (np.arange(count) + 0.5) * len(frames) / count
    return max(model(frames[i]) for i in sorted(set(middles.astype(int).tolist())))
