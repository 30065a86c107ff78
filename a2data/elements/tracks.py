"""Data association of observations in successive frames by position and embedding, and interpolation between them."""

from collections.abc import Sequence

import numpy as np

from a2data.media.images import Box, iou
from a2data.records import Element

# Two observations may belong to one track if their boxes overlap by MIN_IOU, or if their embeddings have a cosine of MIN_COSINE
# and their centres are at most MAX_DISTANCE_SIZES box sizes apart for each sample between them.
MIN_IOU = 0.3
MIN_COSINE = 0.8
MAX_DISTANCE_SIZES = 1.5


def associate(
    boxes: Sequence[Sequence[Box]], embeddings: Sequence[np.ndarray], gap: int = 3
) -> list[list[tuple[int, int]]]:
    """Return tracks through samples of a shot, each an ascending list of (sample, observation); each observation is in one track.

    boxes: boxes of the observations of each sample. embeddings: theirs, (n, d) float32 per sample with rows of unit norm (d
    may be 0). A track ends when it is not seen for more than `gap` samples. The observations of each sample are assigned to the
    open tracks by the Hungarian method, with cost 1 - mean of overlap and cosine. The overlap is with the predicted box at
    constant velocity (Bewley et al. 2016, SORT), because when two people pass each other, each ends up closer to the other's last
    position. Tracks are ordered by their first observation.
    """
    tracks: list[list[tuple[int, int]]] = []
    for t, sample_boxes in enumerate(boxes):
        open_tracks = [track for track in tracks if t - track[-1][0] <= gap + 1]
        pairs = _assign(t, open_tracks, boxes, embeddings)
        for row, column in pairs:
            open_tracks[row].append((t, column))
        taken = {column for _, column in pairs}
        tracks += [[(t, column)] for column in range(len(sample_boxes)) if column not in taken]
    return tracks


def from_track_ids(track_ids: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
    """Convert the output of a tracker to that of `associate`. track_ids: track of each observation per sample, -1 for none.

    An observation without a track becomes a track of its own.
    """
    tracks: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for t, sample_ids in enumerate(track_ids):
        for i, track_id in enumerate(sample_ids):
            tracks.setdefault((track_id,) if track_id >= 0 else (-1, t, i), []).append((t, i))
    return list(tracks.values())


def _assign(
    t: int, open_tracks: list[list[tuple[int, int]]], boxes: Sequence[Sequence[Box]], embeddings: Sequence[np.ndarray]
) -> list[tuple[int, int]]:
    """Return the (track, observation) pairs with the least total cost among the admissible ones."""
    # late, since the import takes 0.5 s
    from scipy.optimize import linear_sum_assignment

    inadmissible = 10.0
    cost = np.full((len(open_tracks), len(boxes[t])), inadmissible)
    for row, track in enumerate(open_tracks):
        last = track[-1][0]
        predicted = predict_box(t, track, boxes)
        track_embedding = mean_embedding([embeddings[s][i] for s, i in track[-5:]])
        for column, box in enumerate(boxes[t]):
            overlap, cosine = iou(predicted, box), float(track_embedding @ embeddings[t][column])
            if overlap >= MIN_IOU or (
                cosine >= MIN_COSINE and centre_distance(predicted, box) <= MAX_DISTANCE_SIZES * (t - last)
            ):
                cost[row, column] = 1 - (overlap + cosine) / 2
    rows, columns = linear_sum_assignment(cost)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if cost[r, c] < inadmissible]


def predict_box(t: int, track: Sequence[tuple[int, int]], boxes: Sequence[Sequence[Box]]) -> Box:
    """Return the predicted box of a track at sample t, moved at the velocity of its centre in the last two observations."""
    last, index = track[-1]
    x0, y0, x1, y1 = boxes[last][index]
    if len(track) < 2:
        return x0, y0, x1, y1
    earlier, other = track[-2]
    a0, b0, a1, b1 = boxes[earlier][other]
    steps = (t - last) / (last - earlier)
    right, down = (x0 + x1 - a0 - a1) / 2 * steps, (y0 + y1 - b0 - b1) / 2 * steps
    return x0 + right, y0 + down, x1 + right, y1 + down


def mean_embedding(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of unit vectors, normalised to unit length, (d,) float32."""
    mean = np.mean(vectors, axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def centre_distance(a: Box, b: Box) -> float:
    """Return the distance between the centres of two boxes, in sizes (square root of the area) of the larger."""
    dx, dy = ((a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1))
    size = max((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) ** 0.5
    return float(np.hypot(dx, dy) / max(size, 1e-9))


def box_at(element: Element, frame: int, extrapolate: int) -> Box | None:
    """Return the element's box in any frame of its clip, interpolated linearly between observations.

    Before the first and after the last observation the box is assumed constant for `extrapolate` frames, and None beyond. Gaps
    between two observations are bridged whatever their length, since the element was there before and after.
    """
    seen = element.seen_frames
    if not seen or not seen[0] - extrapolate <= frame <= seen[-1] + extrapolate:
        return None
    sides = np.asarray(element.seen_boxes, float).T
    x0, y0, x1, y1 = (float(np.interp(frame, seen, side)) for side in sides)
    return x0, y0, x1, y1
