"""Image scores: whether a reference shows the whole entity and nothing else, and whether a background is free of subjects."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from a2data.media.images import crop, from_png, from_rle
from a2data.store.filename import safe_path
from pipelines.bench.triplets.match_truth import (
    UNKNOWN_ALPHA,
    EntityMatch,
    GroundTruthMatcher,
    entity_masks,
    overlap,
    solid,
)
from pipelines.bench.triplets.predictions import Ref
from pipelines.bench.triplets.statistics import Score, mean, share
from pipelines.films.truth import KINDS, Film, Shot, Unit

CLEAN_IOU, CLEAN_LEAK, CLEAN_WHITE, CLEAN_PART, VISIBLE = 0.85, 0.02, 0.98, 0.9, 0.5
PURE_LEAK = 0.01  # fraction of a background that may show entities
BOUNDARY_TOLERANCE = 0.008  # fraction of the box's diagonal, as in DAVIS
SOLID = UNKNOWN_ALPHA[1]  # alpha above which a pixel certainly belongs to an entity
LIKE_PLATE = 30  # largest difference in grey levels for a pixel that shows the plate


@dataclass(frozen=True)
class Cleanliness:
    """Cleanliness of a reference; all values 0 to 1, 1 is best. The truth has no masks of parts (a face, a garment)."""

    iou: float
    purity: float  # fraction of the mask that is the entity
    completeness: float  # fraction of the entity's visible pixels in the mask
    boundary: float  # F-measure of the two boundaries
    others: float  # 1 - fraction of the mask that is another entity
    white: float  # fraction of the picture outside the mask that is white
    visible: float
    part: bool

    @property
    def clean(self) -> bool:
        fits = self.purity >= CLEAN_PART if self.part else self.iou >= CLEAN_IOU
        return fits and self.others >= 1 - CLEAN_LEAK and self.white >= CLEAN_WHITE and self.visible >= VISIBLE


def cleanliness(ground: GroundTruthMatcher, ref: Ref, found: EntityMatch) -> Cleanliness | None:
    """Measure a reference; None for a place, without an entity, or if the truth has no pixels."""
    film = ground.truth.by_file.get(ref.origin.file)
    shot = film.shot_at(ref.origin.frame) if film else None
    if ref.role == "background" or found.entity is None or found.iou is None or film is None or shot is None:
        return None
    shown = film.sight_of(found.entity, ref.origin.frame)
    if shown is None or not (shown.mask or shown.alpha):
        return None
    alpha, mask = shown.pixels(film.height, film.width), ref.origin.in_source(film.height, film.width)
    both, union = overlap(alpha, mask)
    whole = float(solid(alpha, mask).sum())
    neighbours = entity_masks(film, Unit(film, shot), ref.origin.frame)
    leak = sum(float((a[mask] > SOLID).sum()) for name, a in neighbours.items() if name != found.id) / max(
        1, mask.sum()
    )
    return Cleanliness(
        both / union,
        both / max(1, float(mask.sum())),
        both / max(1.0, whole),
        boundary_f(solid(alpha, mask), mask),
        1 - min(1.0, leak),
        ref.white,
        shown.visible,
        ref.role not in KINDS,
    )


def boundary_f(a: np.ndarray, b: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Return the F-measure of two boundaries, within a fraction of the first mask's box diagonal (Perazzi et al. 2016)."""
    ys, xs = np.nonzero(a)
    if not len(xs) or not b.any():
        return 0.0
    reach = max(1, round(tolerance * float(np.hypot(np.ptp(xs) + 1, np.ptp(ys) + 1))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    edges = [_edge(m) for m in (a, b)]
    near = [cv2.dilate(e.astype(np.uint8), disk) > 0 for e in edges]
    precision = (edges[1] & near[0]).sum() / max(1, edges[1].sum())
    recall = (edges[0] & near[1]).sum() / max(1, edges[0].sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def _edge(mask: np.ndarray) -> np.ndarray:
    """Return the mask's pixels next to a pixel outside it. The picture's edge does not count as outside."""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return mask & (inside == 0)


@dataclass(frozen=True)
class PlaceFigures:
    """Quality of a background picture."""

    empty: float  # 1 - fraction of it that shows an entity
    coverage: float  # fraction of the source picture

    @property
    def score(self) -> float:
        return self.empty * min(1.0, self.coverage / 0.25)

    @property
    def clean(self) -> bool:
        return 1 - self.empty <= PURE_LEAK


def place_figures(ground: GroundTruthMatcher, ref: Ref, plates: dict[str, np.ndarray]) -> PlaceFigures | None:
    """Measure a background; None if the truth has no pixels. plates: file -> (h, w, 3) uint8, of the existing plates."""
    film = ground.truth.by_file.get(ref.origin.file)
    shot = film.shot_at(ref.origin.frame) if film else None
    if film is None or shot is None or any(not e.sights for e in shot.entities):
        return None
    masks = entity_masks(film, Unit(film, shot), ref.origin.frame).values()
    there = np.max([m > SOLID for m in masks], axis=0) if masks else np.zeros((film.height, film.width), bool)
    region, picture = region_of(film, ref)
    if picture is not None and shot.camera == "static" and shot.plate in plates:
        # a plate built from many frames shows the background behind the entities of this frame
        there = there & (np.abs(picture.astype(int) - plates[shot.plate]).max(-1) > LIKE_PLATE)
    area = float(region.sum())
    return PlaceFigures(1 - float((region & there).sum()) / max(1.0, area), area / region.size)


def region_of(film: Film, ref: Ref) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the source pixels that a background picture shows, (h, w) bool, and their content, (h, w, 3) uint8."""
    mask = from_rle(ref.origin.mask)
    inside = np.zeros_like(mask)
    crop(inside, ref.box)[:] = crop(mask, ref.box)
    left, top, right, bottom = (round(v) for v in ref.origin.crop)
    size = right - left, bottom - top
    region = np.zeros((film.height, film.width), bool)
    region[top:bottom, left:right] = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    if ref.picture is None:
        return region, None
    frame = np.full((*mask.shape, 3), 255, np.uint8)
    crop(frame, ref.box)[:] = ref.picture
    whole = np.full((film.height, film.width, 3), 255, np.uint8)
    whole[top:bottom, left:right] = cv2.resize(frame, size)
    return region, whole


def plates_of(shots: Iterable[Shot], folder) -> dict[str, np.ndarray]:
    """Read the plates beside the truth."""
    names = sorted({shot.plate for shot in shots if shot.plate})
    paths = {name: folder / safe_path(name, f"plate of a film in {folder}") for name in names}
    return {name: from_png(path.read_bytes()) for name, path in paths.items() if path.exists()}


def picture_scores(clean: list[Cleanliness], places: list[PlaceFigures]) -> list[Score]:
    """Return means over all references and the fractions of clean ones."""
    whole, note = [c for c in clean if not c.part], "no masks in the truth"
    return [
        share("references, clean", sum(c.clean for c in clean), len(clean), note),
        mean("references, IoU", [c.iou for c in whole], note),
        mean("references, purity", [c.purity for c in clean], note),
        mean("references, completeness", [c.completeness for c in whole], note),
        mean("references, boundary F", [c.boundary for c in whole], note),
        mean("references, without another entity", [c.others for c in clean], note),
        mean("references, white around", [c.white for c in clean], note),
        share("places, clean", sum(p.clean for p in places), len(places), note),
        mean("places, without a subject", [p.empty for p in places], note),
        mean("places, empty and large", [p.score for p in places], note),
    ]
