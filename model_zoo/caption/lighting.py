"""The appearance of a picture in words: its background, and brightness, warmth and contrast of the light."""

from collections.abc import Sequence

import cv2
import numpy as np

DARK, BRIGHT = 0.28, 0.62  # mean luma, 0 to 1
LOW_CONTRAST, HIGH_CONTRAST = 0.13, 0.29  # standard deviation of luma
COOL, WARM = -5.0, 7.0  # mean b* of the nearly colourless pixels
MAX_NEUTRAL_CHROMA = 40  # highest chroma (8-bit a*, b*) of a pixel whose tint may come from the light


def environment(colours: Sequence[str], luma: float) -> str:
    """Return "a bright grey and brown background", from colours, largest first, and mean luma, 0 to 1; "" without colours."""
    if not colours:
        return ""
    if len(colours) > 3:
        return "a colourful background"
    light = "dark" if luma < DARK else "bright" if luma > BRIGHT else ""
    if set(colours) & {"black", "white"}:  # "dark black" and "bright white" are redundant
        light = ""
    tints = " and ".join(part for part in (", ".join(colours[:-1]), colours[-1]) if part)
    words = " ".join(part for part in (light, tints, "background") if part)
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def lighting(frames: np.ndarray) -> str:
    """Return "bright and warm, with high contrast", from a few of (t, h, w, 3) uint8 frames; "neutral" if nothing stands out."""
    samples = [cv2.resize(frames[i], (64, 36), interpolation=cv2.INTER_AREA) for i in _sample_indices(len(frames))]
    lab = cv2.cvtColor(np.concatenate(samples), cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    luma = lab[:, 0] / 255
    a, b = lab[:, 1] - 128, lab[:, 2] - 128
    is_neutral = (np.hypot(a, b) < MAX_NEUTRAL_CHROMA) & (luma > 0.15)
    tint = float(b[is_neutral].mean()) if is_neutral.mean() > 0.1 else 0.0
    brightness = "dim" if luma.mean() < DARK else "bright" if luma.mean() > BRIGHT else ""
    warmth = "warm" if tint > WARM else "cool" if tint < COOL else ""
    contrast = "low" if luma.std() < LOW_CONTRAST else "high" if luma.std() > HIGH_CONTRAST else ""
    words = " and ".join(word for word in (brightness, warmth) if word) or "neutral"
    return f"{words}, with {contrast} contrast" if contrast else words


def _sample_indices(count: int) -> list[int]:
    """Return three frames: early, middle, late."""
    return sorted({count // 6, count // 2, 5 * count // 6})
