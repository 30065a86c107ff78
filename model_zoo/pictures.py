"""Pictures at the size of a network's input."""

import cv2
import numpy as np


def shrink(picture: np.ndarray, long_px: int) -> np.ndarray:
    """Return (h, w, 3) uint8 with a longer side of at most `long_px`, by area averaging; a copy if it is not larger."""
    scale = min(1.0, long_px / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
