"""Faces of a clip: detected, tracked and assigned to people, with one embedding over all good frames of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from a2data.elements.tracks import associate, box_at
from a2data.media.images import Box, bounds, crop, cut_out, from_rle, sha16, stamp, to_png, to_rle
from a2data.records import ClipVideo, Element, Kept, Reject
from a2data.stage import Stage
from model_zoo import cards, roles
from model_zoo.faces import head_outline

MIN_SAMPLES = 4  # fewest frames sampled in a short clip
MAX_GAP = 2  # sampled frames in which a face may be missed
# Corners around a head with much hair, across and down from the middle of the eyes in eye-to-mouth distances; the chin is at 1.8.
HEAD_CORNERS = ((-1.9, 1.8), (-1.9, -1.6), (-1.2, -3.0), (1.2, -3.0), (1.9, -1.6), (1.9, 1.8))
LEVEL_NOSE = (
    0.5  # nose of a level head, as a fraction of the way from eyes to mouth; medians of 13 clips are 0.30 to 0.58
)


class FaceObservation(NamedTuple):
    """A measured face in one frame."""

    frame: int
    face: roles.Face
    yaw: float  # see `yaw`
    pitch: float  # see `pitch`
    roll: float  # degrees, clockwise in the picture
    sharpness: float  # see `sharpness`
    quality: float  # 0 to 1, see `quality`


Track = list[FaceObservation]  # ascending in frame


@dataclass(frozen=True)
class Faces(Stage):
    """Clips and their people -> faces. Faces of poor quality keep their picture but have no embedding."""

    reads = {"select": Kept, "segment": ClipVideo, "detect": Element}
    writes = Element
    row_noun = "faces"
    per = "clip"
    version = 7

    model: str = "dlib"
    """card of role faces"""
    frame_stride: int = 10
    """every n-th frame is sampled, more in a short clip, and each person's best frame"""
    confidence: float = 0.6
    """lowest detector confidence, 0 to 1"""
    min_seen: int = 2
    """least number of frames in which a face is found"""
    min_face_in_person: float = 0.7
    """least fraction of a face within its person's box, 0 to 1"""
    min_face_px: int = 40
    """smallest shorter side of a face with an embedding, pixels"""
    min_eyes_px: int = 10
    """smallest distance between the eyes of a face with an embedding, pixels"""
    min_sharpness: float = 20.0
    """lowest variance of the Laplacian of a face at 112 px, grey levels squared"""
    max_yaw: float = 0.35
    """largest offset of the nose from the middle of the eyes, in eye distances"""
    max_pitch: float = 0.35
    """largest offset of the nose from its level position, in eye-to-mouth distances"""
    max_turn_deg: float = 40.0
    """largest yaw and pitch, degrees, for models that measure the pose"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return cards.gpus(self.model)

    def models(self) -> dict[str, str]:
        return {self.model: cards.revision(self.model)}

    def load(self) -> Any:
        return cards.load(self.model, cards.device())

    def run(
        self, model: Any, kept: list[Kept], films: list[ClipVideo], elements: list[Element]
    ) -> Iterator[Element | Reject]:
        (film,) = films
        people = [e for e in elements if e.kind == "human"]
        frames = film.frames
        step = min(self.frame_stride, max(5, len(frames) // MIN_SAMPLES))  # more frames add no information
        sampled = sorted({*range(0, len(frames), step), *(p.frame for p in people)})
        observations = [
            [measure(number, frames[number], face) for face in model(frames[number]) if face.score >= self.confidence]
            for number in sampled
        ]
        tracks = link_tracks(observations)
        faces = assign_to_people(
            [downweight_outliers(t) for t in tracks], people, self.min_face_in_person, extrapolate=self.frame_stride
        )
        for number, (track, person) in enumerate(faces):
            key = f"{film.clip_id}/face/{number}"
            if len(track) < min(self.min_seen, len(sampled)):
                yield Reject(key, "face seen once", f"in {len(track)} of {len(sampled)} frames, wanted {self.min_seen}")
            else:
                yield self.element(key, film, track, person)

    def element(self, key: str, film: ClipVideo, track: Track, person: Element | None) -> Element:
        """Return the row of one face."""
        good = [s for s in track if not self.defect(s)]
        best = best_observation(good or track, person)
        frame = film.frames[best.frame]
        has_mask = person is not None and person.frame == best.frame
        mask = head_mask(frame, best.face, from_rle(person.mask) if person and has_mask else None)
        box = bounds(mask)
        cut = cut_out(frame, mask, box)
        image = to_png(cut)
        attributes = [
            f"yaw={best.yaw:.2f}",
            f"pitch={best.pitch:.2f}",
            f"roll={best.roll:.0f}",
            f"sharpness={best.sharpness:.0f}",
            f"size_px={side(best.face.box):.0f}",
            f"eyes_px={eyes(best.face.landmarks):.0f}",
        ]
        if best.face.pose is not None:
            attributes.append("pose_deg=" + ",".join(f"{angle:.0f}" for angle in best.face.pose))
        return Element(
            clip_id=film.clip_id,
            element_id=key,
            kind="face",
            label="face",
            parent_id=person.element_id if person else "",
            frame=best.frame,
            box=box,
            confidence=best.face.score,
            mask=to_rle(mask),
            image=image,
            image_sha256=sha16(image),
            embedding=mean_embedding(good) if good else [],
            embedder=self.model,
            quality=best.quality,
            seen_frames=[s.frame for s in track],
            seen_boxes=[head_box(s.face.landmarks, *frame.shape[:2]) for s in track],
            attributes=attributes if good else [*attributes, f"poor={self.defect(best)}"],
            stamp=stamp(cut),
        )

    def defect(self, observation: FaceObservation) -> str:
        """Return why this observation must not enter an identity: "small", "turned", "raised", "lowered", "blurred"; else ""."""
        face = observation.face
        pitch_deg, yaw_deg, _ = face.pose or (0.0, 0.0, 0.0)
        if side(face.box) < self.min_face_px or eyes(face.landmarks) < self.min_eyes_px:
            return "small"
        if abs(observation.yaw) > self.max_yaw or abs(yaw_deg) > self.max_turn_deg:
            return "turned"
        if abs(observation.pitch) > self.max_pitch or abs(pitch_deg) > self.max_turn_deg:
            return "raised" if observation.pitch > 0 else "lowered"
        return "blurred" if observation.sharpness < self.min_sharpness else ""


def side(box: Box) -> float:
    """Return the shorter side of a box, in pixels."""
    return min(box[2] - box[0], box[3] - box[1])


def measure(number: int, frame: np.ndarray, face: roles.Face) -> FaceObservation:
    """Return a face in frame `number`, (h, w, 3) uint8 RGB, with its pose, sharpness and quality."""
    yaw_value, pitch_value, sharpness_value = yaw(face.landmarks), pitch(face.landmarks), sharpness(frame, face.box)
    quality_value = quality(side(face.box), sharpness_value, yaw_value, pitch_value, face.score)
    return FaceObservation(number, face, yaw_value, pitch_value, roll(face.landmarks), sharpness_value, quality_value)


def eyes(landmarks: np.ndarray) -> float:
    """Return the distance between the eyes, in pixels."""
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def yaw(landmarks: np.ndarray) -> float:
    """Return the offset of the nose from the middle of the eyes, along the line of the eyes, in eye distances.

    0 is frontal; positive: the nose points to the right of the picture; about 0.5 is a half profile.
    """
    left, right, nose = landmarks[0], landmarks[1], landmarks[2]
    line = right - left
    return float((nose - (left + right) / 2) @ line / max(float(line @ line), 1e-6))


def pitch(landmarks: np.ndarray) -> float:
    """Return how far the nose is above its level position, along the line from the eyes to the mouth, in their distance.

    Positive: the head is raised. Noses differ by 0.15 between people and between networks; with dlib, which does not detect the
    mouth, the value is -0.145 for every face.
    """
    middle, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = mouth - middle
    return LEVEL_NOSE - float((landmarks[2] - middle) @ down / max(float(down @ down), 1e-6))


def roll(landmarks: np.ndarray) -> float:
    """Return the tilt of the line of the eyes, in degrees; positive is clockwise in the picture."""
    dx, dy = landmarks[1] - landmarks[0]
    return float(np.degrees(np.arctan2(dy, dx)))


def sharpness(frame: np.ndarray, box: Box) -> float:
    """Return the variance of the Laplacian of the face at 112 px, so that faces of all sizes compare; grey levels squared."""
    grey = cv2.cvtColor(crop(frame, box), cv2.COLOR_RGB2GRAY)
    shrink = grey.shape[0] > 112
    face = cv2.resize(grey, (112, 112), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    return float(cv2.Laplacian(face, cv2.CV_64F).var())


def quality(side_px: float, sharpness: float, yaw: float, pitch: float, score: float) -> float:
    """Return size x sharpness x frontality x score, 0 to 1. A sharp, frontal face of 160 px has about 0.8."""
    frontal = max(0.0, 1 - abs(yaw)) * max(0.0, 1 - max(0.0, abs(pitch) - 0.15))
    return float(min(1.0, side_px / 160) * sharpness / (sharpness + 50) * frontal * score)


def link_tracks(observations: list[list[FaceObservation]]) -> list[Track]:
    """Link observations, one list per sampled frame, into tracks by position alone: faces of one network are all alike."""
    no_embeddings = [np.zeros((len(of_frame), 0), np.float32) for of_frame in observations]
    tracks = associate([[s.face.box for s in of_frame] for of_frame in observations], no_embeddings, MAX_GAP)
    return [[observations[t][i] for t, i in track] for track in tracks]


def downweight_outliers(track: Track) -> Track:
    """Return the track with lower quality for sightings unlike the rest of it, such as a hand before the face or wrong landmarks.

    The quality is reduced by the ratio of the embedding's distance from the track's mean to the median distance, so that the
    threshold does not depend on the network.
    """
    vectors = np.stack([s.face.embedding for s in track])
    mean = vectors.mean(0)
    distance = 1 - vectors @ (mean / np.linalg.norm(mean))
    weights = np.minimum(1, (np.median(distance) + 1e-3) / (distance + 1e-3))
    return [s._replace(quality=float(s.quality * t)) for s, t in zip(track, weights, strict=True)]


def assign_to_people(
    tracks: list[Track], people: list[Element], min_inside: float, extrapolate: int
) -> list[tuple[Track, Element | None]]:
    """Return every track with its person, or None; the tracks of one person are merged, so that each person has one face.

    The best pairs are assigned first; a person whose face is already in a frame gets no second one there.
    """
    ranking = sorted(
        (-position_score(track, person, min_inside, extrapolate), t, p)
        for t, track in enumerate(tracks)
        for p, person in enumerate(people)
    )
    owner: dict[int, int] = {}
    faces: dict[int, Track] = {}
    for score, t, p in ranking:
        frames = {s.frame for s in faces.get(p, [])}
        if score < 0 and t not in owner and not any(s.frame in frames for s in tracks[t]):
            owner[t] = p
            faces[p] = sorted(faces.get(p, []) + tracks[t], key=lambda s: s.frame)
    return [(faces[p], people[p]) for p in sorted(faces)] + [
        (track, None) for t, track in enumerate(tracks) if t not in owner
    ]


def position_score(track: Track, person: Element, min_inside: float, extrapolate: int) -> float:
    """Return how well a face fits its expected position in a person's box, 0 to 1: near the middle of the upper edge."""
    scores = []
    for observation in track:
        box = box_at(person, observation.frame, extrapolate)
        if box is not None:
            scores.append(position_score_in_box(observation.face.box, box, min_inside))
    return float(np.mean(scores)) if scores else 0.0


def position_score_in_box(face: Box, person: Box, min_inside: float) -> float:
    """Return how well a face fits a person's box in one frame, 0 to 1; 0 if less than `min_inside` of it is inside."""
    width = min(face[2], person[2]) - max(face[0], person[0])
    height = min(face[3], person[3]) - max(face[1], person[1])
    inside = max(width, 0) * max(height, 0) / ((face[2] - face[0]) * (face[3] - face[1]))
    if inside < min_inside:
        return 0.0
    across = abs((face[0] + face[2]) - (person[0] + person[2])) / 2 / (person[2] - person[0])
    down = max(0.0, (face[1] + face[3]) / 2 - person[1]) / (person[3] - person[1])
    return inside * (1 - min(across, 1)) * (1 - min(down, 1))


def best_observation(track: Track, person: Element | None) -> FaceObservation:
    """Return the sighting of highest quality; the one in the person's best frame, where a mask exists, if nearly as good."""
    best = max(track, key=lambda s: (s.quality, -s.frame))
    in_mask_frame = [
        s for s in track if person is not None and s.frame == person.frame and s.quality >= 0.6 * best.quality
    ]
    return in_mask_frame[0] if in_mask_frame else best


def mean_embedding(observations: list[FaceObservation]) -> list[float]:
    """Return the quality-weighted mean of unit vectors, at unit length; it is more stable than any single frame."""
    total = np.sum([s.quality * s.face.embedding for s in observations], axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32).tolist()


def head_ellipse(landmarks: np.ndarray) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return centre (x, y), half axes (across, down) and tilt in degrees of an ellipse round the whole head, hair included.

    Measured from the middle of the eyes in eye-to-mouth distances, which do not shorten when the head turns: the crown, with
    hair, is 2.2 above, the chin 1.8 below, the ears 1.5 aside.
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = mouth - eyes
    unit = float(np.linalg.norm(down))
    x, y = eyes - 0.2 * down
    return (float(x), float(y)), (1.5 * unit, 2.0 * unit), float(np.degrees(np.arctan2(down[1], down[0])) - 90)


def head_box(landmarks: np.ndarray, height: int, width: int) -> Box:
    """Return the box of the head's ellipse inside the frame."""
    return bounds(head_outline.ellipse(*head_ellipse(landmarks), (height, width)))


def head_mask(frame: np.ndarray, face: roles.Face, person: np.ndarray | None) -> np.ndarray:
    """Return the head and the hair around it without the neck and the background, (h, w) bool.

    person: (h, w) bool mask; one that misses most of the head is ignored, and the head is cut out by its colours.
    """
    ellipse_parameters = head_ellipse(face.landmarks)
    head = head_outline.ellipse(*ellipse_parameters, frame.shape)
    if person is not None and (head & person).sum() >= 0.4 * head.sum():
        head = person & head_area(face.landmarks, frame.shape)
    else:
        head = head_outline.outline(frame, *ellipse_parameters)
    if face.jaw is not None:
        above_jaw = head & ~below_jaw(face.jaw, face.landmarks, frame.shape)
        head = above_jaw if above_jaw.any() else head
    return head_outline.largest_filled(head)


def head_area(landmarks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return where the head of a person's mask is, (h, w) bool: from the chin up, as wide and high as much hair or a hat is.

    Wider than `head_ellipse`, which cuts long hair at a slant.
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = mouth - eyes
    across = np.array([down[1], -down[0]])
    corners = [eyes + x * across + y * down for x, y in HEAD_CORNERS]
    return cv2.fillPoly(np.zeros(shape[:2], np.uint8), [np.rint(corners).astype(np.int32)], 1) > 0


def below_jaw(jaw: np.ndarray, landmarks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return what is below a jaw, along the line from the eyes to the mouth: the neck and the chest, (h, w) bool."""
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = 4 * (mouth - eyes)
    corners = np.concatenate([jaw, jaw[-1:] + down, jaw[:1] + down])
    return cv2.fillPoly(np.zeros(shape[:2], np.uint8), [np.rint(corners).astype(np.int32)], 1) > 0
