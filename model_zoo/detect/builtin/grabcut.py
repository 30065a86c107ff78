"""Masks from hints: GrabCut at a small size, cleaned, and scaled to the frame's size with an edge that fits.

Rother, Kolmogorov, Blake 2004, "GrabCut": interactive foreground extraction using iterated graph cuts.
"""

import cv2
import numpy as np

from model_zoo.pictures import shrink

SURE_BACK, SURE_FORE, MAYBE_BACK, MAYBE_FORE = cv2.GC_BGD, cv2.GC_FGD, cv2.GC_PR_BGD, cv2.GC_PR_FGD
WORK_PX = 320  # long side at which GrabCut runs: time grows with the pixels, and the edge is refined afterwards


def cut(small: np.ndarray, hints: np.ndarray, iterations: int = 2) -> np.ndarray:
    """Return the foreground of a small (h, w, 3) uint8 picture, (h, w) bool; only the certain part if one side has no samples.

    hints: (h, w) uint8 of the four constants above. Deterministic: OpenCV's generator for k-means has a fixed seed.
    """
    is_foreground = np.isin(hints, (SURE_FORE, MAYBE_FORE))
    if is_foreground.sum() < 10 or (~is_foreground).sum() < 10:  # cv2 asserts on a side without samples
        return np.isin(hints, (SURE_FORE,))
    cv2.setRNGSeed(0)
    labels = hints.copy()
    cv2.grabCut(small, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(labels, (SURE_FORE, MAYBE_FORE))


def clean(mask: np.ndarray, seed: np.ndarray | None = None, hole: float = 0.02, part: float = 0.03) -> np.ndarray:
    """Return a mask without specks: opened, holes below `hole` of its area filled, pieces below `part` of the largest dropped.

    seed: (h, w) bool; only the remaining pieces that touch it are kept.
    """
    radius = max(1, round(min(mask.shape) / 120))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disk)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    is_kept = area >= part * area.max(initial=1)
    if seed is not None:
        touched = np.zeros(count, bool)
        touched[np.unique(labels[seed])] = True
        is_kept &= touched
    is_kept[0] = False
    kept = is_kept[labels]
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < hole * max(1, kept.sum())
    x0, y0, widths, heights = (stats[:, i] for i in range(4))
    inside = (x0 > 0) & (y0 > 0) & (x0 + widths < mask.shape[1]) & (y0 + heights < mask.shape[0])
    holes = small & inside
    holes[0] = False
    return kept | holes[labels]


def enlarge(mask: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return a small mask at the size of the (h, w, 3) uint8 frame, its edge aligned to the frame's edges.

    The guided filter of He, Sun, Tang 2013 (section 3) with the grey frame as guide, thresholded at one half.
    """
    height, width = frame.shape[:2]
    scale = max(height / mask.shape[0], width / mask.shape[1])
    soft = cv2.resize(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8), (width, height))
    if scale <= 1:
        return soft > 0.5
    guide = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    side = 2 * round(1.5 * scale) + 1

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (side, side))

    mean_guide, mean_mask = mean(guide), mean(soft)
    slope = (mean(guide * soft) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + 1e-3)
    return mean(slope) * guide + mean(mean_mask - slope * mean_guide) > 0.5


def in_box(frame: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the object that fills a box, as an (h, w) bool mask inside it, for detectors without masks.

    The whole box if it leaves no background to sample, or if nothing in it differs from the background.
    """
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = box
    inside = np.zeros((height, width), bool)
    inside[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))] = True
    margin = 0.15 * max(x1 - x0, y1 - y0)  # enough background around the box to sample its colours
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    area = (slice(top, int(np.ceil(y1 + margin))), slice(left, int(np.ceil(x1 + margin))))
    patch = frame[area]
    small = shrink(patch, WORK_PX)
    scale = small.shape[1] / patch.shape[1]
    hints = _box_hints(small.shape[:2], [max(0, round(v * scale)) for v in (x0 - left, y0 - top, x1 - left, y1 - top)])
    if (hints == SURE_BACK).sum() < 10:
        return inside
    mask = np.zeros((height, width), bool)
    mask[area] = enlarge(clean(cut(small, hints), hints == SURE_FORE), patch)
    return mask & inside if (mask & inside).any() else inside


def _box_hints(shape: tuple[int, int], box: list[int]) -> np.ndarray:
    """Return hints for a box: background outside, foreground along its vertical axis (person or bottle), unknown elsewhere."""
    x0, y0, x1, y1 = box
    hints = np.full(shape, SURE_BACK, np.uint8)
    hints[y0:y1, x0:x1] = MAYBE_FORE
    axes = (max(1, round((x1 - x0) * 0.12)), max(1, round((y1 - y0) * 0.42)))
    cv2.ellipse(hints, ((x0 + x1) // 2, (y0 + y1) // 2), axes, 0, 0, 360, SURE_FORE, -1)
    return hints
