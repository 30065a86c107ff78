"""Colour names: thirteen words for captions, chosen by hue, lightness and chroma."""

import cv2
import numpy as np

NAMES = (
    *("black", "white", "grey", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    *("brown", "beige"),
)
# Upper end of each hue in degrees, with its name; above the last it is red again. The hue is that of HSV, since the hue of CIE
# Lab is not linear and makes pure blue purple. Lightness and chroma are those of Lab, since those of HSV make a pale wall vivid.
_HUES = (
    (12, "red"),
    (42, "orange"),
    (68, "yellow"),
    (162, "green"),
    (198, "cyan"),
    (258, "blue"),
    (298, "purple"),
    (342, "pink"),
)
# adjacent colours, which are often confused
NEIGHBOURS = frozenset(
    frozenset(pair.split())
    for pair in (
        *("black grey", "grey white", "red orange", "orange yellow", "orange brown", "brown red", "brown black"),
        *("green cyan", "cyan blue", "blue purple", "purple pink", "pink red", "yellow green", "brown yellow"),
        *("beige brown", "beige orange", "beige yellow", "beige white", "beige grey", "beige pink"),
    )
)
MOST = 0.5  # least fraction of the pixels that have the name of a certain colour
GREY = 30.0, 60.0
_BIN = 10.0  # side of the histogram bins in Lab units; the search for the dominant colour starts at the fullest bin
_NEAR = 16.0  # Lab distance (with half the lightness) up to which pixels count as one colour in light and shade
_ENOUGH = 4000  # number of sampled pixels; more do not change the result


def names(pixels: np.ndarray) -> np.ndarray:
    """Return the names of (n, 3) uint8 RGB pixels as indices into NAMES, (n,) int.

    Very dark pixels are black whatever their hue; pixels with little chroma are black, grey or white by lightness. Dark or dull
    orange is brown, pale orange beige; dark yellow (olive) is green; dark cyan (teal) is green or blue by its hue.
    """
    flat = np.asarray(pixels, np.uint8).reshape(-1, 1, 3).astype(np.float32) / 255
    hue = cv2.cvtColor(flat, cv2.COLOR_RGB2HSV)[:, 0, 0]  # degrees
    light, a, b = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)[:, 0].T  # 0 to 100, about -100 to 100
    chroma = np.hypot(a, b)
    index = {name: i for i, name in enumerate(NAMES)}
    out = np.array([index[name] for _, name in _HUES] + [index["red"]])[
        np.searchsorted([end for end, _ in _HUES], hue, side="right")
    ]
    red, orange, yellow = (hue < 12) | (hue >= 342), (hue >= 12) & (hue < 42), (hue >= 42) & (hue < 68)
    rules = (  # later rules override earlier ones
        (red & (light > 60) & (chroma < 55), "pink"),
        ((hue < 12) & (chroma < 28) & (light < 60), "brown"),
        (orange & ((light < 42) | (chroma < 46)), "brown"),
        (orange & (light < 36) & (hue < 20) & (chroma > 38), "red"),  # dark red in warm light
        (yellow & (light < 62), "green"),
        (yellow & (hue < 48) & (light < 62), "brown"),
        ((orange | yellow) & (light > 66) & (chroma < 40), "beige"),
        ((hue >= 162) & (hue < 188) & (light < 50), "green"),
        ((hue >= 188) & (hue < 198) & (light < 50), "blue"),
        ((hue >= 298) & (hue < 325) & (light < 48), "purple"),
        ((hue >= 325) & (hue < 342) & (light < 42), "red"),
        (chroma < 9, "grey"),
        ((chroma < 9) & (light > 80), "white"),
        ((chroma < 14) & (light > 90), "white"),
        ((chroma < 14) & (light < 22), "black"),
        ((chroma < 30) & (light < 7), "black"),
    )
    for where, name in rules:
        out[where] = index[name]
    return out


def name(pixels: np.ndarray) -> str:
    """Return the name of the dominant colour of (n, 3) uint8 RGB pixels, see `dominant`. Raises ValueError without pixels."""
    return NAMES[int(names(dominant(pixels)[None])[0])]


def fraction_of(pixels: np.ndarray, name: str) -> float:
    """Return the fraction of (n, 3) uint8 RGB pixels with this colour name, 0 to 1. Raises ValueError without pixels."""
    if len(pixels) == 0:
        raise ValueError("pixels is empty: the fraction of a colour is undefined")
    return float((names(pixels[:: -(-len(pixels) // _ENOUGH)]) == NAMES.index(name)).mean())


def is_certain(pixels: np.ndarray, name: str) -> bool:
    """Return whether (n, 3) uint8 RGB pixels have this colour whatever the light. Raises ValueError without pixels.

    Most of them must, and a light grey may be white in shade, a dark grey black in bright light (GREY, in CIE L*).
    """
    if fraction_of(pixels, name) < MOST:
        return False
    light = cv2.cvtColor(dominant(pixels)[None, None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0, 0]
    return name != "grey" or bool(GREY[0] <= light <= GREY[1])


def name_in(picture: np.ndarray, mask: np.ndarray) -> str:
    """Return the name of the dominant colour of an (h, w, 3) uint8 RGB picture inside a non-empty (h, w) bool mask.

    The rim of the mask, which is mixed with the background, is excluded if enough of the mask remains.
    """
    rim = max(1, round(float(np.sqrt(mask.sum())) / 25))
    core = cv2.erode(mask.astype(np.uint8), np.ones((2 * rim + 1,) * 2, np.uint8)) > 0
    return name(picture[core if core.sum() >= 0.2 * mask.sum() else mask])


def dominant(pixels: np.ndarray) -> np.ndarray:
    """Return the dominant colour of (n, 3) uint8 RGB pixels, (3,) uint8. Raises ValueError without pixels.

    It is not the mean, which may not occur among the pixels, and avoids highlights and shadows. Mean shift (Fukunaga & Hostetler
    1975) in Lab, from the fullest bin; ties go to the darkest bin, then by a* and b*.
    """
    if len(pixels) == 0:
        raise ValueError("pixels is empty: the dominant colour is undefined")
    sampled = np.ascontiguousarray(pixels[:: -(-len(pixels) // _ENOUGH)], np.uint8)
    lab = cv2.cvtColor(sampled[:, None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0] * np.array(
        [0.5, 1, 1], np.float32
    )
    bins, counts = np.unique(np.floor(lab / _BIN), axis=0, return_counts=True)
    middle = (bins[counts.argmax()] + 0.5) * _BIN
    for _ in range(5):
        in_range = ((lab - middle) ** 2).sum(1) <= _NEAR**2
        middle = lab[in_range].mean(0)
    return np.median(sampled[in_range], axis=0).astype(np.uint8)


def name_similarity(a: str, b: str) -> float:
    """Return 1 for the same name, 0.5 for neighbours, between which people draw the line differently, and 0 otherwise."""
    return 1.0 if a == b else 0.5 if frozenset((a, b)) in NEIGHBOURS else 0.0


def incompatible(a: str, b: str) -> bool:
    """Return whether two names ("" for unknown) cannot belong to one object in different light: distinct, non-adjacent hues.

    Black, grey, white, brown and beige do not count as hues here, since light and shade turn many colours into one of them.
    """
    hues = {name for _, name in _HUES}
    return a in hues and b in hues and name_similarity(a, b) == 0
