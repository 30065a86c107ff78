"""Clips and captions -> elements that the caption names but the detector has no class for, found by name."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from a2data.elements import build, phrases
from a2data.elements.tracks import box_at
from a2data.media.images import iou
from a2data.records import Caption, ClipVideo, Element, Kept, Reject
from a2data.stage import Stage
from model_zoo import cards

VAGUE_NOUNS = frozenset(("object", "thing", "item", ""))  # nouns too vague to search for


class Models(NamedTuple):
    """The models that `Ground.load` loads, each called as documented for its role in model_zoo.cards."""

    finder: Callable
    embedder: Callable
    masks: Callable | None = None


@dataclass(frozen=True)
class Ground(Stage):
    """Objects that a caption names and `detect` did not find, located by noun and cut out as in `detect`.

    A track that coincides with an element of `detect` is that element and gets no row. Without a model there are no rows.
    """

    reads = {"select": Kept, "segment": ClipVideo, "detect": Element, "caption": Caption}
    writes = Element
    row_noun = "elements"
    per = "clip"
    version = 4

    model: str = ""
    """card of role ground, which finds objects by phrase; "" = off"""
    embedder: str = "mobilenetv2"
    """card of role embed, for appearance while tracking and across clips"""
    frame_stride: int = 5
    """every n-th frame is sampled, and the last"""
    confidence: float = 0.35
    """lowest confidence of a detection, 0 to 1"""
    min_area: float = 0.005
    """smallest median mask of a track, fraction of the frame"""
    max_area: float = 0.6
    """largest median mask of a track; a wrong name often matches the whole picture"""
    min_side_px: int = 40
    """shorter side of a track's median box, pixels"""
    min_track_coverage: float = 0.3
    """least fraction of sampled frames with the element; at least two frames of several"""
    max_elements: int = 4
    """most elements per clip, by duration times size"""
    max_nouns: int = 8
    """most nouns searched in a clip, in prompt order"""
    nms_iou: float = 0.7
    """mean IoU with an element of `detect` above which a track is that element, 0 to 1"""
    mask_model: str = ""
    """card of role masks that re-segments each best picture; "" = the model's own masks"""
    min_mask_iou: float = 0.6
    """lowest IoU of the new mask's box with the model's, 0 to 1; else the old mask is kept"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return min(1.0, sum(cards.gpus(name) for name in (self.model, self.mask_model) if self.model and name))

    def models(self) -> dict[str, str]:
        names = (self.model, self.embedder, self.mask_model) if self.model else ()
        return {name: cards.revision(name) for name in names if name}

    def load(self) -> Models | None:
        if not self.model:
            return None
        device = cards.device()
        masks = cards.load(self.mask_model, device) if self.mask_model else None
        return Models(cards.load(self.model, device), cards.load(self.embedder, device), masks)

    def run(
        self,
        models: Models | None,
        kept: list[Kept],
        films: list[ClipVideo],
        detected: list[Element],
        captions: list[Caption],
    ) -> Iterator[Element | Reject]:
        if models is None:
            return
        caption_of = {caption.clip_id: caption for caption in captions}
        for film in films:
            known = [e for e in detected if e.clip_id == film.clip_id]
            nouns = (
                missing_nouns(caption_of[film.clip_id], known)[: self.max_nouns] if film.clip_id in caption_of else []
            )
            if nouns:
                yield from self._elements(Models(*models), film, nouns, known)

    def _elements(
        self, models: Models, film: ClipVideo, nouns: list[str], known: list[Element]
    ) -> Iterator[Element | Reject]:
        samples = build.sample_frames(len(film.frames), self.frame_stride)
        detections_of_frames = models.finder(film.frames[samples], nouns)
        observations = [
            build.observe(
                film.frames[frame],
                frame,
                [d._replace(kind="object") for d in detections if d.score >= self.confidence],
                models.embedder,
            )
            for frame, detections in zip(samples, detections_of_frames, strict=True)
        ]
        tracks = build.track(observations)
        found_before = {id(track): match for track in tracks if (match := self._already_found(track, known))}
        new_tracks = [track for track in tracks if id(track) not in found_before]
        limits = build.Limits(
            self.min_area, self.max_area, self.min_side_px, self.min_track_coverage, self.max_elements
        )
        reasons = build.reject_reasons(new_tracks, len(samples), limits)
        for track in tracks:
            rejection = found_before.get(id(track)) or next(
                r for t, r in zip(new_tracks, reasons, strict=True) if t is track
            )
            if rejection is not None:
                yield Reject(f"{film.clip_id}/{build.majority(track)}@{track[0].frame}", *rejection)
        accepted = [track for track, reason in zip(new_tracks, reasons, strict=True) if reason is None]
        mask_refiner = build.MaskRefiner(models.masks, self.mask_model, self.min_mask_iou) if models.masks else None
        first_numbers = Counter(e.kind for e in known)  # numbering continues from that of `detect`
        yield from build.elements(film, accepted, self.embedder, mask_refiner, first_numbers)

    def _already_found(self, track: build.Track, known: Sequence[Element]) -> tuple[str, str] | None:
        """Return reason and detail if a track is an element that is already known, else None."""
        for element in known:
            box_pairs = [(s.box, box_at(element, s.frame, self.frame_stride)) for s in track]
            overlap = float(np.mean([iou(box, known_box) if known_box else 0.0 for box, known_box in box_pairs]))
            if overlap > self.nms_iou:
                return "already found", f"{element.element_id}: overlap = {overlap:.2f}, nms_iou = {self.nms_iou}"
        return None


def missing_nouns(caption: Caption, known: Sequence[Element]) -> list[str]:
    """Return the object nouns of the prompt, in order, with more subjects than known elements of that name.

    "a cup" and "another cup" with one known cup yield "cup"; both cups are then found, and the known one is removed by position.
    """
    nouns = []
    for subject in sorted(caption.subjects, key=lambda s: s.start):
        parsed = phrases.parse(subject.phrase)
        if not parsed.human and subject.type != "Human" and parsed.noun not in VAGUE_NOUNS:
            nouns.append(parsed.noun)
    labels = Counter(e.label.lower() for e in known if e.kind == "object")
    return [noun for noun, count in Counter(nouns).items() if count > count_named(noun, labels)]


def count_named(noun: str, labels: Counter[str]) -> int:
    """Return how many elements a noun refers to: a "coffee cup" is a "cup"."""
    return sum(count for label, count in labels.items() if set(noun.split()) & set(label.split()))
