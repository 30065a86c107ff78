"""Regeneration of a clip from noise (SDEdit, Meng et al. 2022, arXiv 2108.01073): noise it to a level, and denoise it again.

A low level keeps the layout and changes details; at 1 nothing of the clip is left but its prompt and references.
"""

import itertools
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from model_zoo.a2 import objective
from model_zoo.a2 import references as a2_references
from model_zoo.a2.references import Prepared


@torch.no_grad()
def regenerate(
    pipe: Any,
    frames: UInt8[np.ndarray, "f h w 3"],
    references: Prepared,
    prompt: str,
    strength: float,
    steps: int = 20,
    flow_shift: float = 5.0,
    seed: int = 0,
) -> UInt8[np.ndarray, "f h w 3"]:
    """Return a video of the same shape, denoised from `strength` (0: the clip itself, 1: noise) without guidance, by Euler steps.

    pipe: a WanA2Pipeline. frames: 4 n + 1, of the references' size. As in training, the references take the first latent frames;
    they are put before the clip and cut off, so that every frame of the clip is regenerated. Raises ValueError for a strength
    outside 0 to 1, for another number of frames, and if the network returns NaN or infinity.
    """
    count, (f, height, width, _) = len(references.frames), frames.shape
    head = a2_references.head_frames(count)
    a2_references.check_size(height, width, f + head, count)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength} is not between 0 and 1")
    reference_frames = np.repeat(references.frames, a2_references.slots(count), axis=0)
    video = np.concatenate([reference_frames, np.repeat(frames[:1], head - len(reference_frames), axis=0), frames])
    clean = a2_references.encode(pipe.vae, a2_references.as_tensor(video).movedim(0, 1)[None])
    condition = a2_references.condition(pipe.vae, a2_references.as_tensor(references.frames), f + head)
    image = a2_references.image_tokens(pipe.image_encoder, pipe.image_processor, references.squares)
    text, _ = pipe.encode_prompt(prompt=prompt, do_classifier_free_guidance=False, device=clean.device)
    dtype = pipe.transformer.dtype
    # on the CPU: the same noise on every device
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
    sigmas = np.linspace(1, 0, steps + 1)
    levels = [
        strength,
        *(s for s in (objective.apply_flow_shift(float(n), flow_shift) for n in sigmas) if s < strength),
    ]
    latents = objective.add_noise(clean, noise, strength)
    for level, next_level in itertools.pairwise(levels):
        inputs = latents.to(dtype), float(level), condition.to(dtype), text.to(dtype), image.to(dtype)
        latents = latents + (next_level - level) * objective.predict(pipe.transformer, *inputs).float()
    if not latents.isfinite().all():
        raise ValueError("the network returned NaN or infinity")
    config = pipe.vae.config
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1).to(latents) for v in (config.latents_mean, config.latents_std))
    decoded = pipe.vae.decode((latents * std + mean).to(pipe.vae.dtype)).sample[0, :, head:]
    return decoded.float().add(1).mul(127.5).clamp(0, 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
