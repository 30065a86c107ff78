"""Settings of the encoding of packed triplets, and the names of encoded samples."""

from dataclasses import dataclass

SPLITS = ("train", "held-out")
VARIANT = "-v"  # separates the clip and the variant number in a sample's key
VARIANT_STRIDE = 7  # variants between two variants of a held-out sample; frames between the starts of two variants


@dataclass(frozen=True)
class Encoding:
    """Encoding settings, fields of the stage Encode."""

    frames: int = 81
    """frames per clip, 4 n + 1"""
    height: int = 480
    """height of the video in px"""
    width: int = 832
    """width of the video in px"""
    dtype: str = "bfloat16"
    """dtype of the stored tensors"""
    roles: str = "human|object|background"
    """reference roles to use, in order, separated by |"""
    max_references: int = 3
    """maximum number of references, including the background"""
    conditioning: str = "a2"
    """how references condition the network: a2, appended (clean latent frames after the video) or vace"""
    reference_slots: int = 0
    """frames of references to fill up to, for appended and vace; 0: as many as references"""
    reference_order: str = "before"
    """where references are concatenated (a2): before or after the VAE"""
    repeat_reference_frames: bool = True
    """repeat each reference for four frames of video (a2)"""
    singles: bool = False
    """also store the condition with only the first reference"""
    validation_fraction: float = 0.05
    """fraction of samples held out for validation; ignored if pack made splits"""
    augmentations: int = 1
    """variants per training sample (frames, mirroring, colours, no prompt), for small data sets"""
    validation_augmentations: int = 1
    """variants per held-out sample"""


def tokens(encoding: Encoding) -> int:
    """Return the number of transformer tokens of a video: one per 4 x 16 x 16 pixels; the first frame is encoded alone."""
    return (1 + (encoding.frames - 1) // 4) * (encoding.height // 16) * (encoding.width // 16)


def clip_of(key: str) -> str:
    """Return the clip id of a sample's key, without the variant."""
    return key.split(VARIANT)[0]
