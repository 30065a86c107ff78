"""Elements from detections in sampled frames: tracked, filtered by limits, and cut out in their best frame."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from a2data.elements.tracks import MIN_COSINE, MIN_IOU, associate, from_track_ids, mean_embedding
from a2data.media import colours, images
from a2data.media.images import Box
from a2data.records import ClipVideo, Element

MAX_GAP = 3  # samples that a track may be occluded or missed
SAME_PERSON_OVERLAP = 0.7  # overlap from which two tracks are of one person
FRAMES_AVERAGED = 5  # number of a track's best observations averaged into its embedding


class Observation(NamedTuple):
    """A detection in a sampled frame."""

    frame: int
    kind: str
    label: str
    score: float
    box: Box  # tight around the mask
    mask: np.ndarray  # (h, w) bool
    embedding: np.ndarray  # (d,) float32, unit length
    mask_confidence: float = -1.0  # by the detector, 0 to 1; UNKNOWN_CONFIDENCE if it does not state it

    @property
    def area(self) -> float:
        """Fraction of the frame covered by the mask."""
        return float(self.mask.mean())


Track = list[Observation]
Tracker = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[list[int]]]  # role track of model_zoo.cards
# model_zoo.detect.mask_confidence.mask_confidence
MaskScorer = Callable[[np.ndarray, list[list[tuple[int, np.ndarray]]]], list[list[float]]]
UNKNOWN_CONFIDENCE = -1.0


class Limits(NamedTuple):
    """Limits that a track must meet to become an element; described in stages/detect.py, where they are set."""

    min_area: float
    max_area: float
    min_side_px: int
    min_track_coverage: float
    max_elements: int


class MaskRefiner(NamedTuple):
    """A model that re-segments each best frame from its box."""

    model: Callable[[np.ndarray, np.ndarray], np.ndarray]  # role masks of model_zoo.cards
    name: str  # its card
    min_iou: float  # IoU of the boxes of the new and old mask, 0 to 1; below it the old mask is kept


def sample_frames(num_frames: int, stride: int) -> list[int]:
    """Return the numbers of the sampled frames: every `stride`-th from the first, and the last.

    >>> sample_frames(12, 5)
    [0, 5, 10, 11]
    """
    return sorted({*range(0, num_frames, stride), num_frames - 1})


def observe(frame: np.ndarray, number: int, detections: Sequence[Any], embedder: Callable) -> list[Observation]:
    """Return the detections of one frame with tight boxes and embeddings. Detections with an empty mask are dropped.

    A detection without a mask gets a mask that fills its box.
    """
    masks = [box_mask(d.box, frame.shape[:2]) if d.mask is None else d.mask for d in detections]
    visible = [(d, mask) for d, mask in zip(detections, masks, strict=True) if mask.any()]
    embeddings = embedder([frame] * len(visible), [mask for _, mask in visible]) if visible else []
    return [
        Observation(number, d.kind, d.label, d.score, images.bounds(mask), mask, embedding, d.certainty)
        for (d, mask), embedding in zip(visible, embeddings, strict=True)
    ]


def box_mask(box: Box, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of a whole box, (h, w) bool."""
    mask = np.zeros(shape, bool)
    images.crop(mask, box)[:] = True
    return mask


def track(samples: Sequence[Sequence[Observation]], tracker: Tracker | None = None) -> list[Track]:
    """Return all tracks through the samples, by descending summed area. Humans and objects are tracked separately.

    tracker: a model of role track, or None for a2data.elements.tracks.associate, by position and embedding.
    """
    tracks: list[Track] = []
    for kind in ("human", "object"):
        of_kind = [[s for s in sample if s.kind == kind] for sample in samples]
        boxes = [[s.box for s in sample] for sample in of_kind]
        if tracker is None:
            linked = associate(boxes, [np.array([s.embedding for s in x]) for x in of_kind], MAX_GAP)
        else:
            arrays = [np.array(here, np.float32).reshape(-1, 4) for here in boxes]
            linked = from_track_ids(tracker(arrays, [np.array([s.score for s in x], np.float32) for x in of_kind]))
        tracks += [[of_kind[t][i] for t, i in track] for track in linked]
    return sorted(tracks, key=lambda track: (-sum(s.area for s in track), track[0].frame, track[0].box))


def merge_duplicates(tracks: Sequence[Track]) -> list[Track]:
    """Return the tracks with those of one person joined, in their order.

    Two tracks are of one person if in most of the frames that both have, one mask is inside the other or, of detectors without
    masks, the boxes are the same; or if they have no frame in common, both last, and where one ends the other continues at the
    same position with the same appearance, such as after an occlusion. Observations of the first track take precedence.
    """
    merged: list[Track] = []
    for track in tracks:
        duplicate = next((other for other in merged if track[0].kind == "human" and _same_person(other, track)), None)
        if duplicate is None:
            merged.append(list(track))
        else:
            frames = {s.frame for s in duplicate}
            duplicate[:] = sorted([*duplicate, *(s for s in track if s.frame not in frames)], key=lambda s: s.frame)
    return merged


def _same_person(a: Track, b: Track) -> bool:
    if a[0].kind != b[0].kind:
        return False
    by_frame = {s.frame: s for s in a}
    if overlaps := [_overlap(by_frame[s.frame], s) for s in b if s.frame in by_frame]:
        return float(np.median(overlaps)) >= SAME_PERSON_OVERLAP
    if min(len(a), len(b)) < 2:
        return False
    x, y = min(((x, y) for x in a for y in b), key=lambda pair: (abs(pair[0].frame - pair[1].frame), pair[0].frame))
    return images.iou(x.box, y.box) >= MIN_IOU and float(x.embedding @ y.embedding) >= MIN_COSINE


def _overlap(a: Observation, b: Observation) -> float:
    """Return the fraction of the smaller of two masks inside the other; the IoU of the boxes if a mask fills its box."""
    if any(images.crop(s.mask, s.box).all() for s in (a, b)):
        return images.iou(a.box, b.box)
    return float((a.mask & b.mask).sum() / min(a.mask.sum(), b.mask.sum()))


def reject_reasons(tracks: Sequence[Track], samples: int, limits: Limits) -> list[tuple[str, str] | None]:
    """Return the reject reason and detail of each track; None if it becomes an element. samples: number of sampled frames."""
    reasons = [reject_reason(track, samples, limits) for track in tracks]
    accepted = [number for number, reason in enumerate(reasons) if reason is None]
    for number in accepted[limits.max_elements :]:
        reasons[number] = "too many", f"{len(accepted)} elements, max_elements = {limits.max_elements}"
    return reasons


def reject_reason(track: Track, samples: int, limits: Limits) -> tuple[str, str] | None:
    """Return the reject reason and detail of a track on its own; None if it meets the limits."""
    min_observations = max(min(2, samples), limits.min_track_coverage * samples)
    area = float(np.median([s.area for s in track]))
    if len(track) < min_observations:
        return "flicker", f"seen in {len(track)} of {samples} samples, min_track_coverage = {limits.min_track_coverage}"
    if area < limits.min_area:
        return "too small", f"area = {area:.4f}, min_area = {limits.min_area}"
    side = float(np.median([min(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in track]))
    if side < limits.min_side_px:
        return "too small", f"side = {side:.0f} px, min_side_px = {limits.min_side_px}"
    if area > limits.max_area:
        return "too large", f"area = {area:.4f}, max_area = {limits.max_area}"
    return None


def elements(
    film: ClipVideo,
    tracks: Sequence[Track],
    embedder: str,
    mask_refiner: MaskRefiner | None = None,
    first_numbers: Mapping[str, int] | None = None,
    score_masks: MaskScorer | None = None,
) -> Iterator[Element]:
    """Yield the rows of the kept tracks, numbered by kind from 0, or from `first_numbers`.

    score_masks: returns the confidence of each mask of the tracks; None if no such model is available. A mask of which the
    detector itself is certain has that confidence if it is higher.
    """
    numbers = Counter(first_numbers or {})
    masks = [[(s.frame, s.mask) for s in track] for track in tracks]
    confidences_of_tracks = (
        score_masks(film.frames, masks) if score_masks else [[UNKNOWN_CONFIDENCE] * len(track) for track in tracks]
    )
    for track, scores in zip(tracks, confidences_of_tracks, strict=True):
        kind = track[0].kind
        confidences = [
            max(score, observation.mask_confidence) for score, observation in zip(scores, track, strict=True)
        ]
        others = [s for other in tracks if other is not track for s in other]
        yield element(
            film, f"{film.clip_id}/{kind}/{numbers[kind]}", track, others, confidences, embedder, mask_refiner
        )
        numbers[kind] += 1


def element(
    film: ClipVideo,
    element_id: str,
    track: Track,
    others: Sequence[Observation],
    confidences: Sequence[float],
    embedder: str,
    mask_refiner: MaskRefiner | None = None,
) -> Element:
    """Return the row of one track: its cut-out from the best frame, and its boxes in all frames.

    confidences: confidence of each observation's mask, 0 to 1, or UNKNOWN_CONFIDENCE, as for a mask from `mask_refiner`.
    """
    picture_qualities = qualities(film.frames, track, others)
    weights = [
        picture_quality * (1.0 if confidence == UNKNOWN_CONFIDENCE else confidence)
        for picture_quality, confidence in zip(picture_qualities, confidences, strict=True)
    ]
    best_first = sorted(range(len(track)), key=lambda i: (-weights[i], track[i].frame))
    seen = track[best_first[0]]
    frame = film.frames[seen.frame]
    best, notes = (seen, []) if mask_refiner is None else refine_mask(frame, seen, mask_refiner)
    cut = images.cut_out(frame, best.mask, best.box)
    png = images.to_png(cut)
    return Element(
        clip_id=film.clip_id,
        element_id=element_id,
        kind=best.kind,
        label=majority(track),
        parent_id="",
        frame=best.frame,
        box=best.box,
        confidence=best.score,
        mask=images.to_rle(best.mask),
        image=png,
        image_sha256=images.sha16(png),
        embedding=mean_embedding([track[i].embedding for i in best_first[:FRAMES_AVERAGED]]).tolist(),
        embedder=embedder,
        quality=picture_qualities[best_first[0]],
        seen_frames=[s.frame for s in track],
        seen_boxes=[best.box if s.frame == best.frame else s.box for s in track],
        attributes=[f"colour={colours.name_in(frame, best.mask)}", f"size={best.area:.2f}", *notes],
        mask_confidence=round(confidences[best_first[0]], 4) if best.mask is seen.mask else UNKNOWN_CONFIDENCE,
        stamp=images.stamp(cut),
    )


def refine_mask(frame: np.ndarray, seen: Observation, mask_refiner: MaskRefiner) -> tuple[Observation, list[str]]:
    """Return the observation with the mask that the model draws in its box, and an attribute for the source of the mask.

    If the new mask is empty or outside the box, the model segmented something else and the old mask is kept. The embedding stays
    that of the old mask, consistent with the other observations.
    """
    mask = np.asarray(mask_refiner.model(frame, np.array([seen.box], np.float32))[0], bool)
    overlap = images.iou(images.bounds(mask), seen.box) if mask.any() else 0.0
    if overlap < mask_refiner.min_iou:
        return seen, ["mask=detector", f"{mask_refiner.name}-iou={overlap:.2f}"]
    return seen._replace(mask=mask, box=images.bounds(mask)), [f"mask={mask_refiner.name}"]


def majority(track: Track) -> str:
    """Return the label with the highest summed confidence over the track; ties go to the first in the alphabet."""
    labels = sorted({s.label for s in track})
    return max(labels, key=lambda label: sum(s.score for s in track if s.label == label))


def qualities(frames: np.ndarray, track: Track, others: Sequence[Observation]) -> list[float]:
    """Return the picture quality of each observation of a track. others: the observations of the other tracks."""
    median_area = float(np.median([s.area for s in track]))
    return [quality(frames[s.frame], s, [o for o in others if o.frame == s.frame], median_area) for s in track]


def quality(frame: np.ndarray, seen: Observation, others: Sequence[Observation], median_area: float) -> float:
    """Return the picture quality of an observation, 0 to 1. It is a product, so a single severe fault suffices to lower it.

    Factors: sharpness, size (full score from 15 % of the frame), position inside the frame (a cut at the bottom costs little,
    since half-length views end there), no overlap with others, size close to the track's median (unlike a leaking mask),
    confidence.
    """
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = seen.box
    border_score = 0.6 ** sum((x0 <= 0, y0 <= 0, x1 >= width)) * (0.9 if y1 >= height else 1.0)
    covered = np.zeros((height, width), bool)
    for other in others:
        covered |= box_mask(other.box, (height, width))
    unoccluded = 1 - 0.7 * float(covered[seen.mask].mean())
    size_score = min(1.0, seen.area / 0.15) ** 0.25
    typical = min(seen.area, median_area) / max(seen.area, median_area)
    return float(np.sqrt(sharpness(frame, seen) * typical * seen.score) * size_score * border_score * unoccluded)


def sharpness(frame: np.ndarray, seen: Observation) -> float:
    """Return v / (v + 100), 0 to 1, where v is the variance of the Laplacian inside the mask, at most 256 px on the long side.

    Variance of the Laplacian: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".
    """
    grey = cv2.cvtColor(images.crop(frame, seen.box), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, 256 / max(grey.shape))
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(images.crop(seen.mask, seen.box).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    inside = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0  # the sharpness of the outline depends on the background
    if not inside.any():
        return 0.0
    variance = float(cv2.Laplacian(grey, cv2.CV_32F)[inside].var())
    return variance / (variance + 100)
