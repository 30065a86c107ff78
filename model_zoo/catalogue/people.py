"""Models of people: faces, clothes and other parts, mattes."""

from dataclasses import replace

from model_zoo.cards import Card

INSIGHTFACE = Card(
    "faces",
    "model_zoo.faces:insightface_faces",
    code_license="MIT",
    weights_license="non-commercial research only",
    use="non-commercial",
    extra="faces",
    instead="dlib",
    input="640 x 640 letterboxed BGR for faces, 112 x 112 aligned RGB for who they are, -1 to 1",
    gpus=0.25,
    same=0.45,  # ArcFace at full size; a small MobileFaceNet takes strangers for one another up to 0.59: use 0.7 there
)

CARDS: dict[str, Card] = {
    "dlib": Card(
        "faces",
        "model_zoo.faces:dlib_faces",
        code_license="BSL-1.0",
        weights_license="CC0-1.0",
        extra="builtin",
        same=0.97,  # of clip means; its descriptors are not centred: five people had 0.96 at most, one person 0.98 at least
    ),
    "insightface": INSIGHTFACE,
    # The published packs, by the names of their folders.
    "antelopev2": replace(INSIGHTFACE, weights="antelopev2", size_mb=407),
    "buffalo_l": replace(INSIGHTFACE, weights="buffalo_l", size_mb=326),
    "buffalo_s": replace(INSIGHTFACE, weights="buffalo_s", size_mb=159),
    "builtin-parse": Card("parse", "model_zoo.builtin_parse:parser"),
}
