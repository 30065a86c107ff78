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
    entity_pixels,
    overlap,
)
from pipelines.bench.triplets.predictions import Ref
from pipelines.bench.triplets.statistics import Score, mean, proportion
from pipelines.films.truth import KINDS, Film, Shot, Unit

MIN_CLEAN_IOU, MAX_LEAK, MIN_WHITE_FRACTION, MIN_PART_PURITY, MIN_VISIBLE = 0.85, 0.02, 0.98, 0.9, 0.5
MAX_BACKGROUND_LEAK = 0.01  # fraction of a background that may show entities
BOUNDARY_TOLERANCE = 0.008  # fraction of the box's diagonal, as in DAVIS
SOLID_ALPHA = UNKNOWN_ALPHA[1]  # alpha above which a pixel certainly belongs to an entity
MAX_PLATE_DIFFERENCE = 30  # largest difference in grey levels for a pixel that shows the plate


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
        is_tight = self.purity >= MIN_PART_PURITY if self.part else self.iou >= MIN_CLEAN_IOU
        return (
            is_tight
            and self.others >= 1 - MAX_LEAK
            and self.white >= MIN_WHITE_FRACTION
            and self.visible >= MIN_VISIBLE
        )


def cleanliness(matcher: GroundTruthMatcher, ref: Ref, match: EntityMatch) -> Cleanliness | None:
    """Measure a reference; None for a place, without an entity, or if the truth has no pixels."""
    film = matcher.truth.by_file.get(ref.origin.file)
    shot = film.shot_at(ref.origin.frame) if film else None
    if ref.role == "background" or match.entity is None or match.iou is None or film is None or shot is None:
        return None
    sight = film.sight_of(match.entity, ref.origin.frame)
    if sight is None or not (sight.mask or sight.alpha):
        return None
    alpha, mask = sight.pixels(film.height, film.width), ref.origin.in_source(film.height, film.width)
    intersection, union = overlap(alpha, mask)
    entity_area = float(entity_pixels(alpha, mask).sum())
    neighbours = entity_masks(film, Unit(film, shot), ref.origin.frame)
    other_fraction = sum(
        float((a[mask] > SOLID_ALPHA).sum()) for name, a in neighbours.items() if name != match.id
    ) / max(1, mask.sum())
    return Cleanliness(
        intersection / union,
        intersection / max(1, float(mask.sum())),
        intersection / max(1.0, entity_area),
        boundary_f(entity_pixels(alpha, mask), mask),
        1 - min(1.0, other_fraction),
        ref.white,
        sight.visible,
        ref.role not in KINDS,
    )


def boundary_f(a: np.ndarray, b: np.ndarray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Return the F-measure of two boundaries, within a fraction of the first mask's box diagonal (Perazzi et al. 2016)."""
    ys, xs = np.nonzero(a)
    if not len(xs) or not b.any():
        return 0.0
    radius = max(1, round(tolerance * float(np.hypot(np.ptp(xs) + 1, np.ptp(ys) + 1))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    edges = [_edge(m) for m in (a, b)]
    dilated = [cv2.dilate(e.astype(np.uint8), disk) > 0 for e in edges]
    precision = (edges[1] & dilated[0]).sum() / max(1, edges[1].sum())
    recall = (edges[0] & dilated[1]).sum() / max(1, edges[0].sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def _edge(mask: np.ndarray) -> np.ndarray:
    """Return the mask's pixels next to a pixel outside it. The picture's edge does not count as outside."""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return mask & (inside == 0)


@dataclass(frozen=True)
class BackgroundQuality:
    """Quality of a background picture."""

    empty: float  # 1 - fraction of it that shows an entity
    coverage: float  # fraction of the source picture

    @property
    def score(self) -> float:
        return self.empty * min(1.0, self.coverage / 0.25)

    @property
    def clean(self) -> bool:
        return 1 - self.empty <= MAX_BACKGROUND_LEAK


def background_quality(
    matcher: GroundTruthMatcher, ref: Ref, plates: dict[str, np.ndarray]
) -> BackgroundQuality | None:
    """Measure a background; None if the truth has no pixels. plates: file -> (h, w, 3) uint8, of the existing plates."""
    film = matcher.truth.by_file.get(ref.origin.file)
    shot = film.shot_at(ref.origin.frame) if film else None
    if film is None or shot is None or any(not e.sights for e in shot.entities):
        return None
    masks = entity_masks(film, Unit(film, shot), ref.origin.frame).values()
    entities = np.max([m > SOLID_ALPHA for m in masks], axis=0) if masks else np.zeros((film.height, film.width), bool)
    region, picture = region_of(film, ref)
    if picture is not None and shot.camera == "static" and shot.plate in plates:
        # a plate built from many frames shows the background behind the entities of this frame
        entities = entities & (np.abs(picture.astype(int) - plates[shot.plate]).max(-1) > MAX_PLATE_DIFFERENCE)
    area = float(region.sum())
    return BackgroundQuality(1 - float((region & entities).sum()) / max(1.0, area), area / region.size)


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
    source_picture = np.full((film.height, film.width, 3), 255, np.uint8)
    source_picture[top:bottom, left:right] = cv2.resize(frame, size)
    return region, source_picture


def plates_of(shots: Iterable[Shot], folder) -> dict[str, np.ndarray]:
    """Read the plates beside the truth."""
    names = sorted({shot.plate for shot in shots if shot.plate})
    paths = {name: folder / safe_path(name, f"plate of a film in {folder}") for name in names}
    return {name: from_png(path.read_bytes()) for name, path in paths.items() if path.exists()}


def picture_scores(clean: list[Cleanliness], places: list[BackgroundQuality]) -> list[Score]:
    """Return means over all references and the fractions of clean ones."""
    full_cutouts, note = [c for c in clean if not c.part], "no masks in the truth"
    return [
        proportion("references, clean", sum(c.clean for c in clean), len(clean), note),
        mean("references, IoU", [c.iou for c in full_cutouts], note),
        mean("references, purity", [c.purity for c in clean], note),
        mean("references, completeness", [c.completeness for c in full_cutouts], note),
        mean("references, boundary F", [c.boundary for c in full_cutouts], note),
        mean("references, without another entity", [c.others for c in clean], note),
        mean("references, white around", [c.white for c in clean], note),
        proportion("places, clean", sum(p.clean for p in places), len(places), note),
        mean("places, without a subject", [p.empty for p in places], note),
        mean("places, empty and large", [p.score for p in places], note),
    ]
