"""Caption experts based on measurements: objects and their motion, framing and camera motion.

They need no weights and do not guess: gender, place and mood are omitted, because they cannot be measured here. The calls of
captioners and experts are documented in stages/caption/stage.py.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np

from model_zoo.caption import camera, camera_moves
from model_zoo.caption import lighting as looks

Box = tuple[float, float, float, float]
Answer = tuple[str, str, float]  # field, value, confidence 0 to 1


class Thing(NamedTuple):
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
CLEARLY = 0.15  # fraction of the picture's width by which one of two must be left of the other on average
MOVED = 0.1  # picture widths; less is sway
GREW = 0.35  # logarithm of the ratio of sizes, 1.4 times
FIDGETS = 0.02  # fraction of a body's pixels that change per step; arms change more, breathing less
GESTURES = 0.06  # the same without the body's shift: 25 clips of signers have at least 0.069, 13 of 17 that sway less
LARGE_HEAD = 0.75  # fraction of the picture's height from which a head fills it
# distance of feet, knees and elbows from the crown, in heights of a head's box
BODY_HEADS, KNEE_HEADS, ELBOW_HEADS = (6.7, 5.2, 2.5)
FULL = 0.58  # fraction of the picture's height from which a whole body is a full shot, not a long one
BUST = 1.15  # largest ratio of height to width of head and shoulders
FRONT_YAW = 0.35  # beyond it one cheek is hidden


def captioner(card: Any, device: str) -> Callable[[np.ndarray, float, Sequence[Thing]], dict[str, Any]]:
    """The base captioner: subjects, environment and lighting, without shot and camera."""
    return scene


def shot_expert(card: Any, device: str) -> Callable[..., list[Answer]]:
    """The expert for shot type, angle and position."""
    return shot


def camera_expert(card: Any, device: str) -> Callable[..., list[Answer]]:
    """The expert for camera motion."""
    return camera_motion


def scene(frames: np.ndarray, fps: float, things: Sequence[Thing]) -> dict[str, Any]:
    """Return a clip in SkyReels-V2's schema, most important subject first: people before objects, large before small."""
    height, width = frames.shape[1:3]
    seen = sorted(
        (t for t in things if t.kind in ("human", "object")), key=lambda t: (t.kind != "human", -_presence(t), t.id)
    )
    boxes = in_front(len(frames), seen)
    followed = camera.sampled(len(frames), fps)
    steps = camera.follow(frames, followed, boxes)
    moves = {t.id: displacement(t, followed, steps, height, width) for t in seen}
    sides = positions([t for t in seen if not _travels(moves[t.id])], width) | in_order(seen, things, width)
    subjects: list[dict[str, Any]] = []
    for thing in seen:
        person = thing.kind == "human"
        parts = [t for t in things if t.parent == thing.id]
        label = thing.label or ("person" if person else "object")
        subjects.append(
            {
                "thing": thing.id,  # not a field of the schema: the object's id for experts
                "TYPES": {"type": "Human" if person else "Object", "sub_type": label.capitalize()},
                "appearance": clothes(parts) if person else thing.attributes.get("colour", ""),
                "action": action(thing, moves[thing.id], parts, frames, followed),
                "expression": "",
                "position": sides.get(thing.id, ""),
                "is_main_subject": not subjects,
            }
        )
    return {
        "subjects": subjects,
        "environment": environment(things),
        "lighting": looks.lighting(frames),
        "camera_steps": steps,  # not a field of the schema: for the expert that names the camera motion
    }


def subjects_of(things: Sequence[Thing], scene: dict[str, Any], kinds: Sequence[str] = ("human",)) -> dict[int, Thing]:
    """Map each subject of a base captioner's scene to the object of these kinds that it is: {subject number: object}.

    The builtin captioner states it. For others, only people are mapped: one subject to one person, or several if there are as
    many people as subjects and each subject has a different side. Ambiguous subjects are omitted.
    """
    subjects = scene.get("subjects", [])
    by_id = {t.id: t for t in things if t.kind in kinds}
    if any("thing" in s for s in subjects):
        return {n: by_id[s["thing"]] for n, s in enumerate(subjects) if s.get("thing") in by_id}
    people = sorted(
        (t for t in by_id.values() if t.kind == "human"), key=lambda t: float(np.mean(t.boxes, axis=0)[[0, 2]].sum())
    )
    types = [s.get("TYPES") or s for s in subjects]
    said = [n for n, t in enumerate(types) if t.get("type") == "Human" and t.get("sub_type") != "Accessory"]
    sides = [
        next((i for i, word in enumerate(("left", "cent", "right")) if word in _position(subjects[n])), -1)
        for n in said
    ]
    if len(said) != len(people) or (len(said) > 1 and (-1 in sides or len(set(sides)) < len(sides))):
        return {}
    ordered = sorted(zip(sides, said, strict=True))
    return {n: person for (_, n), person in zip(ordered, people, strict=True)}


def _position(subject: dict[str, Any]) -> str:
    return str(subject.get("position") or "").lower().replace("middle", "centre")


def environment(things: Sequence[Thing]) -> str:
    """Return the background in words, from its measured colours ("grey brown") and mean luma."""
    behind = [t.attributes for t in things if t.kind == "background"]
    return looks.environment(behind[0]["colours"].split(), float(behind[0]["luma"])) if behind else ""


def _presence(thing: Thing) -> float:
    """Return how much of the clip an object fills, in pixels times frames."""
    return sum(_area(box) for box in thing.boxes)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def in_front(count: int, things: Sequence[Thing]) -> list[list[Box]]:
    """Return for each of `count` frames the boxes of the objects nearest in time to it."""
    boxes: list[list[Box]] = [[] for _ in range(count)]
    for thing in things:
        times = np.asarray(thing.frames)
        for frame in range(count):
            boxes[frame].append(thing.boxes[int(np.abs(times - frame).argmin())])
    return boxes


def clothes(parts: Sequence[Thing]) -> str:
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
    thing: Thing, followed: Sequence[int], steps: Sequence[camera.Step | None], height: int, width: int
) -> tuple[float, float, float]:
    """Return an object's own displacement, without camera motion: right and down in picture widths, log of growth."""
    boxes = np.asarray(thing.boxes, np.float64) / width
    few = min(3, max(1, len(boxes) // 3))  # one bad box at either end must not cause a motion
    first, last = np.median(boxes[:few], axis=0), np.median(boxes[-few:], axis=0)
    start_frame, end_frame = thing.frames[few // 2], thing.frames[-1 - few // 2]
    during = [s for s, at in zip(steps, followed, strict=False) if s and start_frame <= at < end_frame]
    dx, dy, scale, *_ = np.sum(during, axis=0) if during else np.zeros(4)
    middle = np.array([0.5, height / width / 2])
    start = (first[:2] + first[2:]) / 2 - middle
    end = (last[:2] + last[2:]) / 2 - middle
    right, down = end - (start * np.exp(scale) + (dx, dy))
    growth = 0.5 * np.log(max(_area(tuple(last)), 1e-9) / max(_area(tuple(first)), 1e-9)) - scale
    return float(right), float(down), float(growth)


def _travels(move: tuple[float, float, float]) -> bool:
    return max(abs(move[0]), abs(move[1])) >= MOVED


def positions(things: Sequence[Thing], width: int) -> dict[str, str]:
    """Return each object's position: its third of the picture, or its order if two of a kind are clearly apart."""
    centre = {t.id: float(np.mean([(b[0] + b[2]) / 2 for b in t.boxes])) / width for t in things}
    told = {id: SIDES[min(2, int(3 * x))] for id, x in centre.items()}
    for kind in ("human", "object"):
        pair = sorted((t.id for t in things if t.kind == kind), key=lambda id: (centre[id], id))
        if len(pair) == 2 and told[pair[0]] == told[pair[1]] and centre[pair[1]] - centre[pair[0]] >= 0.15:
            told[pair[0]], told[pair[1]] = SIDES[0], SIDES[2]
    return told


def in_order(seen: Sequence[Thing], things: Sequence[Thing], width: int) -> dict[str, str]:
    """Return left and right for two that no other word distinguishes, if one stays left of the other throughout."""
    alike: dict[tuple[str, ...], list[Thing]] = {}
    for thing in seen:
        look = clothes([t for t in things if t.parent == thing.id]) or thing.attributes.get("colour", "")
        alike.setdefault((thing.kind, thing.label, look), []).append(thing)
    told: dict[str, str] = {}
    for pair in (two for two in alike.values() if len(two) == 2):
        centres = [{f: (b[0] + b[2]) / 2 / width for f, b in zip(t.frames, t.boxes, strict=True)} for t in pair]
        leads = [centres[1][frame] - centres[0][frame] for frame in centres[0] if frame in centres[1]]
        if leads and min(leads) > 0 and np.mean(leads) >= CLEARLY:
            told |= {pair[0].id: SIDES[0], pair[1].id: SIDES[2]}
        elif leads and max(leads) < 0 and np.mean(leads) <= -CLEARLY:
            told |= {pair[0].id: SIDES[2], pair[1].id: SIDES[0]}
    return told


def action(
    thing: Thing, move: tuple[float, float, float], parts: Sequence[Thing], frames: np.ndarray, followed: Sequence[int]
) -> str:
    """Return an object's action, as a verb in the present tense; "" for an object at rest."""
    right, down, growth = move
    if _travels(move):
        sideways = abs(right) >= abs(down)
        return (
            f"moves {('to the right' if right > 0 else 'to the left') if sideways else ('down' if down > 0 else 'up')}"
        )
    if abs(growth) >= GREW:
        return "comes closer" if growth > 0 else "moves away"
    if thing.kind != "human":
        return ""
    face = next((p for p in sorted(parts, key=lambda p: p.id) if p.kind == "face"), None)
    whole, limbs = unrest(frames, followed, thing, face)
    if whole < FIDGETS:
        return "stays still"
    if limbs < GESTURES:
        return "sways gently"
    return "gestures" if face else "moves on the spot"


def unrest(frames: np.ndarray, followed: Sequence[int], person: Thing, face: Thing | None) -> tuple[float, float]:
    """Return the mean fraction of a person's pixels, below the face if any, that change between sampled frames.

    The first value is raw, the second without the body's own shift, which leaves arms and hands.
    """
    x0, y0, x1, y1 = np.median(np.asarray(person.boxes), axis=0)
    if face is not None:
        y0 = max(y0, np.median([b[3] for b in face.boxes]))
    size = frames.shape[1:3]
    rows, columns = (slice(max(0, int(a)), min(n, int(b))) for a, b, n in ((y0, y1, size[0]), (x0, x1, size[1])))
    seen = [cv2.cvtColor(frames[i][rows, columns], cv2.COLOR_RGB2GRAY) for i in followed] if y1 > y0 + 8 else []
    changed = [
        (float((cv2.absdiff(a, b) > 20).mean()), float((cv2.absdiff(*shifted(a, b)) > 20).mean()))
        for a, b in pairwise(seen)
    ]
    whole, limbs = np.mean(changed, axis=0) if changed else (0.0, 0.0)
    return float(whole), float(limbs)


def shifted(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two grey pictures of one size aligned at their best fit, minus a rim (phase correlation, Kuglin 1975)."""
    (dx, dy), _ = cv2.phaseCorrelate(
        a.astype(np.float32), b.astype(np.float32), cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F)
    )
    rim = 6
    if max(abs(dx), abs(dy)) > rim or min(a.shape) <= 3 * rim:
        return a, b
    moved = cv2.warpAffine(a, np.array([[1, 0, dx], [0, 1, dy]], np.float32), a.shape[::-1])
    return moved[rim:-rim, rim:-rim], b[rim:-rim, rim:-rim]


def shot(frames: np.ndarray, fps: float, things: Sequence[Thing], scene: dict[str, Any]) -> list[Answer]:
    """Return the shot type from the size of the main face, person or object; position and angle from the face.

    An angle is only stated if a face is frontal. A large person without a face is weak evidence of a back view.
    """
    height, width = frames.shape[1:3]
    people = sorted((t for t in things if t.kind == "human"), key=lambda t: (-_presence(t), t.id))
    faces = sorted((t for t in things if t.kind == "face"), key=lambda t: (-_presence(t), t.id))
    if people:
        faces = [f for f in faces if f.parent in ("", people[0].id)]
    answers = []
    if faces:
        mine = people[0] if people and faces[0].parent else None
        answers.append(("shot_type", by_head(faces[0], mine, height), 0.9))
        if "yaw" in faces[0].attributes:
            front = abs(float(faces[0].attributes["yaw"])) <= FRONT_YAW
            answers.append(("shot_position", "front_view" if front else "side_view", 0.8))
            if front:
                answers.append(("shot_angle", "eye_level", 0.6))
    elif people:
        answers.append(("shot_type", by_person(people[0], height, width), 0.7))
        if _tall(people[0]) > height / 2:
            answers.append(("shot_position", "back_view", 0.3))
    else:
        share = max((_area(b) / (height * width) for t in things if t.kind == "object" for b in t.boxes), default=0.0)
        if share:
            answers.append(
                ("shot_type", "close_up" if share > 0.3 else "medium_shot" if share > 0.03 else "long_shot", 0.5)
            )
    return answers


def _tall(thing: Thing) -> float:
    return float(np.median([b[3] - b[1] for b in thing.boxes]))


def by_head(face: Thing, person: Thing | None, height: int) -> str:
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
        return "full_shot" if length >= FULL * height else "long_shot"
    below = (height - y0) / head
    return "full_shot" if below >= KNEE_HEADS else "medium_shot" if below >= ELBOW_HEADS else "close_up"


def by_person(person: Thing, height: int, width: int) -> str:
    """Return the shot type from the box of a person without a face: cut off by the border or complete, and its shape.

    Head and shoulders are about as wide as high; a person cut off at the hips or the knees is higher than wide.
    """
    x0, y0, x1, y1 = np.median(np.asarray(person.boxes), axis=0)
    if y1 < 0.98 * height:
        return "full_shot" if y1 - y0 >= FULL * height else "long_shot"
    if y1 - y0 >= BUST * (x1 - x0):
        return "medium_shot"
    return "extreme_close_up" if y0 <= 0.01 * height else "close_up"


def camera_motion(frames: np.ndarray, fps: float, things: Sequence[Thing], scene: dict[str, Any]) -> list[Answer]:
    """Return the camera motion in words, with the fraction of measured steps as confidence."""
    steps = scene.get("camera_steps")
    if steps is None:
        seen = [t for t in things if t.kind in ("human", "object")]
        steps = camera.follow(frames, camera.sampled(len(frames), fps), in_front(len(frames), seen))
    said = camera_moves.sentence(camera_moves.phases(steps, fps)) if steps else ""
    return [("camera_motion", said, 0.9 * sum(s is not None for s in steps) / len(steps))] if said else []
