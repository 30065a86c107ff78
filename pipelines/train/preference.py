"""Direct preference optimisation of flow matching (Liu et al. 2025, VideoAlign, arXiv 2501.13918; Rafailov et al., 2305.18290).

    L = -log sigmoid(-beta / 2 ((e_w - e_w,ref) - (e_l - e_l,ref)))

e is the squared error of the predicted velocity, mean over the values that the loss includes, of the better (w) and the worse (l)
video, with the same noise, level, prompt and references. beta is constant over noise levels. The reference model is the network
with its LoRA adapters switched off, so that there is no second copy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors.torch import load_file

from a2data.dataset.batch_plan import rng
from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2.objective import LEVELS
from pipelines.train import examples
from pipelines.train.examples import Example
from pipelines.train.settings import Settings

FILE = "pytorch_lora_weights.safetensors"  # of an export, in lora/


class PairLosses(NamedTuple):
    """Losses of pairs, each (n,) float32."""

    losses: torch.Tensor
    margins: torch.Tensor  # difference of the implicit rewards of the better and the worse video


def draw_pair(
    sample: Any, null_condition: torch.Tensor, settings: Settings, device: torch.device, conditioning: str = "a2"
) -> tuple[Example, Example]:
    """Return the better and the worse video of a loader's sample. All random choices are the same, since their keys are."""
    check(sample)
    worse = replace(sample, tensors={**sample.tensors, "video": sample.tensors["rejected"]})
    context = null_condition, settings, device, conditioning
    return examples.draw_example(sample, *context), examples.draw_example(worse, *context)


def check(sample: Any) -> None:
    """Raise ValueError if a sample does not have a worse video of the same shape."""
    if "rejected" not in sample.tensors:
        raise ValueError(f"the sample {sample.key} is not a pair: make pairs with `a2data prefer make`")
    shapes = [tuple(sample.tensors[name].shape) for name in ("video", "rejected")]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the two videos of {sample.key} have other shapes, {shapes[0]} and {shapes[1]}")


def losses(network: Any, pairs: Sequence[tuple[Example, Example]], settings: Settings) -> PairLosses:
    """Return losses and margins of pairs of one shape, by two forward passes: adapters off, without a gradient, and on."""
    with torch.no_grad(), adapters_off(network):
        reference = errors(network, pairs, settings.mixed_precision)
    return dpo(errors(network, pairs, settings.mixed_precision), reference, settings.dpo_beta, settings.dpo_positive)


def errors(network: Any, pairs: Sequence[tuple[Example, Example]], precision: str) -> torch.Tensor:
    """Return the squared errors of the better and the worse videos, (2, n) float32, from one forward pass."""
    return examples.losses(network, [*(better for better, _ in pairs), *(worse for _, worse in pairs)], precision).view(
        2, -1
    )


def dpo(policy: torch.Tensor, reference: torch.Tensor, beta: float, positive: float = 0.0) -> PairLosses:
    """Return losses and margins from squared errors, (2, n): better and worse videos.

    positive: weight of the penalty of DPO-Positive (Pal et al. 2024, arXiv 2402.13228) for better videos that became less likely.
    """
    better, worse = policy - reference
    margins = -beta / 2 * (better - worse)
    penalized_margins = margins - beta / 2 * positive * better.clamp_min(0)
    return PairLosses(-torch.nn.functional.logsigmoid(penalized_margins), margins.detach())


@contextmanager
def adapters_off(network: Any) -> Iterator[None]:
    network.disable_adapters()
    try:
        yield
    finally:
        network.enable_adapters()


def load_adapters(network: Any, folder: Path) -> None:
    """Add the LoRA adapters of an earlier stage's export to its reference model. Raises ValueError if they do not fit."""
    if not (folder / "lora" / FILE).is_file():
        raise ValueError(f"{folder} has no adapters in lora/: give the model of an earlier DPO training with --model")
    try:
        # safetensors from the file itself: diffusers falls back to a pickle
        network.load_lora_adapter(load_file(folder / "lora" / FILE), adapter_name="default", prefix=None)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the adapters in {folder / 'lora'} do not fit the reference model: {str(error).splitlines()[-1].strip()}"
        ) from error


@dataclass(frozen=True)
class HeldOutPairs:
    """Results on held-out pairs, mean over noise levels."""

    loss: float
    accuracy: float  # fraction of pairs with a margin above 0
    margin: float
    better_change: (
        float  # relative change of the squared error of better videos from the reference model; below 0: likelier
    )
    worse_change: float
    pairs: dict[str, float]  # margin of each pair


@torch.no_grad()
def evaluate_pairs(
    network: Any,
    samples: Sequence[Any],
    null_condition: torch.Tensor,
    settings: Settings,
    rank: int = 0,
    world_size: int = 1,
) -> HeldOutPairs:
    """Return the results on held-out pairs, at fixed noise levels with fixed noise. Each process evaluates a part of them."""
    device = next(network.parameters()).device
    errors_of = torch.zeros(4, len(samples), len(LEVELS), dtype=torch.float64)
    for start in range(0, len(samples), world_size):
        sample = samples[(start + rank) % len(samples)]  # every process runs the same number of passes
        check(sample)
        sides = []
        for name in ("video", "rejected"):
            tensors = {**sample.tensors, "video": sample.tensors[name]}
            noises = (rng(0, 0, sample.key, f"held out {row}") for row in range(len(LEVELS)))
            target, kind = settings.reference_target, a2_conditioning.of(network)
            sides.append(
                [
                    examples.make_example(tensors, null_condition, level, noise, target, device, conditioning=kind)
                    for level, noise in zip(LEVELS, noises, strict=True)
                ]
            )
        pairs = list(zip(*sides, strict=True))
        batch_size = max(1, settings.micro_batch_size)
        batches = [pairs[n : n + batch_size] for n in range(0, len(pairs), batch_size)]
        policy = torch.cat([errors(network, batch, settings.mixed_precision) for batch in batches], 1)
        with adapters_off(network):
            reference = torch.cat([errors(network, batch, settings.mixed_precision) for batch in batches], 1)
        if start + rank < len(samples):
            errors_of[:, start + rank] = torch.cat([policy, reference])
    if world_size > 1:
        summed = errors_of.to(device)
        dist.all_reduce(summed)
        errors_of = summed.cpu()
    policy, reference = errors_of[:2], errors_of[2:]
    pair_losses = dpo(policy, reference, settings.dpo_beta, settings.dpo_positive)
    change = policy.mean((1, 2)) / reference.mean((1, 2)) - 1
    margins = pair_losses.margins.mean(1)
    return HeldOutPairs(
        float(pair_losses.losses.mean()),
        float((margins > 0).double().mean()),
        float(margins.mean()),
        float(change[0]),
        float(change[1]),
        dict(zip([sample.key for sample in samples], margins.tolist(), strict=True)),
    )
