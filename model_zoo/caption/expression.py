"""Facial expression: one of seven classes, by a network over aligned faces; and smiles, by the face mesh.

The classifier's network is the MobileFaceNet of opencv_zoo, trained by a progressive teacher (Jiang and Deng 2021, "Boosting
Facial Expression Recognition by a Semi-Supervised Progressive Teacher"). Any ONNX file with the same input and output works.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from model_zoo import cards, weights
from model_zoo.caption.measured import Answer, Box, ElementHint, subjects_of
from model_zoo.mediapipe import mesh
from model_zoo.roles import Card

# in the order of the network's outputs
EXPRESSIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
SIZE_PX = 112
# Positions of the eyes' and the mouth's middle in the network's input: the means of its five points.
EYES = (55.9, 51.6)
MOUTH = (56.1, 92.3)
MAX_FACES = 8  # most sampled frames of a face
BATCH = 32  # most faces per batch
MIN_FACE_PX = 24  # smaller faces have no readable expression
MAX_YAW = 0.6  # offset of the nose from the middle of the eyes, in eye distances; beyond it half of the face is hidden
MIN_SMILE_LIFT = (
    0.055  # of the mouth's corners, see mesh.smile_lift: halfway between people who smile and people who do not
)
MIN_CHANGE_PROBABILITY = 0.6  # least mean probability of both halves' own expressions for "neutral, then happy"

Classify = Callable[[np.ndarray], np.ndarray]


def expression_expert(card: Card, device: str = "cpu") -> Callable[..., list[Answer]]:
    """A classifier of facial expressions.

    `expert(frames, fps, hints, scene) -> [("subjects.<n>.expression", "happy", confidence)]`, see stages/caption/stage.py. The
    confidence is the mean probability over the sampled frames. People without a face of MIN_FACE_PX, and faces not turned to the
    camera, get no answer. Raises FileNotFoundError for missing weights, ValueError for an ONNX file of another shape.
    """
    classify = network(card, device)

    def expert(frames: np.ndarray, fps: float, hints: Sequence[ElementHint], scene: dict[str, Any]) -> list[Answer]:
        answers = []
        for n, person in subjects_of(hints, scene).items():
            faces = [t for t in hints if t.kind == "face" and t.parent == person.id]
            face_crops = sample_faces(frames, faces[0]) if faces else []
            if face_crops:
                value, confidence = describe(classify(np.stack(face_crops)))
                answers.append((f"subjects.{n}.expression", value, confidence))
        return answers

    return expert


def smile_expert(card: Card, device: str = "cpu") -> Callable[..., list[Answer]]:
    """MediaPipe's face mesh: "smiling" for people who smile in the median of the sampled frames, and nothing for others."""
    find, run = (cards.load(name, device) for name in card.companions)

    def expert(frames: np.ndarray, fps: float, hints: Sequence[ElementHint], scene: dict[str, Any]) -> list[Answer]:
        answers = []
        for n, person in subjects_of(hints, scene).items():
            faces = [t for t in hints if t.kind == "face" and t.parent == person.id]
            meshes = [
                mesh.of_head(find, run, frames[faces[0].frames[i]], faces[0].boxes[i])
                for i in sample_indices(frames, faces)
            ]
            lifts = [mesh.smile_lift(face.points) for face in meshes if face]
            if lifts and np.median(lifts) > MIN_SMILE_LIFT:
                answers.append((f"subjects.{n}.expression", "smiling", 0.7))
        return answers

    return expert


def sample_indices(frames: np.ndarray, faces: Sequence[ElementHint], max_count: int = 4) -> list[int]:
    """Return at most `most` sightings of the first face, spread over the time in which it was seen and large enough."""
    if not faces or abs(float(faces[0].attributes.get("yaw", 0.0))) > MAX_YAW:
        return []
    large_enough = [
        i for i, box in enumerate(faces[0].boxes) if eye_mouth_distance(box, frames.shape[1:3]) * 2.3 >= MIN_FACE_PX
    ]
    return [large_enough[round(k)] for k in np.linspace(0, len(large_enough) - 1, min(max_count, len(large_enough)))]


def network(card: Card, device: str = "cpu") -> Classify:
    """`model((n, 112, 112, 3) uint8 RGB) -> (n, 7) float32`, probabilities in the order of EXPRESSIONS."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    session = onnxruntime.InferenceSession(str(weights.find(card)), providers=providers)
    (input_info, *_), (output_info, *_) = session.get_inputs(), session.get_outputs()
    if list(input_info.shape[1:]) != [3, SIZE_PX, SIZE_PX]:
        raise ValueError(
            f"model {card.name!r}: its input is {input_info.shape}, expected (n, 3, 112, 112): use an ONNX file of a network for "
            "aligned faces of 112 px"
        )
    # the published file has a batch size of 1
    batch = input_info.shape[0] if isinstance(input_info.shape[0], int) else BATCH

    def classify(faces: np.ndarray) -> np.ndarray:
        outputs = [np.empty((0, len(EXPRESSIONS)), np.float32)]
        for start in range(0, len(faces), batch):
            faces_in_batch = faces[start : start + batch]
            padded = (
                np.concatenate([faces_in_batch, np.repeat(faces_in_batch[-1:], batch - len(faces_in_batch), axis=0)])
                if batch < BATCH
                else faces_in_batch
            )
            planes = (padded.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
            (scores,) = session.run([output_info.name], {input_info.name: np.ascontiguousarray(planes)})
            if scores.shape != (len(padded), len(EXPRESSIONS)):
                raise ValueError(
                    f"model {card.name!r} returned {scores.shape}, expected one score for each of {EXPRESSIONS}"
                )
            outputs.append(scores[: len(faces_in_batch)])
        return softmax(np.concatenate(outputs))

    return classify


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return (n, k) float32 scores as probabilities, each row with sum 1."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True)) if len(scores) else scores
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def describe(probabilities: np.ndarray) -> tuple[str, float]:
    """Return ("neutral", 0.83) or ("neutral, then happy", 0.7) from (n, 7) probabilities in order of time; n is at least 1."""
    halves = np.array_split(probabilities, 2) if len(probabilities) >= 4 else []
    means = [half.mean(axis=0) for half in halves]
    if (
        means
        and means[0].argmax() != means[1].argmax()
        and min(float(m.max()) for m in means) >= MIN_CHANGE_PROBABILITY
    ):
        first, then = (EXPRESSIONS[int(m.argmax())] for m in means)
        return f"{first}, then {then}", min(float(m.max()) for m in means)
    mean = probabilities.mean(axis=0)
    return EXPRESSIONS[int(mean.argmax())], float(mean.max())


def sample_faces(frames: np.ndarray, face: ElementHint) -> list[np.ndarray]:
    """Return at most LOOKS aligned faces, (112, 112, 3) uint8 RGB, spread over the time in which the face was seen."""
    tilt = float(face.attributes.get("roll", 0.0))
    return [aligned(frames[face.frames[i]], face.boxes[i], tilt) for i in sample_indices(frames, [face], MAX_FACES)]


def eye_mouth_distance(head: Box, size: tuple[int, int]) -> float:
    """Return the distance from eyes to mouth, px: a head's box is four of it high, three wide, see stages.faces.head_ellipse.

    size: height and width of the frame, px. A head cut off by the border is measured by its complete side.
    """
    x0, y0, x1, y1 = head
    estimates = []
    if x0 > 0 and x1 < size[1]:
        estimates.append((x1 - x0) / 3)
    if y0 > 0 and y1 < size[0]:
        estimates.append((y1 - y0) / 4)
    return float(np.mean(estimates)) if estimates else max((x1 - x0) / 3, (y1 - y0) / 4)


def aligned(frame: np.ndarray, head: Box, tilt: float = 0.0) -> np.ndarray:
    """Return a face rotated upright and scaled for the network, (112, 112, 3) uint8 RGB.

    head: the box of the whole head, hair included, as written by the faces stage; tilt: of the eyes, degrees clockwise. The
    landmarks are not stored, so they are reconstructed: the eyes are 1.8 eye-to-mouth distances above the box's lower edge.
    """
    x0, y0, x1, y1 = head
    size = frame.shape[:2]
    distance = eye_mouth_distance(head, size)
    head_centre = np.array([(x0 + x1) / 2, y1 - 2.0 * distance if y1 < size[0] else y0 + 2.0 * distance])  # of the head
    if x0 <= 0 < x1 < size[1]:
        head_centre[0] = x1 - 1.5 * distance
    elif x1 >= size[1] and x0 > 0:
        head_centre[0] = x0 + 1.5 * distance
    angle = np.radians(tilt + 90)
    down = distance * np.array([np.cos(angle), np.sin(angle)])
    eyes = head_centre + 0.2 * down
    # a similarity maps the eyes to EYES and the mouth to MOUTH: in the complex plane, z -> factor z + shift
    source, target = complex(*down), complex(*np.subtract(MOUTH, EYES))
    factor = target / source
    shift = complex(*EYES) - factor * complex(*eyes)
    matrix = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    return cv2.warpAffine(frame, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
