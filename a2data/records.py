"""Records: one frozen dataclass per table. The Arrow schemas are derived from them, see a2data.store.schema.

Conventions in the whole project: frames are (t, h, w, 3) uint8 RGB; boxes are x0, y0, x1, y1 in pixels of the clip's frame, x1
and y1 exclusive; `frame` counts the frames of a clip from 0; `source_frame` counts the decoded frames of a source video from 0;
seconds are presentation time (PTS) in the source and need not start at 0.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import numpy as np

from a2data.media import video as codec
from a2data.media.images import Box

Vector = Annotated[list[float], np.float32]  # half the size of a list[float]; converts to numpy without a copy


@dataclass(frozen=True)
class Source:
    """A row of the manifest: a file that is wanted in the corpus, before it is opened."""

    video_id: str
    """first 16 hex digits of the sha256 of the file's bytes; "unread-<hash of path>" if it cannot be read"""
    path: str
    """local path, or a URL without password and query"""
    license: str
    source: str
    """origin: a site, an archive, a person"""
    label: str
    bytes: int
    duplicate_of: str
    """path of the first file with the same bytes; "" for the first"""
    modified_ns: int = 0
    """time of last change, so that a known file is not read again; 0 if unknown"""
    refused: str = ""
    """source frames that must not be used, "0-75,210-300", ends exclusive (a2data forget)"""
    unreadable: str = ""
    """why its bytes could not or must not be read when it was listed; "" if they were read"""
    license_conflict: str = ""
    """the different licences stated for it, and where; "" if there is at most one"""


@dataclass(frozen=True)
class Video:
    """A source video that passed the first filter, as described by its container and its first decoded frame."""

    video_id: str
    path: str
    license: str
    source: str
    label: str
    width: int
    """as displayed, after rotation and pixel aspect"""
    height: int
    rotation: int
    """clockwise rotation of the decoded picture in degrees: 0, 90, 180, 270"""
    fps: float
    """average"""
    duration_s: float
    codec: str
    stream: int
    """index among the file's video streams"""
    refused: str = ""
    """see Source"""


@dataclass(frozen=True)
class Clip:
    """A segment of one shot, re-encoded: at most 81 frames at 15 fps, without transitions."""

    clip_id: str
    """"<video_id>-<first source frame, 8 digits>" """
    video_id: str
    shot: int
    """number of the shot in its video, from 0"""
    shot_start: int
    """source frames of the shot, end exclusive"""
    shot_end: int
    transition_in: str
    """transition from the previous shot: "start", "cut", "fade", "dissolve" or "wipe" """
    fps: float
    width: int
    height: int
    source_frames: list[int]
    """source frame of each frame of the clip"""
    source_pts_s: list[float]
    """presentation time of each of those source frames"""
    crop: Box
    """region of the source picture (as displayed, in its pixels) without letterbox bars"""
    bars: float
    """fraction of the source picture taken by letterbox or pillarbox bars"""
    luma: Vector
    """mean luma of each frame, 0 to 1"""
    sharpness: Vector
    """variance of the Laplacian of each frame, at analysis size"""
    motion: Vector
    """mean absolute difference from the previous frame, 0 to 1; 0 for the first frame"""
    thumbnails: bytes
    """(t, 18, 24) uint8: small grey frames, to distinguish copies from other takes (a2data.media.images.thumbs)"""


@dataclass(frozen=True)
class ClipVideo(Clip):
    """A clip with its pixels. A stage that does not read ClipVideo never loads them."""

    video: bytes
    """mp4 (H.264, yuv420p), with the sound of the source (AAC, stereo) if there is any at that time"""
    sound_problem: str = ""
    """why sound of the source is missing in the mp4; "" if none is known to be"""

    @cached_property
    def frames(self) -> np.ndarray:
        """(t, h, w, 3) uint8 RGB, decoded once for all stages."""
        return codec.decode(self.video)


@dataclass(frozen=True)
class ClipTimes:
    """Source and times of a clip: the columns of Clip that fit into memory for a whole corpus."""

    clip_id: str
    video_id: str
    source_pts_s: list[float]


@dataclass(frozen=True)
class ClipThumbs(ClipTimes):
    """ClipTimes with thumbnails."""

    thumbnails: bytes


@dataclass(frozen=True)
class Score:
    """One measurement of one clip. The stage score never drops clips; select does."""

    clip_id: str
    metric: str
    """"motion", "sharpness", "luma", "bars", "static", "text" …, see stages/score.py"""
    value: float


@dataclass(frozen=True)
class Span:
    """A stretch of a clip, in seconds from its start."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class Sound:
    """The sound of one clip. The stage listen never drops clips; select does."""

    clip_id: str
    duration_s: float
    """0 for a clip without sound"""
    loudness_lufs: float
    """integrated loudness (ITU-R BS.1770-4), LUFS; -70, the gate, for silence and without sound"""
    peak_dbfs: float
    """largest sample; 0 is full scale; -120 for digital silence and without sound"""
    silence: float
    """fraction of the clip that is silent, 0 to 1"""
    speech: float
    """fraction of the clip with speech, 0 to 1; -1: not measured"""
    speech_spans: list[Span]
    """each stretch of speech, in order"""
    problem: str
    """why sound of the source is missing; "" if none is known to be"""
    transcript: str = ""
    """what is said, by the model listen.asr_model; "" without one or without speech"""

    def scores(self) -> dict[str, float]:
        """Return what `select` has thresholds for, by metric."""
        found = {"loudness": self.loudness_lufs, "silence": self.silence}
        return found if self.speech < 0 else found | {"speech": self.speech}


@dataclass(frozen=True)
class Speaker:
    """When a face of a clip with speech seems to speak: an estimate from the motion of its mouth (stages.active_speaker)."""

    clip_id: str
    element_id: str
    """the face"""
    parent_id: str
    """the human that it belongs to; "" for none"""
    speech: float
    """fraction of the clip's speech, 0 to 1"""
    speech_spans: list[Span]
    mouth_motion: float
    """mean in speech: standard deviation, over half a second, of the mouth's opening in distances of the eyes; -1: not seen"""
    mouth_motion_in_pauses: float
    """the same without speech"""


@dataclass(frozen=True)
class Kept:
    """A clip that passed every threshold."""

    clip_id: str
    video_id: str


@dataclass(frozen=True)
class ClipEmbedding:
    """The embedding of a whole clip."""

    clip_id: str
    embedder: str
    """card of the embedding model"""
    embedding: Vector
    """unit norm"""


@dataclass(frozen=True)
class Element:
    """One element of one clip: its best frame, its cut-out and its track through the clip."""

    clip_id: str
    element_id: str
    """"<clip_id>/<kind>/<number>" """
    kind: str
    """human, object, face, hair, upper, lower, shoes, accessory, background"""
    label: str
    """label given by the model: "person", "cup", "red upper clothes" """
    parent_id: str
    """the human that a face or a garment belongs to; "" for none"""
    frame: int
    """best frame"""
    box: Box
    confidence: float
    """the model's confidence, 0 to 1"""
    mask: bytes
    """a2data.media.images.to_rle of the (h, w) mask in the best frame"""
    image: bytes
    """PNG, RGBA: the box cut out of the best frame, alpha from the mask"""
    image_sha256: str
    """first 16 hex digits, so that a reference can detect that its picture has changed"""
    embedding: Vector
    """unit norm; [] if the element has none. Its dimension depends on the model."""
    embedder: str
    """card of the embedding model"""
    quality: float
    """picture quality, 0 to 1 (sharp, large, whole, inside the frame)"""
    seen_frames: list[int]
    """frames in which it was found, ascending"""
    seen_boxes: list[Box]
    """its box in each of those frames"""
    attributes: list[str]
    """"name=value", e.g. "colour=red", "yaw=-0.12", "coverage=0.91" """
    mask_confidence: float = -1.0
    """confidence of its mask, 0 to 1 (model_zoo.detect.mask_confidence); -1: not judged"""
    stamp: bytes = b""
    """its picture as retrieve compares it (a2data.media.images.stamp); empty in tables of earlier versions"""


@dataclass(frozen=True)
class ElementMeta:
    """An element without its picture: the columns of Element used for identity."""

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
    """ElementMeta with its embedding."""

    embedding: Vector = field(default_factory=list)


@dataclass(frozen=True)
class ElementStamp:
    """What is compared between the picture of a reference and that of its target: columns of Element."""

    element_id: str
    frame: int
    box: Box
    mask: bytes
    stamp: bytes = b""


@dataclass(frozen=True)
class ElementPicture:
    """The picture of an element."""

    element_id: str
    image: bytes


@dataclass(frozen=True)
class Subject:
    """One subject of the structured caption, in the schema of SkyReels-V2."""

    type: str
    """Human, Animal, Object …"""
    sub_type: str
    """Woman, Man, Cup …"""
    appearance: str
    action: str
    expression: str
    position: str
    is_main_subject: bool
    phrase: str
    """its noun phrase in the prompt, verbatim"""
    start: int
    """prompt[start:end] == phrase"""
    end: int


@dataclass(frozen=True)
class ExpertOutput:
    """Output of one caption expert for one field, kept beside the fused caption."""

    expert: str
    field: str
    value: str
    confidence: float


@dataclass(frozen=True)
class Caption:
    """The structured caption of a clip and the prompt fused from it."""

    clip_id: str
    prompt: str
    subjects: list[Subject]
    shot_type: str
    shot_angle: str
    shot_position: str
    camera_motion: str
    environment: str
    environment_start: int
    """prompt[start:end] is the phrase for the place; both 0 if the prompt has none"""
    environment_end: int
    lighting: str
    answers: list[ExpertOutput]


@dataclass(frozen=True)
class Match:
    """A phrase of the prompt and the element that it refers to."""

    clip_id: str
    element_id: str
    phrase: str
    start: int
    """prompt[start:end] == phrase"""
    end: int
    similarity: float
    margin: float
    """similarity minus that of the next best element for this phrase"""


@dataclass(frozen=True)
class Rule:
    """One rule applied to something, with its value and its limits."""

    name: str
    value: float
    low: float
    """passes if low <= value <= high; an open side is -inf or inf"""
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        return f"{self.name} = {self.value:.4g}, allowed {self.low:.4g} to {self.high:.4g}: {verdict}"


@dataclass(frozen=True)
class Reference:
    """An element of another clip that shows the same subject as `element_id`."""

    clip_id: str
    """the target clip"""
    element_id: str
    """the target's element"""
    kind: str
    identity: int
    """number of the identity cluster (stages.retrieve.clusters.stable_identity_id); -1 for none"""
    source_shard: int
    """shard of the picture"""
    source_clip_id: str
    source_element_id: str
    image_sha256: str
    similarity: float
    copy_risk: float
    """0: certainly another view, 1: the same picture"""
    rules: list[Rule]
    component: str = ""
    """first video_id of the videos that identities link with this clip's; a split must not divide them"""
    # components of copy_risk: distances of the reference from its target (stages.retrieve.copies.CopyDistances); -1: not measured
    thumbnail_distance: float = -1.0
    """thumbnail distance of its frame to the clip's nearest; 0 equal, 1.4 unrelated"""
    pixel_distance: float = -1.0
    """1 - correlation of the two aligned cut-outs, inside both masks"""
    silhouette_distance: float = -1.0
    """1 - IoU of their silhouettes"""
    log2_scale_ratio: float = -1.0
    """|log2| of the ratio of their sides"""
    luma_difference: float = -1.0
    """difference of their mean luma, 0 to 1"""
    background_distance: float = -1.0
    """root mean square difference of their surroundings, 0 to 1"""
    gap_s: float = -1.0
    """seconds between the clips in one source; inf for two sources"""


@dataclass(frozen=True)
class Packed:
    """A sample of a WebDataset shard: its location and what a loader needs to know before opening it."""

    clip_id: str
    shard: str
    """file name of the tar"""
    shard_sha256: str
    """of the whole tar"""
    offset: int
    """of the sample's first header in the tar"""
    bytes: int
    """of the whole sample, including headers and padding"""
    members: list[str]
    """extensions, in the order of the tar"""
    frames: int
    height: int
    width: int
    fps: float
    roles: list[str]
    license: str
    copy_risk: float
    """of the riskiest reference"""
    split: str = ""
    """"train", "eval" …, see stages/pack/stage.py; "" if the data set is not split"""
    component: str = ""
    """see Reference; splits never share a component"""


@dataclass(frozen=True)
class Reject:
    """Yielded by a stage instead of a row for something that it rejects. Written to the part's footer, not to a table."""

    key: str
    """clip_id, element_id or video_id"""
    reason: str
    """one or two words, the same for all rejects of a rule; counted by the funnel"""
    detail: str = ""
    """the rule with its value and threshold"""


@dataclass(frozen=True)
class Failure:
    """Yielded by a stage per "shard" or "all" for a unit that it could not process; other units are not affected."""

    key: str
    """clip_id or video_id"""
    error: str
