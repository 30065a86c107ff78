"""A checkpoint folder of A2 with tiny random networks of the real classes, and pictures to sample with."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

WORDS = ["<pad>", "</s>", "<unk>", "a", "woman", "drinks", "from", "cup", "red", "room"]


def write(folder: Path) -> Path:
    """A whole checkpoint, under a megabyte."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    looks = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    parts = {
        "transformer": WanTransformer3DModel(
            **{
                "in_channels": 36,
                "out_channels": 16,
                "num_layers": 1,
                "num_attention_heads": 2,
                "attention_head_dim": 12,
            },
            **{"image_dim": 16, "added_kv_proj_dim": 24, "cross_attn_norm": True, "ffn_dim": 32, "text_dim": 16},
            **{"freq_dim": 32, "qk_norm": "rms_norm_across_heads"},
        ),
        "vae": AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        "text_encoder": UMT5EncoderModel(
            UMT5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, vocab_size=len(WORDS))
        ),
        "tokenizer": PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        "image_encoder": CLIPVisionModel(CLIPVisionConfig(**looks, image_size=28, patch_size=14)),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 24)) -> Path:
    """A file of coloured noise, width x height px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path
