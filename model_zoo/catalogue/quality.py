"""Models of whole pictures: shots, text, aesthetics, motion, copies."""

from dataclasses import replace

from model_zoo.catalogue.compare import OPENCLIP_FILES
from model_zoo.roles import Card

PPOCR = Card(
    "text",
    "model_zoo.quality.text:ppocr",
    weights_license="Apache-2.0",
    extra="transformers",
    fallback="rapidocr",
    input="at most 512 px on the longer side, sides multiples of 32, BGR, ImageNet's mean and deviation",
)

CLIP = Card(
    "copy",
    "model_zoo.quality.aesthetic:clip_pictures",
    files=OPENCLIP_FILES,
    code_license="MIT",
    weights_license="MIT",
    extra="match",
    fallback="phash",
    input="224 x 224 from the middle, RGB, CLIP's mean and deviation",
    gpus=0.25,
    revision="main",
)

LAION = Card(
    "quality",
    "model_zoo.quality.aesthetic:laion",
    companions=("clip-vit-l14",),
    code_license="Apache-2.0",
    weights_license="MIT",
    extra="match",
    input="CLIP's image embeddings, of unit length",
    gpus=0.25,
)
LAION_V1 = (
    "url:https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/6d122adad522ab246644d9dc1c6d7a3810ee255f/"
)
LAION_V2 = (
    "url:https://raw.githubusercontent.com/christophschuhmann/improved-aesthetic-predictor/"
    "6934dd81792f086e613a121dbce43082cb8be85e/"
)

RAFT = Card(
    "flow",
    "model_zoo.flow.raft:raft_small",
    code_license="BSD-3-Clause",
    weights_license="BSD-3-Clause",
    extra="match",
    input="sides in multiples of 8 px, RGB, -1 to 1",
    memory_mb=700,
    gpus=0.25,
)

NSFW = Card(
    "quality",
    "model_zoo.quality.nsfw:classifier",
    weights_license="Apache-2.0",
    extra="transformers",
    revision="main",
    size_mb=343,
    memory_mb=600,
    gpus=0.25,
)

CARDS: dict[str, Card] = {
    "transnetv2": Card(
        "shots",
        "model_zoo.shots.transnet:transnetv2",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        input="windows of up to 200 frames, 48 x 27 RGB, 0 to 255",
        size_mb=30,
        memory_mb=150,
    ),
    "rapidocr": Card(
        "text",
        "model_zoo.quality.text:rapidocr",
        weights_license="Apache-2.0",
        extra="builtin",
        input="at most 512 px on the longer side, BGR, ImageNet's mean and deviation",
        size_mb=5,
        memory_mb=150,
    ),
    "ppocrv5-mobile": replace(
        PPOCR, weights="hf:PaddlePaddle/PP-OCRv5_mobile_det_safetensors", revision="main", size_mb=5, memory_mb=200
    ),
    "ppocrv5-server": replace(
        PPOCR,
        weights="hf:PaddlePaddle/PP-OCRv5_server_det_safetensors",
        revision="main",
        size_mb=88,
        memory_mb=600,
        gpus=0.25,
    ),
    "ppocrv6-medium": replace(
        PPOCR, weights="hf:PaddlePaddle/PP-OCRv6_medium_det_safetensors", revision="main", memory_mb=600, gpus=0.25
    ),
    # Embeddings of whole pictures: CLIP for the content, SSCD for copies of one shot.
    "clip-vit-l14": replace(CLIP, weights="hf:timm/vit_large_patch14_clip_224.openai", size_mb=1710, memory_mb=2500),
    "clip-vit-b32": replace(CLIP, weights="hf:timm/vit_base_patch32_clip_224.openai", size_mb=605, memory_mb=1000),
    "sscd": Card(
        "copy",
        "model_zoo.compare.copydetect:sscd",
        weights="url:https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        fallback="phash",
        input="shorter side 288 px, RGB, ImageNet's mean and deviation",
        size_mb=99,
        memory_mb=500,
        gpus=0.25,
        match_threshold=0.75,  # 90 % of the pairs above it are copies, on DISC (the authors)
    ),
    "phash": Card(
        "copy",
        "model_zoo.compare.copydetect:phash",
        input="32 x 32, grey",
        match_threshold=0.75,  # 8 bits of 64 differ
    ),
    # Scores.
    "laion-aesthetic": replace(
        LAION,
        weights=LAION_V2 + "sac+logos+ava1-l14-linearMSE.pth",
        sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        weights_license="Apache-2.0",
        size_mb=4,
    ),
    "laion-aesthetic-v1": replace(  # as used by VBench
        LAION,
        weights=LAION_V1 + "sa_0_4_vit_l_14_linear.pth",
        sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        code_license="MIT",
    ),
    "laion-aesthetic-v1-b32": replace(
        LAION,
        companions=("clip-vit-b32",),
        weights=LAION_V1 + "sa_0_4_vit_b_32_linear.pth",
        sha256="c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        code_license="MIT",
    ),
    "raft-small": replace(
        RAFT,
        weights="url:https://raw.githubusercontent.com/princeton-vl/RAFT/3a46c2326f61e9cc102deac43a85ddfc751f2176/models/"
        "raft-small.pth",
        sha256="c7d41b9cc88442bb8aa911dbb33086dac55a226394b142937ff22d5578717332",
        size_mb=4,
    ),
    "raft-large": replace(
        RAFT,
        builder="model_zoo.flow.raft:raft_large",
        weights="url:https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
        fallback="raft-small",
        size_mb=20,
        memory_mb=1500,
    ),
    "falconsai-nsfw": replace(
        NSFW, weights="hf:Falconsai/nsfw_image_detection", input="224 x 224, RGB, -1 to 1", fallback="adamcodd-nsfw"
    ),
    "adamcodd-nsfw": replace(
        NSFW, weights="hf:AdamCodd/vit-base-nsfw-detector", input="384 x 384, RGB, -1 to 1", fallback="falconsai-nsfw"
    ),
}
