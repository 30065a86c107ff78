"""The objective of A2 (arXiv 2504.02436) and Wan: flow matching (Lipman et al. 2022, arXiv 2210.02747; Liu et al., 2209.03003).

A straight path leads from the clean latents to noise, x = (1 - s) clean + s noise, and the network says its direction,
noise - clean. Nothing here draws a random number.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float

from model_zoo.a2 import references as a2_references
from model_zoo.a2.padding import TOKENS

LEVELS = tuple(n / 10 for n in range(1, 10))  # noise levels at which held-out samples are looked at
TARGETS = ("reference", "video", "ignore")  # what the network learns to say where the references stand


def apply_flow_shift(level: float, shift: float) -> float:
    """A noise level moved towards noise: with shift 3, half the draws lie above 0.75 (Esser et al. 2024, arXiv 2403.03206)."""
    return shift * level / (1 + (shift - 1) * level)


def add_noise(
    clean: Float[torch.Tensor, "b c t h w"], noise: Float[torch.Tensor, "b c t h w"], level: float
) -> Float[torch.Tensor, "b c t h w"]:
    """The point at `level` (0: clean, 1: noise) on the path."""
    return (1 - level) * clean + level * noise


def velocity(
    clean: Float[torch.Tensor, "b c t h w"], noise: Float[torch.Tensor, "b c t h w"]
) -> Float[torch.Tensor, "b c t h w"]:
    """What the network is to say: where the path leads."""
    return noise - clean


def predict(
    network: Any,
    noised: Float[torch.Tensor, "b 16 t h w"],
    level: float | Sequence[float],
    condition: Float[torch.Tensor, "b 20 t h w"],
    text: Float[torch.Tensor, "b m d"],
    image: Float[torch.Tensor, "b k e"],
) -> Float[torch.Tensor, "b 16 t h w"]:
    """The network's word for the direction, given what it is told: mask and latents, tokens of text (at most 512) and image.

    One level for all, or one each. Text is filled up with zeros to 512 tokens, as Wan's pipeline does it, or as
    a2_padding.shorten wants it, which comes to the same.
    """
    short = getattr(network, "one_padding", None)
    words = short.fill_up(text) if short else torch.nn.functional.pad(text, (0, 0, 0, TOKENS - text.shape[1]))
    levels = [level] * len(noised) if isinstance(level, float) else level
    # filled where it is: a copy from the CPU would wait for all that a GPU still has to do
    timestep = torch.cat([torch.full((1,), each * 1000, device=noised.device) for each in levels])
    return network(torch.cat([noised, condition], 1), timestep, words, image, return_dict=False)[0]


def slot_latents(references: int, repeat: bool = True) -> int:
    """Frames of latents, from the first, that the references take; 0 for none."""
    return 1 + -(-sum(a2_references.slots(references, repeat)[1:]) // a2_references.STRIDE) if references else 0


def training_target(
    video: Float[torch.Tensor, "b 16 t h w"], condition: Float[torch.Tensor, "b 20 t h w"], slots: int, target: str
) -> tuple[Float[torch.Tensor, "b 16 t h w"], Bool[torch.Tensor, " t"]]:
    """The clean latents to learn and the frames of them whose loss counts.

    The paper does not say what stands in the references' slots; the released model's come out like the references and are cut
    off. target "reference": they are the references, and count. "video": they are the video's first frames, as elsewhere.
    "ignore": the same, but their loss does not count.
    """
    if target not in TARGETS:
        raise ValueError(f"no target called {target!r} for the references' frames: {', '.join(TARGETS)}")
    counts = torch.ones(video.shape[2], dtype=torch.bool, device=video.device)
    if target == "ignore":
        counts[:slots] = False
    if target != "reference":
        return video, counts
    given = condition[:, a2_references.STRIDE :, :slots]
    return torch.cat([given.to(video), video[:, :, slots:]], 2), counts


def loss(
    predicted: Float[torch.Tensor, "b c t h w"],
    target: Float[torch.Tensor, "b c t h w"],
    counts: Bool[torch.Tensor, " t"],
) -> Float[torch.Tensor, ""]:
    """Mean squared error over the frames that count, in float32."""
    by_frame = (predicted.float() - target.float()).square().mean((0, 1, 3, 4))
    return torch.where(counts, by_frame, 0).sum() / counts.sum()
