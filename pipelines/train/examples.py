"""Build the network's inputs from encoded samples. Dropout, noise level and noise are keyed by (seed, epoch, sample, purpose).

The number of image tokens depends on the number of references, and Wan's attention does not take a mask. In a micro-batch the
tokens of each sample are therefore repeated to a common length: attention over tokens that are all duplicated equally often gives
the same result.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from a2data.dataset.batch_plan import rng
from model_zoo.a2 import objective
from pipelines.train.settings import Settings


class Example(NamedTuple):
    """One sample at one noise level."""

    clean: torch.Tensor  # (1, 16, t, h, w)
    counts: torch.Tensor  # (t,) bool: frames included in the loss
    noise: torch.Tensor
    level: float
    condition: torch.Tensor  # (1, 20, t, h, w)
    text: torch.Tensor  # (1, m, d)
    image: torch.Tensor  # (1, k, e)
    slots: int  # latent frames that hold references


def drawn(sample: Any, nothing: torch.Tensor, settings: Settings, device: torch.device) -> Example:
    """Return the training example of a loader's sample."""

    def chance(purpose: str) -> np.random.Generator:
        return rng(settings.seed, sample.epoch, sample.index, purpose)

    single = chance("single reference").random() < settings.single_reference_prob
    level = objective.apply_flow_shift(float(chance("noise level").random()), settings.flow_shift)
    return made(
        sample.tensors,
        nothing,
        level,
        chance("noise"),
        settings.reference_target,
        device,
        worded=chance("caption drop").random() >= settings.caption_dropout_prob,
        referenced=chance("reference drop").random() >= settings.reference_dropout_prob,
        single="_single" if single else "",
    )


def made(
    tensors: Mapping[str, torch.Tensor],
    nothing: torch.Tensor,
    level: float,
    rng: np.random.Generator,
    target: str,
    device: torch.device,
    *,
    worded: bool = True,
    referenced: bool = True,
    single: str = "",
) -> Example:
    """Return an example at a noise level. `nothing`: the condition without references, (20, t, h, w)."""
    if f"condition{single}" not in tensors:
        raise ValueError("the samples have no single-reference condition: encode them with --singles")
    given = tensors[f"condition{single}"] if referenced else nothing
    # computed on the CPU, to avoid a GPU synchronisation
    slots = slots_of(given[None])
    video, condition = onto(tensors["video"], device), onto(given, device)
    image, text = onto(tensors[f"image{single}"], device), onto(tensors["text" if worded else "text_empty"], device)
    clean, counts = objective.training_target(video, condition, slots, target)
    noise = onto(torch.from_numpy(rng.standard_normal(clean.shape[1:], np.float32)), device)
    return Example(
        clean, counts, noise, level, condition, text, image if referenced else torch.zeros_like(image), slots
    )


def onto(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor as a batch of one, float32, on a device. Copies to a GPU are asynchronous, from pinned memory."""
    if device.type == "cuda":
        return tensor[None].pin_memory().to(device, non_blocking=True).float()
    return tensor[None].to(device, torch.float32)


def slots_of(condition: torch.Tensor) -> int:
    """Return the number of latent frames that hold references in a condition (1, 20, t, h, w): those with a non-zero mask."""
    return int(condition[0, :4, :, 0, 0].any(0).sum())


def loss(network: Any, example: Example, precision: str) -> torch.Tensor:
    """Return the loss of one example, float32. "bfloat16" autocasts the computation; parameters keep their dtype."""
    return losses(network, [example], precision)[0]


def losses(network: Any, examples: Sequence[Example], precision: str) -> torch.Tensor:
    """Return the losses of examples of one shape, (n,) float32, from one forward pass: the same as one by one."""
    noised = torch.cat([objective.add_noise(e.clean, e.noise, e.level) for e in examples])
    condition = torch.cat([e.condition for e in examples])
    most = max(e.text.shape[1] for e in examples)
    text = torch.cat([torch.nn.functional.pad(e.text, (0, 0, 0, most - e.text.shape[1])) for e in examples])
    many = math.lcm(*(e.image.shape[1] for e in examples))
    image = torch.cat([e.image.repeat(1, many // e.image.shape[1], 1) for e in examples])
    with torch.autocast(noised.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext():
        said = objective.predict(network, noised, [e.level for e in examples], condition, text, image)
    aims = [objective.velocity(e.clean, e.noise) for e in examples]
    return torch.stack(
        [objective.loss(one[None], aim, e.counts) for one, aim, e in zip(said, aims, examples, strict=True)]
    )
