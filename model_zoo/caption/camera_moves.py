"""Names of camera motions: pan, tilt, roll, zoom, truck, pedestal, handheld or static, with speed and order.

Six degrees of freedom and three speeds, as in the camera-motion captioner of SkyReels-V2 (arXiv 2504.13074, section 3.2). A
rotation and a sideways motion differ only in parallax: without it a truck is called a pan, a pedestal a tilt.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model_zoo.caption.camera import Move, Step, step_s, total


class Motion(NamedTuple):
    """One component of a motion."""

    name: str  # of NAMES
    speed: str  # "slow", "medium" or "fast"; "" for "static"


NAMES = (
    *("pan_right", "pan_left", "tilt_up", "tilt_down", "zoom_in", "zoom_out", "roll_cw", "roll_ccw"),
    *("truck_right", "truck_left", "pedestal_up", "pedestal_down", "handheld", "static"),
)
# The least amount of a component that is named over the whole clip, and the speeds per second up to which it is slow and from
# which it is fast: picture widths, logarithms of the scale, degrees. A zoom of 0.08 is 8 %, at which a face at the border has
# moved by about as much as in a pan of 0.05.
PARTS = {"pan": (0.05, 0.06, 0.25), "tilt": (0.05, 0.06, 0.25), "zoom": (0.08, 0.06, 0.25), "roll": (4.0, 5.0, 20.0)}
SIGNED = {
    "pan": ("pan_right", "pan_left"),
    "tilt": ("tilt_up", "tilt_down"),
    "zoom": ("zoom_in", "zoom_out"),
    "roll": ("roll_cw", "roll_ccw"),
}
GONE = {"pan_right": "truck_right", "pan_left": "truck_left", "tilt_up": "pedestal_up", "tilt_down": "pedestal_down"}
WORDS = {
    "pan_right": "pans to the right",
    "pan_left": "pans to the left",
    "tilt_up": "tilts up",
    "tilt_down": "tilts down",
    "zoom_in": "zooms in",
    "zoom_out": "zooms out",
    "roll_cw": "rolls clockwise",
    "roll_ccw": "rolls counterclockwise",
    "truck_right": "moves sideways to the right",
    "truck_left": "moves sideways to the left",
    "pedestal_up": "rises",
    "pedestal_down": "sinks",
}
ADVERBS = {"slow": "slowly", "medium": "", "fast": "quickly"}
SHAKE = (0.003, 0.045, 0.12)  # thresholds of handheld (a pixel of a picture 320 wide), shaking, and strong shaking
DRIFT = 2.0  # multiple of the shake up to which a shaky camera's drift is not a pan
PHASE_S = 0.8  # shortest phase of a motion that is named on its own
PHASES = 3  # at most
SPLITS = 0.5  # a clip is split into two phases if this fraction of the speed variance or less remains
HELD = 0.25  # fraction of the slow speed up to which a neighbouring phase is static


def motions(move: Move) -> list[Motion]:
    """Return the components of one motion, strongest first: [Motion("pan_left", "slow")]; [] if it could not be measured.

    "handheld" comes last beside other components, and alone if the camera only shakes.
    """
    if move.known < 0.5:
        return []
    strength = {part: abs(getattr(move, part)) / least(part, move) for part in PARTS}
    told = sorted((part for part in PARTS if strength[part] >= 1), key=lambda part: -strength[part])
    found = [Motion(_name(part, move), speed(part, getattr(move, part) / max(move.duration_s, 1e-6))) for part in told]
    if move.shake >= SHAKE[0]:
        found.append(Motion("handheld", ("slow", "medium", "fast")[sum(move.shake >= s for s in SHAKE[1:])]))
    return found or [Motion("static", "")]


def least(part: str, move: Move) -> float:
    """Return the least amount of a component that is named."""
    return max(PARTS[part][0], DRIFT * move.shake) if part in ("pan", "tilt") else PARTS[part][0]


def speed(part: str, per_s: float) -> str:
    """Return "slow", "medium" or "fast", from picture widths, logarithms of the scale or degrees per second."""
    _, slow, fast = PARTS[part]
    return "slow" if abs(per_s) < slow else "fast" if abs(per_s) > fast else "medium"


def _name(part: str, move: Move) -> str:
    name = SIGNED[part][getattr(move, part) < 0]
    return GONE[name] if name in GONE and move.parallax > 0 else name


def phases(steps: Sequence[Step | None], fps: float) -> list[list[Motion]]:
    """Return the motions of a clip in order, one list for each phase; [] if the camera could not be measured.

    steps: from model_zoo.caption.camera.follow. A clip is split if two steady motions explain its steps much better than one
    (binary segmentation, Scott and Knott 1974), and only if the two have different names.
    """
    pieces = _pieces(list(steps), fps, PHASES)
    told = [motions(total(piece, len(piece) * step_s(fps))) for piece in pieces]
    return [found for found in told if found]


def _pieces(steps: list[Step | None], fps: float, most: int) -> list[list[Step | None]]:
    shortest = max(2, round(PHASE_S / step_s(fps)))
    if most < 2 or len(steps) < 2 * shortest:
        return [steps]
    speeds = _speeds(steps)
    cuts = range(shortest, len(steps) - shortest + 1)
    cost, cut = min((_unrest(speeds[:k]) + _unrest(speeds[k:]), k) for k in cuts)
    if cost > SPLITS * _unrest(speeds) or not _contradict(steps[:cut], steps[cut:], fps):
        return [steps]
    before = _pieces(steps[:cut], fps, most - 1)
    return [*before, *_pieces(steps[cut:], fps, most - len(before))]


def _speeds(steps: Sequence[Step | None]) -> np.ndarray:
    """Return each step in units of the least amounts that are named, (n, 4); unmeasured steps are the median of the others."""
    known = [s[:4] for s in steps if s is not None]
    usual = np.median(known, axis=0) if known else np.zeros(4)
    return np.array([usual if s is None else s[:4] for s in steps]) / [PARTS[part][0] for part in PARTS]


def _unrest(speeds: np.ndarray) -> float:
    return float(((speeds - speeds.mean(axis=0)) ** 2).sum())


def _contradict(before: Sequence[Step | None], after: Sequence[Step | None], fps: float) -> bool:
    """Return whether two phases are worth separating. A static one must be static, not the start of a motion."""
    moves = [total(steps, len(steps) * step_s(fps)) for steps in (before, after)]
    names = [{m.name for m in motions(move)} - {"handheld", "static"} for move in moves]
    if names[0] == names[1] or min(move.known for move in moves) < 0.5:
        return False
    return all(named or _held(move) for named, move in zip(names, moves, strict=True))


def _held(move: Move) -> bool:
    if move.shake >= SHAKE[0]:
        return False
    return all(abs(getattr(move, part)) < HELD * PARTS[part][1] * move.duration_s for part in PARTS)


def sentence(told: Sequence[Sequence[Motion]]) -> str:
    """Return phases in words: "the handheld camera pans slowly to the right and zooms in, then stays still"; "" for none."""
    if not told:
        return ""
    shaky = [m for phase in told for m in phase if m.name == "handheld"]
    moved = [[m for m in phase if m.name in WORDS][:3] for phase in told]
    if not any(moved):
        return f"the handheld camera {_shakes(shaky[0].speed)}" if shaky else "the camera stays still"
    words = [_listed([_part(m) for m in phase]) or "stays still" for phase in moved]
    return f"the {'handheld ' if shaky else ''}camera {', then '.join(words)}"


def _shakes(level: str) -> str:
    return {"slow": "shakes slightly", "medium": "shakes", "fast": "shakes strongly"}[level]


def _part(motion: Motion) -> str:
    verb, _, rest = WORDS[motion.name].partition(" ")
    return " ".join(word for word in (verb, ADVERBS[motion.speed], rest) if word)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""
