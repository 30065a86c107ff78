"""Names for colours: the eleven basic ones of English (Berlin and Kay 1969) and cyan."""

import cv2
import numpy as np

NAMES = ("black", "white", "grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown")
HUES = (
    (8, "red"),
    (20, "orange"),
    (35, "yellow"),
    (80, "green"),
    (98, "cyan"),
    (130, "blue"),
    (160, "purple"),
    (180, "red"),
)


def name(pixels: np.ndarray) -> str:
    """The name that most of (n, 3) uint8 RGB pixels deserve. Raises ValueError for no pixels."""
    if not len(pixels):
        raise ValueError("no pixels to name a colour of")
    hsv = cv2.cvtColor(np.ascontiguousarray(pixels, np.uint8).reshape(1, -1, 3), cv2.COLOR_RGB2HSV)[0].astype(int)
    hue, saturation, value = hsv.T
    names = np.array([n for _, n in HUES], "U6")[np.searchsorted([h for h, _ in HUES], hue, side="right").clip(max=7)]
    names[(np.isin(names, ("red", "orange", "yellow"))) & (value < 140) & (hue > 4)] = "brown"
    names[(np.isin(names, ("red", "purple"))) & (value > 180) & (saturation < 140)] = "pink"
    dull = saturation < 45
    names[dull] = "grey"
    names[dull & (value > 205)] = "white"
    names[value < 50] = "black"
    found, counts = np.unique(names, return_counts=True)
    return str(found[counts.argmax()])
