"""How the camera moved: pan, tilt, zoom, roll and shake, from the background between sampled frames.

Corners (Shi and Tomasi 1994) are followed by pyramidal Lucas-Kanade (Bouguet 2001) and a similarity is fitted to them by
RANSAC (Fischler and Bolles 1981). What stands in front is masked out first: a person who fills the picture and walks would
otherwise be taken for a pan.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

Box = tuple[float, float, float, float]

WIDTH_PX = 320  # frames are scaled to this width before corners are followed
SAMPLE_HZ = 5.0  # steps a second; slow moves need a baseline, fast ones must stay within reach of Lucas-Kanade
MIN_CORNERS = 12  # fewer, and the background is too plain to tell


class Step(NamedTuple):
    """What the background did from one sampled frame to the next, about the centre of the picture."""

    dx: float  # to the right, in widths of the picture
    dy: float  # down, in widths of the picture
    scale: float  # natural logarithm; above 0 it grew
    turn: float  # degrees, clockwise as seen


class Move(NamedTuple):
    """What the camera did in a clip."""

    pan: float  # to the right, in widths of the picture
    tilt: float  # up, in widths of the picture
    zoom: float  # in, as the natural logarithm of the scale
    roll: float  # clockwise, degrees
    shake: float  # median of what a steady move leaves over of each step, in widths of the picture
    duration_s: float
    known: float  # share of the steps that could be measured, 0 to 1


# A part of a move that is worth a word over the whole clip, and the speed per second up to which it is slow and from which
# it is fast. A zoom of 0.08 is 8 %, at which a face at the border has moved by about as much as in a pan of 0.05.
PARTS = {"pan": (0.05, 0.06, 0.25), "tilt": (0.05, 0.06, 0.25), "zoom": (0.08, 0.06, 0.25), "roll": (4.0, 5.0, 20.0)}
WORDS = {
    "pan": ("pans to the right", "pans to the left"),
    "tilt": ("tilts up", "tilts down"),
    "zoom": ("zooms in", "zooms out"),
    "roll": ("rolls clockwise", "rolls counterclockwise"),
}
SHAKE = 0.003  # from here a camera is handheld: a pixel of a picture 320 wide


def measure(frames: np.ndarray, fps: float, boxes: Sequence[Sequence[Box]]) -> Move:
    """The camera's move over a clip.

    frames: (t, h, w, 3) uint8 RGB. boxes: for each frame, what stands in front and is not to be followed, in pixels.
    """
    chosen = sampled(len(frames), fps)
    steps = follow(frames, chosen, boxes)
    seconds = (chosen[-1] - chosen[0]) / fps if len(chosen) > 1 else 0.0
    return total(steps, seconds)


def sampled(count: int, fps: float) -> list[int]:
    """The frames between which the camera is measured: about SAMPLE_HZ of them a second, the first included."""
    return list(range(0, count, max(1, round(fps / SAMPLE_HZ))))


def follow(frames: np.ndarray, chosen: Sequence[int], boxes: Sequence[Sequence[Box]]) -> list[Step | None]:
    """What the background did between each two successive chosen frames; None where it is too plain to tell."""
    zoom = WIDTH_PX / frames.shape[2]
    greys = [_grey(frames[i], zoom) for i in chosen]
    steps = []
    for before, after, i in zip(greys, greys[1:], chosen, strict=False):
        free = np.full(before.shape, 255, np.uint8)
        for x0, y0, x1, y1 in boxes[i]:
            free[max(0, int(y0 * zoom) - 4) : int(y1 * zoom) + 5, max(0, int(x0 * zoom) - 4) : int(x1 * zoom) + 5] = 0
        steps.append(step(before, after, free))
    return steps


def _grey(frame: np.ndarray, zoom: float) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)


def step(before: np.ndarray, after: np.ndarray, free: np.ndarray) -> Step | None:
    """The similarity that takes one grey (h, w) uint8 picture to the next, where `free` (h, w) uint8 is not 0."""
    corners = cv2.goodFeaturesToTrack(before, 200, 0.01, 6, mask=free)
    if corners is None or len(corners) < MIN_CORNERS:
        return None
    there, found = _flow(before, after, corners)
    back, refound = _flow(after, before, there)
    returned = np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < 0.5
    good = found & refound & returned
    if good.sum() < MIN_CORNERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(corners[good], there[good], ransacReprojThreshold=1.0)
    if matrix is None or inliers.sum() < max(MIN_CORNERS, 0.4 * good.sum()):
        return None
    height, width = before.shape
    centre = np.array([width / 2, height / 2])
    dx, dy = matrix[:, :2] @ centre + matrix[:, 2] - centre
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    turn = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    return Step(float(dx) / width, float(dy) / width, float(np.log(scale)), turn)


def _flow(before: np.ndarray, after: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (n, 1, 2) corners went, and (n,) bool: whether they could be followed."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    return np.asarray(there), np.asarray(found).ravel() == 1


def total(steps: Sequence[Step | None], duration_s: float) -> Move:
    """Steps added up and turned into the camera's own directions; what could not be measured counts as the mean step."""
    found = np.array([s for s in steps if s is not None], np.float64).reshape(-1, 4)
    if not len(found):
        return Move(0.0, 0.0, 0.0, 0.0, 0.0, duration_s, 0.0)
    dx, dy, scale, turn = (found.mean(axis=0) * len(steps)).tolist()
    # A steady move has steps that change slowly: what differs from the mean of the two neighbours is shake. The median, for
    # one step that went wrong (somebody crossed the picture) is no shake.
    rest = found[1:-1, :2] - (found[:-2, :2] + found[2:, :2]) / 2
    shake = float(np.median(np.hypot(rest[:, 0], rest[:, 1]))) if len(rest) else 0.0
    return Move(-dx, dy, scale, -turn, shake, duration_s, len(found) / len(steps))


def sentence(move: Move) -> str:
    """The move in words, "" where it could not be measured. "the camera pans slowly to the right and zooms in"."""
    if move.known < 0.5:
        return ""
    parts = {name: getattr(move, name) / PARTS[name][0] for name in PARTS}
    told = sorted((name for name in parts if abs(parts[name]) >= 1), key=lambda name: -abs(parts[name]))
    words = [_part(name, getattr(move, name), move.duration_s) for name in told[:2]]
    shaky = move.shake >= SHAKE
    if not words:
        return "the handheld camera shakes slightly" if shaky else "the camera stays still"
    return f"the {'handheld ' if shaky else ''}camera {' and '.join(words)}"


def _part(name: str, amount: float, duration_s: float) -> str:
    verb, _, rest = WORDS[name][amount < 0].partition(" ")
    _, slow, fast = PARTS[name]
    speed = abs(amount) / max(duration_s, 1e-6)
    adverb = "slowly" if speed < slow else "quickly" if speed > fast else ""
    return " ".join(word for word in (verb, adverb, rest) if word)
