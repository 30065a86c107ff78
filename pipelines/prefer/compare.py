"""Differences between the two videos of a pair, and the rules that keep pairs of which only the motion differs."""

from collections.abc import Callable

import cv2
import numpy as np

HISTOGRAM_LEVELS = 8  # per channel of the colour histograms
TEXT_VIDEO_FRAMES = 8  # frames that a text-video model compares with the prompt

TextVideo = Callable[[np.ndarray, str], float]


def measure_differences(
    a: np.ndarray, b: np.ndarray, prompt: str = "", text_video: TextVideo | None = None
) -> dict[str, float]:
    """Return the differences between two videos, (t, h, w, 3) uint8 of one shape.

    sharpness: log2 of the ratio of their median sharpness (variance of the Laplacian). luma: difference of the mean, 0 to 1.
    content: common part of their colour histograms, 0 to 1. motion: mean absolute difference frame by frame, 0 to 1; of equal
    frames in another order too. text: difference of their similarity with the prompt, if a model measures it.
    """
    differences = {
        "sharpness": abs(float(np.log2((sharpness(a) + 1) / (sharpness(b) + 1)))),
        "luma": abs(float(a.mean() - b.mean())) / 255,
        "content": float(np.minimum(colour_histogram(a), colour_histogram(b)).sum()),
        "motion": float(np.mean([cv2.absdiff(x, y).mean() for x, y in zip(a, b, strict=True)])) / 255,
    }
    if text_video:
        sampled = [round(n) for n in np.linspace(0, len(a) - 1, TEXT_VIDEO_FRAMES)]
        differences["text"] = abs(text_video(a[sampled], prompt) - text_video(b[sampled], prompt))
    return differences


def sharpness(frames: np.ndarray) -> float:
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return float(np.median([cv2.Laplacian(each, cv2.CV_64F).var() for each in grey]))


def colour_histogram(frames: np.ndarray) -> np.ndarray:
    """Return the colour histogram of all frames, with a sum of 1."""
    bins = (frames.reshape(-1, 3) // (256 // HISTOGRAM_LEVELS)).astype(np.int32) @ np.array(
        [HISTOGRAM_LEVELS * HISTOGRAM_LEVELS, HISTOGRAM_LEVELS, 1]
    )
    return np.bincount(bins, minlength=HISTOGRAM_LEVELS**3) / len(bins)
