"""Models that only A2-Bench and preferences use."""

from dataclasses import replace
from typing import Any

from model_zoo.catalogue.compare import VIT_B, VIT_L
from model_zoo.roles import Card

MUSIQ = Card(
    "quality",
    "model_zoo.quality.clarity:musiq",
    weights="url:https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
    code_license="PolyForm-Noncommercial-1.0.0",
    weights_license="PolyForm-Noncommercial-1.0.0, as the package pyiqa",
    use="non-commercial",
    fallback="clip-iqa",
    input="at most 512 px on the longer side, RGB, 0 to 1",
    size_mb=109,
    memory_mb=1500,
    gpus=0.25,
)
VICLIP = Card(
    "text-video",
    "model_zoo.text_video.scorers:viclip",
    weights="hf:OpenGVLab/VBench_Used_Models/ViClip-InternVid-10M-FLT.pth",
    revision="main",
    weights_license="MIT",
    extra="match",
    fallback="clipsim-l14",
    input="8 frames of 224 x 224 from the middle, RGB, CLIP's mean and deviation; 32 tokens",
    size_mb=1710,
    memory_mb=2500,
    gpus=0.25,
)
CLIPSIM: dict[str, Any] = {
    "role": "text-video",
    "builder": "model_zoo.text_video.scorers:clipsim",
    "input": "224 x 224 from the middle, RGB, CLIP's mean and deviation; 77 tokens",
    "gpus": 0.25,
}
BETWEEN = Card("interpolate", "model_zoo.flow.interpolate:by_dis", input="grey", memory_mb=50)

CARDS: dict[str, Card] = {
    "musiq-spaq": MUSIQ,
    "clip-iqa": replace(VIT_L, role="quality", builder="model_zoo.quality.clarity:clip_iqa", input=CLIPSIM["input"]),
    "blur-effect": Card("quality", "model_zoo.quality.clarity:blur_effect", extra="demo", input="grey, 0 to 1"),
    "viclip": VICLIP,
    "clipsim-l14": replace(VIT_L, **CLIPSIM),
    "clipsim-b32": replace(VIT_B, **CLIPSIM),
    "amt-s": replace(
        BETWEEN,
        builder="model_zoo.flow.interpolate:amt",
        weights="AMT",  # a checkout of MCG-NKU/AMT with amt-s.pth in it
        code_license="CC-BY-NC-4.0",
        weights_license="CC-BY-NC-4.0",
        use="non-commercial",
        extra="match",
        fallback="dis-between",
        input="sides in multiples of 16 px, RGB, 0 to 1",
        size_mb=12,
        memory_mb=2500,
        gpus=0.25,
        trust_remote_code=True,
    ),
    "dis-between": BETWEEN,
    "reward-tiny": Card("reward", "model_zoo.reward.motion:reward", extra="train", input="32 x 48, grey, 0 to 1"),
    "qwen2-vl-reward": Card(
        "reward",
        "model_zoo.reward.qwen2_vl:reward",
        weights="hf:Qwen/Qwen2-VL-2B-Instruct",
        revision="main",
        weights_license="Apache-2.0",
        extra="train",
        input="2 fps, at most 448 x 448 px in area, RGB",
        size_mb=4420,
        memory_mb=12000,
        gpus=1.0,
    ),
    "dis": Card("flow", "model_zoo.flow.dis:dis", input="grey", memory_mb=50),
}
