"""Models that say what they see: base captioners, experts for one field each, fusion into a prompt."""

from dataclasses import replace

from model_zoo.cards import Card

SERVED = Card(
    "caption",
    "model_zoo.endpoint:captioner",
    weights_license="that of the model served",
    extra="caption",
    input="16 frames as JPEG at their true aspect ratio, at most 151,200 px each, each after its time",
)

QWEN_VL = Card(
    "caption",
    "model_zoo.qwen_vl:captioner",
    weights_license="Apache-2.0",
    extra="transformers",
    input="16 frames as a video at their true aspect ratio, at most 151,200 px each, with their times",
    gpus=1.0,
)

CARDS: dict[str, Card] = {
    "builtin-caption": Card("caption", "model_zoo.captions:captioner"),
    "builtin-shot": Card("caption-expert", "model_zoo.captions:shot_expert"),
    "builtin-camera": Card("caption-expert", "model_zoo.captions:camera_expert"),
    "template": Card("fusion", "model_zoo.template:template"),
    # Any server that speaks the OpenAI chat API: NAME:http://HOST:8000/v1#MODEL, see model_zoo/endpoint.py.
    "openai": SERVED,
    "openai-expert": replace(SERVED, role="caption-expert", builder="model_zoo.endpoint:expert"),
    "openai-fusion": replace(
        SERVED, role="fusion", builder="model_zoo.endpoint:fusion", input="the structured caption, as text"
    ),
    # Weights that are here; qwen-vl:PATH for your own.
    "qwen-vl": QWEN_VL,
    "skycaptioner-v1": replace(
        QWEN_VL, weights="hf:Skywork/SkyCaptioner-V1", revision="main", size_mb=16600, memory_mb=20000
    ),
    "qwen2.5-vl-7b": replace(
        QWEN_VL,
        weights="hf:Qwen/Qwen2.5-VL-7B-Instruct",
        revision="cc594898137f460bfe9f0759e9844b3ce807cfb5",
        size_mb=16600,
        memory_mb=20000,
    ),
    "qwen3-vl-8b": replace(
        QWEN_VL,
        weights="hf:Qwen/Qwen3-VL-8B-Instruct",
        revision="0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
        size_mb=17500,
        memory_mb=21000,
    ),
    "qwen3-vl-30b-a3b": replace(
        QWEN_VL,
        weights="hf:Qwen/Qwen3-VL-30B-A3B-Instruct",
        revision="4b184fbdab8886057d8d80c09f35bcfc65fe640e",
        size_mb=62000,
        memory_mb=68000,
    ),
    "qwen-vl-fusion": replace(
        QWEN_VL, role="fusion", builder="model_zoo.qwen_vl:fusion", input="the structured caption, as text"
    ),
}
