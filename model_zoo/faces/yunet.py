"""YuNet through OpenCV: a small face detector with landmarks.

Wu, Peng & Yu 2023, "A Tiny Millisecond-level Face Detector". With SFace it is a pair under permissive licences that does not need
PyTorch.
"""

import cv2
import numpy as np

from model_zoo.faces import recognise
from model_zoo.faces.dlib_insightface import FacesModel, best_first, clip_box
from model_zoo.pictures import shrink
from model_zoo.roles import Card, Face

LONG_PX = 640  # longer side of its input: it was trained on faces of 10 to 300 px
CONFIDENCE = 0.5  # floor of the detector; the stage's `confidence` decides
NMS_IOU = 0.3  # IoU from which two boxes are one face


def yunet(card: Card, device: str = "cpu") -> FacesModel:
    """YuNet (Wu et al. 2023) through OpenCV, and a recogniser. Runs on the CPU.

    The weights are YuNet's ONNX file, with the card's companion as recogniser; or a folder with *yunet*.onnx and *sface*.onnx.
    Raises FileNotFoundError, and ValueError for a network of a fixed size where OpenCV cannot run it at others.
    """
    weights, embed = recognise.with_detector(card, "*yunet*.onnx", "*sface*.onnx", recognise.sface, device)
    detector = cv2.FaceDetectorYN.create(str(weights), "", (LONG_PX, LONG_PX), CONFIDENCE, NMS_IOU)
    try:
        detections(detector, np.zeros((180, 320, 3), np.uint8))
    except cv2.error as error:
        raise ValueError(
            f"{weights} runs at one size only in this build of OpenCV ({cv2.__version__}): use the model yunet-2026may"
        ) from error

    def faces(frame: np.ndarray) -> list[Face]:
        rows = detections(detector, frame)
        embeddings = embed(frame, rows[:, 4:14].reshape(-1, 5, 2))
        faces_found = [
            Face(clip_box(row[:4].tolist(), frame), float(row[14]), row[4:14].reshape(5, 2), vector)
            for row, vector in zip(rows, embeddings, strict=True)
        ]
        return sorted(faces_found, key=best_first)

    return faces


def detections(detector: cv2.FaceDetectorYN, frame: np.ndarray) -> np.ndarray:
    """Return the faces of an (h, w, 3) uint8 RGB frame, (n, 15) float32 in its pixels: x0, y0, x1, y1, five points, the score.

    YuNet's points are those of `Face`: it calls the eye on the left of the picture the right one, as its owner would.
    """
    height, width = frame.shape[:2]
    small = shrink(frame, LONG_PX)
    size = small.shape[1::-1]
    detector.setInputSize(size)
    _, rows = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    if rows is None:
        return np.zeros((0, 15), np.float32)
    rows = np.asarray(rows, np.float32).copy()
    rows[:, 2:4] += rows[:, :2]
    rows[:, :14] *= np.tile(np.array([width / size[0], height / size[1]], np.float32), 7)
    return rows
