"""Head masks: face, hair and hat without background, from the position of the face."""

import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.pictures import shrink

CORE = 0.55  # half axes of the certain face area, as fractions of the head's, see `outline`
WORK_PX = 160  # long side at which GrabCut runs


def ellipse(centre: tuple[float, float], axes: tuple[float, float], tilt: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return an (h, w) bool mask; centre (x, y) and half axes in pixels, tilt in degrees clockwise."""
    mask = np.zeros(shape[:2], np.uint8)
    cv2.ellipse(mask, (centre, (2 * axes[0], 2 * axes[1]), tilt), 1, -1)
    return mask > 0


def largest_filled(mask: np.ndarray) -> np.ndarray:
    """Return the largest piece of an (h, w) bool mask with its holes filled; all False only for an empty mask."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.zeros(mask.shape, np.uint8)
    if outlines:
        cv2.drawContours(out, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return out > 0


def outline(
    picture: np.ndarray,
    centre: tuple[float, float],
    axes: tuple[float, float],
    tilt: float = 0.0,
) -> np.ndarray:
    """Return the part of a head's ellipse that is head, (h, w) bool, in one piece and without holes.

    picture: (h, w, 3) uint8 RGB. centre, axes, tilt: of the ellipse round the whole head, see `ellipse`; the ring
    round it is the background sample. The lower middle of the ellipse is always face, so that the mask is never empty if the
    ellipse is inside the picture.
    """
    radius = 1.3 * max(axes)
    x0, y0 = (max(0, int(c - radius)) for c in centre)
    x1, y1 = (max(low + 1, int(np.ceil(c + radius))) for low, c in zip((x0, y0), centre, strict=True))
    area = (slice(y0, y1), slice(x0, x1))
    patch = np.ascontiguousarray(picture[area])
    full_mask = np.zeros(picture.shape[:2], bool)
    if not patch.size:
        return full_mask
    small = shrink(patch, WORK_PX)
    scale = small.shape[1] / patch.shape[1]
    small_centre = ((centre[0] - x0) * scale, (centre[1] - y0) * scale)
    small_axes = (axes[0] * scale, axes[1] * scale)

    def scaled_ellipse(share: float) -> np.ndarray:
        return ellipse(small_centre, (small_axes[0] * share, small_axes[1] * share), tilt, small.shape)

    down = np.radians(tilt + 90)
    face = (
        small_centre[0] + 0.25 * small_axes[1] * np.cos(down),
        small_centre[1] + 0.25 * small_axes[1] * np.sin(down),
    )
    core = ellipse(face, (CORE * small_axes[0], CORE * small_axes[1]), tilt, small.shape)
    hints = np.where(scaled_ellipse(1.0), grabcut.MAYBE_FORE, grabcut.MAYBE_BACK).astype(np.uint8)
    hints[~scaled_ellipse(1.2)] = grabcut.SURE_BACK
    hints[core] = grabcut.SURE_FORE
    kernel_px = 2 * max(1, round(0.08 * small_axes[0])) + 1  # thinner parts are similar background or a few hairs
    head_mask = (grabcut.cut(small, hints, iterations=4) & scaled_ellipse(1.0)).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (kernel_px, kernel_px))
    head_mask = cv2.morphologyEx(head_mask, cv2.MORPH_OPEN, kernel) > 0
    head_mask = grabcut.clean(head_mask | core, core, hole=0.2, part=1.0) | core
    full_mask[area] = grabcut.enlarge(head_mask, patch)
    return full_mask & ellipse(centre, axes, tilt, picture.shape)
