"""How references condition the network. Encoder, trainer, sampler and bench share this module, so their inputs are identical.

* "a2" (SkyReels-A2): mask and latents of the references as further channels, and CLIP tokens; see model_zoo.a2.references.
* "appended" (Phantom, arXiv 2502.11079; SkyReels-V3, arXiv 2601.17323; RefAlign): each reference, encoded alone, is a clean
  latent frame after those of the video, on a text-to-video network. The prediction at these frames is dropped.
* "vace" (arXiv 2503.07598): a branch of blocks reads the references, encoded alone, before the frames of a grey video to be
  generated. The network also denoises as many frames at the start of the video, which come out like the references and are cut
  off.

A stored condition is that of "a2" (20 channels), or the references' latents (16, n, h, w) for the other two.
"""

from typing import Any

import torch
from jaxtyping import Float

from model_zoo.a2 import references as a2_references
from model_zoo.a2.checkpoint import conditioning_of
from model_zoo.a2.references import STRIDE, Prepared

MASK_CHANNELS = 64  # of VACE's control: one for each of the 8 x 8 pixels of a latent


def of(network: Any) -> str:
    """Return the conditioning that a network takes."""
    return conditioning_of(dict(network.config))


@torch.no_grad()
def reference_latents(vae: Any, references: Prepared, slots: int = 0) -> Float[torch.Tensor, "16 n lh lw"]:
    """Return the normalised latents of references, each encoded separately (the posterior's mode), for "appended" and "vace".

    slots: number of frames to fill up to with zeros, as SkyReels-V3 does with 4; 0 for as many frames as references, as Phantom
    and VACE. Raises ValueError if there are more references than slots.
    """
    count = len(references.frames)
    if slots and count > slots:
        raise ValueError(
            f"{count} references, but the network has {slots} slots (reference_slots): give fewer references"
        )
    pictures = a2_references.as_tensor(references.frames)
    encoded = [a2_references.encode(vae, picture[None, :, None])[0] for picture in pictures]
    empty = encoded[0].new_zeros(encoded[0].shape[0], max(0, slots - count), *encoded[0].shape[2:])
    return torch.cat([*encoded, empty], 1)


def control(
    references: Float[torch.Tensor, "16 n lh lw"], grey: Float[torch.Tensor, "16 t lh lw"]
) -> Float[torch.Tensor, "96 n+t lh lw"]:
    """Return VACE's control: latents to keep, latents to change, and the mask of pixels to generate.

    references: latents of the references; their frames are kept. grey: latents of mid-grey, for the frames to generate.
    """
    n, t = references.shape[1], grey.shape[1]
    latents = torch.cat([torch.cat([references, torch.zeros_like(references)]), torch.cat([grey, grey])], 1)
    mask = latents.new_zeros(MASK_CHANNELS, n + t, *latents.shape[2:])
    mask[:, n:] = 1
    return torch.cat([latents, mask])


def stored_to_network_condition(
    kind: str, condition: torch.Tensor, null_condition: Float[torch.Tensor, "20 t lh lw"]
) -> torch.Tensor:
    """Return a stored condition as `network_inputs` takes it. null_condition: see model_zoo.a2.references.no_references."""
    return control(condition, null_condition[STRIDE:].to(condition)) if kind == "vace" else condition


def without_references(
    kind: str, condition: torch.Tensor, null_condition: Float[torch.Tensor, "20 t lh lw"]
) -> torch.Tensor:
    """Return the stored condition with its references dropped: `null_condition` for "a2", else latents of zeros (Phantom, V3)."""
    return null_condition if kind == "a2" else torch.zeros_like(condition)


def count(kind: str, condition: torch.Tensor) -> int:
    """Return the number of latent frames of a stored condition that hold references."""
    is_used = condition[:STRIDE, :, 0, 0].any(0) if kind == "a2" else condition.flatten(2).any(2).any(0)
    return int(is_used.sum())


def head(kind: str, condition: torch.Tensor) -> int:
    """Return the number of latent frames at the start of the generated video that show references and are cut off."""
    return {"a2": count(kind, condition), "appended": 0, "vace": condition.shape[1]}[kind]


def check_size(kind: str, height: int, width: int, frames: int, references: int) -> None:
    """Raise ValueError like model_zoo.a2.references.check_size; only those of "a2" take up frames of the video."""
    a2_references.check_size(height, width, frames, references if kind == "a2" else 0)


def network_inputs(
    kind: str, noised: Float[torch.Tensor, "b 16 t lh lw"], condition: torch.Tensor, image: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return the arguments of the network that depend on the conditioning.

    condition: the result of `stored_to_network_condition`, with a batch dimension. image: CLIP tokens of "a2". For "vace",
    `noised` includes the frames of the references.
    """
    if kind == "vace":
        return {"hidden_states": noised, "control_hidden_states": condition}
    if kind == "appended":
        return {"hidden_states": torch.cat([noised, condition], 2)}
    assert image is not None
    return {"hidden_states": torch.cat([noised, condition], 1), "encoder_hidden_states_image": image}


def video_part(kind: str, predicted: torch.Tensor, frames: int) -> torch.Tensor:
    """Return a network's prediction for the `frames` latent frames that were noisy."""
    return predicted[:, :, :frames] if kind == "appended" else predicted
