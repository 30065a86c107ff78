"""Validation: held-out loss at nine noise levels with fixed noise, with the right and with shuffled references.

The shuffled loss uses the references of another held-out sample. Frames that hold references are excluded from both losses, so
the comparison measures only how references help the video. A network that ignores its references scores the same in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from a2data.dataset.batch_plan import rng
from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2.objective import LEVELS
from pipelines.train import examples as train_examples
from stages.encode.settings import clip_of

SHUFFLES = 3  # number of other samples whose references each sample is evaluated with


@dataclass(frozen=True)
class HeldOut:
    """Losses on held-out samples."""

    loss: float  # with their own references
    shuffled: float  # with other samples' references
    levels: list[float]  # with their own references, at each of LEVELS
    shuffled_levels: list[float]  # with other samples' references, at each of LEVELS
    clips: dict[str, float]  # (shuffled - right) / right of each clip, averaged over its variants

    @property
    def gap(self) -> float:
        """Return the relative increase of the loss with other samples' references: 0.1 is 10 %."""
        return self.shuffled / self.loss - 1


def shuffled_references(clips: Sequence[str]) -> list[list[int]]:
    """Return for each sample up to SHUFFLES samples of other clips, the next ones in order. A clip may have several variants.

    Raises ValueError if there are fewer than two clips.
    """
    if len(set(clips)) < 2:
        raise ValueError("validation compares samples with each other: hold out at least two (--validation-fraction)")
    count = len(clips)
    candidates = [
        [(n + k) % count for k in range(1, count) if clips[(n + k) % count] != clips[n]] for n in range(count)
    ]
    count_each = min(SHUFFLES, *(len(of_sample) for of_sample in candidates))
    # the same number for each sample, so that every process runs the same number of passes
    return [of_sample[:count_each] for of_sample in candidates]


@torch.no_grad()
def evaluate(
    network: Any,
    samples: Sequence[Any],
    null_condition: torch.Tensor,
    precision: str,
    batch_size: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> HeldOut:
    """Return the held-out losses. Each of `world_size` processes evaluates every world_size-th sample; all get all results.

    A forward pass takes `batch_size` levels of a sample. Every process runs the same number of passes, since FSDP gathers
    parameters in each.
    """
    device = next(network.parameters()).device
    others = shuffled_references([clip_of(s.key) for s in samples])
    kind = a2_conditioning.of(network)
    # the first frame after the references of every sample
    first = max(a2_conditioning.head(kind, s.tensors["condition"]) for s in samples)
    losses = torch.zeros(len(samples), 1 + len(others[0]), len(LEVELS), dtype=torch.float64)
    for start in range(0, len(samples), world_size):
        index = start + rank
        sample = samples[index % len(samples)]
        for column, other in enumerate([index % len(samples), *others[index % len(samples)]]):
            source = samples[other].tensors
            tensors = sample.tensors | {name: source[name] for name in ("condition", "image") if name in source}
            examples = [
                train_examples.make_example(
                    tensors,
                    null_condition,
                    level,
                    rng(0, 0, sample.key, f"held out {row}"),
                    "reference",
                    device,
                    conditioning=kind,
                )
                for row, level in enumerate(LEVELS)
            ]
            for example in examples:
                example.loss_mask[: example.head_frames if kind == "vace" else first] = False
            batches = [
                train_examples.losses(network, examples[n : n + batch_size], precision)
                for n in range(0, len(LEVELS), batch_size)
            ]
            if index < len(samples):
                losses[index, column] = torch.cat(batches)
    if world_size > 1:
        summed = losses.to(device)
        dist.all_reduce(summed)
        losses = summed.cpu()
    matched, shuffled = losses[:, 0].mean(1), losses[:, 1:].mean((1, 2))
    gaps: dict[str, list[float]] = {}
    for sample, one, other in zip(samples, matched.tolist(), shuffled.tolist(), strict=True):
        gaps.setdefault(clip_of(sample.key), []).append(other / one - 1)
    return HeldOut(
        float(matched.mean()),
        float(shuffled.mean()),
        losses[:, 0].mean(0).tolist(),
        losses[:, 1:].mean((0, 1)).tolist(),
        {clip: sum(each) / len(each) for clip, each in sorted(gaps.items())},
    )
