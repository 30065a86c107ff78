"""Faces: dlib (public-domain weights, inside a package) and insightface (any SCRFD + ArcFace pair of ONNX files).

A builder returns `model(frame) -> list[Face]` for an (h, w, 3) uint8 RGB frame, best score first. Embeddings have unit length;
the cosine similarity of one person depends on the network and is on its card.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from model_zoo.detect.builtin.frontal_faces import frontal_detector
from model_zoo.roles import Card, Face
from model_zoo.weights import find

FacesModel = Callable[[np.ndarray], list[Face]]

# Mouth position in dlib's 5-point convention, which has no mouth: the corners are this many times as far below the eyes as the
# base of the nose, and this many eye distances apart (medians of 94 frontal faces; the error is 0.1 eye distance).
MOUTH_DEPTH = 1.55
MOUTH_WIDTH = 0.77


def dlib_faces(card: Card, device: str = "cpu") -> FacesModel:
    """dlib's HOG detector, 5-point landmarks and 128-D ResNet (King 2009; Kazemi & Sullivan 2014). Runs on the CPU only.

    The 68-point predictor of the same package is not used: it was trained on iBUG 300-W, which excludes commercial use.
    """
    import dlib

    detect = frontal_detector()
    landmarks = dlib.shape_predictor(_dlib_weights("shape_predictor_5_face_landmarks.dat"))
    embed = dlib.face_recognition_model_v1(_dlib_weights("dlib_face_recognition_resnet_model_v1.dat"))

    def faces(frame: np.ndarray) -> list[Face]:
        frame = np.ascontiguousarray(frame)
        rectangles, margins, _ = detect.run(frame, 0, 0.0)
        # The detector's window is 80 px. Twice the size costs four times as much, so only a small frame without a face is
        # searched again: a 40 px face beside one of 80 px is missed.
        if not rectangles and frame.shape[0] * frame.shape[1] < 1280 * 720:
            rectangles, margins, _ = detect.run(frame, 1, 0.0)
        found = []
        for rectangle, margin in zip(rectangles, margins, strict=True):
            shape = landmarks(frame, rectangle)
            box = (rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1)
            five = from_eye_corners(np.array([(p.x, p.y) for p in shape.parts()], np.float32))
            vector = np.array(embed.compute_face_descriptor(frame, shape), np.float32)
            found.append(
                Face(inside(box, frame), score_of_margin(margin), five, vector / np.linalg.norm(vector)),
            )
        return sorted(found, key=best_first)

    return faces


def _dlib_weights(file: str) -> str:
    """Return the path of a file of face_recognition_models without importing it: its __init__ needs the removed pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "dlib's weights are in the package face_recognition_models", name="face_recognition_models"
        )
    return str(Path(spec.submodule_search_locations[0]) / "models" / file)


def score_of_margin(margin: float) -> float:
    """Return a margin of dlib's linear classifier, from 0, as a score from 0.5 to 1 (a logistic curve; not calibrated)."""
    return float(1 / (1 + np.exp(-2 * margin)))


def from_eye_corners(points: np.ndarray) -> np.ndarray:
    """Return dlib's 5 points (two corners of each eye, base of the nose) as eyes, nose and mouth corners, (5, 2) float32.

    The eyes are the middles of their corners. The mouth is constructed, not detected: symmetric about the line from the middle of
    the eyes through the base of the nose, so it follows a turned or tilted head but not an expression.
    """
    eyes = np.stack([points[0:2].mean(0), points[2:4].mean(0)])
    left, right = eyes[np.argsort(eyes[:, 0], kind="stable")]
    middle, nose = (left + right) / 2, points[4]
    mouth = middle + MOUTH_DEPTH * (nose - middle)
    half = MOUTH_WIDTH / 2 * (right - left)
    return np.stack([left, right, nose, mouth - half, mouth + half]).astype(np.float32)


def insightface_faces(card: Card, device: str = "cpu") -> FacesModel:
    """SCRFD (Guo et al. 2021, arXiv 2105.04714) and ArcFace (Deng et al. 2019, arXiv 1801.07698), by insightface.

    The weights are a folder with one detection and one recognition ONNX file, such as a published pack; nothing is downloaded. A
    pack with 68 3-D landmarks (1k3d68.onnx) adds the pose of faces. Raises FileNotFoundError.
    """
    folder = insightface_folder(card)
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(
        name=str(folder),
        allowed_modules=["detection", "recognition", "landmark_3d_68"],
        providers=onnx_providers(device),
    )
    # A fixed size: by default, insightface 2 joins two scales, and its scores then depend on its version.
    number = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
    app.prepare(ctx_id=number, det_size=(640, 640))
    if "recognition" not in app.models:
        raise FileNotFoundError(f"{folder} has no recognition model: put an ArcFace ONNX file beside the detector")
    measures_pose = "landmark_3d_68" in app.models

    def faces(frame: np.ndarray) -> list[Face]:
        found = [
            Face(
                inside(f.bbox.tolist(), frame),
                float(f.det_score),
                np.asarray(f.kps, np.float32),
                np.asarray(f.normed_embedding, np.float32),
                (float(f.pose[0]), float(f.pose[1]), float(f.pose[2])) if measures_pose else None,
            )
            for f in app.get(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        ]
        return sorted(found, key=best_first)

    return faces


def insightface_folder(card: Card) -> Path:
    """Return the folder of a pack. Raises FileNotFoundError if it is missing or has no ONNX files."""
    if not card.weights:
        raise FileNotFoundError(
            "insightface is a family of models: name a pack (buffalo_l, buffalo_s, antelopev2) or insightface:/FOLDER"
        )
    folder = find(card)
    if not any(folder.glob("*.onnx")):
        raise FileNotFoundError(f"{folder} is not an insightface pack: it has no ONNX files")
    return folder


def onnx_providers(device: str) -> list[str]:
    """Return onnxruntime's providers, first choice first, for "cpu", "cuda" or "cuda:1"."""
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if device.startswith("cuda") else ["CPUExecutionProvider"]


def inside(box: tuple | list, frame: np.ndarray) -> tuple[float, float, float, float]:
    """Return a box clipped to an (h, w, 3) frame."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box)
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def best_first(face: Face) -> tuple:
    """Sort key of faces: the score, ties by the box."""
    return -face.score, face.box
