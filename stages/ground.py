"""Clips and captions -> elements that the caption names and the detector has no word for, found by their names."""

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

VAGUE = frozenset(("object", "thing", "item", ""))  # nouns that a model which finds things by name cannot look for


class Models(NamedTuple):
    """What `Ground.load` loads, each called as model_zoo.cards says of its role."""

    finder: Callable
    embedder: Callable
    masks: Callable | None = None


@dataclass(frozen=True)
class Ground(Stage):
    """Finds what a caption names and `detect` did not find, by its noun, and cuts it out as `detect` does.

    A track that lies where an element of `detect` is, is that element, and gets no row. Without a model there are no rows.
    """

    reads = {"select": Kept, "segment": ClipVideo, "detect": Element, "caption": Caption}
    writes = Element
    per = "clip"
    version = 3

    model: str = ""  # card of role ground, finds things by phrases; "" = nothing is looked for
    embedder: str = "mobilenetv2"  # card of role embed: tells things apart while tracking, and across clips later
    frame_stride: int = 5  # look at each n-th frame, and at the last
    confidence: float = 0.35  # of a detection, 0 to 1
    min_area: float = 0.005  # of the track's median mask, share of the frame
    max_area: float = 0.6  # the same, at most: a name that fits nothing is often given to the whole picture
    min_side_px: int = 40  # of the shorter side of the track's median box
    min_track_coverage: float = (
        0.3  # share of the sampled frames that an element is seen in; and in two, where there are two
    )
    max_elements: int = 4  # per clip, longest times largest first
    max_nouns: int = 8  # that are looked for in a clip, in the order of the prompt
    nms_iou: float = 0.7  # mean overlap with an element of `detect` above which a track is that element, 0 to 1
    mask_model: str = ""  # card of role masks that cuts each best picture again; "" = the model's own masks
    min_mask_iou: float = 0.6  # of the box of its mask with the model's, 0 to 1; below it the model's mask stays

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
            nouns = wanted(caption_of[film.clip_id], known)[: self.max_nouns] if film.clip_id in caption_of else []
            if nouns:
                yield from self._elements(Models(*models), film, nouns, known)

    def _elements(
        self, models: Models, film: ClipVideo, nouns: list[str], known: list[Element]
    ) -> Iterator[Element | Reject]:
        samples = build.sampled(len(film.frames), self.frame_stride)
        found = models.finder(film.frames[samples], nouns)
        sightings = [
            build.sighted(
                film.frames[frame],
                frame,
                [d._replace(kind="object") for d in detections if d.score >= self.confidence],
                models.embedder,
            )
            for frame, detections in zip(samples, found, strict=True)
        ]
        tracks = build.track(sightings)
        already = {id(track): where for track in tracks if (where := self._known(track, known))}
        new = [track for track in tracks if id(track) not in already]
        limits = build.Limits(
            self.min_area, self.max_area, self.min_side_px, self.min_track_coverage, self.max_elements
        )
        refusals = build.judge(new, len(samples), limits)
        for track in tracks:
            why = already.get(id(track)) or next(r for t, r in zip(new, refusals, strict=True) if t is track)
            if why is not None:
                yield Reject(f"{film.clip_id}/{build.majority(track)}@{track[0].frame}", *why)
        fit = [track for track, refusal in zip(new, refusals, strict=True) if refusal is None]
        recut = build.MaskRefiner(models.masks, self.mask_model, self.min_mask_iou) if models.masks else None
        taken = Counter(e.kind for e in known)  # their numbers go on from those of `detect`
        yield from build.elements(film, fit, self.embedder, recut, taken)

    def _known(self, track: build.Track, known: Sequence[Element]) -> tuple[str, str] | None:
        """Reason and detail where a track is an element that is known already."""
        for element in known:
            places = [(s.box, box_at(element, s.frame, self.frame_stride)) for s in track]
            overlap = float(np.mean([iou(box, place) if place else 0.0 for box, place in places]))
            if overlap > self.nms_iou:
                return "already found", f"{element.element_id}: overlap = {overlap:.2f}, nms_iou = {self.nms_iou}"
        return None


def wanted(caption: Caption, known: Sequence[Element]) -> list[str]:
    """The nouns of things in the prompt, in its order, that stand for more subjects than elements are known by that name.

    "a cup" and "another cup" with one cup known ask for "cup", which then finds both; the one that is known is sorted out by
    its place.
    """
    nouns = []
    for subject in sorted(caption.subjects, key=lambda s: s.start):
        said = phrases.read(subject.phrase)
        if not said.human and subject.type != "Human" and said.noun not in VAGUE:
            nouns.append(said.noun)
    labels = Counter(e.label.lower() for e in known if e.kind == "object")
    return [noun for noun, count in Counter(nouns).items() if count > of_name(noun, labels)]


def of_name(noun: str, labels: Counter[str]) -> int:
    """How many elements are called by a noun: a "coffee cup" is a "cup"."""
    return sum(count for label, count in labels.items() if set(noun.split()) & set(label.split()))
