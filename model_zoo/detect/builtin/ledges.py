"""Tables: the row from which something in front hides a person, below which the network invents their body."""

from collections.abc import Sequence

import cv2
import numpy as np

from model_zoo.detect.builtin.motion import MIN_DIFFERENCE, difference
from model_zoo.detect.builtin.prints import Head

LEDGE_LAB = 16.0  # distance in CIE Lab from which the colour below a head differs from the background beside it
STRIPES = 0.1, 0.3, 0.5, 0.7, 0.9  # quantiles of the colours of a row: a striped edge has several
STRIPES_LAB = 9.0  # mean distance of these quantiles from which the colours differ
STEP_LAB, STEP_ROWS = 6.0, 4  # change of colour from the rows above a table's edge to those below, beside the body
LEDGE_SIDE = 0.2  # face sides of background that must be visible for the comparison
# face sides from the centre of the face: where background may begin, and where it certainly has
SHOULDER, MAX_BESIDE = 1.5, 2.3


def ledges(
    pictures: Sequence[np.ndarray],
    plates: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    heads: Sequence[Head | None],
) -> list[int]:
    """Return for each picture of a shot the row from which an object hides a person, as its camera saw it.

    Searched in the plate, or in the picture if the person is not in the plate, such as a passer-by. The lower quartile of the
    results of `ledge`: a gesture in front of a table hides its edge, but nothing imitates one. The picture's height if fewer than
    a third of the pictures have one.
    """
    height = plates[0].shape[0]
    edges = [
        (head.x, ledge(picture if _is_absent(picture, plate, head) else plate, head), view)
        for picture, plate, head, view in zip(pictures, plates, heads, views, strict=True)
        if head is not None
    ]
    points = [cv2.perspectiveTransform(np.array([[[x, float(y)]]]), view)[0, 0] for x, y, view in edges if y < height]
    if 3 * len(points) < len(edges) or not points:
        return [height] * len(plates)
    middle_point = np.array([[[np.median([x for x, _ in points]), np.quantile([y for _, y in points], 0.25)]]])
    rows = [cv2.perspectiveTransform(middle_point, np.linalg.inv(view))[0, 0, 1] for view in views]
    return [int(np.clip(round(y), 0, height)) for y in rows]


def _is_absent(picture: np.ndarray, plate: np.ndarray, head: Head) -> bool:
    """Return whether the plate does not show the person: the neck and the top of the chest differ from the picture."""
    height, width = plate.shape[:2]
    chest = _pixel_range(head.y, 0.6, 2, head.side, height), _pixel_range(head.x, -0.5, 0.5, head.side, width)
    moved = difference(picture, plate)[chest] > MIN_DIFFERENCE
    return bool(moved.size and moved.mean() > 0.5)


def ledge(plate: np.ndarray, head: Head) -> int:
    """Return the row from which a table or parapet hides the person, down to the border; the picture's height if none does.

    It is an edge beside the body, at or below the highest row from which every row has the same colour below the head as on both
    sides: clothes of the colour of the wall are not a table.
    """
    height, width = plate.shape[:2]
    chest = _pixel_range(head.y, 1.0, 99, head.side, height)
    if chest.start >= height:
        return height
    lab = cv2.cvtColor(plate[chest].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    column_ranges = [_pixel_range(head.x, -0.8, 0.8, head.side, width)]
    for room, sign in ((head.x / head.side, -1), ((width - head.x) / head.side, 1)):
        distance = min(MAX_BESIDE, room - LEDGE_SIDE)  # in a close-up, the little background there is
        if distance >= SHOULDER:
            low, high = sorted((sign * distance, sign * (distance + 1.3)))
            column_ranges.append(_pixel_range(head.x, low, high, head.side, width))
    # empty if the head is outside the picture
    if len(column_ranges) < 2 or any(columns.start == columns.stop for columns in column_ranges):
        return height
    body_colours, *side_colours = (np.median(lab[:, columns], axis=1) for columns in column_ranges)
    is_different = np.max([np.linalg.norm(body_colours - side, axis=1) for side in side_colours], axis=0) > LEDGE_LAB
    # a narrow one shows a part of a stripe
    widest = max(column_ranges[1:], key=lambda columns: columns.stop - columns.start)
    below, beside = (np.quantile(lab[:, columns], STRIPES, axis=1) for columns in (column_ranges[0], widest))
    is_different &= np.linalg.norm(below - beside, axis=2).mean(0) > STRIPES_LAB
    # a single deviating row is not the body
    body = np.flatnonzero(cv2.erode(is_different.astype(np.uint8), np.ones((2, 1), np.uint8)))
    first_same_row = int(body[-1]) + 1 if len(body) else 0
    edges = [
        row
        for row in range(max(STEP_ROWS, first_same_row - STEP_ROWS), height - chest.start)
        if _has_colour_step(side_colours, row)
    ]
    return chest.start + max(first_same_row, edges[0]) if edges else height


def _has_colour_step(sides: Sequence[np.ndarray], row: int) -> bool:
    """Return whether the colour on all sides of a body changes at a row: (n, 3) CIE Lab, one for each row of the picture.

    On one side it may be the edge of an object beside the body.
    """
    steps = [np.median(s[row - STEP_ROWS : row], 0) - np.median(s[row : row + STEP_ROWS], 0) for s in sides]
    return min(float(np.linalg.norm(step)) for step in steps) > STEP_LAB


def _pixel_range(centre: float, low: float, high: float, unit: float, limit: int) -> slice:
    """Return the whole pixels from centre + low units to centre + high units, inside 0 to limit."""
    return slice(min(limit, max(0, round(centre + low * unit))), min(limit, max(0, round(centre + high * unit))))
