"""Models that say what they see: base captioners, experts for one field each, fusion into a prompt."""

from model_zoo.cards import Card

CARDS: dict[str, Card] = {
    "builtin-caption": Card("caption", "model_zoo.captions:captioner"),
    "builtin-shot": Card("caption-expert", "model_zoo.captions:shot_expert"),
    "builtin-camera": Card("caption-expert", "model_zoo.captions:camera_expert"),
    "template": Card("fusion", "model_zoo.template:template"),
}
