"""Similarity models, of pictures and of phrases with pictures; and inpainting models.

`match_threshold` is 0 if the cosine of equal subjects was not measured: retrieve then requires its own setting.
"""

from dataclasses import replace
from typing import Any

from model_zoo.roles import Card

# Tokenizer and weights under open_clip's names, without the same weights for transformers or timm.
OPENCLIP_FILES = ("*.json", "*.txt", "*.model", "open_clip_*")
OPENCLIP = Card(
    "match",
    "model_zoo.compare.clip:matcher",
    files=OPENCLIP_FILES,
    code_license="MIT",
    weights_license="as its folder says",
    extra="match",
    input="the cut-out on white, squared; size and normalisation as its open_clip_config.json says",
    gpus=0.25,
)
PE = replace(
    OPENCLIP,
    weights="hf:timm/PE-Core-L-14-336",
    revision="8eff41b3f687e50a323662c2dda5eb3588c6dd35",
    weights_license="Apache-2.0",
    input="336 x 336, the cut-out on white, RGB, -1 to 1; 32 tokens",
    size_mb=2690,
    memory_mb=4000,
)
SIGLIP2 = replace(
    OPENCLIP,
    weights="hf:timm/ViT-SO400M-16-SigLIP2-384",
    revision="fec784dabb3081a5f101fc74eefaf9d1ed08237b",
    weights_license="Apache-2.0",
    input="384 x 384, the cut-out on white, RGB, -1 to 1; 64 tokens",
    size_mb=4580,
    memory_mb=6500,
)
VIT_L = replace(
    OPENCLIP,
    weights="hf:laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
    revision="a0aa72d97ebade6cc0444e78760974f97355f833",
    weights_license="MIT",
    input="224 x 224, the cut-out on white, RGB, CLIP's mean and deviation; 77 tokens",
    size_mb=1715,
    memory_mb=2500,
)
VIT_B = replace(
    VIT_L,
    weights="hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    revision="main",
    size_mb=610,
    memory_mb=1000,
    gpus=0.0,
)

EMBED: dict[str, Any] = {"role": "embed", "builder": "model_zoo.compare.clip:embedder"}

DINOV2 = Card(
    "embed",
    "model_zoo.compare.patches:embedder",
    weights="hf:facebook/dinov2-base",
    revision="369b1309d0ea32e09fdc25ee029917e2e5a2db8f",
    weights_license="Apache-2.0",
    extra="transformers",
    input="16 x 16 patches of 14 px, the masked part on white, RGB, ImageNet's mean and deviation",
    size_mb=346,
    memory_mb=900,
    gpus=0.25,
)
DINOV3 = replace(
    DINOV2,
    weights="hf:facebook/dinov3-vitb16-pretrain-lvd1689m",
    revision="main",
    code_license="Apache-2.0",
    weights_license="DINOv3 License (commercial use allowed, military use not)",
    use="gated",
    fallback="dinov2-base",
    input="16 x 16 patches of 16 px, the masked part on white, RGB, ImageNet's mean and deviation",
    size_mb=343,
)
NAFLEX = replace(
    DINOV2,
    weights="hf:google/siglip2-base-patch16-naflex",
    revision="b53b807d3a2d5e2b3911292f2d69e5341cdc064c",
    input="16 x 16 patches of 16 px, the masked part on white, RGB, -1 to 1",
    size_mb=1540,
    memory_mb=1200,
)

PATCHES: dict[str, Any] = {"role": "patches", "builder": "model_zoo.compare.patches:similarity"}

LAMA = Card(
    "inpaint",
    "model_zoo.inpaint:lama_torchscript",
    weights="url:https://github.com/enesmsahin/simple-lama-inpainting/releases/download/v0.1.0/big-lama.pt",
    revision="1",
    sha256="7ba7aa7ac37a4d41fdbbeba3a2af7ead18058552997e3a3cd1a3b2210c9e6b4c",
    weights_license="Apache-2.0",
    extra="builtin",
    input="at most 1024 px on the longer side, in multiples of 8, RGB, 0 to 1, and the mask",
    size_mb=206,
    memory_mb=4000,
    gpus=0.25,
)

CARDS: dict[str, Card] = {
    "mobilenetv2": Card(
        "embed",
        "model_zoo.compare.mobilenet:mobilenetv2",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        input="224 x 224, the masked part on white, RGB, ImageNet's mean and deviation",
        size_mb=9,
        memory_mb=100,
        match_threshold=0.87,
        # tops of five people: the same person has at least 0.75, median 0.83; two people reach 0.75 in 1 of 20 pairs
        garment_match_threshold=0.76,
    ),
    # By open_clip's names; openclip:FOLDER for any other.
    "openclip": OPENCLIP,
    "PE-Core-L-14-336": PE,
    "ViT-SO400M-16-SigLIP2-384": SIGLIP2,
    "ViT-L-14": VIT_L,
    "ViT-B-32": VIT_B,
    "openclip-embed": replace(OPENCLIP, **EMBED),
    "PE-Core-L-14-336-embed": replace(PE, **EMBED),
    "ViT-SO400M-16-SigLIP2-384-embed": replace(SIGLIP2, **EMBED),
    "ViT-L-14-embed": replace(VIT_L, **EMBED),
    "ViT-B-32-embed": replace(VIT_B, **EMBED),
    "dinov2-base": DINOV2,
    "dinov3-vitb16": DINOV3,
    "siglip2-naflex": NAFLEX,
    "dinov2-base-patches": replace(DINOV2, **PATCHES),
    "dinov3-vitb16-patches": replace(DINOV3, fallback="dinov2-base-patches", **PATCHES),
    "siglip2-naflex-patches": replace(NAFLEX, **PATCHES),
    "lama": LAMA,
    "lama-onnx": replace(
        LAMA,
        builder="model_zoo.inpaint:lama_onnx",
        weights="hf:Carve/LaMa-ONNX/lama_fp32.onnx",
        revision="c3c0c9e468934d62e79c329e35d82dd09ff8c444",
        sha256="1faef5301d78db7dda502fe59966957ec4b79dd64e16f03ed96913c7a4eb68d6",
        input="512 x 512, RGB, 0 to 1, and the mask",
        size_mb=208,
        memory_mb=1000,
    ),
}
