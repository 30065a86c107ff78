"""A detector without weights of its own except dlib's face detector: people grow from faces, objects from motion and contrast.

It has no classes: every person is a "person", everything else an "object". It is strong on people whose faces are visible, weak
on people from behind (who become objects while they move), and blind to objects that neither move nor stand out from the border.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.detect.builtin.frontal_faces import frontal_detector
from model_zoo.detect.builtin.heads import follow, is_print
from model_zoo.detect.builtin.motion import MOVED, as_seen, background_plates, camera_homographies, difference
from model_zoo.detect.builtin.people import Body, Head, ledges, left_behind, likely, person_masks
from model_zoo.detect.builtin.things import blobs, goes_with, movers, separation, still_masks
from model_zoo.pictures import shrink
from model_zoo.roles import Card, Detection

FACE_LONG_PX = 960  # dlib's HOG finds faces from about 70 px: smaller frames are enlarged to this long side
FACE_SCORE = -0.2  # lowest score of dlib's detector that is considered


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """Motion, saliency and GrabCut around faces, with no training; it runs on the CPU whatever the device."""
    faces = frontal_detector()

    def heads_in(frame: np.ndarray) -> list[Head]:
        scale = max(1.0, FACE_LONG_PX / max(frame.shape[:2]))
        large = frame if scale == 1 else cv2.resize(frame, None, fx=scale, fy=scale)
        boxes, scores, _ = faces.run(np.ascontiguousarray(large), 0, FACE_SCORE)
        back = min(1.0, grabcut.WORK_PX / max(frame.shape[:2])) / scale
        return [
            Head((b.left() + b.width() / 2) * back, (b.top() + b.height() / 2) * back, b.width() * back, float(s))
            for b, s in zip(boxes, scores, strict=True)
        ]

    return lambda frames: detect(frames, [heads_in(frame) for frame in frames])


def detect(frames: np.ndarray, heads: list[list[Head]]) -> list[list[Detection]]:
    """Return people and objects in the (t, h, w, 3) uint8 frames of one shot, given its heads at GrabCut's size."""
    small = [shrink(frame, grabcut.WORK_PX) for frame in frames]
    views = camera_homographies(small)
    grounds = background_plates(small, views)
    persons = [p for p in follow(small, heads) if not is_print(small, views, p)]
    people = bodies(small, views, grounds, persons)
    moved = [difference(picture, plate) > MOVED for picture, plate in zip(small, grounds, strict=True)]
    usual = [likely(here, small[0].shape[:2]) for here in people]
    things = movers(small, views, grounds, _theirs(small, people, moved, usual), usual)
    things = [thing for thing in things if not any(goes_with(thing, person) for person in persons)]
    out = []
    for t, (frame, picture) in enumerate(zip(frames, small, strict=True)):
        moving = [mask for thing in things if (mask := thing[t]) is not None]
        masks = person_masks(picture, people[t], moved[t], _any(moving, picture.shape[:2]))
        still = [] if things or any(people) else still_masks(picture, np.zeros(picture.shape[:2], bool))
        out.append(_detections(frame, picture, people[t], masks, moving + still))
    return out


def _theirs(
    small: Sequence[np.ndarray], people: Sequence[list[Body]], moved: Sequence[np.ndarray], usual: Sequence[np.ndarray]
) -> Sequence[np.ndarray]:
    """Return for each picture of a shot where people are before objects are known, (h, w) bool.

    By their proportions if nothing moves beside them; else by their masks, which show what is theirs whether it moves or not.
    """
    if not any(blobs(m & ~u) for m, u in zip(moved, usual, strict=True)):
        return usual
    nothing = np.zeros(small[0].shape[:2], bool)
    cut = [person_masks(picture, here, nothing, nothing, 1) for picture, here in zip(small, people, strict=True)]
    return [_any(masks, nothing.shape) for masks in cut]


def bodies(
    small: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    grounds: Sequence[np.ndarray],
    people: Sequence[Sequence[Head | None]],
) -> list[list[Body]]:
    """Return for each picture of a shot the bodies below the heads (one list of heads per person), with the shot's evidence."""
    rows = [ledges(small, grounds, views, person) for person in people]
    out: list[list[Body]] = []
    for t in range(len(small)):
        here = [(head, row[t]) for person, row in zip(people, rows, strict=True) if (head := person[t]) is not None]
        seen = as_seen(small, views, t) if here else []
        out.append([Body(head, ledge_y, left_behind(seen, t, head)) for head, ledge_y in here])
    return out


def _detections(
    frame: np.ndarray, picture: np.ndarray, people: list[Body], masks: list[np.ndarray], things: list[np.ndarray]
) -> list[Detection]:
    """Return the people and objects of one frame; all arrays but the frame are small."""
    found = [
        _detection("human", "person", float(1 / (1 + np.exp(-body.head.score))), grabcut.enlarge(mask, frame))
        for body, mask in zip(people, masks, strict=True)
    ]
    for mask in things:
        found.append(_detection("object", "object", separation(picture, mask), grabcut.enlarge(mask, frame)))
    return [d for d in found if d is not None]


def _any(masks: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Return the union of masks, (h, w) bool; all False without any."""
    return np.any(masks, axis=0) if masks else np.zeros(shape, bool)


def _detection(kind: str, label: str, score: float, mask: np.ndarray) -> Detection | None:
    """Return a detection with a tight box; None for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return None
    return Detection(kind, label, score, (float(xs[0]), float(ys[0]), xs[-1] + 1.0, ys[-1] + 1.0), mask)
