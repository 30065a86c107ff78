"""Clips -> elements: the people and things in them, followed through the clip, each with its best cut-out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

import model_zoo.cards
from a2data import colours, images
from a2data.records import Box, Element, Film, Kept, Reject
from a2data.stage import Stage
from a2data.tracks import link, mean_look

GAP = 3  # samples that a track may be out of sight, behind something or missed
GOOD_FRAMES = 5  # how many of a track's best sightings its embedding is the mean of


class Sighting(NamedTuple):
    """A detection in a sampled frame."""

    frame: int
    kind: str
    label: str
    score: float
    box: Box  # tight around the mask
    mask: np.ndarray  # (h, w) bool
    look: np.ndarray  # (d,) float32, unit length

    @property
    def area(self) -> float:
        """Share of the frame that the mask covers."""
        return float(self.mask.mean())


Track = list[Sighting]


@dataclass(frozen=True)
class Detect(Stage):
    """Finds people and things in every n-th frame of a kept clip, and keeps those that last, with their best picture."""

    reads = {"select": Kept, "segment": Film}
    writes = Element
    per = "clip"
    version = 2

    model: str = "builtin-detect"  # card of role detect, or yolo:PATH
    embedder: str = (
        "mobilenetv2"  # card of role embed: tells one person from another while tracking, and across clips later
    )
    every: int = 5  # look at each n-th frame, and at the last
    min_score: float = 0.35  # of a detection, 0 to 1
    min_area: float = 0.005  # of the track's median mask, share of the frame
    max_area: float = 0.9  # the same, at most
    min_side_px: int = 40  # of the shorter side of the track's median box
    min_seen: float = 0.3  # share of the sampled frames that an element is seen in; and in two, where there are two
    max_elements: int = 6  # per clip, longest times largest first

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return model_zoo.cards.gpus(self.model)

    def models(self) -> dict[str, str]:
        return {name: model_zoo.cards.revision(name) for name in (self.model, self.embedder)}

    def load(self) -> tuple[Callable, Callable]:
        device = model_zoo.cards.device()
        return model_zoo.cards.load(self.model, device), model_zoo.cards.load(self.embedder, device)

    def run(self, model: tuple[Callable, Callable], kept: list[Kept], films: list[Film]) -> Iterable[Element | Reject]:
        for film in films:
            yield from self._elements(model, film)

    def _elements(self, model: tuple[Callable, Callable], film: Film) -> Iterator[Element | Reject]:
        detector, embedder = model
        samples = sampled(len(film.frames), self.every)
        found = detector(film.frames[samples])
        sightings = [
            sighted(film.frames[frame], frame, [d for d in detections if d.score >= self.min_score], embedder)
            for frame, detections in zip(samples, found, strict=True)
        ]
        tracks = sorted(
            follow(sightings), key=lambda track: (-sum(s.area for s in track), track[0].frame, track[0].box)
        )
        refusals = [self._refusal(track, len(samples)) for track in tracks]
        kept = [track for track, refusal in zip(tracks, refusals, strict=True) if refusal is None]
        for track, refusal in zip(tracks, refusals, strict=True):
            if any(track is other for other in kept[self.max_elements :]):
                refusal = "too many", f"{len(kept)} elements, max_elements = {self.max_elements}"
            if refusal is not None:
                yield Reject(f"{film.clip_id}/{track[0].kind}@{track[0].frame}", *refusal)
        numbers: Counter[str] = Counter()
        for track in (kept := kept[: self.max_elements]):
            kind = track[0].kind
            others = [s for other in kept if other is not track for s in other]
            yield element(film, f"{film.clip_id}/{kind}/{numbers[kind]}", track, others, self.embedder)
            numbers[kind] += 1

    def _refusal(self, track: Track, samples: int) -> tuple[str, str] | None:
        """Reason and detail why a track is no element; None for one that is."""
        need = max(min(2, samples), self.min_seen * samples)
        area = float(np.median([s.area for s in track]))
        if len(track) < need:
            return "flicker", f"seen in {len(track)} of {samples} samples, min_seen = {self.min_seen}"
        if area < self.min_area:
            return "too small", f"area = {area:.4f}, min_area = {self.min_area}"
        side = float(np.median([min(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in track]))
        if side < self.min_side_px:
            return "too small", f"side = {side:.0f} px, min_side_px = {self.min_side_px}"
        if area > self.max_area:
            return "too large", f"area = {area:.4f}, max_area = {self.max_area}"
        return None


def sampled(frames: int, every: int) -> list[int]:
    """The numbers of the frames to look at: each `every`-th from the first, and the last.

    >>> sampled(12, 5)
    [0, 5, 10, 11]
    """
    return sorted({*range(0, frames, every), frames - 1})


def sighted(frame: np.ndarray, number: int, detections: Sequence[Any], embedder: Callable) -> list[Sighting]:
    """The detections of one frame with tight boxes and embeddings; one whose mask is empty is no sighting.

    A detection without a mask fills its box.
    """
    masks = [filled(d.box, frame.shape[:2]) if d.mask is None else d.mask for d in detections]
    seen = [(d, mask) for d, mask in zip(detections, masks, strict=True) if mask.any()]
    looks = embedder([frame] * len(seen), [mask for _, mask in seen]) if seen else []
    return [
        Sighting(number, d.kind, d.label, d.score, images.bounds(mask), mask, look)
        for (d, mask), look in zip(seen, looks, strict=True)
    ]


def filled(box: Box, shape: tuple[int, int]) -> np.ndarray:
    """The mask of a whole box, (h, w) bool."""
    mask = np.zeros(shape, bool)
    x0, y0, x1, y1 = images.clamp(box, *shape)
    mask[y0:y1, x0:x1] = True
    return mask


def follow(samples: Sequence[Sequence[Sighting]]) -> list[Track]:
    """All tracks through the samples, people first; a person never becomes a thing."""
    tracks: list[Track] = []
    for kind in ("human", "object"):
        of_kind = [[s for s in sample if s.kind == kind] for sample in samples]
        linked = link(
            [[s.box for s in sample] for sample in of_kind], [np.array([s.look for s in x]) for x in of_kind], GAP
        )
        tracks += [[of_kind[t][i] for t, i in track] for track in linked]
    return tracks


def element(film: Film, element_id: str, track: Track, others: Sequence[Sighting], embedder: str) -> Element:
    """The row of one track: its best frame cut out, and where else it was seen."""
    usual = float(np.median([s.area for s in track]))
    marks = [quality(film.frames[s.frame], s, [o for o in others if o.frame == s.frame], usual) for s in track]
    best_first = sorted(range(len(track)), key=lambda i: (-marks[i], track[i].frame))
    best = track[best_first[0]]
    frame = film.frames[best.frame]
    png = images.to_png(images.cut_out(frame, best.mask, best.box))
    return Element(
        clip_id=film.clip_id,
        element_id=element_id,
        kind=best.kind,
        label=majority(track),
        parent_id="",
        frame=best.frame,
        box=best.box,
        score=best.score,
        mask=images.to_rle(best.mask),
        image=png,
        image_sha256=images.sha16(png),
        embedding=mean_look([track[i].look for i in best_first[:GOOD_FRAMES]]).tolist(),
        embedder=embedder,
        quality=marks[best_first[0]],
        seen_frames=[s.frame for s in track],
        seen_boxes=[s.box for s in track],
        attributes=[f"colour={colours.name_in(frame, best.mask)}", f"size={best.area:.2f}"],
    )


def majority(track: Track) -> str:
    """The label with the most confidence over the track; ties to the first in the alphabet."""
    labels = sorted({s.label for s in track})
    return max(labels, key=lambda label: sum(s.score for s in track if s.label == label))


def quality(frame: np.ndarray, seen: Sighting, others: Sequence[Sighting], usual_area: float) -> float:
    """How good a picture of its element a sighting is, 0 to 1: a product, so that one bad fault is enough.

    Sharp, large (whole marks from 15 % of the frame), inside the frame (half a person ends at the bottom, which costs little),
    not behind or before others, about as large as usual (a mask that spilt is not), and sure.
    """
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = seen.box
    cut = 0.6 ** sum((x0 <= 0, y0 <= 0, x1 >= width)) * (0.9 if y1 >= height else 1.0)
    covered = np.zeros((height, width), bool)
    for other in others:
        covered |= filled(other.box, (height, width))
    alone = 1 - 0.7 * float(covered[seen.mask].mean())
    large = min(1.0, seen.area / 0.15) ** 0.25
    typical = min(seen.area, usual_area) / max(seen.area, usual_area)
    return float(np.sqrt(sharpness(frame, seen) * typical * seen.score) * large * cut * alone)


def sharpness(frame: np.ndarray, seen: Sighting) -> float:
    """v / (v + 100), v the variance of the Laplacian inside the mask, at most 256 pixels on the long side; 0 to 1.

    Variance of the Laplacian: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    x0, y0, x1, y1 = images.clamp(seen.box, *frame.shape[:2])
    scale = min(1.0, 256 / max(x1 - x0, y1 - y0))
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    grey = cv2.resize(cv2.cvtColor(frame[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(seen.mask[y0:y1, x0:x1].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0  # the outline is as sharp as the background makes it
    if not inside.any():
        return 0.0
    variance = float(cv2.Laplacian(grey, cv2.CV_32F)[inside].var())
    return variance / (variance + 100)
