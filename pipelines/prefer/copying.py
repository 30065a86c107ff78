"""Copy-paste videos: made by rule from a reference's own picture, and told from cross-clip results by the copy-paste score."""

import cv2
import numpy as np

from a2data.dataset.triplet import Triplet
from a2data.media import images
from pipelines.bench.a2.composition import copy_paste
from pipelines.prefer.distort import num_affected

CELLS = 16, 10  # across and down, in which colours are compared
WHITE = 245  # smallest value, in every channel, of a pixel beside a reference
MIN_COVERAGE = 0.5  # lowest fraction of a cell that must show the reference


def paste_references(frames: np.ndarray, triplet: Triplet, grade: int) -> np.ndarray | None:
    """Return a clip that shows the pictures of its references, unmoving, in its first third, two thirds, or all frames.

    Each is scaled to the box of its subject. None if a triplet has only a background.
    """
    pasted, subjects = frames.copy(), [subject for subject in triplet.facts.references if subject.name != "bg"]
    for subject in subjects:
        rgba = images.from_png(triplet.cut_outs[subject.name])
        x0, y0, x1, y1 = images.clamp(images.bounds(rgba[..., 3] > 0), *rgba.shape[:2])
        left, top, right, bottom = images.clamp(subject.target.box, *frames.shape[1:3])
        small = cv2.resize(rgba[y0:y1, x0:x1], (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        alpha = small[..., 3:].astype(np.float32) / 255
        for frame in pasted[: num_affected(len(frames), grade)]:
            region = frame[top:bottom, left:right]
            region[:] = (alpha * small[..., :3] + (1 - alpha) * region).round()
    return pasted if subjects else None


def copy_paste_score(video: np.ndarray, truth: np.ndarray, references: np.ndarray) -> float:
    """Return the copy-paste score (pipelines.bench.a2.composition) of a video, mean over references; all (n, h, w, 3) uint8.

    It compares colours in Lab, relative to mid-grey, in the cells where the reference is not white: is the video, at the position
    of a reference on its canvas, nearer to the reference (up to 1) or to the original clip (down to -1)?
    """
    scores = []
    for reference in references:
        foreground = (reference.min(-1) < WHITE).astype(np.float32)
        covered = cv2.resize(foreground, CELLS, interpolation=cv2.INTER_AREA) > MIN_COVERAGE
        generated, real = (cell_colours(frames.mean(0).round().astype(np.uint8)) for frames in (video, truth))
        score = (
            copy_paste(*(normalized(each[covered]) for each in (generated, real, cell_colours(reference))))
            if covered.any()
            else None
        )
        scores += [] if score is None else [score]
    if not scores:
        raise ValueError("none of the references differs from the clip: nothing to compare")
    return float(np.mean(scores))


def cell_colours(picture: np.ndarray) -> np.ndarray:
    """Return mean colours in Lab, relative to mid-grey, of a picture's cells: (down, across, 3)."""
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) - np.array([50, 0, 0], np.float32)
    return cv2.resize(lab, CELLS, interpolation=cv2.INTER_AREA)


def normalized(colours: np.ndarray) -> np.ndarray:
    return colours.ravel().astype(float) / max(1e-6, float(np.linalg.norm(colours)))
