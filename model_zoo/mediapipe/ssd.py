"""Single-shot detectors with anchors of one size: MediaPipe's face and pose detectors.

The decoding follows SsdAnchorsCalculator, TensorsToDetectionsCalculator and NonMaxSuppressionCalculator (algorithm WEIGHTED)
with the options of face_detection_full_range.pbtxt and pose_detection_cpu.pbtxt.
"""

from typing import NamedTuple

import numpy as np

from model_zoo.mediapipe.network import Network, crop_square, sigmoid, to_frame

NMS_IOU = 0.3  # min_suppression_threshold of both graphs


class BoxDetection(NamedTuple):
    """A detection, in pixels of the frame."""

    score: float
    box: np.ndarray  # (4,) float32: x0, y0, x1, y1
    points: np.ndarray  # (n, 2) float32 key points


def anchors(size: int, strides: tuple[int, ...], per_cell: int) -> np.ndarray:
    """Return the centres of the anchors, (n, 2) float32, x and y from 0 to 1. Layers of one stride share a grid.

    per_cell: anchors of each layer at each cell: 2 if the graph interpolates an aspect ratio, else 1.
    """
    centres, layer = [], 0
    while layer < len(strides):
        same_stride = [s for s in strides[layer:] if s == strides[layer]]
        cells = -(-size // strides[layer])
        y, x = np.mgrid[:cells, :cells]
        grid = (np.stack([x.ravel(), y.ravel()], 1) + 0.5) / cells
        centres.append(np.repeat(grid, per_cell * len(same_stride), axis=0))
        layer += len(same_stride)
    return np.concatenate(centres).astype(np.float32)


class Head(NamedTuple):
    """What a detector's outputs refer to."""

    px: int  # side of its square
    anchors: np.ndarray  # (n, 2)


FACES = Head(192, anchors(192, (4,), 1))
POSES = Head(224, anchors(224, (8, 16, 32, 32, 32), 2))


def decode(raw: np.ndarray, logits: np.ndarray, head: Head, min_score: float) -> list[BoxDetection]:
    """Return the detections of one crop in its pixels, best first, merged.

    raw: (n, 4 + 2 k) offsets in pixels: centre, width, height, key points. logits: (n, 1). least: lowest score.
    """
    scores = sigmoid(logits[:, 0])
    keep = np.flatnonzero(scores >= min_score)
    offsets, scores = raw[keep], scores[keep]
    centres = head.anchors[keep] * head.px
    middle = offsets[:, :2] + centres
    half = offsets[:, 2:4] / 2
    boxes = np.concatenate([middle - half, middle + half], 1)
    points = offsets[:, 4:].reshape(len(keep), (raw.shape[1] - 4) // 2, 2) + centres[:, None]
    return weighted_nms([BoxDetection(float(s), b, p) for s, b, p in zip(scores, boxes, points, strict=True)])


def weighted_nms(detections: list[BoxDetection]) -> list[BoxDetection]:
    """Return the detections with those that overlap the best one averaged into it, by score (weighted suppression)."""
    remaining = sorted(detections, key=lambda f: (-f.score, *f.box))
    merged = []
    while remaining:
        best = remaining[0]
        is_overlapping = [overlap(best.box, f.box) > NMS_IOU for f in remaining]
        overlapping = [f for f, overlaps in zip(remaining, is_overlapping, strict=True) if overlaps] or [best]
        weights = np.array([f.score for f in overlapping]) / sum(f.score for f in overlapping)
        box = np.einsum("n,nd->d", weights, [f.box for f in overlapping])
        points = np.einsum("n,nkd->kd", weights, [f.points for f in overlapping])
        merged.append(BoxDetection(best.score, box, points))
        remaining = [f for f, overlaps in zip(remaining, is_overlapping, strict=True) if not overlaps and f is not best]
    return merged


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the IoU of two boxes; 0 for an empty one."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    intersection = max(0.0, float(width)) * max(0.0, float(height))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - intersection
    return intersection / union if intersection > 0 and union > 0 else 0.0


def detect(
    run: Network, frame: np.ndarray, centre: tuple[float, float], side: float, head: Head, min_score: float
) -> list[BoxDetection]:
    """Return what a detector finds in an upright square of a frame, in the frame's pixels, best first.

    frame: (h, w, 3) uint8 RGB. centre, side: of the square, in pixels. head: FACES or POSES. least: lowest score, 0 to 1.
    """
    crop, back = crop_square(frame, centre, side, 0.0, head.px)
    raw, logits = run(crop.astype(np.float32) / 127.5 - 1)
    return [
        BoxDetection(f.score, to_frame(f.box.reshape(2, 2), back).ravel(), to_frame(f.points, back))
        for f in decode(raw, logits, head, min_score)
    ]


def detection_squares(height: int, width: int) -> list[tuple[tuple[float, float], float]]:
    """Return the squares (centre, side) that the detectors see: the whole frame, and two or three along its longer side.

    The detectors shrink a square to about 200 px, so that a person in a part of the frame is seen larger.
    """
    small, large = sorted((height, width))
    whole = [((width / 2, height / 2), float(large))]
    if large < 1.25 * small:
        return whole
    offsets = np.linspace(small / 2, large - small / 2, 2 if large < 1.6 * small else 3)
    return whole + [((x, height / 2) if width > height else (width / 2, x), float(small)) for x in offsets]


def detect_multiscale(run: Network, frame: np.ndarray, head: Head, min_score: float) -> list[BoxDetection]:
    """Return what a detector finds in a frame and in parts of it, in the frame's pixels, best first, each once."""
    found = [detect(run, frame, centre, side, head, min_score) for centre, side in detection_squares(*frame.shape[:2])]
    return weighted_nms([one for part in found for one in part])
