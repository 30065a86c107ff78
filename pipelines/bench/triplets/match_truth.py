"""Match predicted elements and references to ground-truth entities, in source pixels."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from a2data.media.images import iou as box_iou
from pipelines.bench.triplets.predictions import Clip, Element, Prediction, Ref, SourceMask
from pipelines.films.truth import KINDS, Entity, Film, Truth, Unit

MIN_IOU = 0.1  # with an entity, for a person or object to match it
MIN_INSIDE = 0.5  # fraction of a part's mask (a face, a garment) that is on its owner
UNKNOWN_ALPHA = (0.1, 0.9)  # range in which a pixel may count as inside or outside

Key = tuple[str, int]  # file, first frame of the shot


@dataclass(frozen=True)
class EntityMatch:
    """The entity that an image shows."""

    id: str  # of the entity; "" if there is none
    iou: float | None = None  # with its visible part; None if the truth has no pixels
    entity: Entity | None = None


NO_ENTITY = EntityMatch("")


@dataclass(frozen=True)
class GroundTruthMatcher:
    """Matching between the ground truth and a prediction."""

    truth: Truth
    prediction: Prediction
    cache: dict = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def units(self) -> dict[Key, Unit]:
        return {unit.key: unit for unit in self.truth.units}

    @cached_property
    def unit_of(self) -> dict[str, Unit]:
        """Clip -> the shot of most of its source frames. Clips outside all shots are not included."""
        out = {}
        for clip in self.prediction.clips.values():
            if unit := self.find_unit(clip.file, clip.frames):
                out[clip.id] = unit
        return out

    def find_unit(self, file: str, frames: tuple[int, ...]) -> Unit | None:
        film = self.truth.by_file.get(file)
        if film is None:
            return None
        shots = Counter(shot.start for frame in frames if (shot := film.shot_at(frame)))
        return self.units[file, shots.most_common(1)[0][0]] if shots else None

    def of_element(self, name: str) -> EntityMatch:
        """Return the entity that an element shows in its best frame; NO_ENTITY for an unknown element."""
        element = self.prediction.elements.get(name)
        if element is None:
            return NO_ENTITY
        return self._cached(("element", name), element.best, element.kind)

    def of_ref(self, clip: str, ref: Ref) -> EntityMatch:
        """Return the entity that a reference shows."""
        return self._cached(("ref", clip, ref.element, ref.source_element, ref.origin.frame), ref.origin, ref.role)

    def _cached(self, key: tuple, region: SourceMask, kind: str) -> EntityMatch:
        if key not in self.cache:
            self.cache[key] = match_entity(self.truth, region, kind)
        return self.cache[key]


def match_entity(truth: Truth, region: SourceMask, kind: str) -> EntityMatch:
    """Return the entity that a mask covers. kind: of the element; a part (a face, a garment) may be anywhere on a human."""
    film = truth.by_file.get(region.file)
    shot = film.shot_at(region.frame) if film else None
    if film is None or shot is None:
        return NO_ENTITY
    entity_kind = kind if kind in KINDS else "human"
    entities = [e for e in shot.entities if e.kind == entity_kind or e.kind not in KINDS]
    if any(not e.sights for e in entities):
        return EntityMatch(entities[0].id, None, entities[0]) if len(entities) == 1 else NO_ENTITY
    mask = region.in_source(film.height, film.width)
    best, best_inside = NO_ENTITY, 0.0
    for entity in entities:
        sight = film.sight_of(entity, region.frame)
        if sight is None:
            continue
        intersection, union = overlap(sight.pixels(film.height, film.width), mask)
        inside = intersection / max(1, mask.sum())
        if inside > best_inside and (intersection / union >= MIN_IOU if kind in KINDS else inside >= MIN_INSIDE):
            best, best_inside = EntityMatch(entity.id, intersection / union, entity), inside
    return best


def overlap(alpha: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Return the intersection and union of an alpha, 0 to 1, with a bool mask, in pixels.

    Pixels with an intermediate alpha count as the mask has them, as in the unknown band of a trimap.
    """
    entity = entity_pixels(alpha, mask)
    intersection = float((entity & mask).sum())
    return intersection, max(1e-9, float((entity | mask).sum()))


def entity_pixels(alpha: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the entity's pixels, (h, w) bool. Pixels with an intermediate alpha count as the mask has them."""
    return (alpha > UNKNOWN_ALPHA[1]) | ((alpha >= UNKNOWN_ALPHA[0]) & mask)


def idf1_terms(matcher: GroundTruthMatcher) -> tuple[float, float]:
    """Return 2 IDTP and the number of true and predicted boxes, over all clips (Ristani et al. 2016). IDF1 is their ratio.

    Only frames in which the pipeline detected something count.
    """
    from scipy.optimize import linear_sum_assignment  # 0.5 s to import

    twice_idtp = total = 0.0
    by_clip: dict[str, list[Element]] = {}
    for element in matcher.prediction.elements.values():
        if element.kind in KINDS:
            by_clip.setdefault(element.clip, []).append(element)
    for clip, unit in matcher.unit_of.items():
        tracks = by_clip.get(clip, [])
        entities = [e for e in matcher.truth.expected[unit.key] if e.sights]
        frames = {f for t in tracks for f in t.frames} or set(matcher.prediction.clips[clip].frames)
        truth = [{f: s.box for f in frames if (s := unit.film.sight_of(e, f)) and s.visible >= 0.5} for e in entities]
        if not any(e.sights for e in unit.shot.entities):
            continue
        hits = np.array([[_hits(t, boxes) for boxes in truth] for t in tracks]).reshape(len(tracks), len(truth))
        rows, columns = linear_sum_assignment(hits, maximize=True)
        twice_idtp += 2 * hits[rows, columns].sum()
        # tracks of entities that are too small to be required are ignored
        scored = [t for t in tracks if (name := matcher.of_element(t.id).id) == "" or name in {e.id for e in entities}]
        total += sum(map(len, truth)) + sum(len(t.frames) for t in scored)
    return float(twice_idtp), float(total)


def _hits(track: Element, boxes: dict[int, tuple]) -> int:
    """Return the number of frames in which a track overlaps an entity with an IoU of at least 0.5."""
    return sum(f in boxes and box_iou(b, boxes[f]) >= 0.5 for f, b in zip(track.frames, track.boxes, strict=True))


def entity_masks(film: Film, unit: Unit, frame: int) -> dict[str, np.ndarray]:
    """Return the alpha of every person and object in a frame: id -> (h, w) float32."""
    return {
        e.id: sight.pixels(film.height, film.width)
        for e in unit.shot.entities
        if e.kind in KINDS and (sight := film.sight_of(e, frame))
    }


def clips_of(matcher: GroundTruthMatcher) -> dict[Key, list[Clip]]:
    """Return the clips of each shot."""
    out: dict[Key, list[Clip]] = {}
    for clip_id, unit in matcher.unit_of.items():
        out.setdefault(unit.key, []).append(matcher.prediction.clips[clip_id])
    return out
