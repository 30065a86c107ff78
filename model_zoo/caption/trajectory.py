"""Trajectories of subjects in words, such as "walks from left to right": tracked boxes with camera motion removed.

No weights. A path is in the picture of the clip's first frame, so that a person whom the camera follows still walks.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from model_zoo.caption import camera
from model_zoo.caption.measured import MOVED, SIDES, Answer, Thing, in_front, subjects_of


class Path(NamedTuple):
    """Positions of an object without camera motion: each an (n,) float64, for the n frames in which it was seen."""

    right: np.ndarray  # from the middle of the first picture, picture widths
    down: np.ndarray
    size: np.ndarray  # logarithm of the height of its box in picture widths


NEARER = 0.3  # logarithm of the growth from which it approaches: 1.35 times
STRIDE = 0.05  # smallest part of a path that counts as a turn, picture widths
UPRIGHT = 1.2  # ratio of height to width of a person's box from which the person stands
RUNS = 1.4  # body heights per second; people walk at 0.8 and begin to run at 1.2 (Rotstein et al. 2005: 2.0 m/s)
TURNED_S = 1.0  # seconds for which a face must be invisible before its owner has turned away
TURNED_LOOKS = 3  # sampled frames of the same


def trajectory_expert(card: Any, device: str) -> Callable[..., list[Answer]]:
    """The expert for "subjects.<n>.action": for subjects that move, approach, leave or turn, not for those that stay."""
    return trajectories


def trajectories(frames: np.ndarray, fps: float, things: Sequence[Thing], scene: dict[str, Any]) -> list[Answer]:
    """[("subjects.0.action", "walks from left to right, towards the camera", 0.7)]; see stages/caption/stage.py."""
    owned = subjects_of(things, scene, ("human", "object"))
    if not owned:
        return []
    height, width = frames.shape[1:3]
    seen = [t for t in things if t.kind in ("human", "object")]
    chosen = camera.sampled(len(frames), fps)
    steps = camera.follow(frames, chosen, in_front(len(frames), seen))
    known = sum(s is not None for s in steps) / len(steps) if steps else 0.0
    answers = []
    for n, thing in owned.items():
        words = said(thing, path(thing, chosen, steps, height, width), fps, height, width)
        if words:
            answers.append((f"subjects.{n}.action", words, 0.5 + 0.3 * known))
        elif thing.kind == "human":
            face = next((t for t in things if t.kind == "face" and t.parent == thing.id), None)
            turn = turns(thing, face, fps) if face else ""
            # low confidence: a hand in front of the face hides it, too
            answers += [(f"subjects.{n}.action", turn, 0.45)] if turn else []
    return answers


def path(thing: Thing, chosen: Sequence[int], steps: Sequence[camera.Step | None], height: int, width: int) -> Path:
    """Return the path of an object in the picture of the first frame.

    chosen, steps: from camera.sampled and camera.follow. An unmeasured step counts as none.
    """
    so_far = [camera.compose([s for s in steps[:k] if s is not None]) for k in range(len(chosen))]
    at = np.asarray(thing.frames, np.float64)
    dx, dy, scale, turn = (np.interp(at, chosen, [s[part] for s in so_far]) for part in range(4))
    boxes = np.asarray(thing.boxes, np.float64) / width
    middle = (boxes[:, 0] + boxes[:, 2]) / 2 - 0.5 + 1j * ((boxes[:, 1] + boxes[:, 3]) / 2 - height / width / 2)
    back = (middle - (dx + 1j * dy)) * np.exp(-scale - 1j * np.radians(turn))
    tall = np.log(np.maximum(boxes[:, 3] - boxes[:, 1], 1e-6)) - scale
    return Path(smooth(back.real), smooth(back.imag), smooth(tall))


def smooth(values: np.ndarray) -> np.ndarray:
    """Return (n,) values, each the median of itself and its neighbours (3 at the ends): one bad box is not a motion."""
    if len(values) < 3:
        return values
    inner = np.median([values[:-2], values[1:-1], values[2:]], axis=0)
    return np.concatenate([[np.median(values[:3])], inner, [np.median(values[-3:])]])


def said(thing: Thing, gone: Path, fps: float, height: int, width: int) -> str:
    """Return the action of an object from its path; "" if it stays."""
    ways = legs(gone.right)
    down = float(gone.down[-1] - gone.down[0])
    nearer = float(gone.size[-1] - gone.size[0])
    seconds = max((thing.frames[-1] - thing.frames[0]) / fps, 1e-6)
    depth = "" if abs(nearer) < NEARER else "towards the camera" if nearer > 0 else "away from the camera"
    verb = gait(thing, gone, ways, seconds, height, width)
    if not ways:
        if depth:
            return f"{verb} {depth}"
        # the middle of a person's box goes down when a table hides the legs, or up when an arm is raised
        return f"{verb} {'down' if down > 0 else 'up'}" if thing.kind != "human" and abs(down) >= MOVED else ""
    where = " and ".join(f"back {_way(w)}" if n else across(thing, w, width) for n, w in enumerate(ways[:2]))
    if len(ways) > 2:
        return f"{verb} back and forth"
    if len(ways) == 2:
        return f"{verb} {_way(ways[0])}, turns and {verb} back {_way(ways[1])}"
    return f"{verb} {where}, {depth}" if depth else f"{verb} {where}"


def legs(right: np.ndarray) -> list[float]:
    """Return the parts of a path, each in one direction, in picture widths; [] for less than MOVED.

    A turn counts from STRIDE, and from a third of the longest part.
    """
    turns_at, way = [0], 0
    for i in range(1, len(right)):
        ahead = right[i] - right[turns_at[-1]]
        if way == 0 and abs(ahead) >= STRIDE:
            way = 1 if ahead > 0 else -1
            turns_at.append(i)
        elif way and way * ahead > 0:
            turns_at[-1] = i
        elif way and -way * ahead >= STRIDE:
            way = -way
            turns_at.append(i)
    parts = [float(right[b] - right[a]) for a, b in pairwise(turns_at)]
    longest = max((abs(p) for p in parts), default=0.0)
    if longest < MOVED:
        return []
    return joined([p for p in parts if abs(p) >= longest / 3])


def joined(parts: Sequence[float]) -> list[float]:
    """Merge neighbouring parts of the same direction."""
    out: list[float] = []
    for part in parts:
        if out and (out[-1] > 0) == (part > 0):
            out[-1] += part
        else:
            out.append(part)
    return out


def _way(part: float) -> str:
    return "to the right" if part > 0 else "to the left"


def across(thing: Thing, part: float, width: int) -> str:
    """Return "from left to right" if it crosses the picture as shown, else "to the right"."""
    first, last = (SIDES[min(2, max(0, int(3 * (b[0] + b[2]) / 2 / width)))] for b in (thing.boxes[0], thing.boxes[-1]))
    if (first, last) == (SIDES[0], SIDES[2]) and part > 0:
        return "from left to right"
    if (first, last) == (SIDES[2], SIDES[0]) and part < 0:
        return "from right to left"
    return _way(part)


def gait(thing: Thing, gone: Path, ways: Sequence[float], seconds: float, height: int, width: int) -> str:
    """Return "walks", "runs" or "moves". Running requires a fully visible person, walking a standing one."""
    x0, y0, x1, y1 = np.median(np.asarray(thing.boxes, np.float64), axis=0)
    if thing.kind != "human" or y1 - y0 < UPRIGHT * (x1 - x0):
        return "moves"
    whole = y0 > 0.01 * height and y1 < 0.99 * height
    heights = sum(abs(w) for w in ways) / seconds / max(float(np.exp(np.median(gone.size))), 1e-6)
    return "runs" if whole and heights >= RUNS else "walks"


def turns(person: Thing, face: Thing, fps: float) -> str:
    """Return "turns away" or "turns to the camera", from when the face was seen; "" if it was visible throughout."""
    before = [f for f in person.frames if f < face.frames[0]]
    after = [f for f in person.frames if f > face.frames[-1]]
    for frames, words, seconds in (
        (after, "turns away from the camera", (person.frames[-1] - face.frames[-1]) / fps),
        (before, "turns to the camera", (face.frames[0] - person.frames[0]) / fps),
    ):
        if len(frames) >= TURNED_LOOKS and len(face.frames) >= 2 and seconds >= TURNED_S:
            return words
    return ""
