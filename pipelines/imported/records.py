"""Rows of the table `imported`, which `a2data import` writes beside the manifest: the annotations of a clip."""

from dataclasses import dataclass

from a2data.media.coco_rle import Rle
from a2data.media.images import Box

TABLE = "imported"
REFERENCE = "reference"  # purpose of a clip that only shows a reference


@dataclass(frozen=True)
class ImportedElement:
    """An element of a clip."""

    element_id: str
    kind: str
    label: str
    source_frame: int
    box: Box
    """in the clip's picture before it is scaled; all 0: the bounds of the mask, or the whole picture"""
    mask: Rle
    """the same size as that picture; NO_MASK: the box"""


@dataclass(frozen=True)
class ImportedPhrase:
    """A phrase of the prompt and its element."""

    element_id: str
    phrase: str
    start: int
    end: int


@dataclass(frozen=True)
class ImportedPair:
    """An element and the element of another clip that is its reference."""

    element_id: str
    source_shard: int
    source_clip_id: str
    source_element_id: str


@dataclass(frozen=True)
class ImportedClip:
    """A clip as the data set describes it."""

    clip_id: str
    video_id: str
    purpose: str
    """"target", or "reference" if it only shows references of others"""
    first: int
    """source frames, end exclusive"""
    end: int
    crop: Box
    """of the source picture, pixels; all 0: the whole"""
    prompt: str
    shown: list[ImportedElement]
    named: list[ImportedPhrase]
    paired: list[ImportedPair]
