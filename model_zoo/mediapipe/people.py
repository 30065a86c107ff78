"""People in a shot: found by the pose and the face detector, and followed from frame to frame, each with a pose."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model_zoo import cards
from model_zoo.mediapipe import pose, ssd
from model_zoo.mediapipe.network import Network
from model_zoo.mediapipe.pose import Pose, Region

NETWORKS = ("mediapipe-face-detection", "mediapipe-pose-detection", "mediapipe-pose-landmark")  # cards of `Networks`
FACE_SCORE, POSE_SCORE = 0.6, 0.5  # of the detectors, as in their graphs
BODY_SCORE = 0.5  # of the pose network, as in its graph
# A body is a person if a detector was ever so sure: the pose network also follows bottles and deer, for which the detectors
# have at most 0.77 and 0.65; people of real footage have 0.97 and 0.91 in the median.
MIN_CERTAIN_POSE, MIN_CERTAIN_FACE = 0.85, 0.75
DETECTION_STRIDE = 2  # the detectors see every second frame
HIPS_BELOW, HALF_HEIGHT = 3.9, 4.8  # of an upright body, in sides of the face's box: hips below its centre, radius
MIN_OVERLAP = 0.5  # fraction of the smaller of two masks inside the other, from which they are one body
MAX_GAP = 2  # frames for which a lost person is looked for at the last place
SMALL_PX = 160  # long side at which masks are compared


class Networks(NamedTuple):
    """The networks that find people."""

    faces: Network
    poses: Network
    body: Network


Person = list[Pose | None]  # one entry per frame


class TrackedPose(NamedTuple):
    """A pose in a frame, the number of its person, and its mask at SMALL_PX."""

    owner: int
    pose: Pose
    small: np.ndarray


def load() -> Networks:
    """Load the networks. Raises FileNotFoundError with the command that fetches what is missing."""
    return Networks(*(cards.load(name) for name in NETWORKS))


def detect(run: Networks, frame: np.ndarray) -> tuple[list[ssd.BoxDetection], list[ssd.BoxDetection]]:
    """Return the faces and the poses that the detectors find in a frame, best first, each once."""
    faces = ssd.detect_multiscale(run.faces, frame, ssd.FACES, FACE_SCORE)
    return faces, ssd.detect_multiscale(run.poses, frame, ssd.POSES, POSE_SCORE)


def region_of_face(face: ssd.BoxDetection) -> Region:
    """Return where the body of a face should be if it is upright, along the line from the eyes to the mouth."""
    eyes, mouth = face.points[:2].mean(0), face.points[3]
    down = (mouth - eyes) / max(1e-6, float(np.linalg.norm(mouth - eyes)))
    middle, side = (face.box[:2] + face.box[2:]) / 2, float(face.box[2] - face.box[0])
    hips = middle + HIPS_BELOW * side * down
    return pose.region_between(hips, hips - HALF_HEIGHT * side * down)


def track_people(run: Networks, frames: Sequence[np.ndarray]) -> list[Person]:
    """Return the people of a shot, each with a pose per frame or None, in the order of their first frame.

    frames: (h, w, 3) uint8 RGB. A person is looked for where the last pose was; a face or a pose that the detectors find
    elsewhere is a new person. A person who was never found with certainty is left out.
    """
    people: list[Person] = []
    is_certain: list[bool] = []
    for t, frame in enumerate(frames):
        frame_poses: list[TrackedPose] = []
        for i, person in enumerate(people):
            previous = next((p for p in reversed(person[max(0, t - MAX_GAP) : t]) if p is not None), None)
            if previous is not None:
                _add_pose(frame_poses, i, pose.run_pose(run.body, frame, previous.region), frame.shape)
        for candidate in candidates(*detect(run, frame)) if t % DETECTION_STRIDE == 0 or t == len(frames) - 1 else ():
            matching = next((seen for seen in frame_poses if _contains(seen, candidate.spot, frame.shape)), None)
            if matching is None:
                first_pose = pose.run_pose(run.body, frame, candidate.region)
                if first_pose.score >= BODY_SCORE and _add_pose(
                    frame_poses, len(people), pose.run_pose(run.body, frame, first_pose.region), frame.shape
                ):
                    people.append([None] * len(frames))
                    is_certain.append(candidate.sure)
            else:
                is_certain[matching.owner] |= candidate.sure
        for seen in frame_poses:
            people[seen.owner][t] = seen.pose
    return [person for person, certain in zip(people, is_certain, strict=True) if certain]


class Candidate(NamedTuple):
    """Where to look for a body."""

    region: Region
    spot: np.ndarray  # (2,) a point on the body: the chest, or the middle of the face
    sure: bool  # whether the detection alone makes it a person


def candidates(faces: list[ssd.BoxDetection], poses: list[ssd.BoxDetection]) -> list[Candidate]:
    """Return where to look for the bodies of detections."""
    of_poses = [Candidate(pose.region_of(p), p.points[2], p.score >= MIN_CERTAIN_POSE) for p in poses]
    return of_poses + [
        Candidate(region_of_face(f), (f.box[:2] + f.box[2:]) / 2, f.score >= MIN_CERTAIN_FACE) for f in faces
    ]


def _add_pose(frame_poses: list[TrackedPose], owner: int, candidate_pose: Pose, shape: tuple[int, ...]) -> bool:
    """Add a pose to those of a frame if it shows a body that has not been found already; return whether it was added."""
    if candidate_pose.score < BODY_SCORE:
        return False
    scale = SMALL_PX / max(shape[:2])
    small = candidate_pose.mask(round(shape[0] * scale), round(shape[1] * scale), scale) > 0.5
    if not small.any() or any(_is_same_body(small, other.small) for other in frame_poses):
        return False
    frame_poses.append(TrackedPose(owner, candidate_pose, small))
    return True


def _is_same_body(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two masks are of one body."""
    return bool((a & b).sum() > MIN_OVERLAP * min(a.sum(), b.sum()))


def _contains(seen: TrackedPose, spot: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return whether a point of the frame is on a body."""
    x, y = (int(v * SMALL_PX / max(shape[:2])) for v in spot)
    height, width = seen.small.shape
    return 0 <= x < width and 0 <= y < height and bool(seen.small[y, x])
