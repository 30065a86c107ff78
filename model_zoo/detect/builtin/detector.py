"""The detector of the builtin profile: people by MediaPipe's networks, objects from motion and contrast, without classes.

Every person is a "person", everything else an "object". It is blind to objects that neither move nor stand out from the border.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.detect.builtin import grabcut
from model_zoo.detect.builtin.ledges import ledges
from model_zoo.detect.builtin.motion import background_plates, camera_homographies
from model_zoo.detect.builtin.prints import Head, is_print
from model_zoo.detect.builtin.things import (
    complete_masks,
    is_on_heads,
    is_person,
    moves_with_head,
    moving_objects,
    separation,
    still_masks,
)
from model_zoo.mediapipe import people as networks
from model_zoo.mediapipe.pose import EYES, MOUTH, Pose
from model_zoo.pictures import shrink
from model_zoo.roles import Card, Detection

MAX_BRIDGE = 0.1  # face sides: half the width of what connects a piece of a mask with the rest by mistake
MIN_PIECE = 0.25  # size of a piece that remains, fraction of the piece with the face
FACE_SIDES = 2.2  # from the eyes to the mouth in a face's side


class Figure(NamedTuple):
    """A person in one frame."""

    score: float  # 0 to 1
    head: Head  # in the picture of GrabCut's size
    mask: Callable[[int, int, float], np.ndarray]  # (height, width, scale): probability of the person, see Pose.mask
    certainty: float = -1.0  # see Pose.certainty


def detector(card: Card, device: str) -> Callable[[np.ndarray], list[list[Detection]]]:
    """People by their poses (BlazePose), objects by motion and saliency; it runs on the CPU whatever the device."""
    run = networks.load()

    def model(frames: np.ndarray) -> list[list[Detection]]:
        scale = min(1.0, grabcut.WORK_PX / max(frames.shape[1:3]))
        people = networks.track_people(run, list(frames))
        return detect(
            frames, [[figure(p, scale, *frames.shape[1:3]) if p else None for p in person] for person in people]
        )

    return model


def figure(pose: Pose, scale: float, height: int, width: int) -> Figure:
    """Return a pose as the person of a frame of this size whose small picture has this scale."""
    eyes, mouth = pose.points[list(EYES)].mean(0), pose.points[list(MOUTH)].mean(0)
    (x, y), side = (eyes + mouth) / 2 * scale, FACE_SIDES * float(np.linalg.norm(mouth - eyes)) * scale
    return Figure(pose.score, Head(float(x), float(y), side, pose.score), pose.mask, pose.certainty(height, width))


def detect(frames: np.ndarray, people: Sequence[Sequence[Figure | None]]) -> list[list[Detection]]:
    """Return people and objects in the (t, h, w, 3) uint8 frames of one shot. people: for each, one figure per frame or None."""
    small = [shrink(frame, grabcut.WORK_PX) for frame in frames]
    views = camera_homographies(small)
    plates = background_plates(small, views)
    heads = [[figure and figure.head for figure in person] for person in people]
    real_indices = [i for i, person in enumerate(heads) if not is_print(small, views, person)]
    people, heads = [people[i] for i in real_indices], [heads[i] for i in real_indices]
    cutoff_rows = [ledges(small, plates, views, person) for person in heads]

    def bodies(t: int, height: int, width: int) -> list[np.ndarray | None]:
        ends = [rows[t] / len(small[t]) for rows in cutoff_rows]
        found = masks([person[t] for person in people], ends, height, width, width / frames.shape[2])
        zoom = height / len(small[t])
        return [
            mask if mask is None or head is None else body(mask, head, zoom)
            for mask, head in zip(found, [person[t] for person in heads], strict=True)
        ]

    shape = small[0].shape[:2]
    frame_bodies = [bodies(t, *shape) for t in range(len(frames))]
    people_masks = [union(frame_masks, shape) for frame_masks in frame_bodies]
    tracks = [
        track
        for track in moving_objects(small, views, plates, people_masks, people_masks)
        if not is_person(track, people_masks)
        and not is_on_heads(track, heads)
        and not any(moves_with_head(track, person) for person in heads)
    ]
    others = [
        [
            union([people_masks[t], *(other[t] for other in tracks if other is not track)], shape)
            for t in range(len(small))
        ]
        for track in tracks
    ]
    tracks = [complete_masks(small, views, track, other) for track, other in zip(tracks, others, strict=True)]
    out = []
    for t, (frame, picture) in enumerate(zip(frames, small, strict=True)):
        moving = [mask for track in tracks if (mask := track[t]) is not None]
        still = [] if tracks or any(person[t] for person in people) else still_masks(picture, np.zeros(shape, bool))
        objects = [
            _detection("object", "object", separation(picture, mask), grabcut.enlarge(mask, frame))
            for mask in [*moving, *still]
        ]
        foreground = union([detection.mask for detection in objects if detection], frame.shape[:2])
        found = [
            _detection("human", "person", current.score, mask & ~foreground, current.certainty)
            for person, mask in zip(people, bodies(t, *frame.shape[:2]), strict=True)
            if (current := person[t]) is not None and mask is not None
        ]
        out.append([d for d in found + objects if d is not None])
    return out


def masks(
    figures: Sequence[Figure | None], cutoffs: Sequence[float], height: int, width: int, scale: float
) -> list[np.ndarray | None]:
    """Return the (height, width) bool mask of each figure of a frame resized by `scale`; a pixel belongs to the likeliest.

    cutoffs: for each, the row from which a table hides it, as a fraction of the height.
    """
    probabilities = {i: figure.mask(height, width, scale) for i, figure in enumerate(figures) if figure}
    for i, probability in probabilities.items():
        probability[round(cutoffs[i] * height) :] = 0
    best = np.argmax(list(probabilities.values()), axis=0) if probabilities else None
    order = list(probabilities)
    return [
        (probabilities[i] > 0.5) & (best == order.index(i)) if i in probabilities else None for i in range(len(figures))
    ]


def body(mask: np.ndarray, head: Head, zoom: float) -> np.ndarray:
    """Return the mask without pieces that only a thin bridge connects with the head, such as a cup beside the elbow.

    zoom: pixels of the mask in a pixel of the picture in which the head was measured. A piece of MIN_PIECE of the head's remains:
    an object in front divides a body.
    """
    radius = max(1, round(MAX_BRIDGE * head.side * zoom))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    pieces, labels, stats, _ = cv2.connectedComponentsWithStats(cv2.erode(mask.astype(np.uint8), disk), connectivity=4)
    face = np.zeros(mask.shape, np.uint8)
    cv2.circle(face, (round(head.x * zoom), round(head.y * zoom)), max(1, round(head.side * zoom / 2)), 1, -1)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    with_face = np.bincount(labels[face > 0], minlength=pieces)[1:]
    if not with_face.any():
        return mask
    is_kept = area >= MIN_PIECE * area[1 + int(np.argmax(with_face))]
    is_kept[0] = False
    return mask & (cv2.dilate(is_kept[labels].astype(np.uint8), disk, iterations=2) > 0)


def union(masks: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    """Return the union of the masks that are not None, (h, w) bool; all False without any."""
    existing = [mask for mask in masks if mask is not None]
    return np.any(existing, axis=0) if existing else np.zeros(shape, bool)


def _detection(kind: str, label: str, score: float, mask: np.ndarray, certainty: float = -1.0) -> Detection | None:
    """Return a detection with a tight box; None for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return None
    box = float(xs[0]), float(ys[0]), xs[-1] + 1.0, ys[-1] + 1.0
    return Detection(kind, label, score, box, mask, certainty)
