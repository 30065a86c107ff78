"""Colours of the background outside the boxes of the foreground."""

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np

from a2data.media import colours
from a2data.media.images import Box

ROWS, COLUMNS = 12, 20  # grid of cells; each gets one colour name
SIDE_PX = 4  # side of a cell in px after downscaling
MIN_FRACTION = 0.2  # smallest fraction of the background for a colour to be reported


def background_colours(picture: np.ndarray, boxes: Sequence[Box]) -> list[str]:
    """Return the names of colours that cover at least a fifth of an (h, w, 3) uint8 RGB picture outside the boxes, largest first.

    [] if the boxes leave less than a twentieth of the picture.
    """
    uncovered = free_cells(boxes, *picture.shape[:2])
    if uncovered.mean() < 0.05:
        return []
    small = cv2.resize(picture, (COLUMNS * SIDE_PX, ROWS * SIDE_PX), interpolation=cv2.INTER_AREA)
    cells = small.reshape(ROWS, SIDE_PX, COLUMNS, SIDE_PX, 3).swapaxes(1, 2).reshape(ROWS, COLUMNS, -1, 3)
    counts = Counter(colours.name(cells[cell]) for cell in zip(*np.nonzero(uncovered), strict=True))
    ranked = sorted(counts, key=lambda colour: (-counts[colour], colour))
    return [colour for colour in ranked if counts[colour] >= MIN_FRACTION * uncovered.sum()]


def free_cells(boxes: Sequence[Box], height: int, width: int) -> np.ndarray:
    """Return the cells of a height x width picture that the boxes do not touch, (ROWS, COLUMNS) bool."""
    uncovered = np.ones((ROWS, COLUMNS), bool)
    for x0, y0, x1, y1 in boxes:
        top, bottom = max(0, int(y0 / height * ROWS)), int(np.ceil(y1 / height * ROWS))
        left, right = max(0, int(x0 / width * COLUMNS)), int(np.ceil(x1 / width * COLUMNS))
        uncovered[top:bottom, left:right] = False
    return uncovered
