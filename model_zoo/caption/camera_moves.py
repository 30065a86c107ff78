"""Names of camera motions: pan, tilt, roll, zoom, truck, pedestal, handheld or static, with speed and order.

Six degrees of freedom and three speeds, as in the camera-motion captioner of SkyReels-V2 (arXiv 2504.13074, section 3.2). A
rotation and a sideways motion differ only in parallax: without it a truck is called a pan, a pedestal a tilt.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model_zoo.caption.camera import Move, Step, step_s, sum_steps


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
COMPONENTS = {
    "pan": (0.05, 0.06, 0.25),
    "tilt": (0.05, 0.06, 0.25),
    "zoom": (0.08, 0.06, 0.25),
    "roll": (4.0, 5.0, 20.0),
}
SIGNED_NAMES = {
    "pan": ("pan_right", "pan_left"),
    "tilt": ("tilt_up", "tilt_down"),
    "zoom": ("zoom_in", "zoom_out"),
    "roll": ("roll_cw", "roll_ccw"),
}
TRANSLATIONS = {
    "pan_right": "truck_right",
    "pan_left": "truck_left",
    "tilt_up": "pedestal_up",
    "tilt_down": "pedestal_down",
}
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
MIN_DRIFT_RATIO = 2.0  # multiple of the shake up to which a shaky camera's drift is not a pan
MIN_PHASE_S = 0.8  # shortest phase of a motion that is named on its own
MAX_PHASES = 3  # at most
MAX_SPLIT_COST = 0.5  # a clip is split into two phases if this fraction of the speed variance or less remains
MAX_STATIC_SPEED = 0.25  # fraction of the slow speed up to which a neighbouring phase is static


def motions(move: Move) -> list[Motion]:
    """Return the components of one motion, strongest first: [Motion("pan_left", "slow")]; [] if it could not be measured.

    "handheld" comes last beside other components, and alone if the camera only shakes.
    """
    if move.measured < 0.5:
        return []
    strength = {component: abs(getattr(move, component)) / min_amount(component, move) for component in COMPONENTS}
    components = sorted(
        (component for component in COMPONENTS if strength[component] >= 1), key=lambda component: -strength[component]
    )
    named = [
        Motion(_name(component, move), speed(component, getattr(move, component) / max(move.duration_s, 1e-6)))
        for component in components
    ]
    if move.shake >= SHAKE[0]:
        named.append(Motion("handheld", ("slow", "medium", "fast")[sum(move.shake >= s for s in SHAKE[1:])]))
    return named or [Motion("static", "")]


def min_amount(part: str, move: Move) -> float:
    """Return the least amount of a component that is named."""
    return max(COMPONENTS[part][0], MIN_DRIFT_RATIO * move.shake) if part in ("pan", "tilt") else COMPONENTS[part][0]


def speed(part: str, per_s: float) -> str:
    """Return "slow", "medium" or "fast", from picture widths, logarithms of the scale or degrees per second."""
    _, slow, fast = COMPONENTS[part]
    return "slow" if abs(per_s) < slow else "fast" if abs(per_s) > fast else "medium"


def _name(part: str, move: Move) -> str:
    name = SIGNED_NAMES[part][getattr(move, part) < 0]
    return TRANSLATIONS[name] if name in TRANSLATIONS and move.parallax > 0 else name


def phases(steps: Sequence[Step | None], fps: float) -> list[list[Motion]]:
    """Return the motions of a clip in order, one list for each phase; [] if the camera could not be measured.

    steps: from model_zoo.caption.camera.background_steps. A clip is split if two steady motions explain its steps much better
    than one (binary segmentation, Scott and Knott 1974), and only if the two have different names.
    """
    phase_steps = _split_phases(list(steps), fps, MAX_PHASES)
    phase_motions = [motions(sum_steps(phase, len(phase) * step_s(fps))) for phase in phase_steps]
    return [motion_list for motion_list in phase_motions if motion_list]


def _split_phases(steps: list[Step | None], fps: float, max_phases: int) -> list[list[Step | None]]:
    shortest = max(2, round(MIN_PHASE_S / step_s(fps)))
    if max_phases < 2 or len(steps) < 2 * shortest:
        return [steps]
    speeds = _speeds(steps)
    cuts = range(shortest, len(steps) - shortest + 1)
    cost, cut = min((_sum_of_squares(speeds[:k]) + _sum_of_squares(speeds[k:]), k) for k in cuts)
    if cost > MAX_SPLIT_COST * _sum_of_squares(speeds) or not _are_distinct(steps[:cut], steps[cut:], fps):
        return [steps]
    before = _split_phases(steps[:cut], fps, max_phases - 1)
    return [*before, *_split_phases(steps[cut:], fps, max_phases - len(before))]


def _speeds(steps: Sequence[Step | None]) -> np.ndarray:
    """Return each step in units of the least amounts that are named, (n, 4); unmeasured steps are the median of the others."""
    measured = [s[:4] for s in steps if s is not None]
    median = np.median(measured, axis=0) if measured else np.zeros(4)
    return np.array([median if s is None else s[:4] for s in steps]) / [COMPONENTS[part][0] for part in COMPONENTS]


def _sum_of_squares(speeds: np.ndarray) -> float:
    return float(((speeds - speeds.mean(axis=0)) ** 2).sum())


def _are_distinct(before: Sequence[Step | None], after: Sequence[Step | None], fps: float) -> bool:
    """Return whether two phases are worth separating. A static one must be static, not the start of a motion."""
    moves = [sum_steps(steps, len(steps) * step_s(fps)) for steps in (before, after)]
    names = [{m.name for m in motions(move)} - {"handheld", "static"} for move in moves]
    if names[0] == names[1] or min(move.measured for move in moves) < 0.5:
        return False
    return all(named or _is_static(move) for named, move in zip(names, moves, strict=True))


def _is_static(move: Move) -> bool:
    if move.shake >= SHAKE[0]:
        return False
    return all(
        abs(getattr(move, part)) < MAX_STATIC_SPEED * COMPONENTS[part][1] * move.duration_s for part in COMPONENTS
    )


def sentence(motion_phases: Sequence[Sequence[Motion]]) -> str:
    """Return phases in words: "the handheld camera pans slowly to the right and zooms in, then stays still"; "" for none."""
    if not motion_phases:
        return ""
    shaky = [m for phase in motion_phases for m in phase if m.name == "handheld"]
    phase_moves = [[m for m in phase if m.name in WORDS][:3] for phase in motion_phases]
    if not any(phase_moves):
        return f"the handheld camera {_shakes(shaky[0].speed)}" if shaky else "the camera stays still"
    words = [_join([_phrase(m) for m in phase]) or "stays still" for phase in phase_moves]
    return f"the {'handheld ' if shaky else ''}camera {', then '.join(words)}"


def _shakes(level: str) -> str:
    return {"slow": "shakes slightly", "medium": "shakes", "fast": "shakes strongly"}[level]


def _phrase(motion: Motion) -> str:
    verb, _, rest = WORDS[motion.name].partition(" ")
    return " ".join(word for word in (verb, ADVERBS[motion.speed], rest) if word)


def _join(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""
