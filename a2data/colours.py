"""The plain name of a colour: twelve words that a caption may use, decided in hue, saturation and value."""

import cv2
import numpy as np

NAMES = ("black", "white", "grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown")
# Upper end of each hue in degrees, with its name; what lies above the last is red again.
_HUES = (
    (15, "red"),
    (42, "orange"),
    (68, "yellow"),
    (165, "green"),
    (195, "cyan"),
    (258, "blue"),
    (300, "purple"),
    (340, "pink"),
)


def names(pixels: np.ndarray) -> np.ndarray:
    """The name of each (n, 3) uint8 RGB pixel as (n,) int: indices into NAMES.

    Dark is black whatever its hue; dull is black, grey or white by its lightness; dark orange and dull dark red are brown; light
    red is pink.
    """
    hsv = cv2.cvtColor(np.asarray(pixels, np.uint8).reshape(-1, 1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[:, 0]
    hue, saturation, value = hsv.T  # degrees, 0 to 1, 0 to 1
    index = {name: i for i, name in enumerate(NAMES)}
    ends = [end for end, _ in _HUES]
    of_hue = np.array([index[name] for _, name in _HUES] + [index["red"]])
    out = of_hue[np.searchsorted(ends, hue, side="right")]
    out[(hue >= 15) & (hue < 42) & (value < 0.55)] = index["brown"]
    red = (hue < 15) | (hue >= 340)
    out[(hue < 15) & (value < 0.5) & (saturation < 0.75)] = index["brown"]
    out[red & (value > 0.75) & (saturation < 0.5)] = index["pink"]
    dull = saturation < np.where(value < 0.35, 0.35, 0.18)
    out[dull] = index["grey"]
    out[dull & (value > 0.82)] = index["white"]
    out[(dull & (value < 0.3)) | (value < 0.15)] = index["black"]
    return out


def name(pixels: np.ndarray) -> str:
    """The name of the dominant colour of (n, 3) uint8 RGB pixels: the name that most of them have, ties to the earlier in NAMES.

    Raises ValueError without pixels.
    """
    if len(pixels) == 0:
        raise ValueError("no pixels: no colour to name")
    return NAMES[int(np.bincount(names(pixels), minlength=len(NAMES)).argmax())]
