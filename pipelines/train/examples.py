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
from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2 import objective
from pipelines.train.settings import Settings


class Example(NamedTuple):
    """One sample at one noise level."""

    clean: torch.Tensor  # (1, 16, t, h, w)
    loss_mask: torch.Tensor  # (t,) bool: frames included in the loss
    noise: torch.Tensor
    level: float
    condition: torch.Tensor  # with a batch dimension, see model_zoo.a2.conditioning.network_inputs
    text: torch.Tensor  # (1, m, d)
    image: torch.Tensor | None  # (1, k, e), for A2
    slots: int  # number of references, which is that of latent frames that hold them
    head_frames: int = 0  # latent frames of references at the start of the video


def draw_example(
    sample: Any, null_condition: torch.Tensor, settings: Settings, device: torch.device, conditioning: str = "a2"
) -> Example:
    """Return the training example of a loader's sample."""

    def rng_for(purpose: str) -> np.random.Generator:
        return rng(settings.seed, sample.epoch, sample.index, purpose)

    single = rng_for("single reference").random() < settings.single_reference_prob
    level = objective.apply_flow_shift(float(rng_for("noise level").random()), settings.flow_shift)
    return make_example(
        sample.tensors,
        null_condition,
        level,
        rng_for("noise"),
        settings.reference_target,
        device,
        with_text=rng_for("caption drop").random() >= settings.caption_dropout_prob,
        with_references=rng_for("reference drop").random() >= settings.reference_dropout_prob,
        single="_single" if single else "",
        conditioning=conditioning,
    )


def make_example(
    tensors: Mapping[str, torch.Tensor],
    null_condition: torch.Tensor,
    level: float,
    rng: np.random.Generator,
    target: str,
    device: torch.device,
    *,
    with_text: bool = True,
    with_references: bool = True,
    single: str = "",
    conditioning: str = "a2",
) -> Example:
    """Return an example at a noise level. null_condition: A2's condition without references, (20, t, h, w)."""
    if f"condition{single}" not in tensors:
        raise ValueError("the samples have no single-reference condition: encode them with --singles")
    stored = tensors[f"condition{single}"]
    if not with_references:
        stored = a2_conditioning.without_references(conditioning, stored, null_condition)
    # computed on the CPU, to avoid a GPU synchronisation
    slots, head_frames = a2_conditioning.count(conditioning, stored), a2_conditioning.head(conditioning, stored)
    video, condition = (
        to_batch(tensors["video"], device),
        to_batch(a2_conditioning.stored_to_network_condition(conditioning, stored, null_condition), device),
    )
    text = to_batch(tensors["text" if with_text else "text_empty"], device)
    image = to_batch(tensors[f"image{single}"], device) if conditioning == "a2" else None
    noise = to_batch(torch.from_numpy(rng.standard_normal(video.shape[1:], np.float32)), device)
    if conditioning == "a2":
        clean, loss_mask = objective.training_target(video, condition, head_frames, target)
    else:
        clean, loss_mask = video, torch.ones(video.shape[2], dtype=torch.bool, device=device)
    if conditioning == "vace":
        # the references precede the video; their noise is drawn last, so that it does not change the video's
        head_noise = to_batch(
            torch.from_numpy(rng.standard_normal((len(video[0]), head_frames, *video.shape[3:]), np.float32)), device
        )
        noise, clean = torch.cat([head_noise, noise], 2), torch.cat([condition[:, :16, :head_frames], video], 2)
        num_predicted = slots if target == "reference" else 0
        loss_mask = torch.cat([torch.arange(head_frames, device=device) < num_predicted, loss_mask])
    if image is not None and not with_references:
        image = torch.zeros_like(image)
    return Example(clean, loss_mask, noise, level, condition, text, image, slots, head_frames)


def to_batch(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor as a batch of one, float32, on a device. Copies to a GPU are asynchronous, from pinned memory."""
    if device.type == "cuda":
        return tensor[None].pin_memory().to(device, non_blocking=True).float()
    return tensor[None].to(device, torch.float32)


def loss(network: Any, example: Example, precision: str) -> torch.Tensor:
    """Return the loss of one example, float32. "bfloat16" autocasts the computation; parameters keep their dtype."""
    return losses(network, [example], precision)[0]


def losses(network: Any, examples: Sequence[Example], precision: str) -> torch.Tensor:
    """Return the losses of examples of one shape, (n,) float32, from one forward pass: the same as one by one.

    Raises ValueError if the numbers of references give conditions of several shapes.
    """
    frames = sorted({e.condition.shape[2] for e in examples})
    if len(frames) > 1:
        raise ValueError(
            f"a micro-batch has conditions of {' and '.join(map(str, frames))} latent frames, because its samples have different "
            "numbers of references: encode with --reference-slots, or use --micro-batch-size 1"
        )
    noised = torch.cat([objective.add_noise(e.clean, e.noise, e.level) for e in examples])
    condition = torch.cat([e.condition for e in examples])
    max_text_tokens = max(e.text.shape[1] for e in examples)
    text = torch.cat([torch.nn.functional.pad(e.text, (0, 0, 0, max_text_tokens - e.text.shape[1])) for e in examples])
    images = [e.image for e in examples if e.image is not None]
    num_image_tokens = math.lcm(*(image.shape[1] for image in images))
    tokens = torch.cat([each.repeat(1, num_image_tokens // each.shape[1], 1) for each in images]) if images else None
    with torch.autocast(noised.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext():
        predicted = objective.predict(network, noised, [e.level for e in examples], condition, text, tokens)
    targets = [objective.velocity(e.clean, e.noise) for e in examples]
    return torch.stack(
        [
            objective.loss(prediction[None], target, e.loss_mask)
            for prediction, target, e in zip(predicted, targets, examples, strict=True)
        ]
    )
