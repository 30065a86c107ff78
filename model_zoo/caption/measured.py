"""Caption experts based on measurements: objects and their motion, framing and camera motion.

They need no weights and do not guess: gender, place and mood are omitted, because they cannot be measured here. The calls of
captioners and experts are documented in stages/caption/stage.py.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np

from model_zoo.caption import camera, camera_moves, lighting

Box = tuple[float, float, float, float]
Answer = tuple[str, str, float]  # field, value, confidence 0 to 1


class ElementHint(NamedTuple):
    """A hint for captioners about an element: when and where it was seen, and its measurements."""

    id: str
    kind: str  # human, object, face, upper, lower, shoes …; "background" for the background
    label: str
    parent: str  # id of the human that a face or garment belongs to
    frames: list[int]  # frames in which it was seen, ascending, never empty
    boxes: list[Box]  # its box in each of them
    attributes: dict[str, str]  # "colour": "red", "yaw": "-0.12"


SIDES = ("on the left", "in the centre", "on the right")
GARMENTS = {"upper": "a {} top", "lower": "{} bottoms", "shoes": "{} shoes"}  # trousers or skirt: not measured
MIN_OFFSET = 0.15  # fraction of the picture's width by which one of two must be left of the other on average
MIN_DISPLACEMENT = 0.1  # picture widths; less is sway
MIN_GROWTH = 0.35  # logarithm of the ratio of sizes, 1.4 times
MAX_STILL_CHANGE = 0.02  # fraction of a body's pixels that change per step; arms change more, breathing less
# The same without the body's shift: 25 clips of signers have at least 0.069, 13 of 17 that sway less.
MIN_GESTURE_CHANGE = 0.06
LARGE_HEAD = 0.75  # fraction of the picture's height from which a head fills it
# distance of feet, knees and elbows from the crown, in heights of a head's box
BODY_HEADS, KNEE_HEADS, ELBOW_HEADS = (6.7, 5.2, 2.5)
MIN_FULL_HEIGHT = 0.58  # fraction of the picture's height from which a whole body is a full shot, not a long one
MAX_BUST_RATIO = 1.15  # largest ratio of height to width of head and shoulders
FRONT_YAW = 0.35  # beyond it one cheek is hidden


def captioner(card: Any, device: str) -> Callable[[np.ndarray, float, Sequence[ElementHint]], dict[str, Any]]:
    """The base captioner: subjects, environment and lighting, without shot and camera."""
    return scene


def shot_expert(card: Any, device: str) -> Callable[..., list[Answer]]:
    """The expert for shot type, angle and position."""
    return shot


def camera_expert(card: Any, device: str) -> Callable[..., list[Answer]]:
    """The expert for camera motion."""
    return camera_motion


def scene(frames: np.ndarray, fps: float, hints: Sequence[ElementHint]) -> dict[str, Any]:
    """Return a clip in SkyReels-V2's schema, most important subject first: people before objects, large before small."""
    height, width = frames.shape[1:3]
    foreground = sorted(
        (t for t in hints if t.kind in ("human", "object")), key=lambda t: (t.kind != "human", -_presence(t), t.id)
    )
    boxes = foreground_boxes(len(frames), foreground)
    frame_indices = camera.sample_indices(len(frames), fps)
    steps = camera.background_steps(frames, frame_indices, boxes)
    displacements = {t.id: displacement(t, frame_indices, steps, height, width) for t in foreground}
    sides = positions([t for t in foreground if not _is_moving(displacements[t.id])], width) | positions_by_order(
        foreground, hints, width
    )
    subjects: list[dict[str, Any]] = []
    for element in foreground:
        person = element.kind == "human"
        parts = [t for t in hints if t.parent == element.id]
        label = element.label or ("person" if person else "object")
        subjects.append(
            {
                "thing": element.id,  # not a field of the schema: the object's id for experts
                "TYPES": {"type": "Human" if person else "Object", "sub_type": label.capitalize()},
                "appearance": describe_clothes(parts) if person else element.attributes.get("colour", ""),
                "action": action(element, displacements[element.id], parts, frames, frame_indices),
                "expression": "",
                "position": sides.get(element.id, ""),
                "is_main_subject": not subjects,
            }
        )
    return {
        "subjects": subjects,
        "environment": environment(hints),
        "lighting": lighting.lighting(frames),
        "camera_steps": steps,  # not a field of the schema: for the expert that names the camera motion
    }


def subjects_of(
    hints: Sequence[ElementHint], scene: dict[str, Any], kinds: Sequence[str] = ("human",)
) -> dict[int, ElementHint]:
    """Map each subject of a base captioner's scene to the object of these kinds that it is: {subject number: object}.

    The builtin captioner states it. For others, only people are mapped: one subject to one person, or several if there are as
    many people as subjects and each subject has a different side. Ambiguous subjects are omitted.
    """
    subjects = scene.get("subjects", [])
    by_id = {t.id: t for t in hints if t.kind in kinds}
    if any("thing" in s for s in subjects):
        return {n: by_id[s["thing"]] for n, s in enumerate(subjects) if s.get("thing") in by_id}
    people = sorted(
        (t for t in by_id.values() if t.kind == "human"), key=lambda t: float(np.mean(t.boxes, axis=0)[[0, 2]].sum())
    )
    types = [s.get("TYPES") or s for s in subjects]
    human_subjects = [n for n, t in enumerate(types) if t.get("type") == "Human" and t.get("sub_type") != "Accessory"]
    sides = [
        next((i for i, word in enumerate(("left", "cent", "right")) if word in _position(subjects[n])), -1)
        for n in human_subjects
    ]
    if len(human_subjects) != len(people) or (
        len(human_subjects) > 1 and (-1 in sides or len(set(sides)) < len(sides))
    ):
        return {}
    ordered = sorted(zip(sides, human_subjects, strict=True))
    return {n: person for (_, n), person in zip(ordered, people, strict=True)}


def _position(subject: dict[str, Any]) -> str:
    return str(subject.get("position") or "").lower().replace("middle", "centre")


def environment(hints: Sequence[ElementHint]) -> str:
    """Return the background in words, from its measured colours ("grey brown") and mean luma."""
    backgrounds = [t.attributes for t in hints if t.kind == "background"]
    return lighting.environment(backgrounds[0]["colours"].split(), float(backgrounds[0]["luma"])) if backgrounds else ""


def _presence(element: ElementHint) -> float:
    """Return how much of the clip an object fills, in pixels times frames."""
    return sum(_area(box) for box in element.boxes)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def foreground_boxes(count: int, hints: Sequence[ElementHint]) -> list[list[Box]]:
    """Return for each of `count` frames the boxes of the objects nearest in time to it."""
    boxes: list[list[Box]] = [[] for _ in range(count)]
    for element in hints:
        times = np.asarray(element.frames)
        for frame in range(count):
            boxes[frame].append(element.boxes[int(np.abs(times - frame).argmin())])
    return boxes


def describe_clothes(parts: Sequence[ElementHint]) -> str:
    """Return "in a yellow top and black bottoms", from the garments of one person with measured colours; "" for none."""
    worn = {p.kind: p.attributes["colour"] for p in sorted(parts, key=lambda p: p.id) if "colour" in p.attributes}
    words = [with_article(GARMENTS[kind].format(worn[kind])) for kind in GARMENTS if kind in worn]
    return f"in {listed(words)}" if words else ""


def with_article(words: str) -> str:
    """Correct the article: "a orange top" -> "an orange top"."""
    return f"an{words[1:]}" if words.startswith("a ") and words[2:3].lower() in tuple("aeiou") else words


def listed(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""


def displacement(
    element: ElementHint, frame_indices: Sequence[int], steps: Sequence[camera.Step | None], height: int, width: int
) -> tuple[float, float, float]:
    """Return an object's own displacement, without camera motion: right and down in picture widths, log of growth."""
    boxes = np.asarray(element.boxes, np.float64) / width
    num_averaged = min(3, max(1, len(boxes) // 3))  # one bad box at either end must not cause a motion
    first, last = np.median(boxes[:num_averaged], axis=0), np.median(boxes[-num_averaged:], axis=0)
    start_frame, end_frame = element.frames[num_averaged // 2], element.frames[-1 - num_averaged // 2]
    steps_between = [s for s, at in zip(steps, frame_indices, strict=False) if s and start_frame <= at < end_frame]
    dx, dy, scale, *_ = np.sum(steps_between, axis=0) if steps_between else np.zeros(4)
    picture_centre = np.array([0.5, height / width / 2])
    start = (first[:2] + first[2:]) / 2 - picture_centre
    end = (last[:2] + last[2:]) / 2 - picture_centre
    right, down = end - (start * np.exp(scale) + (dx, dy))
    growth = 0.5 * np.log(max(_area(tuple(last)), 1e-9) / max(_area(tuple(first)), 1e-9)) - scale
    return float(right), float(down), float(growth)


def _is_moving(move: tuple[float, float, float]) -> bool:
    return max(abs(move[0]), abs(move[1])) >= MIN_DISPLACEMENT


def positions(hints: Sequence[ElementHint], width: int) -> dict[str, str]:
    """Return each object's position: its third of the picture, or its order if two of a kind are clearly apart."""
    centre = {t.id: float(np.mean([(b[0] + b[2]) / 2 for b in t.boxes])) / width for t in hints}
    position_of = {id: SIDES[min(2, int(3 * x))] for id, x in centre.items()}
    for kind in ("human", "object"):
        pair = sorted((t.id for t in hints if t.kind == kind), key=lambda id: (centre[id], id))
        if (
            len(pair) == 2
            and position_of[pair[0]] == position_of[pair[1]]
            and centre[pair[1]] - centre[pair[0]] >= 0.15
        ):
            position_of[pair[0]], position_of[pair[1]] = SIDES[0], SIDES[2]
    return position_of


def positions_by_order(foreground: Sequence[ElementHint], hints: Sequence[ElementHint], width: int) -> dict[str, str]:
    """Return left and right for two that no other word distinguishes, if one stays left of the other throughout."""
    lookalikes: dict[tuple[str, ...], list[ElementHint]] = {}
    for element in foreground:
        appearance = describe_clothes([t for t in hints if t.parent == element.id]) or element.attributes.get(
            "colour", ""
        )
        lookalikes.setdefault((element.kind, element.label, appearance), []).append(element)
    position_of: dict[str, str] = {}
    for pair in (two for two in lookalikes.values() if len(two) == 2):
        centres = [{f: (b[0] + b[2]) / 2 / width for f, b in zip(t.frames, t.boxes, strict=True)} for t in pair]
        offsets = [centres[1][frame] - centres[0][frame] for frame in centres[0] if frame in centres[1]]
        if offsets and min(offsets) > 0 and np.mean(offsets) >= MIN_OFFSET:
            position_of |= {pair[0].id: SIDES[0], pair[1].id: SIDES[2]}
        elif offsets and max(offsets) < 0 and np.mean(offsets) <= -MIN_OFFSET:
            position_of |= {pair[0].id: SIDES[2], pair[1].id: SIDES[0]}
    return position_of


def action(
    element: ElementHint,
    move: tuple[float, float, float],
    parts: Sequence[ElementHint],
    frames: np.ndarray,
    frame_indices: Sequence[int],
) -> str:
    """Return an object's action, as a verb in the present tense; "" for an object at rest."""
    right, down, growth = move
    if _is_moving(move):
        sideways = abs(right) >= abs(down)
        return (
            f"moves {('to the right' if right > 0 else 'to the left') if sideways else ('down' if down > 0 else 'up')}"
        )
    if abs(growth) >= MIN_GROWTH:
        return "comes closer" if growth > 0 else "moves away"
    if element.kind != "human":
        return ""
    face = next((p for p in sorted(parts, key=lambda p: p.id) if p.kind == "face"), None)
    total_change, limb_change = pixel_change(frames, frame_indices, element, face)
    if total_change < MAX_STILL_CHANGE:
        return "stays still"
    if limb_change < MIN_GESTURE_CHANGE:
        return "sways gently"
    return "gestures" if face else "moves on the spot"


def pixel_change(
    frames: np.ndarray, frame_indices: Sequence[int], person: ElementHint, face: ElementHint | None
) -> tuple[float, float]:
    """Return the mean fraction of a person's pixels, below the face if any, that change between sampled frames.

    The first value is raw, the second without the body's own shift, which leaves arms and hands.
    """
    x0, y0, x1, y1 = np.median(np.asarray(person.boxes), axis=0)
    if face is not None:
        y0 = max(y0, np.median([b[3] for b in face.boxes]))
    size = frames.shape[1:3]
    rows, columns = (slice(max(0, int(a)), min(n, int(b))) for a, b, n in ((y0, y1, size[0]), (x0, x1, size[1])))
    crops = [cv2.cvtColor(frames[i][rows, columns], cv2.COLOR_RGB2GRAY) for i in frame_indices] if y1 > y0 + 8 else []
    changed = [
        (float((cv2.absdiff(a, b) > 20).mean()), float((cv2.absdiff(*align(a, b)) > 20).mean()))
        for a, b in pairwise(crops)
    ]
    total_change, limb_change = np.mean(changed, axis=0) if changed else (0.0, 0.0)
    return float(total_change), float(limb_change)


def align(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two grey pictures of one size aligned at their best fit, minus a rim (phase correlation, Kuglin 1975)."""
    (dx, dy), _ = cv2.phaseCorrelate(
        a.astype(np.float32), b.astype(np.float32), cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    )
    border_px = 6
    if max(abs(dx), abs(dy)) > border_px or min(a.shape) <= 3 * border_px:
        return a, b
    shifted = cv2.warpAffine(a, np.array([[1, 0, dx], [0, 1, dy]], np.float32), a.shape[::-1])
    return shifted[border_px:-border_px, border_px:-border_px], b[border_px:-border_px, border_px:-border_px]


def shot(frames: np.ndarray, fps: float, hints: Sequence[ElementHint], scene: dict[str, Any]) -> list[Answer]:
    """Return the shot type from the size of the main face, person or object; position and angle from the face.

    An angle is only stated if a face is frontal. A large person without a face is weak evidence of a back view.
    """
    height, width = frames.shape[1:3]
    people = sorted((t for t in hints if t.kind == "human"), key=lambda t: (-_presence(t), t.id))
    faces = sorted((t for t in hints if t.kind == "face"), key=lambda t: (-_presence(t), t.id))
    if people:
        faces = [f for f in faces if f.parent in ("", people[0].id)]
    answers = []
    if faces:
        person = people[0] if people and faces[0].parent else None
        answers.append(("shot_type", shot_type_by_head(faces[0], person, height), 0.9))
        if "yaw" in faces[0].attributes:
            front = abs(float(faces[0].attributes["yaw"])) <= FRONT_YAW
            answers.append(("shot_position", "front_view" if front else "side_view", 0.8))
            if front:
                answers.append(("shot_angle", "eye_level", 0.6))
    elif people:
        answers.append(("shot_type", shot_type_by_person(people[0], height, width), 0.7))
        if _tall(people[0]) > height / 2:
            answers.append(("shot_position", "back_view", 0.3))
    else:
        area_fraction = max(
            (_area(b) / (height * width) for t in hints if t.kind == "object" for b in t.boxes), default=0.0
        )
        if area_fraction:
            answers.append(
                (
                    "shot_type",
                    "close_up" if area_fraction > 0.3 else "medium_shot" if area_fraction > 0.03 else "long_shot",
                    0.5,
                )
            )
    return answers


def _tall(element: ElementHint) -> float:
    return float(np.median([b[3] - b[1] for b in element.boxes]))


def shot_type_by_head(face: ElementHint, person: ElementHint | None, height: int) -> str:
    """Return the shot type from the box of a head, hair included, and the space for the body below its crown.

    The body is complete if the picture has room for it, or if its box is as long as a body and ends above the border.
    """
    _, y0, _, y1 = np.median(np.asarray(face.boxes), axis=0)
    if y1 >= 0.99 * height or y1 - y0 >= LARGE_HEAD * height:
        return "extreme_close_up"
    head = max(y1 - y0, 1e-6)
    length = BODY_HEADS * head
    if person is not None:
        _, top, _, bottom = np.median(np.asarray(person.boxes), axis=0)
        if bottom < 0.98 * height and bottom - top >= KNEE_HEADS * head:
            length = min(length, bottom - top)
    if y0 + length <= 1.02 * height:
        return "full_shot" if length >= MIN_FULL_HEIGHT * height else "long_shot"
    below = (height - y0) / head
    return "full_shot" if below >= KNEE_HEADS else "medium_shot" if below >= ELBOW_HEADS else "close_up"


def shot_type_by_person(person: ElementHint, height: int, width: int) -> str:
    """Return the shot type from the box of a person without a face: cut off by the border or complete, and its shape.

    Head and shoulders are about as wide as high; a person cut off at the hips or the knees is higher than wide.
    """
    x0, y0, x1, y1 = np.median(np.asarray(person.boxes), axis=0)
    if y1 < 0.98 * height:
        return "full_shot" if y1 - y0 >= MIN_FULL_HEIGHT * height else "long_shot"
    if y1 - y0 >= MAX_BUST_RATIO * (x1 - x0):
        return "medium_shot"
    return "extreme_close_up" if y0 <= 0.01 * height else "close_up"


def camera_motion(frames: np.ndarray, fps: float, hints: Sequence[ElementHint], scene: dict[str, Any]) -> list[Answer]:
    """Return the camera motion in words, with the fraction of measured steps as confidence."""
    steps = scene.get("camera_steps")
    if steps is None:
        foreground = [t for t in hints if t.kind in ("human", "object")]
        steps = camera.background_steps(
            frames, camera.sample_indices(len(frames), fps), foreground_boxes(len(frames), foreground)
        )
    words = camera_moves.sentence(camera_moves.phases(steps, fps)) if steps else ""
    return [("camera_motion", words, 0.9 * sum(s is not None for s in steps) / len(steps))] if words else []
