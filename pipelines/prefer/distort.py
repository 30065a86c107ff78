"""Distortions of a clip's motion, each in three grades: 1 light, 2 middle, 3 heavy. Pure functions of (t, h, w, 3) uint8 frames.

They leave the content of single frames alone, as far as the distortion allows, so that a pair differs in its motion only
(SkyReels-V2, arXiv 2504.13074, section on motion preferences, names the kinds; the grades are ours).
"""

from collections.abc import Callable

import cv2
import numpy as np

GRADES = (1, 2, 3)
JITTER_SHIFT = {1: 0.01, 2: 0.02, 3: 0.04}  # largest shift, as a fraction of the shorter side; at least 1 px
REGION_SIDE = {1: 0.35, 2: 0.5, 3: 0.7}  # sides of the damaged region, as a fraction of the frame's
FEATHER = 0.08  # blur of the region's border, as a fraction of the frame's shorter side

Distort = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def reversed_motion(frames: np.ndarray, grade: int, _: np.random.Generator) -> np.ndarray:
    """Play the last third, the last two thirds, or all of a clip backwards."""
    start = len(frames) - num_affected(len(frames), grade)
    return np.concatenate([frames[:start], frames[start:][::-1]])


def frozen_motion(frames: np.ndarray, grade: int, _: np.random.Generator) -> np.ndarray:
    """Freeze the last third, the last two thirds, or all of a clip."""
    start = len(frames) - num_affected(len(frames), grade)
    return frames[np.minimum(np.arange(len(frames)), start)]


def frame_rate(frames: np.ndarray, grade: int, _: np.random.Generator) -> np.ndarray:
    """Show every frame 2, 3 or 4 times: slow motion at a lower frame rate."""
    return frames[np.arange(len(frames)) // (grade + 1)]


def jitter(frames: np.ndarray, grade: int, rng: np.random.Generator) -> np.ndarray:
    """Shift every frame at random, as an unsteady camera does. The border is mirrored."""
    max_shift = max(1, round(JITTER_SHIFT[grade] * min(frames.shape[1:3])))
    shifts = rng.integers(-max_shift, max_shift, (len(frames), 2), endpoint=True)
    shifted = []
    for frame, (dy, dx) in zip(frames, shifts, strict=True):
        padded = cv2.copyMakeBorder(frame, max_shift, max_shift, max_shift, max_shift, cv2.BORDER_REFLECT_101)
        shifted.append(
            padded[max_shift + dy : max_shift + dy + frame.shape[0], max_shift + dx : max_shift + dx + frame.shape[1]]
        )
    return np.stack(shifted)


def stale_region(frames: np.ndarray, grade: int, _: np.random.Generator) -> np.ndarray:
    """Show stale content in the region that moves most, as a cache of features does: it is updated every fourth frame."""
    height, width = frames.shape[1:3]
    moving = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((0, 3)).astype(np.float32)
    rows, columns = (max(2, round(side * REGION_SIDE[grade])) for side in (height, width))
    motion_in_region = cv2.boxFilter(moving, -1, (columns, rows), borderType=cv2.BORDER_CONSTANT)
    y, x = np.unravel_index(int(motion_in_region.argmax()), motion_in_region.shape)
    top, left = np.clip(int(y) - rows // 2, 0, height - rows), np.clip(int(x) - columns // 2, 0, width - columns)
    region: np.ndarray = np.zeros((height, width), np.float32)
    region[top : top + rows, left : left + columns] = 1
    region = cv2.GaussianBlur(region, (0, 0), max(0.5, FEATHER * min(height, width)))[..., None]
    stale = frames[np.maximum(0, np.arange(len(frames)) // 4 * 4 - 4)]
    return (region * stale + (1 - region) * frames).round().astype(np.uint8)


def num_affected(frames: int, grade: int) -> int:
    return max(2, round(frames * grade / 3))


DISTORTIONS: dict[str, Distort] = {
    "reversed": reversed_motion,
    "frozen": frozen_motion,
    "frame-rate": frame_rate,
    "jitter": jitter,
    "local": stale_region,
}
