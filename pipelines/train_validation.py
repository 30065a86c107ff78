"""Does the network learn, and does it use its references? Held-out loss at nine noise levels with noise that never changes.

The same is asked with the references of another held-out sample. Frames that show references count in neither, so that only what
references do for the video is compared. A network that ignores them scores the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from a2data.batches import draw
from model_zoo.flow_matching import LEVELS
from pipelines import train_examples

SHUFFLES = 3  # other samples whose references each sample is shown


@dataclass(frozen=True)
class HeldOut:
    """Losses on held-out samples."""

    right: float  # with their own references
    shuffled: float  # with those of others
    levels: list[float]  # with their own, at each of LEVELS
    samples: list[float]  # (shuffled - right) / right of each sample

    @property
    def gap(self) -> float:
        """How much worse it is with references of others: 0.1 is a tenth."""
        return self.shuffled / self.right - 1


@torch.no_grad()
def held_out(
    network: Any, samples: Sequence[Any], nothing: torch.Tensor, precision: str, rank: int = 0, ranks: int = 1
) -> HeldOut:
    """The losses. Each of `ranks` processes looks at every ranks-th sample; all of them get all figures.

    Passes are as many on every process: FSDP gathers parameters in each.
    """
    if len(samples) < 2:
        raise ValueError("validation compares samples with one another: hold out two at least (--held-out)")
    device = next(network.parameters()).device
    conditions = [train_examples.slots_of(s.tensors["condition"][None]) for s in samples]
    first = max(conditions)  # a frame that shows a reference of no sample
    others = [0, *range(1, min(SHUFFLES, len(samples) - 1) + 1)]
    losses = torch.zeros(len(samples), len(others), len(LEVELS), dtype=torch.float64)
    for start in range(0, len(samples), ranks):
        mine = start + rank
        sample = samples[mine % len(samples)]
        for column, other in enumerate(others):
            shown = samples[(mine + other) % len(samples)].tensors
            tensors = {**sample.tensors, "condition": shown["condition"], "image": shown["image"]}
            for row, level in enumerate(LEVELS):
                rng = draw(0, 0, sample.key, f"held out {row}")
                example = train_examples.made(tensors, nothing, level, rng, "reference", device)
                example.counts[:first] = False
                value = train_examples.loss(network, example, precision)
                if mine < len(samples):
                    losses[mine, column, row] = value
    if ranks > 1:
        summed = losses.to(device)
        dist.all_reduce(summed)
        losses = summed.cpu()
    right, shuffled = losses[:, 0].mean(1), losses[:, 1:].mean((1, 2))
    return HeldOut(
        float(right.mean()),
        float(shuffled.mean()),
        losses[:, 0].mean(0).tolist(),
        ((shuffled - right) / right).tolist(),
    )
