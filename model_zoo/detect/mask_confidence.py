"""Confidence of a mask without ground truth, for detectors that grow masks from colours (GrabCut).

Four cues, each 0 to 1, show that such a mask is wrong; the confidence is their product, so that one bad cue is enough:

* the same track's masks in neighbouring samples have another shape: a single spill is an outlier;
* its outline runs where the picture has no edge: a black coat in front of a black sky is divided along nothing;
* its outline is near another element's mask: where two pass each other, the owner of a pixel is a guess;
* the colours just inside and outside are the same: the same coat and sky, where stars add edges.

A mask that is wrong in the same way in all samples, along edges of the picture, gets a high confidence: it is not a proof. It
does not apply to the masks of networks, whose outlines are smooth and slightly off the edges even if correct.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.detect.builtin.grabcut import WORK_PX
from model_zoo.detect.builtin.things import separation
from model_zoo.pictures import shrink

NUM_NEIGHBOURS = 4  # nearest sightings of the track with which each is compared
EDGE_LAB = 25.0  # Sobel magnitude in CIE Lab of an edge, in a picture of grabcut.WORK_PX
NEAR_PX = 8  # distance from another mask below which an outline is doubtful, there

TrackMask = tuple[int, np.ndarray]  # frame, (h, w) bool mask of the frame's size


class MaskCues(NamedTuple):
    """Evidence for a mask, each 0 to 1."""

    agrees: float  # with the shapes of the same track in nearby samples
    on_edge: float
    separated_fraction: float  # from others
    in_colour: float  # distance of its colours from those around it

    @property
    def confidence(self) -> float:
        return float(np.prod(self))


def mask_confidence(frames: np.ndarray, tracks: Sequence[Sequence[TrackMask]]) -> list[list[float]]:
    """Return the confidence of each sighting of each track of a clip, 0 to 1. frames: (t, h, w, 3) uint8 RGB."""
    return [[cues.confidence for cues in track] for track in cues_of(frames, tracks)]


def cues_of(frames: np.ndarray, tracks: Sequence[Sequence[TrackMask]]) -> list[list[MaskCues]]:
    """Return the cues of each sighting; all 0 for an empty mask. Deterministic, on the CPU."""
    numbers = sorted({number for track in tracks for number, _ in track})
    small = {number: shrink(frames[number], WORK_PX) for number in numbers}
    edges = {number: edge(picture) for number, picture in small.items()}
    small_tracks = [[(number, resized(mask, small[number].shape[:2])) for number, mask in track] for track in tracks]
    track_cues: list[list[MaskCues]] = []
    for track in small_tracks:
        others = [track_mask for other in small_tracks if other is not track for track_mask in other]
        track_cues.append([])
        for i, (number, mask) in enumerate(track):
            neighbours = [other for frame, other in others if frame == number]
            cues = MaskCues(
                agreement(track, i),
                on_edge(mask, edges[number]),
                separated_fraction(mask, neighbours),
                colour_contrast(small[number], mask),
            )
            track_cues[-1].append(cues if mask.any() else MaskCues(0.0, 0.0, 0.0, 0.0))
    return track_cues


def resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the (h, w) bool mask resized by area averaging."""
    return cv2.resize(mask.astype(np.float32), shape[1::-1], interpolation=cv2.INTER_AREA) > 0.5


def agreement(track: Sequence[TrackMask], index: int) -> float:
    """Return the mean IoU of a mask with those of the AROUND nearest sightings, centred; 1 for a track of one sighting.

    Masks are aligned by their centres rather than by optical flow, which loses a ball after five frames.
    """
    mask = track[index][1]
    neighbours = sorted((i for i in range(len(track)) if i != index), key=lambda i: (abs(i - index), i))[
        :NUM_NEIGHBOURS
    ]
    ious = []
    for i in neighbours:
        aligned = centred_on(track[i][1], mask)
        ious.append((mask & aligned).sum() / max(1, (mask | aligned).sum()))
    return float(np.mean(ious)) if ious else 1.0


def centred_on(other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the other mask shifted by whole pixels to the same centre; pixels outside the picture are dropped."""
    if not mask.any() or not other.any():
        return other
    (y, x), (v, u) = (np.argwhere(m).mean(0) for m in (mask, other))
    shift = np.array([[1.0, 0, round(x - u)], [0, 1, round(y - v)]])
    return cv2.warpAffine(other.astype(np.uint8), shift, other.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def edge(picture: np.ndarray) -> np.ndarray:
    """Return the pixels of an RGB picture on or beside an edge, (h, w) bool."""
    lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    steps = cv2.Sobel(lab, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(lab, cv2.CV_32F, 0, 1) ** 2
    return cv2.dilate((steps.sum(2) >= EDGE_LAB**2).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the mask's pixels with a neighbour outside it, (h, w) bool, except those on the picture's border."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    contour = mask & (cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=1) == 0)
    contour[[0, -1]] = contour[:, [0, -1]] = False
    return contour


def on_edge(mask: np.ndarray, edges: np.ndarray) -> float:
    """Return the fraction of a mask's outline on an edge of the picture; 1 for a mask without an outline."""
    contour = outline(mask)
    return float(edges[contour].mean()) if contour.any() else 1.0


def separated_fraction(mask: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Return the fraction of a mask's outline that is not near another mask; 1 for a mask without an outline."""
    contour = outline(mask)
    if not others or not contour.any():
        return 1.0
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR_PX + 1, 2 * NEAR_PX + 1))
    return 1 - float(cv2.dilate(np.any(others, axis=0).astype(np.uint8), disk)[contour].mean())


def colour_contrast(picture: np.ndarray, mask: np.ndarray) -> float:
    """Return the distance of the colours inside from those just outside, 0 to 1: the square root of `separation`.

    The root accounts for different subjects that share many colours.
    """
    return float(np.sqrt(separation(picture, mask))) if mask.any() and not mask.all() else 0.0
