"""Metrics of whether the people, objects and background of a video match the references. Pure functions of arrays and networks.

The paper (Fei et al. 2025, arXiv 2504.02436) names the metrics, but does not give the frame sampling, thresholds or handling of
missing detections: those here are ours. A cosine below 0 counts as 0, so every value is from 0 to 1.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from pipelines.bench.a2.totals import Measured

DILATION = 0.02  # dilation of the foreground before it is painted over, as a fraction of the shorter side
MAX_FOREGROUND = 0.9  # fraction of a frame above which the background is not visible
# The mean colour of CLIP's training images: zero after its normalisation.
CLIP_GREY = np.array([123, 117, 104], np.uint8)

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]  # n (h, w, 3) uint8 RGB -> (n, d) float32 of unit length


def match_faces(faces: np.ndarray, references: np.ndarray) -> list[int | None]:
    """Return the index of the face assigned to each reference, or None.

    faces: (k, d), references: (r, d), rows of unit length. Each face is assigned to at most one reference, maximising the sum of
    cosines (Kuhn 1955).
    """
    # imported here, because it takes 0.5 s
    from scipy.optimize import linear_sum_assignment

    face_of: list[int | None] = [None] * len(references)
    if len(faces) and len(references):
        for face, reference in zip(*linear_sum_assignment(-(faces @ references.T)), strict=True):
            face_of[reference] = int(face)
    return face_of


def face_cosines(faces: np.ndarray, references: np.ndarray) -> list[float | None]:
    """Return for each reference the cosine with its assigned face, see `match_faces`."""
    pairs = zip(references, match_faces(faces, references), strict=True)
    return [None if face is None else float(faces[face] @ reference) for reference, face in pairs]


def id_consistency(faces: Sequence[np.ndarray], references: np.ndarray) -> Measured:
    """Return ID consistency. faces: (k, d) vectors of each frame's faces, k may be 0; references: (r, d) vectors of the people.

    The value is the mean cosine over all pairs of a frame and a person with an assigned face; seen and of count these pairs.
    """
    if not len(references):
        return Measured(skipped="the case has no face in its pictures of people")
    pairs = [cosine for frame in faces for cosine in face_cosines(frame, references)]
    return _mean([max(0.0, cosine) for cosine in pairs if cosine is not None], len(pairs))


def object_consistency(
    frames: np.ndarray, masks: Sequence[np.ndarray | None], reference: np.ndarray, embed: Embed
) -> Measured:
    """Return object consistency: the mean cosine of the reference and the object, cut out on white in each frame that has it.

    frames: (t, h, w, 3) uint8. masks: per frame (h, w) bool, or None if not found. reference: (d,), unit length.
    """
    cut_outs = [
        cut_out_on_white(frame, mask)
        for frame, mask in zip(frames, masks, strict=True)
        if mask is not None and mask.any()
    ]
    cosines = embed(cut_outs) @ reference if cut_outs else np.zeros(0)
    return _mean(np.maximum(0.0, cosines).tolist(), len(frames))


def cut_out_on_white(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the masked region on white, cropped to it, like the references."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    region = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.where(mask[region][..., None], frame[region], np.uint8(255))


def background_consistency(frames: np.ndarray, masks: np.ndarray, reference: np.ndarray, embed: Embed) -> Measured:
    """Return background consistency: the mean cosine of the reference and each frame with its foreground painted over.

    frames: (t, h, w, 3) uint8; masks: (t, h, w) bool, True on people and objects; reference: (d,), unit length. A frame with more
    than 0.9 foreground counts as not seen.
    """
    visible = [
        background
        for frame, mask in zip(frames, masks, strict=True)
        if (background := paint_over(frame, mask)) is not None
    ]
    cosines = embed(visible) @ reference if visible else np.zeros(0)
    return _mean(np.maximum(0.0, cosines).tolist(), len(frames))


def paint_over(frame: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Return the frame with the dilated mask set to CLIP's mean colour, or None if less than a tenth of it remains."""
    radius = round(DILATION * min(mask.shape))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    dilated = cv2.dilate(mask.astype(np.uint8), kernel) > 0
    return None if dilated.mean() > MAX_FOREGROUND else np.where(dilated[..., None], CLIP_GREY, frame)


def copy_paste(generated: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> float | None:
    """Return the copy-paste score, -1 to 1: whether an output is closer to the reference than to the ground truth.

    The score (Xu et al. 2025, WithAnyone, arXiv 2510.14975) is (angle(generated, truth) - angle(generated, reference)) /
    angle(truth, reference), for (d,) vectors of one person or object: 1 is a copy of the reference, -1 the ground truth itself.
    Truth and reference must be different images, as in triplets paired across clips; None if they are the same.
    """
    distance = angle(truth, reference)
    if distance < 1e-6:
        return None
    return (angle(generated, truth) - angle(generated, reference)) / distance


def copy_paste_of_video(
    generated: Sequence[np.ndarray], truth: Sequence[np.ndarray], references: np.ndarray
) -> Measured:
    """Return the copy-paste score of a video: the mean of `copy_paste` over its frames and people.

    generated, truth: (k, d) face vectors for each frame of the video and of the clip that the case was taken from. references:
    (r, d). A person's ground truth is the mean of their faces in the clip. If no face can be compared, the metric is skipped: 0
    would mean that the output is equally close to both.
    """
    pairs = [
        (mean_face, reference) for reference, mean_face in zip(references, _mean_faces(truth, references), strict=True)
    ]
    comparable = [(mean_face, reference) for mean_face, reference in pairs if mean_face is not None]
    midpoints = np.array([mean_face + reference for mean_face, reference in comparable])  # equally close to both
    scores: list[float] = []
    for faces in generated:
        for (mean_face, reference), face in zip(comparable, match_faces(faces, midpoints), strict=True):
            score = None if face is None else copy_paste(faces[face], mean_face, reference)
            scores += [] if score is None else [score]
    if not scores:
        return Measured(skipped="no face could be compared, in the video or in its truth")
    return Measured(float(np.mean(scores)))


def _mean_faces(frames: Sequence[np.ndarray], references: np.ndarray) -> list[np.ndarray | None]:
    """Return for each reference the mean of its assigned faces, (d,), unit length, or None without faces."""
    faces_of: list[list[np.ndarray]] = [[] for _ in references]
    for faces in frames:
        for assigned, face in zip(faces_of, match_faces(faces, references), strict=True):
            assigned += [] if face is None else [faces[face]]
    means = [np.mean(assigned, axis=0) if assigned else None for assigned in faces_of]
    return [None if mean is None else mean / np.linalg.norm(mean) for mean in means]


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two (d,) vectors, radians, from their difference and sum: arccos is inaccurate at small angles."""
    a, b = (np.asarray(v, float) / np.linalg.norm(v) for v in (a, b))
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def _mean(values: Sequence[float], count: int) -> Measured:
    return Measured(float(np.mean(values)) if len(values) else None, len(values), count)
