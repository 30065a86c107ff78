"""Clips -> elements: the people and things in them, followed through the clip, each with its best cut-out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import model_zoo.cards
from a2data.elements import build
from a2data.records import ClipVideo, Element, Kept, Reject
from a2data.stage import Stage
from model_zoo.detect.mask_trust import mask_trust


class Models(NamedTuple):
    """What `Detect.load` loads, each called as model_zoo.cards says of its role; None for one that is not asked for."""

    detector: Callable
    embedder: Callable
    masks: Callable | None = None
    tracker: Callable | None = None
    judge: build.Judge | None = None  # of the detector's masks


@dataclass(frozen=True)
class Detect(Stage):
    """Finds people and things in every n-th frame of a kept clip, and keeps those that last, with their best picture."""

    reads = {"select": Kept, "segment": ClipVideo}
    writes = Element
    per = "clip"
    version = 6

    model: str = "builtin-detect"  # card of role detect, or yolo:PATH
    embedder: str = "mobilenetv2"  # card of role embed: tells people apart while tracking, and across clips later
    frame_stride: int = 5  # look at each n-th frame, and at the last
    confidence: float = 0.35  # of a detection, 0 to 1
    min_area: float = 0.005  # of the track's median mask, share of the frame
    max_area: float = 0.9  # the same, at most
    min_side_px: int = 40  # of the shorter side of the track's median box
    min_track_coverage: float = (
        0.3  # share of the sampled frames that an element is seen in; and in two, where there are two
    )
    max_elements: int = 6  # per clip, longest times largest first

    mask_model: str = ""  # card of role masks that cuts each best picture again; "" = the detector's own masks
    min_mask_iou: float = 0.6  # of the box of its mask with the detector's, 0 to 1; below it the detector's mask stays
    tracker: str = ""  # card of role track; "" = by place and looks, which needs nothing

    def _cards(self) -> list[str]:
        return [name for name in (self.model, self.embedder, self.mask_model, self.tracker) if name]

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return min(1.0, sum(model_zoo.cards.gpus(name) for name in (self.model, self.mask_model) if name))

    def models(self) -> dict[str, str]:
        return {name: model_zoo.cards.revision(name) for name in self._cards()}

    def load(self) -> Models:
        load, device = model_zoo.cards.load, model_zoo.cards.device()
        return Models(
            load(self.model, device),
            load(self.embedder, device),
            load(self.mask_model, device) if self.mask_model else None,
            load(self.tracker, device) if self.tracker else None,
            mask_trust if model_zoo.cards.base_card(self.model).grown_from_colour else None,
        )

    def run(self, model: Models, kept: list[Kept], films: list[ClipVideo]) -> Iterable[Element | Reject]:
        for film in films:
            yield from self._elements(Models(*model), film)

    def tracks(self, models: Models, film: ClipVideo) -> tuple[list[build.Track], list[Reject]]:
        """The tracks of a clip that become elements, and why others do not."""
        samples = build.sampled(len(film.frames), self.frame_stride)
        found = models.detector(film.frames[samples])
        sightings = [
            build.sighted(
                film.frames[frame], frame, [d for d in detections if d.score >= self.confidence], models.embedder
            )
            for frame, detections in zip(samples, found, strict=True)
        ]
        tracks = build.track(sightings, models.tracker)
        limits = build.Limits(
            self.min_area, self.max_area, self.min_side_px, self.min_track_coverage, self.max_elements
        )
        refusals = build.judge(tracks, len(samples), limits)
        rejects = [
            Reject(f"{film.clip_id}/{track[0].kind}@{track[0].frame}", *refusal)
            for track, refusal in zip(tracks, refusals, strict=True)
            if refusal is not None
        ]
        return [track for track, refusal in zip(tracks, refusals, strict=True) if refusal is None], rejects

    def _elements(self, models: Models, film: ClipVideo) -> Iterator[Element | Reject]:
        kept, rejects = self.tracks(models, film)
        yield from rejects
        recut = build.MaskRefiner(models.masks, self.mask_model, self.min_mask_iou) if models.masks else None
        yield from build.elements(film, kept, self.embedder, recut, judge_masks=models.judge)
