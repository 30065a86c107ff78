"""Models that look at whole pictures: shots, text, looks, motion, copies."""

from model_zoo.cards import Card

CARDS: dict[str, Card] = {
    "transnetv2": Card(
        "shots",
        "model_zoo.shots:transnetv2",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        input="windows of 100 frames, 48 x 27 RGB, 0 to 255",
        size_mb=30,
        memory_mb=150,
    ),
    "rapidocr": Card(
        "text",
        "model_zoo.text:rapidocr",
        weights_license="Apache-2.0",
        extra="builtin",
        input="at most 512 px on the longer side, BGR, ImageNet's mean and deviation",
        size_mb=5,
        memory_mb=150,
    ),
}
