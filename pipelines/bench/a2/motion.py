"""Frame sampling and motion metrics. Pure functions of arrays and networks.

Definitions are VBench's (Huang et al. 2024, arXiv 2311.17982), which A2-Bench follows for its visual metrics.
"""

from itertools import pairwise

import numpy as np

from model_zoo.flow.interpolate import Between, by_flow
from model_zoo.flow.motion import Flow, measure, shrink

FRAMES = 32  # frames for metrics that do not use all of them: as in OpenS2V; A2's number is not known
VICLIP_FRAMES = 8
# The range that VBench's leaderboard maps to 0 to 1 for motion smoothness. The paper prints 0.879 to 0.960, which is low for the
# raw measure; mapped back, it is 0.962 to 0.986. Its figures therefore seem to be normalised, although it does not say so.
SMOOTHNESS_RANGE = (0.706, 0.9975)


def middle_frames(count: int, frames: int = VICLIP_FRAMES) -> list[int]:
    """Return the index of the middle frame of each of `frames` equal parts of a video, as for ViCLIP.

    For a shorter video, return every frame and repeat the last. Raises ValueError if `count` is 0.
    """
    _require_frames(count)
    edges = np.linspace(0, count, min(frames, count) + 1).astype(int)
    middles = [int(a + b - 1) // 2 for a, b in pairwise(edges)]
    return middles + [middles[-1]] * (frames - len(middles))


def spread_frames(count: int, frames: int = FRAMES) -> list[int]:
    """Return `frames` evenly spaced indices including first and last; all of a shorter video. Raises ValueError for none."""
    _require_frames(count)
    return list(range(count)) if count <= frames else np.linspace(0, count - 1, frames).astype(int).tolist()


def _require_frames(count: int) -> None:
    if count < 1:
        raise ValueError("the video has no frames")


def dynamic_degree(flow: Flow, frames: np.ndarray, fps: float) -> float:
    """Return 1 for a video with motion, else 0, as decided by `model_zoo.flow.motion.measure`.

    flow: (t, h, w, 3) uint8 -> (t - 1, h, w, 2) pixels. VBench measures full-size frames with a threshold that grows with the
    shorter side; here frames are resized so that the threshold is 6 px. VBench classifies every video of two frames as dynamic,
    since a quarter of two rounds to zero pairs; here at least one pair must pass.
    """
    return measure(flow, frames, fps)["flow_dynamic"]


def smoothness(frames: np.ndarray, interpolate: Between) -> float | None:
    """Return how well every second frame is interpolated from its neighbours, 0 to 1: 1 - mean absolute difference / 255.

    frames: (t, h, w, 3) uint8 RGB, all frames of a video. interpolate: VBench uses AMT-S (Li et al. 2023). Returns
    None for fewer than three frames. With an even number of frames, the last one has only one neighbour and is skipped.
    """
    if len(frames) < 3:
        return None
    errors = []
    for n in range(1, len(frames) - 1, 2):
        interpolated = interpolate(frames[n - 1], frames[n + 1])
        errors.append(np.abs(interpolated.astype(np.int16) - frames[n].astype(np.int16)).mean())
    return float(1 - np.mean(errors) / 255)


def normalised_smoothness(value: float) -> float:
    """Return motion smoothness as on VBench's leaderboard: 0 at 0.706, 1 at 0.9975."""
    low, high = SMOOTHNESS_RANGE
    return float(np.clip((value - low) / (high - low), 0, 1))


def smoothness_by_flow(flow: Flow, frames: np.ndarray) -> float | None:
    """Return `smoothness` with `by_flow`, at the size at which flow is measured."""
    return smoothness(np.stack([shrink(frame) for frame in frames]), by_flow(flow)) if len(frames) else None
