"""Models that find things: detectors, open-vocabulary grounding, masks, trackers."""

from dataclasses import replace

from model_zoo.cards import Card

YOLO = Card(
    "detect",
    "model_zoo.yolo:detector",
    code_license="AGPL-3.0",
    weights_license="AGPL-3.0",
    use="copyleft",
    extra="yolo",
    input="640 x 640 letterboxed, RGB, 0 to 1",
    gpus=0.25,
)

CARDS: dict[str, Card] = {
    "builtin-detect": Card("detect", "model_zoo.builtin_detect:detector", weights_license="BSL-1.0", extra="builtin"),
    "yolo": YOLO,
    "yolo11n-seg": replace(YOLO, weights="yolo11n-seg.pt"),
    "yolo11x-seg": replace(YOLO, weights="yolo11x-seg.pt"),
}
