"""Things without names: what moves against the rest of the shot, and what stands out from the border of the picture."""

import cv2
import numpy as np

from model_zoo import grabcut

MOVED = 25  # grey values from which a pixel is not as it is in the plate
STANDS_OUT = 16.0  # distance in CIE Lab from which a colour is none of the border's
BUSY = 0.35  # share of the picture that stands out from which nothing does
SMALLEST, LARGEST = 0.004, 0.4  # of a thing, share of the picture


def difference(picture: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """How far each pixel is from the plate, (h, w) uint8: the largest difference of the three channels, smoothed."""
    return cv2.GaussianBlur(cv2.absdiff(picture, plate), (0, 0), 1.2).max(2)


def unlike(picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """How far each pixel's colour is from the nearest of the ground's 8 main colours, (h, w) float32 in CIE Lab units.

    ground: (h, w) bool with at least one pixel.
    """
    lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    samples = lab[ground]
    samples = samples[:: max(1, len(samples) // 2000)]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 10, 1.0)
    _, _, colours = cv2.kmeans(
        samples, min(8, len(samples)), np.zeros((len(samples), 1), np.int32), stop, 1, cv2.KMEANS_PP_CENTERS
    )
    return np.sqrt(np.min([((lab - colour) ** 2).sum(2) for colour in colours], axis=0))


def contrast(picture: np.ndarray) -> np.ndarray:
    """How far each pixel's colour is from the colours along the picture's border, (h, w) float32 in CIE Lab units.

    After Wei et al. 2012, "Geodesic saliency using background priors": what touches the border is ground.
    """
    rim = np.ones(picture.shape[:2], bool)
    rim[3:-3, 3:-3] = False
    return unlike(picture, rim)


def object_masks(
    picture: np.ndarray, plate: np.ndarray, taken: np.ndarray, most: int = 4
) -> list[tuple[float, np.ndarray]]:
    """Score and mask of up to `most` things in a small picture that move or stand out and overlap no person, largest first.

    plate: the picture without what moves, (h, w, 3) uint8. taken: (h, w) bool, where the people are.
    """
    off_limits = cv2.dilate(taken.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    moves = (difference(picture, plate) > MOVED) & ~off_limits
    stands_out = (contrast(picture) > STANDS_OUT) & ~off_limits
    blobs = [b for b in _blobs(moves) if _is_here(picture, plate, b)]
    if stands_out.mean() <= BUSY:
        blobs += [b for b in _blobs(stands_out) if _on_border(b) == 0 and not any((b & other).any() for other in blobs)]
    blobs = sorted(blobs, key=lambda b: (-int(b.sum()), int(np.argmax(b))))[:most]
    out = []
    for blob in blobs:
        mask = _cut_blob(picture, blob, off_limits) & ~off_limits
        if _is_thing(mask, blob):
            off_limits = off_limits | mask
            out.append((_separation(picture, mask), mask))
    return out


def _blobs(mask: np.ndarray) -> list[np.ndarray]:
    """The connected pieces of a mask that are neither too small nor too large, closed."""
    closed = cv2.morphologyEx(
        mask.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    )
    closed = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    share = stats[:, cv2.CC_STAT_AREA] / mask.size
    return [labels == i for i in range(1, count) if SMALLEST <= share[i] <= LARGEST]


def _on_border(mask: np.ndarray) -> float:
    """The share of the mask's outline that lies on the picture's border."""
    edges = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    outline = cv2.morphologyEx(np.pad(mask, 1).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)).sum()
    return float(edges / max(1, outline))


def _is_here(picture: np.ndarray, plate: np.ndarray, blob: np.ndarray) -> bool:
    """Whether the blob's outline is an edge of the picture rather than of the plate: else it is where something has been."""
    ring = cv2.morphologyEx(blob.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)) > 0
    now, then = (cv2.Laplacian(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.CV_32F, ksize=3) for p in (picture, plate))
    return float(np.abs(now[ring]).mean()) > float(np.abs(then[ring]).mean())


def _cut_blob(picture: np.ndarray, blob: np.ndarray, forbidden: np.ndarray) -> np.ndarray:
    """GrabCut around a blob: its inside is sure, its surroundings are open, what is far or forbidden is ground."""
    ys, xs = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
    margin = max(4, round(0.2 * max(np.ptp(ys), np.ptp(xs))))
    area = (slice(max(0, ys[0] - margin), ys[-1] + margin + 1), slice(max(0, xs[0] - margin), xs[-1] + margin + 1))
    core = cv2.distanceTransform(blob.astype(np.uint8), cv2.DIST_L2, 3)
    open_to = cv2.dilate(blob.astype(np.uint8), np.ones((2 * (margin // 2) + 1,) * 2, np.uint8)) > 0
    hints = np.where(open_to, grabcut.MAYBE_BACK, grabcut.SURE_BACK).astype(np.uint8)
    hints[blob] = grabcut.MAYBE_FORE
    sure = core >= 0.6 * core.max()
    hints[sure] = grabcut.SURE_FORE
    hints[forbidden] = grabcut.SURE_BACK
    out = np.zeros(blob.shape, bool)
    out[area] = grabcut.clean(grabcut.cut(np.ascontiguousarray(picture[area]), hints[area]), sure[area], part=0.2)
    return out


def _is_thing(mask: np.ndarray, blob: np.ndarray) -> bool:
    """Large and compact enough, no strip of something larger, and still where the blob was."""
    area = int(mask.sum())
    if area < SMALLEST * mask.size or _on_border(mask) > 0.12 or (mask & blob).sum() < 0.5 * blob.sum():
        return False
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    sides = cv2.minAreaRect(hull)[1]
    return area >= 0.5 * cv2.contourArea(hull) and min(sides) >= 0.25 * max(sides)


def _separation(picture: np.ndarray, mask: np.ndarray) -> float:
    """How far the thing's colours are from those just around it, 0 to 1: the distance of the two histograms (Bhattacharyya)."""
    ring = (cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0) & ~mask
    inside, outside = (
        cv2.calcHist([picture], [0, 1, 2], part.astype(np.uint8), [6, 6, 6], [0, 256] * 3) for part in (mask, ring)
    )
    return float(cv2.compareHist(inside, outside, cv2.HISTCMP_BHATTACHARYYA))
