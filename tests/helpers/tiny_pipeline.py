"""A pipeline of A2 with tiny random networks of the real classes."""

import model_zoo  # noqa: F401  so that diffusers can import torchvision

# isort: split
import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

from model_zoo.a2 import pipeline as a2
from model_zoo.a2.references import Prepared


def tiny_parts() -> dict:
    """Networks of the real classes, small and random, of the golden tensors' shapes."""
    torch.manual_seed(0)
    return {
        "transformer": WanTransformer3DModel(
            image_dim=64, added_kv_proj_dim=96, attention_head_dim=24, cross_attn_norm=True, ffn_dim=128, freq_dim=256,
            in_channels=36, num_attention_heads=4, num_layers=2, out_channels=16, text_dim=64,
            qk_norm="rms_norm_across_heads",
        ).eval(),
        "vae": AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval(),
        "image_encoder": CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=224, patch_size=14
            )
        ).eval(),
    }  # fmt: skip


def pipeline(parts: dict, kind=a2.WanA2Pipeline, schedule=None):
    made = kind(
        tokenizer=None,
        text_encoder=None,
        image_processor=CLIPImageProcessor(),
        scheduler=schedule or a2.scheduler(),
        **parts,
    )
    made.set_progress_bar_config(disable=True)
    return made


def pictures(n: int, height: int = 32, width: int = 48) -> Prepared:
    rng = np.random.default_rng(n)
    return Prepared(
        rng.integers(0, 256, (n, height, width, 3), np.uint8), rng.integers(0, 256, (n, 512, 512, 3), np.uint8)
    )


def sample(pipe, prepared, frames=17, seed=0, **settings):
    words = torch.Generator().manual_seed(1)
    return pipe(
        prepared, num_frames=frames, num_inference_steps=settings.pop("steps", 2),
        prompt_embeds=torch.randn(1, 512, 64, generator=words), negative_prompt_embeds=torch.randn(1, 512, 64, generator=words),
        generator=torch.Generator().manual_seed(seed), **settings,
    ).frames  # fmt: skip
