"""The nouns: one frozen dataclass per table. Their Arrow schemas are derived from them, see a2data.store.schema.

Conventions, everywhere in the project: frames are (t, h, w, 3) uint8 RGB; boxes are x0, y0, x1, y1 in pixels of the clip's
frame, x1 and y1 exclusive; `frame` counts the frames of a clip from 0; `source_frame` counts the decoded frames of a source
video from 0; seconds are presentation time (PTS) in the source, and need not start at 0.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np

from a2data.media import video as codec
from a2data.media.images import Box

Vector = Annotated[list[float], np.float32]  # half the bytes of a list[float]; to numpy without a copy


@dataclass(frozen=True)
class Source:
    """A line of the manifest: a file that somebody wants in the corpus, before anybody looked inside."""

    video_id: str  # first 16 hex digits of the sha256 of the file's bytes; "unread-<hash of path>" if it cannot be read
    path: str  # local path, or a URL without password and query
    license: str
    source: str  # where it comes from: a site, an archive, a person
    label: str
    bytes: int
    duplicate_of: str  # path of the file with the same bytes that came first; "" for the first
    modified_ns: int = 0  # time of last change, so that a known file is not read again; 0 where it is not known
    refused: str = ""  # source frames that nothing may be made of, "0-75,210-300", ends exclusive (a2data forget)
    unreadable: str = ""  # why its bytes could not be read, or may not be, when it was listed; "" if they were
    license_conflict: str = ""  # the different licences that were stated for it, and where; "" if there is one or none


@dataclass(frozen=True)
class Video:
    """A source video that passed the first filter, as its container and its first decoded frame describe it."""

    video_id: str
    path: str
    license: str
    source: str
    label: str
    width: int  # as shown: after rotation and pixel aspect
    height: int
    rotation: int  # degrees to turn the decoded picture clockwise: 0, 90, 180, 270
    fps: float  # average
    duration_s: float
    codec: str
    stream: int  # which of the file's video streams
    refused: str = ""  # see Source


@dataclass(frozen=True)
class Clip:
    """A piece of one shot, re-encoded: at most 81 frames at 15 fps, without any transition in it."""

    clip_id: str  # "<video_id>-<first source frame, 8 digits>"
    video_id: str
    shot: int  # number of the shot in its video, from 0
    shot_start: int  # source frames of the shot, end exclusive
    shot_end: int
    transition_in: str  # what joins the shot to the one before: "start", "cut", "fade", "dissolve" or "wipe"
    fps: float
    width: int
    height: int
    source_frames: list[int]  # the source frame that each frame of the clip shows
    source_pts_s: list[float]  # and its presentation time
    crop: (
        Box  # the part of the source picture (as shown, in its pixels) that the clip shows: letterbox bars are cut off
    )
    bars: float  # share of the source picture that letterbox or pillarbox bars take
    luma: Vector  # mean luma of each frame, 0 to 1
    sharpness: Vector  # variance of the Laplacian of each frame, at analysis size
    motion: Vector  # mean absolute difference from the frame before, 0 to 1; the first frame has 0
    thumbnails: bytes  # (t, 18, 24) uint8: each frame in grey, small; tells a copy from another take (a2data.media.images.thumbs)


@dataclass(frozen=True)
class ClipVideo(Clip):
    """A clip with its pixels. A stage that does not ask for a Film never reads them."""

    video: bytes  # mp4 (H.264, yuv420p)

    @cached_property
    def frames(self) -> np.ndarray:
        """(t, h, w, 3) uint8 RGB: decoded once, however many stages look."""
        return codec.decode(self.video)


@dataclass(frozen=True)
class ClipTimes:
    """When in which source a clip plays: the columns of Clip that fit into memory for a whole corpus."""

    clip_id: str
    video_id: str
    source_pts_s: list[float]


@dataclass(frozen=True)
class ClipThumbs(ClipTimes):
    """A span with its thumbnails."""

    thumbnails: bytes


@dataclass(frozen=True)
class Score:
    """One measurement of one clip. Scoring never drops anything; select does."""

    clip_id: str
    metric: str  # "motion", "sharpness", "luma", "bars", "static", "text" …, see stages/score.py
    value: float


@dataclass(frozen=True)
class Kept:
    """A clip that passed every threshold."""

    clip_id: str
    video_id: str


@dataclass(frozen=True)
class Element:
    """One thing seen in one clip: its best frame, its cut-out, and where else in the clip it was seen."""

    clip_id: str
    element_id: str  # "<clip_id>/<kind>/<number>"
    kind: str  # human, object, face, hair, upper, lower, shoes, accessory, background
    label: str  # the model's word for it: "person", "cup", "red upper clothes"
    parent_id: str  # the human that a face or a garment belongs to; "" for none
    frame: int  # its best frame
    box: Box
    confidence: float  # the model's confidence, 0 to 1
    mask: bytes  # a2data.media.images.to_rle of the (h, w) mask in the best frame
    image: bytes  # PNG, RGBA: the box cut out of the best frame, alpha from the mask
    image_sha256: str  # first 16 hex digits, so that a reference knows when its picture has changed
    embedding: Vector  # unit length; [] where the element has none. Its length is the model's affair.
    embedder: str  # the card that made the embedding
    quality: float  # 0 to 1: how good a picture of it this is (sharp, large, whole, inside the frame)
    seen_frames: list[int]  # frames in which it was found, ascending
    seen_boxes: list[Box]  # and where
    attributes: list[str]  # "name=value", e.g. "colour=red", "yaw=-0.12", "coverage=0.91"
    mask_confidence: float = (
        -1.0
    )  # 0 to 1: how far its outline is to be trusted (model_zoo.detect.mask_trust); -1: not judged


@dataclass(frozen=True)
class ElementMeta:
    """An element without its picture: what tells who it may be. Columns of Element."""

    clip_id: str
    element_id: str
    kind: str
    label: str
    parent_id: str
    frame: int
    image_sha256: str
    embedder: str
    quality: float
    seen_frames: list[int]
    attributes: list[str]
    mask_confidence: float = -1.0


@dataclass(frozen=True)
class EmbeddedElement(ElementMeta):
    """A trait with its embedding."""

    embedding: Vector = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """One subject of the structured caption, in the words of SkyReels-V2's schema."""

    type: str  # Human, Animal, Object …
    sub_type: str  # Woman, Man, Cup …
    appearance: str
    action: str
    expression: str
    position: str
    is_main_subject: bool
    phrase: str  # the noun phrase that stands for it in the prompt, verbatim
    start: int  # prompt[start:end] == phrase
    end: int


@dataclass(frozen=True)
class ExpertOutput:
    """What one caption expert said of one field, kept beside the fused caption."""

    expert: str
    field: str
    value: str
    confidence: float


@dataclass(frozen=True)
class Caption:
    """The structured caption of a clip and the prompt that was fused from it."""

    clip_id: str
    prompt: str
    subjects: list[Subject]
    shot_type: str
    shot_angle: str
    shot_position: str
    camera_motion: str
    environment: str
    environment_start: int  # prompt[start:end] is the phrase for the place; both 0 where the prompt has none
    environment_end: int
    lighting: str
    answers: list[ExpertOutput]


@dataclass(frozen=True)
class Match:
    """A phrase of the prompt and the element it stands for."""

    clip_id: str
    element_id: str
    phrase: str
    start: int  # prompt[start:end] == phrase
    end: int
    similarity: float
    margin: float  # how much better than the next best element for this phrase


@dataclass(frozen=True)
class Rule:
    """One rule that was asked about something, and what it answered."""

    name: str
    value: float
    low: float  # passes when low <= value <= high; an open side is -inf or inf
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        return f"{self.name} = {self.value:.4g}, allowed {self.low:.4g} to {self.high:.4g}: {verdict}"


@dataclass(frozen=True)
class Reference:
    """An element of another clip that shows the same subject as `element_id` does."""

    clip_id: str  # the target clip
    element_id: str  # the target's element
    kind: str
    identity: (
        int  # of the identity cluster, the same for all who look like it (stages.retrieve.clusters.number); -1 for none
    )
    source_shard: int  # where to find the picture
    source_clip_id: str
    source_element_id: str
    image_sha256: str
    similarity: float
    copy_risk: float  # 0: surely another view, 1: the same picture
    rules: list[Rule]
    component: str = ""  # first video_id of those that identities link with this clip's: a split must not divide them
    # What copy_risk is made of: how far the reference is from what it stands for (stages.retrieve.copies.Parts); -1: not measured
    thumbnail_distance: float = (
        -1.0
    )  # its frame from the clip's nearest, by thumbnails; 0 the same, 1.4 nothing in common
    pixel_distance: float = -1.0  # 1 - correlation of the two cut-outs laid over each other, inside both masks
    silhouette_distance: float = -1.0  # 1 - IoU of their silhouettes
    log2_scale_ratio: float = -1.0  # |log2| of the ratio of their sides
    luma_difference: float = -1.0  # difference of their mean luma, 0 to 1
    background_distance: float = -1.0  # root mean square difference of what is around them, 0 to 1
    gap_s: float = -1.0  # seconds between the clips in one source; inf for two sources


@dataclass(frozen=True)
class Packed:
    """A sample of a WebDataset shard: where it is and what a loader wants to know before it opens it."""

    clip_id: str
    shard: str  # file name of the tar
    shard_sha256: str  # of the whole tar
    offset: int  # of the sample's first header in the tar
    bytes: int  # of the whole sample, headers and padding included
    members: list[str]  # extensions, in the order they stand in the tar
    frames: int
    height: int
    width: int
    fps: float
    roles: list[str]
    license: str
    copy_risk: float  # of the riskiest reference
    split: str = ""  # "train" or "eval" …, see stages/pack/stage.py; "" where the data set is not split
    component: str = ""  # see Reference; no two splits have one in common


@dataclass(frozen=True)
class Reject:
    """What a stage yields instead of a row for something it decided against. Goes to the part's footer, not to a table."""

    key: str  # clip_id, element_id or video_id
    reason: str  # one or two words, the same for all that fail the same rule: what the funnel counts
    detail: str = ""  # the rule with its value and threshold


@dataclass(frozen=True)
class Failure:
    """What a stage per "shard" or "all" yields for a unit that it could not do; the others do not suffer for it."""

    key: str  # clip_id or video_id
    why: str
