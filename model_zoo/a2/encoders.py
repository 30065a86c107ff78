"""Encoders of A2's inputs: the VAE for video and references, UMT5 for the prompt, CLIP for square references.

Uses the sampler's functions (model_zoo.a2.references, diffusers' prompt cleaning), so that training and sampling inputs match.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8

from model_zoo.a2 import conditioning as a2_conditioning
from model_zoo.a2 import references as a2_references
from model_zoo.a2.checkpoint import digest
from model_zoo.a2.references import Prepared

PARTS = ("vae", "text_encoder", "tokenizer", "image_encoder", "image_processor")
IMAGE_PARTS = ("image_encoder", "image_processor")  # of the conditioning "a2" alone


class Encoders(NamedTuple):
    """A checkpoint's networks except the transformer. The image encoder and its processor are None unless it is A2's."""

    vae: Any
    text_encoder: Any
    tokenizer: Any
    image_encoder: Any
    image_processor: Any


def autoencoder(folder: Path) -> Any:
    """Return the VAE in a folder, float32: Wan's, or the linear one of the tiny preset, according to its config.json."""
    from diffusers import AutoencoderKLWan

    from model_zoo.a2.tiny import PatchAutoencoder

    class_name = json.loads((folder / "config.json").read_text()).get("_class_name")
    vae_class = PatchAutoencoder if class_name == PatchAutoencoder.__name__ else AutoencoderKLWan
    return vae_class.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True).requires_grad_(False)


def load(folder: Path, device: str = "cpu", conditioning: str = "a2") -> Encoders:
    """Return the frozen encoders of a checkpoint folder. VAE and CLIP are float32, UMT5 bfloat16 on a GPU, as released.

    Raises FileNotFoundError with the parts that the folder lacks.
    """
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

    has_image_encoder = conditioning == "a2"
    missing = [
        part for part in PARTS if not (folder / part).is_dir() and (has_image_encoder or part not in IMAGE_PARTS)
    ]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(f'{part}/' for part in missing)}: it is not a checkpoint with the conditioning "
            f"{conditioning!r}, such as {'A2 or Wan I2V' if has_image_encoder else 'Wan T2V or VACE in the layout of diffusers'}"
        )
    text_dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    load_kwargs = {"local_files_only": True}
    return Encoders(
        vae=autoencoder(folder / "vae").to(device).eval(),
        text_encoder=UMT5EncoderModel.from_pretrained(folder / "text_encoder", torch_dtype=text_dtype, **load_kwargs)
        .to(device)
        .eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer", **load_kwargs),
        image_encoder=CLIPVisionModel.from_pretrained(
            folder / "image_encoder", torch_dtype=torch.float32, **load_kwargs
        )
        .to(device)
        .eval()
        if has_image_encoder
        else None,
        image_processor=CLIPImageProcessor.from_pretrained(folder / "image_processor", **load_kwargs)
        if has_image_encoder
        else None,
    )


def revision(folder: Path, parts: Sequence[str] = PARTS) -> str:
    """Return the encoders' revision, 16 hex digits, see `model_zoo.a2.checkpoint.digest`."""
    return digest(folder, parts)[:16]


@torch.no_grad()
def encode_prompt(encoders: Encoders, text: str) -> Float[torch.Tensor, "m d"]:
    """Return a prompt's token embeddings, without padding. The empty prompt has its end token."""
    from diffusers.pipelines.wan.pipeline_wan_i2v import prompt_clean

    tokens = encoders.tokenizer([prompt_clean(text)], max_length=512, truncation=True, return_tensors="pt")
    device = encoders.text_encoder.device
    return (
        encoders.text_encoder(tokens.input_ids.to(device), tokens.attention_mask.to(device))
        .last_hidden_state[0]
        .float()
    )


@torch.no_grad()
def encode_video(encoders: Encoders, frames: UInt8[Any, "f h w 3"]) -> Float[torch.Tensor, "16 t lh lw"]:
    """Return a video's normalised latents: the mode of the posterior, so the result is deterministic."""
    video = a2_references.as_tensor(frames).movedim(0, 1)[None]
    return a2_references.encode(encoders.vae, video)[0]


@torch.no_grad()
def encode_references(
    encoders: Encoders,
    references: Prepared,
    frames: int,
    repeat: bool = True,
    reference_order: str = "before",
    conditioning: str = "a2",
    slots: int = 0,
) -> dict[str, torch.Tensor]:
    """Return the stored `condition` of references and, for "a2", their tokens as `image` (k, e).

    As in sampling, but A2's posterior is not sampled: its mode is used. slots: see model_zoo.a2.conditioning.reference_latents.
    """
    if conditioning != "a2":
        return {"condition": a2_conditioning.reference_latents(encoders.vae, references, slots)}
    pictures = a2_references.as_tensor(references.frames)
    condition = a2_references.condition(encoders.vae, pictures, frames, None, repeat, reference_order)
    tokens = a2_references.image_tokens(encoders.image_encoder, encoders.image_processor, references.squares)
    return {"condition": condition[0], "image": tokens[0].float()}


@torch.no_grad()
def null_condition(vae: Any, frames: int, height: int, width: int) -> Float[torch.Tensor, "20 t lh lw"]:
    """Return the condition for dropped references."""
    return a2_references.no_references(vae, frames, height, width)[0]
