"""Models that say what they see: base captioners, experts for one field each, fusion into a prompt."""

from dataclasses import replace

from model_zoo.cards import Card

CLASSIFIER = Card(
    "caption-expert",
    "model_zoo.classifiers:classifier_expert",
    extra="transformers",
    input="as the checkpoint's processor says",
)

CARDS: dict[str, Card] = {
    "builtin-caption": Card("caption", "model_zoo.captions:captioner", revision="2"),
    "builtin-shot": Card("caption-expert", "model_zoo.captions:shot_expert", revision="2"),
    "builtin-camera": Card("caption-expert", "model_zoo.captions:camera_expert", revision="2"),
    "template": Card("fusion", "model_zoo.template:template"),
    # experts for one field
    "builtin-trajectory": Card("caption-expert", "model_zoo.trajectory:trajectory_expert"),
    "fer-mobilefacenet": Card(
        "caption-expert",
        "model_zoo.expression:expression_expert",
        weights=(
            "url:https://github.com/opencv/opencv_zoo/raw/966be4cb6eefc2a4f586ed0581bf4bbaa2533070/models/"
            "facial_expression_recognition/facial_expression_recognition_mobilefacenet_2022july.onnx"
        ),
        sha256="4f61307602fc089ce20488a31d4e4614e3c9753a7d6c41578c854858b183e1a9",
        weights_license="Apache-2.0",  # of the file; it learnt from RAF-DB, whose pictures are for research
        extra="builtin",
        input="112 x 112 aligned faces, RGB, -1 to 1",
        size_mb=5,
        memory_mb=60,
    ),
    "expression": Card(
        "caption-expert",
        "model_zoo.expression:expression_expert",
        extra="builtin",
        input="112 x 112 aligned faces, RGB, -1 to 1",
    ),
    # Your own: classifier:FOLDER, a checkpoint whose labels are shot types, angles, positions or camera motions.
    "classifier": CLASSIFIER,
    "movieshots-scale": replace(
        CLASSIFIER,
        weights="hf:gullalc/videomae-base-finetuned-kinetics-movieshots-scale",
        revision="main",
        weights_license="MIT",  # of the file; it began as VideoMAE on Kinetics, which is CC BY-NC 4.0, and learnt from MovieNet
        input="16 frames of 224 x 224, RGB, ImageNet's mean and deviation",
        size_mb=345,
        memory_mb=800,
        gpus=0.1,
        instead="builtin-shot",
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
        instead="builtin-shot",
    ),
}
