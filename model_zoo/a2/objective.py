"""Objective of A2 (arXiv 2504.02436) and Wan: flow matching (Lipman et al. 2022, arXiv 2210.02747; Liu et al., 2209.03003).

Latents are interpolated linearly to noise, x = (1 - s) clean + s noise, and the network predicts the velocity, noise - clean.
Nothing here draws random numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float

from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2 import references as a2_references
from model_zoo.a2.padding import TOKENS

LEVELS = tuple(n / 10 for n in range(1, 10))  # noise levels of validation
TARGETS = ("reference", "video", "ignore")  # training targets at the reference frames


def apply_flow_shift(level: float, shift: float) -> float:
    """Shift a noise level towards noise: at shift 3, half of the draws are above 0.75 (Esser et al. 2024, arXiv 2403.03206)."""
    return shift * level / (1 + (shift - 1) * level)


def add_noise(
    clean: Float[torch.Tensor, "b c t h w"], noise: Float[torch.Tensor, "b c t h w"], level: float
) -> Float[torch.Tensor, "b c t h w"]:
    """Return the noisy latents at `level` (0: clean, 1: noise)."""
    return (1 - level) * clean + level * noise


def velocity(
    clean: Float[torch.Tensor, "b c t h w"], noise: Float[torch.Tensor, "b c t h w"]
) -> Float[torch.Tensor, "b c t h w"]:
    """Return the target velocity, noise - clean."""
    return noise - clean


def predict(
    network: Any,
    noised: Float[torch.Tensor, "b 16 t h w"],
    level: float | Sequence[float],
    condition: torch.Tensor,
    text: Float[torch.Tensor, "b m d"],
    image: Float[torch.Tensor, "b k e"] | None,
) -> Float[torch.Tensor, "b 16 t h w"]:
    """Return the network's predicted velocity, given the condition, text tokens (at most 512) and, for A2, image tokens.

    condition: see model_zoo.a2.conditioning.network_inputs. One level for all, or one each. Text is filled up with zeros to 512
    tokens, as Wan's pipeline does it, or as a2_padding.merge_padding does, which gives the same output up to rounding.
    """
    padding_cache = getattr(network, "text_padding_cache", None)
    text_tokens = (
        padding_cache.pad_text(text)
        if padding_cache
        else torch.nn.functional.pad(text, (0, 0, 0, TOKENS - text.shape[1]))
    )
    levels = [level] * len(noised) if isinstance(level, float) else level
    # created on the device: a copy from the CPU would synchronise with the GPU
    timestep = torch.cat([torch.full((1,), noise_level * 1000, device=noised.device) for noise_level in levels])
    kind = a2_conditioning.of(network)
    inputs = a2_conditioning.network_inputs(kind, noised, condition, image)
    predicted = network(timestep=timestep, encoder_hidden_states=text_tokens, return_dict=False, **inputs)[0]
    return a2_conditioning.video_part(kind, predicted, noised.shape[2])


def num_reference_latents(references: int, repeat: bool = True) -> int:
    """Return the number of leading latent frames that the references take; 0 for no references."""
    return 1 + -(-sum(a2_references.slots(references, repeat)[1:]) // a2_references.STRIDE) if references else 0


def training_target(
    video: Float[torch.Tensor, "b 16 t h w"],
    condition: Float[torch.Tensor, "b 20 t h w"],
    reference_latents: int,
    target: str,
) -> tuple[Float[torch.Tensor, "b 16 t h w"], Bool[torch.Tensor, " t"]]:
    """Return the clean target latents and a mask of the latent frames included in the loss.

    The paper does not define the target at the reference frames. In the released model, these frames come out like the references
    and are cut off. target "reference": the target is the references, included in the loss. "video": the target is the video's
    first frames. "ignore": the same, but excluded from the loss.
    """
    if target not in TARGETS:
        raise ValueError(f"unknown reference_target {target!r}: choose {', '.join(TARGETS)}")
    loss_mask = torch.ones(video.shape[2], dtype=torch.bool, device=video.device)
    if target == "ignore":
        loss_mask[:reference_latents] = False
    if target != "reference":
        return video, loss_mask
    reference_part = condition[:, a2_references.STRIDE :, :reference_latents]
    return torch.cat([reference_part.to(video), video[:, :, reference_latents:]], 2), loss_mask


def loss(
    predicted: Float[torch.Tensor, "b c t h w"],
    target: Float[torch.Tensor, "b c t h w"],
    loss_mask: Bool[torch.Tensor, " t"],
) -> Float[torch.Tensor, ""]:
    """Return the mean squared error over the frames marked in `loss_mask`, float32."""
    frame_loss = (predicted.float() - target.float()).square().mean((0, 1, 3, 4))
    return torch.where(loss_mask, frame_loss, 0).sum() / loss_mask.sum()
