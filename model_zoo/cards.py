"""One card a model: who builds it, where its weights are, and what its licences let you do.

A model is a callable over arrays; it knows no record and no Ray. Its role says how it is called:

* detect: `model(frames) -> list[list[Detection]]`, one list per frame
* embed:  `model(pictures, masks) -> (n, d) float32`, rows of unit length
* faces:  `model(frame) -> list[Face]`
* parse:  `model(person, mask, face) -> {part: mask}`
* caption, caption-expert, fusion: see stages/caption.py
* match:  `model(phrases, pictures) -> (phrases, pictures) float32`, 0 to 1: how well each phrase fits each picture
* text:   `model(frame) -> share of the picture under text, 0 to 1`
* shots:  see model_zoo/shots.py
"""

import hashlib
import importlib
import importlib.util
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Detection(NamedTuple):
    """A thing in a frame."""

    kind: str  # "human" or "object"
    label: str
    score: float  # 0 to 1
    box: tuple[float, float, float, float]
    mask: np.ndarray | None  # (h, w) bool at the frame's size; None where the model gives boxes only


class Face(NamedTuple):
    """A face in a frame."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray  # (5, 2) float32: eyes (left in the picture first), nose, mouth corners
    embedding: np.ndarray  # (d,) float32, unit length


@dataclass(frozen=True)
class Card:
    """What a model is. A card never changes its weights: new weights are a new card."""

    role: str
    builder: str  # "module:function", imported on load; called with (card, device)
    weights: str = ""  # file or folder, "package:<package>/<file>" for one inside an installed package; "" for none
    revision: str = "1"
    sha256: str = ""
    code_license: str = "Apache-2.0"
    weights_license: str = ""
    use: str = "permissive"  # permissive, copyleft, non-commercial, gated, biometric-restricted
    extra: str = ""  # the extra of a2data that brings what the builder imports
    same: float = 0.0  # cosine similarity from which two embeddings show the same subject, for models that embed
    same_garment: float = 0.0  # the same for two garments of one person, in one colour; 0 = as `same`
    gpus: float = 0.0  # share of a GPU that a worker with this model asks for; 0 for a model that runs as well on CPU


# A family ("yolo", "insightface") is completed by a path: "yolo:/weights/yolo11n-seg.onnx".
CARDS: dict[str, Card] = {
    "transnetv2": Card(
        "shots", "model_zoo.shots:transnetv2", code_license="MIT", weights_license="MIT", extra="builtin"
    ),
    "rapidocr": Card("text", "model_zoo.text:rapidocr", weights_license="Apache-2.0", extra="builtin"),
    "builtin-detect": Card("detect", "model_zoo.builtin_detect:detector", weights_license="BSL-1.0", extra="builtin"),
    "yolo": Card(
        "detect",
        "model_zoo.yolo:detector",
        code_license="AGPL-3.0",
        weights_license="AGPL-3.0",
        use="copyleft",
        extra="yolo",
        gpus=0.25,
    ),
    "yolo11n-seg": Card(
        "detect",
        "model_zoo.yolo:detector",
        "yolo11n-seg.pt",
        code_license="AGPL-3.0",
        weights_license="AGPL-3.0",
        use="copyleft",
        extra="yolo",
        gpus=0.25,
    ),
    "yolo11x-seg": Card(
        "detect",
        "model_zoo.yolo:detector",
        "yolo11x-seg.pt",
        code_license="AGPL-3.0",
        weights_license="AGPL-3.0",
        use="copyleft",
        extra="yolo",
        gpus=0.25,
    ),
    "mobilenetv2": Card(
        "embed",
        "model_zoo.embed:mobilenetv2",
        code_license="MIT",
        weights_license="MIT",
        extra="builtin",
        same=0.87,
        same_garment=0.76,  # tops of five people: of one, 0.75 at least and 0.83 in the middle; of two, 0.75 for 1 pair in 20
    ),
    "dlib": Card(
        "faces",
        "model_zoo.faces:dlib_faces",
        code_license="BSL-1.0",
        weights_license="CC0-1.0",
        extra="builtin",
        same=0.97,  # of clip means; its descriptors are not centred: five people had 0.96 at most, one person 0.98 at least
    ),
    "insightface": Card(
        "faces",
        "model_zoo.faces:insightface_faces",
        code_license="MIT",
        weights_license="non-commercial research only",
        use="non-commercial",
        extra="faces",
        gpus=0.25,
        same=0.45,  # ArcFace at full size; a small MobileFaceNet takes strangers for one another up to 0.59: use 0.7 there
    ),
    "builtin-parse": Card("parse", "model_zoo.builtin_parse:parser"),
    "builtin-caption": Card("caption", "model_zoo.captions:captioner"),
    "builtin-shot": Card("caption-expert", "model_zoo.captions:shot_expert"),
    "builtin-camera": Card("caption-expert", "model_zoo.captions:camera_expert"),
    "template": Card("fusion", "model_zoo.template:template"),
}
# The published insightface packs, by the names of their folders.
CARDS |= {pack: replace(CARDS["insightface"], weights=pack) for pack in ("antelopev2", "buffalo_l", "buffalo_s")}


def card(name: str) -> Card:
    """The card of that name; for a path to weights, the card of its kind with the path filled in.

    Raises KeyError with the known names for a name that is neither.
    """
    if name in CARDS:
        return CARDS[name]
    family, _, path = name.partition(":")
    if path and family in CARDS:
        if not Path(path).exists():
            raise FileNotFoundError(f"model {name!r}: there is nothing at {path}")
        return replace(CARDS[family], weights=path, revision=digest(path))
    raise _unknown(name)


def _unknown(name: str) -> KeyError:
    return KeyError(
        f"no model called {name!r}; known are {', '.join(sorted(CARDS))}, and FAMILY:PATH for your own weights"
    )


def gpus(name: str) -> float:
    """The share of a GPU that a worker with this model asks for, 0 to 1. Looks at no weights: they may be on other nodes only.

    Raises KeyError like `card`.
    """
    family = name if name in CARDS else name.partition(":")[0]
    if family not in CARDS:
        raise _unknown(name)
    return CARDS[family].gpus


def revision(name: str) -> str:
    """What changes when the model's output may change: the card's revision, or a digest of the weights that it would load.

    Raises FileNotFoundError where the weights of a YOLO card are not found.
    """
    which = card(name)
    if which.weights and which.builder == "model_zoo.yolo:detector":
        from model_zoo.yolo import find_weights

        return digest(str(find_weights(which.weights)))
    return which.revision


def load(name: str, device: str = "cpu") -> Any:
    """Build the model called `name` and give it its weights.

    Raises ModuleNotFoundError with the pip command where the extra that it needs is not installed.
    """
    which = card(name)
    module, function = which.builder.split(":")
    try:
        return getattr(importlib.import_module(module), function)(which, device)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"model {name!r} needs the package {error.name!r}: pip install 'a2data[{which.extra}]'", name=error.name
        ) from error


def device() -> str:
    """cuda where this worker was given a GPU (Ray hides the others), else cpu."""
    if importlib.util.find_spec("torch") is None:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache
def digest(path: str) -> str:
    """The first 16 hex digits of the sha256 over a file, or over a folder's files by name."""
    root, total = Path(path), hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
        total.update(str(file.relative_to(root)).encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]
