"""Scores of a clip that no threshold has judged yet: motion, stillness, sharpness, light, letterbox bars, text, looks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from a2data import records
from a2data.codec_motion import codec_motion
from a2data.records import Clip, ClipVideo
from a2data.stage import Stage
from model_zoo import cards

TextModel = Callable[[np.ndarray], float]
QualityModel = Callable[[np.ndarray, float], dict[str, float]]


class Models(NamedTuple):
    """What `load` brings: the text detector, None for none, and the quality models by the names of their cards."""

    text: TextModel | None
    quality: dict[str, QualityModel]


@dataclass(frozen=True)
class Score(Stage):
    """Films -> one row per clip and metric. Only text, looks and flow are seen by networks; segment measured the rest.

    Beside `measured`: text, the share of the picture under text (role text); what each of the quality models says, for those in
    the catalogue aesthetic (about 1 to 10, laion-aesthetic), nsfw (0 to 1, falconsai-nsfw), flow, flow_top5 and flow_dynamic
    (raft-small, see model_zoo/flow/raft.py); and codec_motion, codec_motion_least (see a2data/codec_motion.py).
    """

    reads = {"segment": ClipVideo}
    writes = records.Score
    accounts_for = "clip_id"

    text_model: str = "rapidocr"  # card of the text detector; "" leaves text unmeasured
    text_frames: int = 2  # frames of each clip that are searched for text
    freeze_threshold: float = (
        0.001  # a frame that differs from the one before by less (mean absolute, 0 to 1) counts as static
    )
    quality_models: str = ""  # cards of role quality, with commas between them
    quality_frames: int = 3  # frames of each clip that they look at, those that do not need the whole of it
    codec_motion: bool = False  # measure the motion vectors of the encoded clip: a second decode, without pictures

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return max(map(cards.gpus, self._names()), default=0)

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in self._names()}

    def load(self) -> Models:
        device = cards.device()
        text_model = cards.load(self.text_model, device) if self.text_model else None
        return Models(text_model, {name: cards.load(name, device) for name in split(self.quality_models)})

    def run(self, models: Models, films: list[ClipVideo]) -> Iterator[Any]:
        for film in films:
            scores = measured(film, self.freeze_threshold)
            if models.text is not None:
                scores["text"] = text(models.text, film.frames, self.text_frames)
            if self.codec_motion:
                scores |= codec_motion(film.video)
            for name, model in models.quality.items():
                found = quality(model, film, 0 if cards.base_card(name).needs_all_frames else self.quality_frames)
                if twice := sorted(scores.keys() & found.keys()):
                    raise ValueError(
                        f"{name} measures {', '.join(twice)}, which is measured already: take one of the two"
                    )
                scores |= found
            for metric in sorted(scores):
                yield records.Score(film.clip_id, metric, scores[metric])

    def _names(self) -> list[str]:
        """The cards that `load` loads. Raises ValueError for a quality model whose card has another role."""
        names = split(self.quality_models)
        for name in names:
            if (role := cards.base_card(name).role) != "quality":
                raise ValueError(f"score.quality_models: {name} is a model of role {role}, not of role quality")
        return [self.text_model, *names] if self.text_model else names


def split(names: str) -> list[str]:
    """The names in a list with commas: "a, b" -> ["a", "b"]."""
    return [name.strip() for name in names.split(",") if name.strip()]


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
    return max(model(frames[i]) for i in spread(len(frames), count))


def quality(model: QualityModel, film: ClipVideo, count: int) -> dict[str, float]:
    """What a quality model says of `count` frames spread over a film, of all of them for 0."""
    frames = film.frames
    if not count:
        return model(frames, film.fps)
    few = frames[spread(len(frames), count)]
    return model(few, film.fps * len(few) / len(frames))


def spread(length: int, count: int) -> list[int]:
    """The middles of `count` equal parts of `length` frames, each frame once."""
    middles = (np.arange(count) + 0.5) * length / count
    return sorted(set(middles.astype(int).tolist()))
