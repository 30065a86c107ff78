"""Model cards, and the records that models return."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Detection(NamedTuple):
    """A person or object in a frame."""

    kind: str  # "human" or "object"
    label: str
    score: float  # 0 to 1
    box: tuple[float, float, float, float]
    mask: np.ndarray | None  # (h, w) bool at the frame's size; None for models without masks
    certainty: float = -1.0  # of the mask, as the model states it, 0 to 1; -1 if it does not


class Face(NamedTuple):
    """A face in a frame."""

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray  # (5, 2) float32: eyes (left in the picture first), nose, mouth corners
    embedding: np.ndarray  # (d,) float32, unit length
    pose: tuple[float, float, float] | None = None  # pitch, yaw, roll in degrees, for models that measure them
    jaw: np.ndarray | None = None  # (n, 2) float32 from the ear on the right round the chin, for models that measure it


@dataclass(frozen=True)
class Card:
    """The description of a model. A card never changes its weights: new weights are a new card."""

    role: str
    builder: str  # "module:function", imported on load and called with (card, device)
    weights: str = ""  # source of the weights, see model_zoo/weights.py; "" = none
    revision: str = "1"  # commit of the Hugging Face repository; else raised when the builder's output changes
    sha256: str = ""  # of the weights' file or archive, if known; else recorded when they are fetched
    files: tuple[str, ...] = ()  # patterns of the repository's files to fetch; () = all, in one format of the weights
    code_license: str = "Apache-2.0"
    weights_license: str = ""
    use: str = "permissive"  # permissive, copyleft, non-commercial, gated, biometric-restricted
    extra: str = ""  # extra of a2data that installs the builder's imports
    fallback: str = ""  # card to use if this one's licence is refused
    input: str = ""  # size, order and range of the network's input pixels
    size_mb: int = 0  # approximate size of the weights' files; 0 = less than 1
    memory_mb: int = 0  # approximate GPU or main memory at run time
    gpus: float = 0.0  # fraction of a GPU per worker; 0 for a model that runs as well on CPU
    match_threshold: float = 0.0  # cosine from which two embeddings show the same subject
    garment_match_threshold: float = 0.0  # the same for two garments of one person and colour; 0 = match_threshold
    grown_from_colour: bool = False  # detect: masks are grown from colours, so model_zoo.detect.mask_confidence applies
    trust_remote_code: bool = False  # runs code from its repository, only if A2DATA_REMOTE_CODE=yes
    companions: tuple[str, ...] = ()  # cards of further networks that it needs; NAME:FOLDER has all of them
    name: str = ""  # set by `card`
