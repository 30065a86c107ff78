"""Face mesh (Kartynnik et al. 2019, arXiv 1907.06724): 468 points of a face. As face_landmark_front_cpu.pbtxt."""

from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.mediapipe import ssd
from model_zoo.mediapipe.network import Network, crop_square, sigmoid, to_frame

PX = 192
BOX_SCALE = 1.5  # of the square around the detector's box
MIN_SCORE = 0.5  # score from which there is a face, as in the graph
# Points, left in the picture first: the outer and inner corner of each eye, the tip and the base of the nose, the corners of the
# mouth; and the jaw from the ear on the right round the chin.
LEFT_EYE, RIGHT_EYE, NOSE, NOSE_BASE, MOUTH = (33, 133), (263, 362), 1, 2, (61, 291)
LIPS = (13, 14)  # the middle of the mouth: the lower edge of the upper lip, the upper edge of the lower one
JAW = (454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234)


OVAL = (*JAW, 127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356)  # and on over the forehead
CHEEKS = (50, 101, 36, 205, 187, 123, 117), (280, 330, 266, 425, 411, 352, 346)


class Mesh(NamedTuple):
    """One face."""

    score: float  # that there is a face, 0 to 1
    points: np.ndarray  # (468, 3) float32: pixels of the frame, and depth in the same unit


def run_mesh(run: Network, frame: np.ndarray, box: np.ndarray, eyes: np.ndarray) -> Mesh:
    """Return the mesh of a face. box: (4,) of the face detector. eyes: (2, 2), left in the picture first."""
    dx, dy = eyes[1] - eyes[0]
    middle, side = (box[:2] + box[2:]) / 2, BOX_SCALE * float(max(box[2] - box[0], box[3] - box[1]))
    crop, back = crop_square(
        frame, (float(middle[0]), float(middle[1])), side, float(np.arctan2(dy, dx)), PX, cv2.BORDER_REPLICATE
    )
    raw, flag = run(crop.astype(np.float32) / 255)
    points = raw.reshape(468, 3)
    flat = to_frame(points[:, :2], back)
    return Mesh(float(sigmoid(flag).ravel()[0]), np.column_stack([flat, points[:, 2] * side / PX]).astype(np.float32))


def of_head(find: Network, run: Network, frame: np.ndarray, head: tuple[float, float, float, float]) -> Mesh | None:
    """Return the mesh of the face that the detector `find` finds in a head's box, x0, y0, x1, y1; None without one."""
    x0, y0, x1, y1 = head
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    found = ssd.detect(find, frame, middle, 2 * max(x1 - x0, y1 - y0), ssd.FACES, MIN_SCORE)
    inside = [face for face in found if x0 < face.points[2, 0] < x1 and y0 < face.points[2, 1] < y1]
    mesh = run_mesh(run, frame, inside[0].box, inside[0].points[:2]) if inside else None
    return mesh if mesh and mesh.score >= MIN_SCORE else None


def box_of(points: np.ndarray) -> np.ndarray:
    """Return the box of a mesh, (4,)."""
    return np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])


def smile_lift(points: np.ndarray) -> float:
    """Return how far the corners of the mouth are above its middle, in distances of the outer corners of the eyes.

    One smiling person has 0.083 to 0.093 in 4 pictures, others at most 0.028 in 11, whatever they say.
    """
    eyes = points[RIGHT_EYE[0], :2] - points[LEFT_EYE[0], :2]
    eye_distance = float(np.linalg.norm(eyes))
    down = np.array([-eyes[1], eyes[0]]) / eye_distance
    return float((points[list(LIPS), :2].mean(0) - points[list(MOUTH), :2].mean(0)) @ down) / eye_distance


def mouth_opening(points: np.ndarray) -> float:
    """Return the distance of the lips in distances of the outer corners of the eyes."""
    eye_distance = np.linalg.norm(points[RIGHT_EYE[0], :2] - points[LEFT_EYE[0], :2])
    return float(np.linalg.norm(points[LIPS[1], :2] - points[LIPS[0], :2]) / max(float(eye_distance), 1e-6))


def five_landmarks(points: np.ndarray) -> np.ndarray:
    """Return the eyes (left in the picture first), the tip of the nose and the corners of the mouth of a mesh, (5, 2) float32."""
    flat = points[:, :2]
    eyes = [flat[list(corners)].mean(0) for corners in (LEFT_EYE, RIGHT_EYE)]
    return np.stack([*eyes, flat[NOSE], *flat[list(MOUTH)]]).astype(np.float32)
