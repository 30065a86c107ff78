"""Caption models: base captioners, experts for single fields, and fusion into a prompt."""

from dataclasses import replace

from model_zoo.roles import Card

SERVED = Card(
    "caption",
    "model_zoo.caption.endpoint:captioner",
    weights_license="that of the model served",
    extra="caption",
    input="16 frames as JPEG at their true aspect ratio, at most 151,200 px each, each after its time",
)

QWEN_VL = Card(
    "caption",
    "model_zoo.caption.qwen_vl:captioner",
    weights_license="Apache-2.0",
    extra="transformers",
    input="2 frames per second, at least 4, as a video at their true aspect ratio, at most 151,200 px each, with their times",
    gpus=1.0,
)

CLASSIFIER = Card(
    "caption-expert",
    "model_zoo.caption.classifiers:classifier_expert",
    extra="transformers",
    input="as the checkpoint's processor says",
)

CARDS: dict[str, Card] = {
    "builtin-caption": Card("caption", "model_zoo.caption.measured:captioner", revision="2"),
    "builtin-expression": Card(
        "caption-expert",
        "model_zoo.caption.expression:smile_expert",
        extra="builtin",
        companions=("mediapipe-face-detection", "mediapipe-face-mesh"),
    ),
    "builtin-shot": Card("caption-expert", "model_zoo.caption.measured:shot_expert", revision="2"),
    "builtin-camera": Card("caption-expert", "model_zoo.caption.measured:camera_expert", revision="2"),
    "template": Card("fusion", "model_zoo.caption.fusion_template:template"),
    # Any server that speaks the OpenAI chat API: NAME:http://HOST:8000/v1#MODEL, see model_zoo/caption/endpoint.py.
    "openai": SERVED,
    "openai-skycaptioner": replace(
        SERVED,
        builder="model_zoo.caption.endpoint:skycaptioner",
        input="16 frames squeezed to 360 x 420 as a video of 2 frames per second, before its fixed request",
    ),
    "openai-expert": replace(SERVED, role="caption-expert", builder="model_zoo.caption.endpoint:expert"),
    "openai-fusion": replace(
        SERVED, role="fusion", builder="model_zoo.caption.endpoint:fusion", input="the structured caption, as text"
    ),
    # Local weights; qwen-vl:PATH for your own.
    "qwen-vl": QWEN_VL,
    "skycaptioner-v1": replace(
        QWEN_VL,
        builder="model_zoo.caption.qwen_vl:skycaptioner",
        weights="hf:Skywork/SkyCaptioner-V1",
        revision="main",
        input="16 frames squeezed to 360 x 420 as a video of 2 frames per second, before its fixed request",
        size_mb=16600,
        memory_mb=20000,
    ),
    "qwen3-vl-2b": replace(
        QWEN_VL,
        weights="hf:Qwen/Qwen3-VL-2B-Instruct",
        revision="89644892e4d85e24eaac8bacfd4f463576704203",
        size_mb=4300,
        memory_mb=7000,
        gpus=0.5,
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
        QWEN_VL, role="fusion", builder="model_zoo.caption.qwen_vl:fusion", input="the structured caption, as text"
    ),
    # experts for one field
    "builtin-trajectory": Card("caption-expert", "model_zoo.caption.trajectory:trajectory_expert"),
    "fer-mobilefacenet": Card(
        "caption-expert",
        "model_zoo.caption.expression:expression_expert",
        weights="hf:opencv/facial_expression_recognition/facial_expression_recognition_mobilefacenet_2022july.onnx",
        revision="main",
        sha256="4f61307602fc089ce20488a31d4e4614e3c9753a7d6c41578c854858b183e1a9",
        weights_license="Apache-2.0",  # of the file; trained on RAF-DB, whose pictures are for research
        extra="builtin",
        input="112 x 112 aligned faces, RGB, -1 to 1",
        size_mb=5,
        memory_mb=60,
    ),
    "expression": Card(
        "caption-expert",
        "model_zoo.caption.expression:expression_expert",
        extra="builtin",
        input="112 x 112 aligned faces, RGB, -1 to 1",
    ),
    # Your own: classifier:FOLDER, a checkpoint whose labels are shot types, angles, positions or camera motions.
    "classifier": CLASSIFIER,
    "movieshots-scale": replace(
        CLASSIFIER,
        weights="hf:gullalc/videomae-base-finetuned-kinetics-movieshots-scale",
        revision="main",
        weights_license="MIT",  # of the file; fine-tuned from VideoMAE on Kinetics (CC BY-NC 4.0), trained on MovieNet
        input="16 frames of 224 x 224, RGB, ImageNet's mean and deviation",
        size_mb=345,
        memory_mb=800,
        gpus=0.1,
        fallback="builtin-shot",
    ),
    "film-shots": replace(
        CLASSIFIER,
        weights="hf:pszemraj/beit-large-patch16-512-film-shot-classifier",
        revision="main",
        weights_license="Apache-2.0",
        input="512 x 512, RGB, -1 to 1",
        size_mb=1220,
        memory_mb=2500,
        gpus=0.2,
        fallback="builtin-shot",
    ),
}
