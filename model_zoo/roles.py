"""What a model is to the pipeline: its card, and the records that models of a role return."""

from dataclasses import dataclass
from typing import NamedTuple

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
    pose: tuple[float, float, float] | None = None  # pitch, yaw, roll in degrees, from models that measure them


@dataclass(frozen=True)
class Card:
    """What a model is. A card never changes its weights: new weights are a new card."""

    role: str
    builder: str  # "module:function", imported on load; called with (card, device)
    weights: str = ""  # where they come from, see model_zoo/weights.py; "" for none
    revision: str = "1"  # a commit of the Hugging Face repository; else raised when the builder's output changes
    sha256: str = ""  # of the weights' file, where it is known; else it is noted when they are fetched
    code_license: str = "Apache-2.0"
    weights_license: str = ""
    use: str = "permissive"  # permissive, copyleft, non-commercial, gated, biometric-restricted
    extra: str = ""  # the extra of a2data that brings what the builder imports
    fallback: str = ""  # the card to take where this one's licence is refused
    input: str = ""  # what the network sees: size, order and range of its pixels
    size_mb: int = 0  # of the weights' files, about; 0 for less than 1
    memory_mb: int = 0  # of GPU or main memory while it runs, about
    gpus: float = 0.0  # share of a GPU that a worker with this model asks for; 0 for a model that runs as well on CPU
    match_threshold: float = (
        0.0  # cosine similarity from which two embeddings show the same subject, for models that embed
    )
    garment_match_threshold: float = 0.0  # the same for two garments of one person, in one colour; 0 = as `same`
    grown_from_colour: bool = (
        False  # for detect: its outlines are grown from colours, and model_zoo.detect.mask_trust can judge them
    )
    needs_all_frames: bool = False  # for quality: it needs all frames of a clip, in order, not a few of them
    trust_remote_code: bool = (
        False  # its repository brings code of its own, which runs only where A2DATA_REMOTE_CODE=yes
    )
    companion: str = ""  # the card of a second network that it stands on; with NAME:FOLDER both are in that folder
    name: str = ""  # filled in by `card`
