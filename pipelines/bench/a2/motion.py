"""Which frames the metrics of motion look at, and what they make of them. Arrays in, numbers out; networks are given.

Definitions are VBench's (Huang et al. 2024, arXiv 2311.17982), which A2-Bench follows for its visual metrics.
"""

from itertools import pairwise

import numpy as np

from model_zoo.flow.interpolate import Between, by_flow
from model_zoo.flow.raft import Flow, measure, shrink

FRAMES = 32  # of a video, for metrics that do not look at all of them: OpenS2V's number; A2's is not known
VICLIP_FRAMES = 8
# What VBench's leaderboard makes 0 and 1 of motion smoothness. The paper prints 0.879 to 0.960, low for the measure itself; taken
# back through this range they are 0.962 to 0.986. So its figures seem to be normalised; it does not say so.
SMOOTHNESS_RANGE = (0.706, 0.9975)


def middle_frames(count: int, frames: int = VICLIP_FRAMES) -> list[int]:
    """Of each of `frames` equal parts of a video of `count` frames, the middle one, as ViCLIP is fed.

    A shorter video gives each of its frames, and the last again until there are enough. Raises ValueError for none.
    """
    _some(count)
    edges = np.linspace(0, count, min(frames, count) + 1).astype(int)
    middles = [int(a + b - 1) // 2 for a, b in pairwise(edges)]
    return middles + [middles[-1]] * (frames - len(middles))


def spread_frames(count: int, frames: int = FRAMES) -> list[int]:
    """`frames` of a video of `count`, the first and the last among them, evenly; all of a shorter one. ValueError for none."""
    _some(count)
    return list(range(count)) if count <= frames else np.linspace(0, count - 1, frames).astype(int).tolist()


def _some(count: int) -> None:
    if count < 1:
        raise ValueError("the video has no frame")


def dynamic_degree(flow: Flow, frames: np.ndarray, fps: float) -> float:
    """1 for a video that moves, else 0; see `model_zoo.flow.raft.measure`, whose decision it is.

    flow: (t, h, w, 3) uint8 -> (t - 1, h, w, 2) pixels. VBench measures whole pictures and lets the threshold grow with their
    shorter side; here they are brought to the side of which that threshold is 6 px. VBench calls every video of two frames
    dynamic, since a quarter of two rounds to no pair at all; here one pair must pass.
    """
    return measure(flow, frames, fps)["flow_dynamic"]


def smoothness(frames: np.ndarray, between: Between) -> float | None:
    """How well every second frame follows from its neighbours, 0 to 1: 1 - mean absolute difference / 255.

    frames: (t, h, w, 3) uint8 RGB, all of a video. between: an interpolator (VBench's is AMT-S, Li et al. 2023). None under three
    frames. With an even number of frames the last has only one neighbour and is not looked at.
    """
    if len(frames) < 3:
        return None
    errors = []
    for n in range(1, len(frames) - 1, 2):
        made = between(frames[n - 1], frames[n + 1])
        errors.append(np.abs(made.astype(np.int16) - frames[n].astype(np.int16)).mean())
    return float(1 - np.mean(errors) / 255)


def normalised_smoothness(value: float) -> float:
    """Motion smoothness as VBench's leaderboard shows it: 0 at 0.706, 1 at 0.9975."""
    low, high = SMOOTHNESS_RANGE
    return float(np.clip((value - low) / (high - low), 0, 1))


def smoothness_by_flow(flow: Flow, frames: np.ndarray) -> float | None:
    """`smoothness` with `by_flow`, at the size at which RAFT looks."""
    return smoothness(np.stack([shrink(frame) for frame in frames]), by_flow(flow)) if len(frames) else None
