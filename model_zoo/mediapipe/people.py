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
SURE_POSE, SURE_FACE = 0.85, 0.75
EVERY = 2  # the detectors see every second frame
HIPS_BELOW, HALF_HEIGHT = 3.9, 4.8  # of an upright body, in sides of the face's box: hips below its centre, radius
SAME_BODY = 0.5  # fraction of the smaller of two masks inside the other, from which they are one body
GAP = 2  # frames for which a lost person is looked for at the last place
SMALL_PX = 160  # long side at which masks are compared


class Networks(NamedTuple):
    """The networks that find people."""

    faces: Network
    poses: Network
    body: Network


Person = list[Pose | None]  # one entry per frame


class Seen(NamedTuple):
    """A pose in a frame, the number of its person, and its mask at SMALL_PX."""

    owner: int
    pose: Pose
    small: np.ndarray


def load() -> Networks:
    """Load the networks. Raises FileNotFoundError with the command that fetches what is missing."""
    return Networks(*(cards.load(name) for name in NETWORKS))


def found(run: Networks, frame: np.ndarray) -> tuple[list[ssd.Found], list[ssd.Found]]:
    """Return the faces and the poses that the detectors find in a frame, best first, each once."""
    faces = ssd.everywhere(run.faces, frame, ssd.FACES, FACE_SCORE)
    return faces, ssd.everywhere(run.poses, frame, ssd.POSES, POSE_SCORE)


def region_of_face(face: ssd.Found) -> Region:
    """Return where the body of a face should be if it is upright, along the line from the eyes to the mouth."""
    eyes, mouth = face.points[:2].mean(0), face.points[3]
    down = (mouth - eyes) / max(1e-6, float(np.linalg.norm(mouth - eyes)))
    middle, side = (face.box[:2] + face.box[2:]) / 2, float(face.box[2] - face.box[0])
    hips = middle + HIPS_BELOW * side * down
    return pose.between(hips, hips - HALF_HEIGHT * side * down)


def follow(run: Networks, frames: Sequence[np.ndarray]) -> list[Person]:
    """Return the people of a shot, each with a pose per frame or None, in the order of their first frame.

    frames: (h, w, 3) uint8 RGB. A person is looked for where the last pose was; a face or a pose that the detectors find
    elsewhere is a new person. A person who was never found with certainty is left out.
    """
    people: list[Person] = []
    sure: list[bool] = []
    for t, frame in enumerate(frames):
        here: list[Seen] = []
        for i, person in enumerate(people):
            last = next((p for p in reversed(person[max(0, t - GAP) : t]) if p is not None), None)
            if last is not None:
                _keep(here, i, pose.look(run.body, frame, last.region), frame.shape)
        for start in starts(*found(run, frame)) if t % EVERY == 0 or t == len(frames) - 1 else ():
            known = next((seen for seen in here if _covers(seen, start.spot, frame.shape)), None)
            if known is None:
                guess = pose.look(run.body, frame, start.region)
                if guess.score >= BODY_SCORE and _keep(
                    here, len(people), pose.look(run.body, frame, guess.region), frame.shape
                ):
                    people.append([None] * len(frames))
                    sure.append(start.sure)
            else:
                sure[known.owner] |= start.sure
        for seen in here:
            people[seen.owner][t] = seen.pose
    return [person for person, is_sure in zip(people, sure, strict=True) if is_sure]


class Start(NamedTuple):
    """Where to look for a body."""

    region: Region
    spot: np.ndarray  # (2,) a point on the body: the chest, or the middle of the face
    sure: bool  # whether the detection alone makes it a person


def starts(faces: list[ssd.Found], poses: list[ssd.Found]) -> list[Start]:
    """Return where to look for the bodies of detections."""
    of_poses = [Start(pose.region_of(p), p.points[2], p.score >= SURE_POSE) for p in poses]
    return of_poses + [Start(region_of_face(f), (f.box[:2] + f.box[2:]) / 2, f.score >= SURE_FACE) for f in faces]


def _keep(here: list[Seen], owner: int, new: Pose, shape: tuple[int, ...]) -> bool:
    """Add a pose to those of a frame unless there is no body, or it has been found already; return whether it was added."""
    if new.score < BODY_SCORE:
        return False
    scale = SMALL_PX / max(shape[:2])
    small = new.mask(round(shape[0] * scale), round(shape[1] * scale), scale) > 0.5
    if not small.any() or any(_same(small, other.small) for other in here):
        return False
    here.append(Seen(owner, new, small))
    return True


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two masks are of one body."""
    return bool((a & b).sum() > SAME_BODY * min(a.sum(), b.sum()))


def _covers(seen: Seen, spot: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Return whether a point of the frame is on a body."""
    x, y = (int(v * SMALL_PX / max(shape[:2])) for v in spot)
    height, width = seen.small.shape
    return 0 <= x < width and 0 <= y < height and bool(seen.small[y, x])
