"""Pictures of a sample, cut to size, and the variants in which a small data set shows them."""

import cv2
import numpy as np

from a2data.dataset.batch_plan import rng

COLOUR_ORDERS = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2), (0, 2, 1), (2, 1, 0)]


def fitted(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames cropped around their middle to the proportions of height x width, and made that size. (t, h, w, 3) uint8."""
    h, w = frames.shape[1:3]
    rows, columns = (h, round(h * width / height)) if w * height > h * width else (round(w * height / width), w)
    top, left = (h - rows) // 2, (w - columns) // 2
    cut = frames[:, top : top + rows, left : left + columns]
    how = cv2.INTER_AREA if rows > height else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in cut])


def varied(picture: np.ndarray, variant: int) -> np.ndarray:
    """Pictures (…, w, 3) uint8 as a variant of a sample shows them: 0 as they are, others in other light or colours, mirrored.

    Each colour is raised to a power between 1/3 and 3, and half of the variants exchange colours; black and white stay. A network
    that has few videos learns them by heart; one that has seen a scene in many lights must look at its references to know which.
    Video and references of a sample vary alike; its words do not, and are left out.
    """
    if variant == 0:
        return np.ascontiguousarray(picture)
    chance = rng(0, 0, variant, "variant").random(6)
    power = 3 ** (2 * chance[:3] - 1)
    order = COLOUR_ORDERS[int(chance[3] * 6)] if chance[4] < 0.5 else COLOUR_ORDERS[0]
    levels = np.round(255 * (np.arange(256)[:, None] / 255) ** power).astype(np.uint8)
    turned = picture[..., ::-1, :] if chance[5] < 0.5 else picture
    return np.ascontiguousarray(np.stack([levels[turned[..., c], n] for n, c in enumerate(order)], -1))
