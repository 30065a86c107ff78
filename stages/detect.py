"""Clips -> elements: people and objects, tracked through the clip, each with its best cut-out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import model_zoo.cards
from a2data.elements import build
from a2data.records import ClipVideo, Element, Kept, Reject
from a2data.stage import Stage
from model_zoo.detect.mask_confidence import mask_confidence


class Models(NamedTuple):
    """The models that `Detect.load` loads, each called as documented for its role in model_zoo.cards; None if not requested."""

    detector: Callable
    embedder: Callable
    masks: Callable | None = None
    tracker: Callable | None = None
    mask_scorer: build.MaskScorer | None = None  # of the detector's masks


@dataclass(frozen=True)
class Detect(Stage):
    """People and objects found in every n-th frame of a kept clip; those that last become elements with their best picture."""

    reads = {"select": Kept, "segment": ClipVideo}
    writes = Element
    row_noun = "elements"
    per = "clip"
    version = 9

    model: str = "builtin-detect"
    """card of role detect, or yolo:PATH"""
    embedder: str = "mobilenetv2"
    """card of role embed, for appearance while tracking and across clips"""
    frame_stride: int = 5
    """every n-th frame is sampled, and the last"""
    confidence: float = 0.35
    """lowest confidence of a detection, 0 to 1"""
    min_area: float = 0.005
    """smallest median mask of a track, fraction of the frame"""
    max_area: float = 0.9
    """largest median mask of a track, fraction of the frame"""
    min_side_px: int = 40
    """smallest shorter side of a track's median box, pixels"""
    min_track_coverage: float = 0.3
    """least fraction of sampled frames with the element; at least two frames of several"""
    max_elements: int = 6
    """most elements per clip, by duration times size"""

    mask_model: str = ""
    """card of role masks that re-segments each best picture; "" = the detector's own masks"""
    min_mask_iou: float = 0.6
    """lowest IoU of the new mask's box with the detector's, 0 to 1; else the old mask is kept"""
    tracker: str = ""
    """card of role track; "" = built-in association by position and appearance"""

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
            mask_confidence if model_zoo.cards.base_card(self.model).grown_from_colour else None,
        )

    def run(self, model: Models, kept: list[Kept], films: list[ClipVideo]) -> Iterable[Element | Reject]:
        for film in films:
            yield from self._elements(Models(*model), film)

    def tracks(self, models: Models, film: ClipVideo) -> tuple[list[build.Track], list[Reject]]:
        """Return the tracks of a clip that become elements, and the rejections of the others."""
        samples = build.sample_frames(len(film.frames), self.frame_stride)
        detections_of_frames = models.detector(film.frames[samples])
        observations = [
            build.observe(
                film.frames[frame], frame, [d for d in detections if d.score >= self.confidence], models.embedder
            )
            for frame, detections in zip(samples, detections_of_frames, strict=True)
        ]
        tracks = build.merge_duplicates(build.track(observations, models.tracker))
        limits = build.Limits(
            self.min_area, self.max_area, self.min_side_px, self.min_track_coverage, self.max_elements
        )
        reasons = build.reject_reasons(tracks, len(samples), limits)
        rejects = [
            Reject(f"{film.clip_id}/{track[0].kind}@{track[0].frame}", *reason)
            for track, reason in zip(tracks, reasons, strict=True)
            if reason is not None
        ]
        return [track for track, reason in zip(tracks, reasons, strict=True) if reason is None], rejects

    def _elements(self, models: Models, film: ClipVideo) -> Iterator[Element | Reject]:
        accepted, rejects = self.tracks(models, film)
        yield from rejects
        mask_refiner = build.MaskRefiner(models.masks, self.mask_model, self.min_mask_iou) if models.masks else None
        yield from build.elements(film, accepted, self.embedder, mask_refiner, score_masks=models.mask_scorer)
