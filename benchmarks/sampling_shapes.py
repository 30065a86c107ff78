"""Random A2 networks of several sizes, to measure time and memory, which do not depend on the weights."""

from typing import Any

import torch

WAN = {"in_channels": 36, "out_channels": 16, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"}
SHAPES: dict[str, dict[str, Any]] = {  # of the transformer; the other networks follow
    "tiny": WAN | {
        "num_attention_heads": 4, "attention_head_dim": 40, "ffn_dim": 320, "num_layers": 12, "freq_dim": 64,
        "text_dim": 64, "image_dim": 64, "added_kv_proj_dim": 160,
    },
    "1.3b": WAN | {
        "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30, "freq_dim": 256,
        "text_dim": 4096, "image_dim": 1280, "added_kv_proj_dim": 1536,
    },
    "14b": WAN | {
        "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40, "freq_dim": 256,
        "text_dim": 4096, "image_dim": 1280, "added_kv_proj_dim": 5120,
    },
}  # fmt: skip
SMALL_VAE = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


def pipeline(shape: str, device: str, dtype: torch.dtype) -> Any:
    """Return a WanA2Pipeline without text encoder and tokenizer: prompts are embeddings, (1, 512, text_dim).

    The transformer has `dtype`; the VAE (Wan's size, except for "tiny") and the image encoder are float32, as released. Weights
    are created on the device in their final precision, so the 14B network takes 33 GB, not twice that.
    """
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    from model_zoo.a2 import pipeline as a2

    config, before = SHAPES[shape], torch.get_default_dtype()
    looks = {"hidden_size": config["image_dim"], "intermediate_size": 4 * config["image_dim"], "num_hidden_layers": 2}
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            transformer = WanTransformer3DModel(**config).eval()
        finally:
            torch.set_default_dtype(before)
        vae = AutoencoderKLWan(**(SMALL_VAE if shape == "tiny" else {})).eval()
        encoder = CLIPVisionModel(
            CLIPVisionConfig(**looks, num_attention_heads=16, image_size=224, patch_size=14)
        ).eval()
    return a2.WanA2Pipeline(
        tokenizer=None,
        text_encoder=None,
        image_encoder=encoder,
        image_processor=CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
        transformer=transformer,
        vae=vae,
        scheduler=a2.scheduler(),
    )
