"""Sightings in successive frames joined to tracks, by place and by looks; and where a thing was between them."""

from collections.abc import Sequence

import numpy as np

from a2data.media.images import Box, iou
from a2data.records import Element

NEAR_IOU = 0.3  # two sightings may be one thing when their boxes overlap this much,
ALIKE = 0.8  # or when they look this much alike
NEAR_SIZES = 1.5  # and their middles are at most so many box sizes apart, for each sample between them


def associate(boxes: Sequence[Sequence[Box]], looks: Sequence[np.ndarray], gap: int = 3) -> list[list[tuple[int, int]]]:
    """Tracks through samples of a shot, each a list of (sample, sighting) ascending; every sighting is in just one.

    boxes: for each sample its sightings' boxes. looks: for each sample (n, d) float32, rows of unit length (d may be 0).
    A track that is not seen for more than `gap` samples has ended. Each sample's sightings are given to the open tracks by the
    Hungarian method, at a cost of one less the mean of overlap and cosine. The overlap is with where the track would be had it
    gone on as it went (Bewley et al. 2016, SORT): of two who pass one another, the other is nearer to where each was last.
    Tracks are ordered by their first sighting.
    """
    tracks: list[list[tuple[int, int]]] = []
    for t, here in enumerate(boxes):
        alive = [track for track in tracks if t - track[-1][0] <= gap + 1]
        pairs = _assign(t, alive, boxes, looks)
        for row, column in pairs:
            alive[row].append((t, column))
        taken = {column for _, column in pairs}
        tracks += [[(t, column)] for column in range(len(here)) if column not in taken]
    return tracks


def from_numbers(numbers: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """What a tracker says as `link` says it: numbers holds for each sample its sightings' tracks, -1 for none.

    A sighting without a track is one by itself.
    """
    tracks: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for t, here in enumerate(numbers):
        for i, number in enumerate(here):
            tracks.setdefault((number,) if number >= 0 else (-1, t, i), []).append((t, i))
    return list(tracks.values())


def _assign(
    t: int, alive: list[list[tuple[int, int]]], boxes: Sequence[Sequence[Box]], looks: Sequence[np.ndarray]
) -> list[tuple[int, int]]:
    """The (track, sighting) pairs of least cost among those that may be one thing."""
    from scipy.optimize import linear_sum_assignment  # 0.5 s, which no command should wait for

    far = 10.0
    cost = np.full((len(alive), len(boxes[t])), far)
    for row, track in enumerate(alive):
        last = track[-1][0]
        before = predict_box(t, track, boxes)
        look = mean_embedding([looks[s][i] for s, i in track[-5:]])
        for column, box in enumerate(boxes[t]):
            overlap, alike = iou(before, box), float(look @ looks[t][column])
            if overlap >= NEAR_IOU or (alike >= ALIKE and apart(before, box) <= NEAR_SIZES * (t - last)):
                cost[row, column] = 1 - (overlap + alike) / 2
    rows, columns = linear_sum_assignment(cost)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < far]


def predict_box(t: int, track: Sequence[tuple[int, int]], boxes: Sequence[Sequence[Box]]) -> Box:
    """Where a track's last box would be at sample t, moving on as its middle did between the last two sightings."""
    last, number = track[-1]
    x0, y0, x1, y1 = boxes[last][number]
    if len(track) < 2:
        return x0, y0, x1, y1
    earlier, other = track[-2]
    a0, b0, a1, b1 = boxes[earlier][other]
    steps = (t - last) / (last - earlier)
    right, down = (x0 + x1 - a0 - a1) / 2 * steps, (y0 + y1 - b0 - b1) / 2 * steps
    return x0 + right, y0 + down, x1 + right, y1 + down


def mean_embedding(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of unit vectors, (d,) float32, of unit length again."""
    mean = np.mean(vectors, axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def apart(a: Box, b: Box) -> float:
    """The distance of two boxes' middles, in sizes (the root of the area) of the larger."""
    dx, dy = ((a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1))
    size = max((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) ** 0.5
    return float(np.hypot(dx, dy) / max(size, 1e-9))


def box_at(element: Element, frame: int, reach: int) -> Box | None:
    """The element's box in any frame of its clip: as seen, or linear between the nearest two sightings.

    Before the first sighting and after the last it is taken to stand still for `reach` frames, then it is gone: None. A gap
    between two sightings is bridged however long it is: the thing was there before and after.
    """
    seen = element.seen_frames
    if not seen or not seen[0] - reach <= frame <= seen[-1] + reach:
        return None
    sides = np.asarray(element.seen_boxes, float).T
    x0, y0, x1, y1 = (float(np.interp(frame, seen, side)) for side in sides)
    return x0, y0, x1, y1
