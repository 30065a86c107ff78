"""Does the network learn, and does it use its references? Held-out loss at nine noise levels with noise that never changes.

The same is asked with the references of another held-out sample. Frames that show references count in neither, so that only what
references do for the video is compared. A network that ignores them scores the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from a2data.dataset.batch_plan import rng
from model_zoo.a2.objective import LEVELS
from pipelines.encode import clip_of
from pipelines.train import examples as train_examples

SHUFFLES = 3  # other samples whose references each sample is shown


@dataclass(frozen=True)
class HeldOut:
    """Losses on held-out samples."""

    loss: float  # with their own references
    shuffled: float  # with those of others
    levels: list[float]  # with their own, at each of LEVELS
    shuffled_levels: list[float]  # with those of others
    clips: dict[str, float]  # (shuffled - right) / right of each clip: the mean over its variants

    @property
    def gap(self) -> float:
        """How much worse it is with references of others: 0.1 is a tenth."""
        return self.shuffled / self.loss - 1


def shuffled_references(clips: Sequence[str]) -> list[list[int]]:
    """For each sample up to SHUFFLES others, of other clips: those that follow it. A clip may be there in several variants.

    Raises ValueError where there is no other clip.
    """
    if len(set(clips)) < 2:
        raise ValueError("validation compares samples with one another: hold out two at least (--validation-fraction)")
    count = len(clips)
    after = [[(n + k) % count for k in range(1, count) if clips[(n + k) % count] != clips[n]] for n in range(count)]
    fewest = min(SHUFFLES, *(len(others) for others in after))
    return [others[:fewest] for others in after]  # as many for each: passes are as many on every process


@torch.no_grad()
def held_out(
    network: Any,
    samples: Sequence[Any],
    nothing: torch.Tensor,
    precision: str,
    together: int = 1,
    rank: int = 0,
    ranks: int = 1,
) -> HeldOut:
    """The losses. Each of `ranks` processes looks at every ranks-th sample; all of them get all figures.

    A pass takes `together` levels of a sample. Passes are as many on every process: FSDP gathers parameters in each.
    """
    device = next(network.parameters()).device
    others = shuffled_references([clip_of(s.key) for s in samples])
    # a frame that shows no reference
    first = max(train_examples.slots_of(s.tensors["condition"][None]) for s in samples)
    losses = torch.zeros(len(samples), 1 + len(others[0]), len(LEVELS), dtype=torch.float64)
    for start in range(0, len(samples), ranks):
        mine = start + rank
        sample = samples[mine % len(samples)]
        for column, other in enumerate([mine % len(samples), *others[mine % len(samples)]]):
            shown = samples[other].tensors
            tensors = {**sample.tensors, "condition": shown["condition"], "image": shown["image"]}
            examples = [
                train_examples.made(
                    tensors, nothing, level, rng(0, 0, sample.key, f"held out {row}"), "reference", device
                )
                for row, level in enumerate(LEVELS)
            ]
            for example in examples:
                example.counts[:first] = False
            found = [
                train_examples.losses(network, examples[n : n + together], precision)
                for n in range(0, len(LEVELS), together)
            ]
            if mine < len(samples):
                losses[mine, column] = torch.cat(found)
    if ranks > 1:
        summed = losses.to(device)
        dist.all_reduce(summed)
        losses = summed.cpu()
    right, shuffled = losses[:, 0].mean(1), losses[:, 1:].mean((1, 2))
    gaps: dict[str, list[float]] = {}
    for sample, one, other in zip(samples, right.tolist(), shuffled.tolist(), strict=True):
        gaps.setdefault(clip_of(sample.key), []).append(other / one - 1)
    return HeldOut(
        float(right.mean()),
        float(shuffled.mean()),
        losses[:, 0].mean(0).tolist(),
        losses[:, 1:].mean((0, 1)).tolist(),
        {clip: sum(each) / len(each) for clip, each in sorted(gaps.items())},
    )
