"""Faces: dlib's identities (public-domain weights, inside a package) and insightface (any SCRFD + ArcFace pair of ONNX files).

A builder returns `model(frame) -> list[Face]` for an (h, w, 3) uint8 RGB frame, best score first. Embeddings have unit length;
the cosine similarity of one person depends on the network and is on its card.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model_zoo import cards
from model_zoo.faces import dlib_resnet
from model_zoo.mediapipe import mesh, ssd
from model_zoo.roles import Card, Face
from model_zoo.weights import find

FacesModel = Callable[[np.ndarray], list[Face]]

MIN_FACE_SCORE = (
    0.7  # lowest score of the face detector: bottles have at most 0.65, faces of real footage rarely less than 0.7
)


def dlib_faces(card: Card, device: str = "cpu") -> FacesModel:
    """dlib's 128-D ResNet (King 2017) on faces that MediaPipe's detector and face mesh find and align. Runs on the CPU only.

    The mesh replaces dlib's own detector and landmarks: it finds smaller and turned faces, and the mouth.
    """
    import dlib

    detect, face_mesh = (cards.load(name, device) for name in card.companions)
    embed = dlib_resnet.network(_dlib_weights("dlib_face_recognition_resnet_model_v1.dat"))

    def faces(frame: np.ndarray) -> list[Face]:
        frame = np.ascontiguousarray(frame)
        faces_found = []
        for detection in ssd.detect_multiscale(detect, frame, ssd.FACES, MIN_FACE_SCORE):
            mesh_result = mesh.run_mesh(face_mesh, frame, detection.box, detection.points[:2])
            if mesh_result.score >= mesh.MIN_SCORE:
                chip = dlib.get_face_chip(frame, _shape(dlib, detection.box, mesh_result.points), dlib_resnet.CHIP_PX)
                embedding = embed(chip[None])[0]
                box = clip_box(detection.box.tolist(), frame)
                landmarks, jaw = mesh.five_landmarks(mesh_result.points), mesh_result.points[list(mesh.JAW), :2]
                faces_found.append(
                    Face(box, detection.score, landmarks, embedding / np.linalg.norm(embedding), jaw=jaw)
                )
        return sorted(faces_found, key=best_first)

    return faces


def _shape(dlib: Any, box: np.ndarray, points: np.ndarray) -> Any:
    """Return a mesh as dlib's 5 landmarks: the corners of the eye on the right, of that on the left, the base of the nose."""
    corners = np.rint(points[[*mesh.RIGHT_EYE, *mesh.LEFT_EYE, mesh.NOSE_BASE], :2]).astype(int)
    rectangle = dlib.rectangle(*(int(v) for v in box))
    return dlib.full_object_detection(rectangle, dlib.points([dlib.point(int(x), int(y)) for x, y in corners]))


def _dlib_weights(file: str) -> str:
    """Return the path of a file of face_recognition_models without importing it: its __init__ needs the removed pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "dlib's weights are in the package face_recognition_models", name="face_recognition_models"
        )
    return str(Path(spec.submodule_search_locations[0]) / "models" / file)


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
    ctx_id = int(device.partition(":")[2] or 0) if device.startswith("cuda") else -1
    app.prepare(ctx_id=ctx_id, det_size=(640, 640))
    if "recognition" not in app.models:
        raise FileNotFoundError(f"{folder} has no recognition model: put an ArcFace ONNX file beside the detector")
    measures_pose = "landmark_3d_68" in app.models

    def faces(frame: np.ndarray) -> list[Face]:
        faces_found = [
            Face(
                clip_box(f.bbox.tolist(), frame),
                float(f.det_score),
                np.asarray(f.kps, np.float32),
                np.asarray(f.normed_embedding, np.float32),
                (float(f.pose[0]), float(f.pose[1]), float(f.pose[2])) if measures_pose else None,
            )
            for f in app.get(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        ]
        return sorted(faces_found, key=best_first)

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


def clip_box(box: tuple | list, frame: np.ndarray) -> tuple[float, float, float, float]:
    """Return a box clipped to an (h, w, 3) frame."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in box)
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def best_first(face: Face) -> tuple:
    """Sort key of faces: the score, ties by the box."""
    return -face.score, face.box
