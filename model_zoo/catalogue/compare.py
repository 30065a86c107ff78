"""Models that compare: pictures with pictures, phrases with pictures; and those that fill in what was taken out."""

from model_zoo.cards import Card

CARDS: dict[str, Card] = {
    "mobilenetv2": Card(
        "embed",
        "model_zoo.embed:mobilenetv2",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        input="224 x 224, the masked part on white, RGB, ImageNet's mean and deviation",
        size_mb=9,
        memory_mb=100,
        same=0.87,
        same_garment=0.76,  # tops of five people: of one, 0.75 at least and 0.83 in the middle; of two, 0.75 for 1 pair in 20
    ),
}
