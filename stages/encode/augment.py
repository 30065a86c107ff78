"""Cropping and resizing of a sample's pictures, and the augmented variants of a small data set."""

import numpy as np

from a2data.dataset.batch_plan import rng
from a2data.media.pictures import crop_resize

COLOUR_ORDERS = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1, 0, 2), (0, 2, 1), (2, 1, 0)]


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return frames, (t, h, w, 3) uint8, centre-cropped to the aspect of height x width and resized to it."""
    return np.stack([crop_resize(frame, height, width) for frame in frames])


def augment(picture: np.ndarray, variant: int) -> np.ndarray:
    """Return pictures (…, w, 3) uint8 as variant `variant` shows them: 0 unchanged, others recoloured and perhaps mirrored.

    Each channel is raised to a power between 1/3 and 3, and half of the variants permute channels; black and white stay. A
    network memorises a data set of few videos; if it sees a scene in many colours, it must use its references to know which.
    Video and references of a sample are augmented alike; its prompt is not, and is dropped.
    """
    if variant == 0:
        return np.ascontiguousarray(picture)
    random = rng(0, 0, variant, "variant").random(6)
    power = 3 ** (2 * random[:3] - 1)
    order = COLOUR_ORDERS[int(random[3] * 6)] if random[4] < 0.5 else COLOUR_ORDERS[0]
    levels = np.round(255 * (np.arange(256)[:, None] / 255) ** power).astype(np.uint8)
    mirrored = picture[..., ::-1, :] if random[5] < 0.5 else picture
    return np.ascontiguousarray(np.stack([levels[mirrored[..., c], n] for n, c in enumerate(order)], -1))
