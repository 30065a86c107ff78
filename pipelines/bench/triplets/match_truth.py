"""Match predicted elements and references to ground-truth entities, in source pixels."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from a2data.media.images import iou as box_iou
from pipelines.bench.triplets.predictions import Clip, Element, Prediction, Ref, Seen
from pipelines.films.truth import KINDS, Entity, Film, Truth, Unit

TOUCH = 0.1  # IoU from which a person or thing is meant to be an entity
OWNS = 0.5  # share of a part's mask (a face, a garment) that lies on its owner
RIM = (0.1, 0.9)  # alpha between which a pixel is neither the entity's nor not

Key = tuple[str, int]  # file, first frame of the shot


@dataclass(frozen=True)
class Found:
    """The entity that an image shows."""

    id: str  # of the entity; "" for nobody
    iou: float | None = None  # with what shows of it; None where the truth has no pixels
    entity: Entity | None = None


NOBODY = Found("")


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
        """Clip -> the shot that most of its frames are said to belong to; none for a clip that is in no shot."""
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

    def of_element(self, name: str) -> Found:
        """Return the entity that an element shows in its best frame; none for an unknown element."""
        element = self.prediction.elements.get(name)
        if element is None:
            return NOBODY
        return self._cached(("element", name), element.best, element.kind)

    def of_ref(self, clip: str, ref: Ref) -> Found:
        """Return the entity that a reference shows."""
        return self._cached(("ref", clip, ref.element, ref.source_element, ref.origin.frame), ref.origin, ref.role)

    def _cached(self, key: tuple, seen: Seen, kind: str) -> Found:
        if key not in self.cache:
            self.cache[key] = find(self.truth, seen, kind)
        return self.cache[key]


def find(truth: Truth, seen: Seen, kind: str) -> Found:
    """The entity that a mask lies on. kind: of the element; a part (a face, a garment) may lie anywhere on a human."""
    film = truth.by_file.get(seen.file)
    shot = film.shot_at(seen.frame) if film else None
    if film is None or shot is None:
        return NOBODY
    wanted = kind if kind in KINDS else "human"
    entities = [e for e in shot.entities if e.kind == wanted or e.kind not in KINDS]
    if any(not e.sights for e in entities):
        return Found(entities[0].id, None, entities[0]) if len(entities) == 1 else NOBODY
    mask = seen.in_source(film.height, film.width)
    best, most = NOBODY, 0.0
    for entity in entities:
        shown = film.seen(entity, seen.frame)
        if shown is None:
            continue
        both, union = overlap(shown.pixels(film.height, film.width), mask)
        share = both / max(1, mask.sum())
        if share > most and (both / union >= TOUCH if kind in KINDS else share >= OWNS):
            best, most = Found(entity.id, both / union, entity), share
    return best


def overlap(alpha: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The intersection and union of an alpha, 0 to 1, with a bool mask, in pixels.

    Where the alpha is neither near 0 nor near 1, either answer is right, as in the unknown band of a trimap.
    """
    shown = solid(alpha, mask)
    both = float((shown & mask).sum())
    return both, max(1e-9, float((shown | mask).sum()))


def solid(alpha: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(h, w) bool: the entity's pixels, where the rim that is half transparent is taken as the mask takes it."""
    return (alpha > RIM[1]) | ((alpha >= RIM[0]) & mask)


def identity_f1(ground: GroundTruthMatcher) -> tuple[float, float]:
    """Sums of 2 IDTP and of the boxes of truth and of prediction, over all clips (Ristani et al. 2016): IDF1 is their ratio.

    The frames that count are those in which the pipeline looked at the clip, that is, found anything.
    """
    from scipy.optimize import linear_sum_assignment  # 0.5 s, which no command should wait for

    twice = total = 0.0
    by_clip: dict[str, list[Element]] = {}
    for element in ground.prediction.elements.values():
        if element.kind in KINDS:
            by_clip.setdefault(element.clip, []).append(element)
    for clip, unit in ground.unit_of.items():
        tracks = by_clip.get(clip, [])
        entities = [e for e in ground.truth.wanted[unit.key] if e.sights]
        frames = {f for t in tracks for f in t.frames} or set(ground.prediction.clips[clip].frames)
        truth = [{f: s.box for f in frames if (s := unit.film.seen(e, f)) and s.visible >= 0.5} for e in entities]
        if not any(e.sights for e in unit.shot.entities):
            continue
        hits = np.array([[_hits(t, boxes) for boxes in truth] for t in tracks]).reshape(len(tracks), len(truth))
        rows, columns = linear_sum_assignment(hits, maximize=True)
        twice += 2 * hits[rows, columns].sum()
        # tracks of what is too small to be asked for count neither way
        asked = [t for t in tracks if (name := ground.of_element(t.id).id) == "" or name in {e.id for e in entities}]
        total += sum(map(len, truth)) + sum(len(t.frames) for t in asked)
    return float(twice), float(total)


def _hits(track: Element, boxes: dict[int, tuple]) -> int:
    """Frames in which a track is where an entity is."""
    return sum(f in boxes and box_iou(b, boxes[f]) >= 0.5 for f, b in zip(track.frames, track.boxes, strict=True))


def entity_masks(film: Film, unit: Unit, frame: int) -> dict[str, np.ndarray]:
    """Everything that stands in a shot, in one frame: id -> (h, w) float32."""
    return {
        e.id: shown.pixels(film.height, film.width)
        for e in unit.shot.entities
        if e.kind in KINDS and (shown := film.seen(e, frame))
    }


def clips_of(ground: GroundTruthMatcher) -> dict[Key, list[Clip]]:
    """Shot -> the clips that were cut from it."""
    out: dict[Key, list[Clip]] = {}
    for clip_id, unit in ground.unit_of.items():
        out.setdefault(unit.key, []).append(ground.prediction.clips[clip_id])
    return out
