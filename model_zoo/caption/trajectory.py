"""Trajectories of subjects in words, such as "walks from left to right": tracked boxes with camera motion removed.

No weights. A path is in the picture of the clip's first frame, so that a person whom the camera follows still walks.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from model_zoo.caption import camera
from model_zoo.caption.measured import MIN_DISPLACEMENT, SIDES, Answer, ElementHint, foreground_boxes, subjects_of


class Path(NamedTuple):
    """Positions of an object without camera motion: each an (n,) float64, for the n frames in which it was seen."""

    right: np.ndarray  # from the middle of the first picture, picture widths
    down: np.ndarray
    size: np.ndarray  # logarithm of the height of its box in picture widths


MIN_APPROACH = 0.3  # logarithm of the growth from which it approaches: 1.35 times
MIN_TURN = 0.05  # smallest part of a path that counts as a turn, picture widths
MIN_UPRIGHT_RATIO = 1.2  # ratio of height to width of a person's box from which the person stands
RUN_SPEED = 1.4  # body heights per second; people walk at 0.8 and begin to run at 1.2 (Rotstein et al. 2005: 2.0 m/s)
TURNED_S = 1.0  # seconds for which a face must be invisible before its owner counts as facing away
TURNED_FRAMES = 3  # sampled frames of the same


def trajectory_expert(card: Any, device: str) -> Callable[..., list[Answer]]:
    """The expert for "subjects.<n>.action": for subjects that move, approach, leave or turn, not for those that stay."""
    return trajectories


def trajectories(frames: np.ndarray, fps: float, hints: Sequence[ElementHint], scene: dict[str, Any]) -> list[Answer]:
    """[("subjects.0.action", "walks from left to right, towards the camera", 0.7)]; see stages/caption/stage.py."""
    element_of = subjects_of(hints, scene, ("human", "object"))
    if not element_of:
        return []
    height, width = frames.shape[1:3]
    foreground = [t for t in hints if t.kind in ("human", "object")]
    frame_indices = camera.sample_indices(len(frames), fps)
    steps = camera.background_steps(frames, frame_indices, foreground_boxes(len(frames), foreground))
    measured_fraction = sum(s is not None for s in steps) / len(steps) if steps else 0.0
    answers = []
    for n, element in element_of.items():
        action = describe_motion(element, path(element, frame_indices, steps, height, width), fps, height, width)
        if action:
            answers.append((f"subjects.{n}.action", action, 0.5 + 0.3 * measured_fraction))
        elif element.kind == "human":
            face = next((t for t in hints if t.kind == "face" and t.parent == element.id), None)
            turn = turn_action(element, face, fps) if face else ""
            # low confidence: a hand in front of the face hides it, too
            answers += [(f"subjects.{n}.action", turn, 0.45)] if turn else []
    return answers


def path(
    element: ElementHint, frame_indices: Sequence[int], steps: Sequence[camera.Step | None], height: int, width: int
) -> Path:
    """Return the path of an object in the picture of the first frame.

    frame_indices, steps: from camera.sample_indices and camera.background_steps. An unmeasured step counts as none.
    """
    cumulative = [camera.compose([s for s in steps[:k] if s is not None]) for k in range(len(frame_indices))]
    times = np.asarray(element.frames, np.float64)
    dx, dy, scale, turn = (np.interp(times, frame_indices, [s[part] for s in cumulative]) for part in range(4))
    boxes = np.asarray(element.boxes, np.float64) / width
    centre = (boxes[:, 0] + boxes[:, 2]) / 2 - 0.5 + 1j * ((boxes[:, 1] + boxes[:, 3]) / 2 - height / width / 2)
    stabilised = (centre - (dx + 1j * dy)) * np.exp(-scale - 1j * np.radians(turn))
    log_height = np.log(np.maximum(boxes[:, 3] - boxes[:, 1], 1e-6)) - scale
    return Path(smooth(stabilised.real), smooth(stabilised.imag), smooth(log_height))


def smooth(values: np.ndarray) -> np.ndarray:
    """Return (n,) values, each the median of itself and its neighbours (3 at the ends): one bad box is not a motion."""
    if len(values) < 3:
        return values
    inner = np.median([values[:-2], values[1:-1], values[2:]], axis=0)
    return np.concatenate([[np.median(values[:3])], inner, [np.median(values[-3:])]])


def describe_motion(element: ElementHint, motion_path: Path, fps: float, height: int, width: int) -> str:
    """Return the action of an object from its path; "" if it stays."""
    segments = path_segments(motion_path.right)
    down = float(motion_path.down[-1] - motion_path.down[0])
    growth = float(motion_path.size[-1] - motion_path.size[0])
    duration_s = max((element.frames[-1] - element.frames[0]) / fps, 1e-6)
    depth = "" if abs(growth) < MIN_APPROACH else "towards the camera" if growth > 0 else "away from the camera"
    verb = movement_verb(element, motion_path, segments, duration_s, height, width)
    if not segments:
        if depth:
            return f"{verb} {depth}"
        # the middle of a person's box goes down when a table hides the legs, or up when an arm is raised
        return (
            f"{verb} {'down' if down > 0 else 'up'}"
            if element.kind != "human" and abs(down) >= MIN_DISPLACEMENT
            else ""
        )
    directions = " and ".join(
        f"back {_direction(w)}" if n else direction_phrase(element, w, width) for n, w in enumerate(segments[:2])
    )
    if len(segments) > 2:
        return f"{verb} back and forth"
    if len(segments) == 2:
        return f"{verb} {_direction(segments[0])}, turns and {verb} back {_direction(segments[1])}"
    return f"{verb} {directions}, {depth}" if depth else f"{verb} {directions}"


def path_segments(right: np.ndarray) -> list[float]:
    """Return the parts of a path, each in one direction, in picture widths; [] for less than MOVED.

    A turn counts from STRIDE, and from a third of the longest part.
    """
    turn_indices, direction = [0], 0
    for i in range(1, len(right)):
        offset = right[i] - right[turn_indices[-1]]
        if direction == 0 and abs(offset) >= MIN_TURN:
            direction = 1 if offset > 0 else -1
            turn_indices.append(i)
        elif direction and direction * offset > 0:
            turn_indices[-1] = i
        elif direction and -direction * offset >= MIN_TURN:
            direction = -direction
            turn_indices.append(i)
    lengths = [float(right[b] - right[a]) for a, b in pairwise(turn_indices)]
    longest = max((abs(p) for p in lengths), default=0.0)
    if longest < MIN_DISPLACEMENT:
        return []
    return merge_segments([p for p in lengths if abs(p) >= longest / 3])


def merge_segments(parts: Sequence[float]) -> list[float]:
    """Merge neighbouring parts of the same direction."""
    merged: list[float] = []
    for part in parts:
        if merged and (merged[-1] > 0) == (part > 0):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _direction(part: float) -> str:
    return "to the right" if part > 0 else "to the left"


def direction_phrase(element: ElementHint, part: float, width: int) -> str:
    """Return "from left to right" if it crosses the picture as shown, else "to the right"."""
    first, last = (
        SIDES[min(2, max(0, int(3 * (b[0] + b[2]) / 2 / width)))] for b in (element.boxes[0], element.boxes[-1])
    )
    if (first, last) == (SIDES[0], SIDES[2]) and part > 0:
        return "from left to right"
    if (first, last) == (SIDES[2], SIDES[0]) and part < 0:
        return "from right to left"
    return _direction(part)


def movement_verb(
    element: ElementHint, motion_path: Path, segments: Sequence[float], duration_s: float, height: int, width: int
) -> str:
    """Return "walks", "runs" or "moves". Running requires a fully visible person, walking a standing one."""
    x0, y0, x1, y1 = np.median(np.asarray(element.boxes, np.float64), axis=0)
    if element.kind != "human" or y1 - y0 < MIN_UPRIGHT_RATIO * (x1 - x0):
        return "moves"
    is_fully_visible = y0 > 0.01 * height and y1 < 0.99 * height
    speed = sum(abs(w) for w in segments) / duration_s / max(float(np.exp(np.median(motion_path.size))), 1e-6)
    return "runs" if is_fully_visible and speed >= RUN_SPEED else "walks"


def turn_action(person: ElementHint, face: ElementHint, fps: float) -> str:
    """Return "turns away" or "turns to the camera", from when the face was seen; "" if it was visible throughout."""
    before = [f for f in person.frames if f < face.frames[0]]
    after = [f for f in person.frames if f > face.frames[-1]]
    for frames, action, duration_s in (
        (after, "turns away from the camera", (person.frames[-1] - face.frames[-1]) / fps),
        (before, "turns to the camera", (face.frames[0] - person.frames[0]) / fps),
    ):
        if len(frames) >= TURNED_FRAMES and len(face.frames) >= 2 and duration_s >= TURNED_S:
            return action
    return ""
