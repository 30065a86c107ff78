"""A tiny reward model on the CPU: statistics of a grey video's motion, frozen, and a small network on them.

Grey frames keep it from judging the picture (LongCat-Video scores motion on grey frames too). It is meant to try reward training,
not to judge videos of people.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float

SIDES = 32, 48  # height and width of the grey frames
CELLS = 4, 6
HIDDEN = 32
DROPOUT = 0.1
EPS = 1e-3  # of grey levels 0 to 1: below that, motion is noise


def features(frames: np.ndarray) -> np.ndarray:
    """Return statistics of the motion of (t, h, w, 3) uint8 frames, (d,) float32. Raises ValueError for fewer than 5 frames."""
    if len(frames) < 5:
        raise ValueError(f"a video of {len(frames)} frames does not show motion: 5 are needed")
    grey = np.stack(
        [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), SIDES[::-1], interpolation=cv2.INTER_AREA) for f in frames]
    ).astype(np.float32)
    grey /= 255
    steps = np.diff(grey, axis=0)
    energy = np.abs(steps).mean((1, 2)) + EPS
    mean = energy.mean()
    held = [energy[np.arange(len(energy)) % n == n - 1].mean() / mean for n in (2, 3, 4)]  # every n-th step moves
    thirds = [part.mean() / mean for part in np.array_split(energy, 3)]
    second = np.abs(np.diff(steps, axis=0)).mean() + EPS
    cells = np.abs(steps).reshape(len(steps), CELLS[0], SIDES[0] // CELLS[0], CELLS[1], -1).mean((2, 4)) + EPS
    share = cells / cells.mean(0)
    shifts = np.array([cv2.phaseCorrelate(a, b)[0] for a, b in itertools.pairwise(grey)])
    turns = np.abs(np.diff(shifts, axis=0)).mean()
    skew = [float((grey[:-1] ** 2 * grey[1:] - grey[:-1] * grey[1:] ** 2).mean()), float((steps**3).mean())]
    found = [
        np.log(mean), np.log(second / mean), energy.std() / mean, energy.min() / mean, energy.max() / mean,
        (energy < 0.25 * np.median(energy) + EPS).mean(), *held, *thirds, share.max(), share.std(), np.log(share.min()),
        np.corrcoef(energy[:-1], energy[1:] + 1e-6 * np.arange(len(energy) - 1))[0, 1] if energy.std() > EPS else 1.0,
        (cells.std(0) / cells.mean(0)).max(), np.log1p(np.abs(shifts).mean()), np.log1p(turns), *(1e4 * s for s in skew),
    ]  # fmt: skip
    return np.nan_to_num(np.array(found, np.float32))


class MotionReward(torch.nn.Module):
    """A network with one hidden layer on standardised features."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(size, HIDDEN), torch.nn.Tanh(), torch.nn.Dropout(DROPOUT), torch.nn.Linear(HIDDEN, 1)
        )

    def inputs(self, frames: np.ndarray, fps: float, prompt: str) -> torch.Tensor:
        """Return the frozen features of a video. The prompt is not used."""
        return torch.from_numpy(features(frames))

    def fit(self, inputs: Sequence[torch.Tensor]) -> None:
        """Set the standardisation from the training videos."""
        stacked = torch.stack(list(inputs))
        self.mean.copy_(stacked.mean(0))
        self.deviation.copy_(stacked.std(0).clamp_min(1e-3))

    def forward(self, inputs: Sequence[torch.Tensor]) -> Float[torch.Tensor, " n"]:
        """Return the reward of each video."""
        return self.layers((torch.stack(list(inputs)) - self.mean) / self.deviation)[:, 0]

    def trained(self) -> dict[str, torch.Tensor]:
        """Return what a training changes, to save."""
        return self.state_dict()


def reward(card: Any, device: str) -> MotionReward:
    """The tiny reward model, untrained, on the CPU. Its layers are initialised by the global generator."""
    return MotionReward(len(features(np.zeros((5, 8, 8, 3), np.uint8))))
