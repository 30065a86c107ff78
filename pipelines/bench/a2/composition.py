"""Whether the people, things and places of a video are those of the references. Arrays in, numbers out; networks are given.

The paper (Fei et al. 2025, arXiv 2504.02436) names the metrics and gives no sampling, threshold or rule for what is not found:
those here are ours. A cosine below 0 counts as 0, so that every figure is 0 to 1.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from pipelines.bench.a2.totals import Measured

GROW = 0.02  # of the shorter side, by which the foreground is enlarged before it is painted over
MOST_FOREGROUND = 0.9  # of a frame; of one with more there is no background to be seen
# The mean colour of the pictures that CLIP was trained on: zero after its normalisation.
CLIP_GREY = np.array([123, 117, 104], np.uint8)

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]  # n (h, w, 3) uint8 RGB -> (n, d) float32 of unit length


def matched(faces: np.ndarray, references: np.ndarray) -> list[int | None]:
    """For each reference, which face stands for it; None for those for whom none is left.

    faces: (k, d), references: (r, d), rows of unit length. Every face stands for one reference at most; the whole assignment has
    the largest sum of cosines that there is (Kuhn 1955).
    """
    from scipy.optimize import linear_sum_assignment  # 0.5 s, which no command should wait for

    found: list[int | None] = [None] * len(references)
    if len(faces) and len(references):
        for face, reference in zip(*linear_sum_assignment(-(faces @ references.T)), strict=True):
            found[reference] = int(face)
    return found


def assigned(faces: np.ndarray, references: np.ndarray) -> list[float | None]:
    """For each reference, the cosine of the face that stands for it, see `matched`."""
    pairs = zip(references, matched(faces, references), strict=True)
    return [None if face is None else float(faces[face] @ reference) for reference, face in pairs]


def identity(faces: Sequence[np.ndarray], references: np.ndarray) -> Measured:
    """ID consistency: for each frame (k, d) vectors of its faces, k may be 0; (r, d) vectors of the people asked for.

    The value is the mean cosine over all pairs of a frame and a person for whom it has a face; seen and of count these pairs.
    """
    if not len(references):
        return Measured(skipped="the case has no face in its pictures of people")
    pairs = [cosine for frame in faces for cosine in assigned(frame, references)]
    return _mean([max(0.0, cosine) for cosine in pairs if cosine is not None], len(pairs))


def thing(frames: np.ndarray, masks: Sequence[np.ndarray | None], reference: np.ndarray, embed: Embed) -> Measured:
    """Object consistency: the mean cosine of the thing, cut out on white in each frame that has it, and its reference.

    frames: (t, h, w, 3) uint8. masks: for each frame (h, w) bool, or None where it was not found. reference: (d,) unit length.
    """
    cut = [on_white(frame, mask) for frame, mask in zip(frames, masks, strict=True) if mask is not None and mask.any()]
    cosines = embed(cut) @ reference if cut else np.zeros(0)
    return _mean(np.maximum(0.0, cosines).tolist(), len(frames))


def on_white(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What a mask covers, white around it, cropped to it: as references are."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.where(mask[inside][..., None], frame[inside], np.uint8(255))


def background(frames: np.ndarray, masks: np.ndarray, reference: np.ndarray, embed: Embed) -> Measured:
    """Background consistency: the mean cosine of each frame, its foreground painted over, and the picture of the place.

    frames: (t, h, w, 3) uint8; masks: (t, h, w) bool, True on people and things; reference: (d,) unit length. A frame of which
    more than 0.9 is foreground shows no place and counts as not seen.
    """
    shown = [
        painted for frame, mask in zip(frames, masks, strict=True) if (painted := painted_over(frame, mask)) is not None
    ]
    cosines = embed(shown) @ reference if shown else np.zeros(0)
    return _mean(np.maximum(0.0, cosines).tolist(), len(frames))


def painted_over(frame: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """The frame with CLIP's mean colour on the mask and a little around it; None where that leaves less than a tenth."""
    reach = round(GROW * min(mask.shape))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    grown = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    return None if grown.mean() > MOST_FOREGROUND else np.where(grown[..., None], CLIP_GREY, frame)


def copy_paste(generated: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> float | None:
    """Whether an output is nearer to the reference than to the truth (Xu et al. 2025, WithAnyone, arXiv 2510.14975), -1 to 1.

    (angle(generated, truth) - angle(generated, reference)) / angle(truth, reference), of (d,) vectors of one person or thing: 1
    is a copy of the reference, -1 the truth itself. The truth must be another picture than the reference, as in the triplets
    that are paired across clips; None where they are the same.
    """
    apart = angle(truth, reference)
    if apart < 1e-6:
        return None
    return (angle(generated, truth) - angle(generated, reference)) / apart


def copied(generated: Sequence[np.ndarray], truth: Sequence[np.ndarray], references: np.ndarray) -> Measured:
    """The copy-paste score of a video: the mean of `copy_paste` over its frames and people.

    generated, truth: for each frame of the video, and of the one that the case was taken from, (k, d) vectors of its faces.
    references: (r, d). A person's truth is the mean of their faces there. Where nobody is to be compared nothing is measured:
    0 would say that the output is as near to the one as to the other.
    """
    people = [(middle, reference) for reference, middle in zip(references, _middles(truth, references), strict=True)]
    known = [(middle, reference) for middle, reference in people if middle is not None]
    between = np.array([middle + reference for middle, reference in known])  # favours neither
    scores: list[float] = []
    for faces in generated:
        for (middle, reference), face in zip(known, matched(faces, between), strict=True):
            found = None if face is None else copy_paste(faces[face], middle, reference)
            scores += [] if found is None else [found]
    if not scores:
        return Measured(skipped="no face could be compared, in the video or in its truth")
    return Measured(float(np.mean(scores)))


def _middles(frames: Sequence[np.ndarray], references: np.ndarray) -> list[np.ndarray | None]:
    """For each reference the mean of the faces that stand for it, (d,) of unit length; None where there are none."""
    found: list[list[np.ndarray]] = [[] for _ in references]
    for faces in frames:
        for mine, face in zip(found, matched(faces, references), strict=True):
            mine += [] if face is None else [faces[face]]
    means = [np.mean(mine, axis=0) if mine else None for mine in found]
    return [None if mean is None else mean / np.linalg.norm(mean) for mean in means]


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Between two (d,) vectors, in radians. By their difference and sum: an arc cosine is blind to small angles."""
    a, b = (np.asarray(v, float) / np.linalg.norm(v) for v in (a, b))
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def _mean(values: Sequence[float], of: int) -> Measured:
    return Measured(float(np.mean(values)) if len(values) else None, len(values), of)
