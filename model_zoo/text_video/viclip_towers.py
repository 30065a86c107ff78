"""ViCLIP's two networks (Wang et al. 2023, arXiv 2307.06942), from open_clip's blocks, with the names of its checkpoint.

The video tower is CLIP's, with all patches of all frames in one sequence and a temporal position embedding; the text tower is
CLIP's.
"""

import torch
from open_clip.transformer import LayerNorm, QuickGELU, Transformer
from torch import Tensor, nn


class VideoTower(nn.Module):
    """(b, 3, t, 224, 224) float -> (b, 768)."""

    def __init__(self, width: int, layers: int, heads: int, frames: int):
        super().__init__()
        patches = (SIDE_PX // PATCH_PX) ** 2
        self.conv1 = nn.Conv3d(3, width, (1, PATCH_PX, PATCH_PX), (1, PATCH_PX, PATCH_PX), bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(patches + 1, width) * width**-0.5)
        self.temporal_positional_embedding = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre, self.ln_post = LayerNorm(width), LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, act_layer=QuickGELU)
        self.proj = nn.Parameter(torch.randn(width, SHARED) * width**-0.5)

    def forward(self, video: Tensor) -> Tensor:
        patches = self.conv1(video).flatten(3).permute(0, 2, 3, 1)  # (b, t, patches, width)
        placed = patches + self.positional_embedding[1:] + self.temporal_positional_embedding[:, :, None]
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(video), 1, -1)
        tokens = self.transformer(self.ln_pre(torch.cat([first, placed.flatten(1, 2)], 1)))
        return self.ln_post(tokens[:, 0]) @ self.proj


class TextTower(nn.Module):
    """(b, words) int64 -> (b, 768): the output at the last token, which ends the text."""

    def __init__(self, width: int, layers: int, heads: int, words: int):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = nn.Parameter(torch.randn(words, width) * 0.01)
        self.transformer = Transformer(width, layers, heads, act_layer=QuickGELU)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.randn(width, SHARED) * width**-0.5)
        later = torch.full((words, words), float("-inf")).triu(1)
        self.register_buffer("later", later, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        read = self.transformer(self.token_embedding(tokens) + self.positional_embedding, attn_mask=self.later)
        ends = tokens.argmax(1)  # the end-of-text token has the highest id
        return self.ln_final(read)[torch.arange(len(tokens)), ends] @ self.text_projection


SIDE_PX, PATCH_PX = 224, 14


VOCABULARY, SHARED = 49408, 768
