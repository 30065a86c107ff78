"""Post-processing of a detector's boxes, whatever library ran it."""

from collections.abc import Sequence

import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.roles import Detection

CONFIDENCE = 0.1  # floor of all detectors; the stage's `confidence` decides


def detections(
    frame: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: Sequence[str], masks: np.ndarray | None
) -> list[Detection]:
    """Return the detections of one frame: boxes inside the frame, masks at its size; best first, ties from the left.

    frame: (h, w, 3) uint8 RGB. boxes: (n, 4), x0, y0, x1, y1 in its pixels; boxes thinner than a pixel are dropped. scores: (n,),
    0 to 1. labels: a "person" is of the kind human, all others are objects. masks: (n, h, w) bool, or None for a network without
    masks: the mask is then cut out of the box by colour, see grabcut.in_box.
    """
    height, width = frame.shape[:2]
    found = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], *boxes[i])):
        x0, y0, x1, y1 = (float(v) for v in np.clip(boxes[i], 0, [width, height, width, height]))
        if x1 - x0 < 1 or y1 - y0 < 1:
            continue
        mask = grabcut.in_box(frame, (x0, y0, x1, y1)) if masks is None else masks[i]
        kind = "human" if labels[i] == "person" else "object"
        found.append(Detection(kind, labels[i], float(scores[i]), (x0, y0, x1, y1), mask))
    return found
