"""What every detector does with the boxes of its network, whatever library ran it."""

from collections.abc import Sequence

import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.roles import Detection

CONFIDENCE = 0.1  # below this nothing is worth a row; the stage's min_score decides


def detections(
    frame: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: Sequence[str], masks: np.ndarray | None
) -> list[Detection]:
    """The detections of one frame: boxes inside the frame, masks at its size; best first, ties from the left.

    frame: (h, w, 3) uint8 RGB. boxes: (n, 4), x0, y0, x1, y1 in its pixels; one that is thinner than a pixel is dropped.
    scores: (n,), 0 to 1. labels: a "person" is of the kind human, all else an object. masks: (n, h, w) bool, or None for a
    network that gives boxes only: then the mask is cut out of the box by its colours, see grabcut.in_box.
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
