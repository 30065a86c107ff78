"""A checkpoint of SkyReels-V2, tiny and random, of the real classes."""

import model_zoo  # noqa: F401  so that diffusers can import torchvision

# isort: split
import torch
from diffusers import (
    AutoencoderKLWan,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
)
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel


def write(root):
    """A whole checkpoint, under a megabyte."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3}, unk_token="<unk>"))
    SkyReelsV2DiffusionForcingPipeline(
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ),
        text_encoder=UMT5EncoderModel(UMT5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, vocab_size=4)),
        transformer=SkyReelsV2Transformer3DModel(
            num_attention_heads=2, attention_head_dim=12, text_dim=16, freq_dim=32, ffn_dim=32, num_layers=1
        ),
        vae=AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0),
    ).save_pretrained(root)
    return root
