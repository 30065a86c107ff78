"""Merge the padding of Wan's 512 text tokens into one token with a weight.

The zeros after a prompt all have the same key and value, and attention to n equal tokens equals attention to one token whose
score is log n larger. The output is the same up to rounding. This saves more than half of the tiny preset's step time, and
nothing noticeable at full size. For training only; sampling uses diffusers' own processor.
"""

import math
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

TOKENS = 512  # text tokens that Wan's cross-attention expects


class TextPaddingCache(WanAttnProcessor):
    """Attention processor for image tokens followed by `words` text tokens, the last of which stands for `padding` tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.num_text_tokens, self.num_padding = TOKENS, 0

    def pad_text(self, text: torch.Tensor) -> torch.Tensor:
        """Return text (b, m, d), m at most 512, with one token of zeros in place of all padding."""
        self.num_padding = TOKENS - text.shape[1]
        filled = torch.nn.functional.pad(text, (0, 0, 0, min(1, self.num_padding)))
        self.num_text_tokens = filled.shape[1]
        return filled

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        """Return the same as diffusers' processor: (b, n, d), (b, k + words, d) -> (b, n, d)."""
        assert encoder_hidden_states is not None
        image, text = (
            encoder_hidden_states[:, : -self.num_text_tokens],
            encoder_hidden_states[:, -self.num_text_tokens :],
        )
        query = heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        score = None
        if self.num_padding > 1:
            score = torch.zeros(1, 1, 1, self.num_text_tokens, dtype=query.dtype, device=query.device)
            score[..., -1] = math.log(self.num_padding)
        key, value = heads(attn, attn.norm_k(attn.to_k(text))), heads(attn, attn.to_v(text))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=score)
        if attn.add_k_proj is not None:
            key, value = heads(attn, attn.norm_added_k(attn.add_k_proj(image))), heads(attn, attn.add_v_proj(image))
            out = out + torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


def heads(attn: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Split heads: (b, n, d) -> (b, heads, n, d / heads)."""
    return tokens.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def merge_padding(network: Any) -> None:
    """Install the processor in a network of Wan or VACE; model_zoo.a2.objective.predict then uses it."""
    network.text_padding_cache = TextPaddingCache()
    for block in (*network.blocks, *getattr(network, "vace_blocks", ())):
        block.attn2.set_processor(network.text_padding_cache)
