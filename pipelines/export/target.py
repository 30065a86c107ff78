"""Rules and output records of export targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from a2data.dataset.triplet import ReferenceMeta
from a2data.store.folder import Folder


@dataclass(frozen=True)
class Picture:
    """A reference that was written."""

    path: str  # in the folder of the export
    of: ReferenceMeta

    @property
    def role(self) -> str:
        return self.of.role

    @property
    def phrase(self) -> str:
        return self.of.phrase


@dataclass(frozen=True)
class Exported:
    """A sample that was written."""

    clip_id: str
    video: str  # path in the folder of the export
    prompt: str
    captions: list[str]  # other captions of the sample, for targets that take several
    count: int  # frames by the rule of the target
    frames: int  # frames in the file, with the margin
    fps: float
    width: int
    height: int
    sound: bool
    pictures: list[Picture]
    license: str
    losses: list[str]
    sizes: list[int]  # bytes of the video and of each picture


class SkippedRow(NamedTuple):
    """A row that the trainer would skip."""

    row: str
    reason: str


class CheckResult(NamedTuple):
    """Result of running the trainer's arithmetic over an export."""

    rows: int
    skipped: list[SkippedRow]
    notes: list[str]  # what the user should know


@dataclass(frozen=True)
class Target:
    """A trainer or a format."""

    clock: str  # name in CLOCKS; "": clips stay as they are in the shards
    max_pictures: int  # references of a sample that are written; 0: the trainer does not read any
    picture_style: str
    prompt_style: str
    write: Callable[[Folder, Sequence[Exported]], list[str]]  # returns the files
    check: Callable[[Folder], CheckResult]
    picture_path: Callable[[str, int, str], str] = lambda key, n, role: f"references/{key}/{n}-{role}.png"
    media: str = ""  # folder of videos and pictures, "" for the export itself
    note: str = ""  # limitation of the target
    holds_masks: bool = False  # they are in pixels and frames of the clips, which therefore stay as in the shards
