"""Face mesh (Kartynnik et al. 2019, arXiv 1907.06724): 468 points of a face. As face_landmark_front_cpu.pbtxt."""

from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.mediapipe.network import Network, moved, sigmoid, square

PX = 192
GROWN = 1.5  # of the square around the detector's box
SURE = 0.5  # score from which there is a face, as in the graph
# Points, left in the picture first: the outer and inner corner of each eye, the tip and the base of the nose, the corners of the
# mouth; and the jaw from the ear on the right round the chin.
LEFT_EYE, RIGHT_EYE, NOSE, NOSE_BASE, MOUTH = (33, 133), (263, 362), 1, 2, (61, 291)
JAW = (454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234)


OVAL = (*JAW, 127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356)  # and on over the forehead
CHEEKS = (50, 101, 36, 205, 187, 123, 117), (280, 330, 266, 425, 411, 352, 346)


class Mesh(NamedTuple):
    """One face."""

    score: float  # that there is a face, 0 to 1
    points: np.ndarray  # (468, 3) float32: pixels of the frame, and depth in the same unit


def look(run: Network, frame: np.ndarray, box: np.ndarray, eyes: np.ndarray) -> Mesh:
    """Return the mesh of a face. box: (4,) of the face detector. eyes: (2, 2), left in the picture first."""
    dx, dy = eyes[1] - eyes[0]
    middle, side = (box[:2] + box[2:]) / 2, GROWN * float(max(box[2] - box[0], box[3] - box[1]))
    crop, back = square(
        frame, (float(middle[0]), float(middle[1])), side, float(np.arctan2(dy, dx)), PX, cv2.BORDER_REPLICATE
    )
    raw, flag = run(crop.astype(np.float32) / 255)
    points = raw.reshape(468, 3)
    flat = moved(points[:, :2], back)
    return Mesh(float(sigmoid(flag).ravel()[0]), np.column_stack([flat, points[:, 2] * side / PX]).astype(np.float32))


def five(points: np.ndarray) -> np.ndarray:
    """Return the eyes (left in the picture first), the tip of the nose and the corners of the mouth of a mesh, (5, 2) float32."""
    flat = points[:, :2]
    eyes = [flat[list(corners)].mean(0) for corners in (LEFT_EYE, RIGHT_EYE)]
    return np.stack([*eyes, flat[NOSE], *flat[list(MOUTH)]]).astype(np.float32)
