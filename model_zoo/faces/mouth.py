"""How far a mouth is open, by MediaPipe's face mesh."""

import math
from collections.abc import Callable

import numpy as np

from model_zoo import cards
from model_zoo.mediapipe import mesh
from model_zoo.roles import Card

MouthModel = Callable[[np.ndarray, tuple[float, float, float, float]], float]


def mouth(card: Card, device: str = "cpu") -> MouthModel:
    """MediaPipe's face mesh: the distance of the lips in distances of the outer corners of the eyes."""
    find, face_mesh = (cards.load(name, device) for name in card.companions)

    def model(frame: np.ndarray, head: tuple[float, float, float, float]) -> float:
        mesh_result = mesh.of_head(find, face_mesh, frame, head)
        return math.nan if mesh_result is None else mesh.mouth_opening(mesh_result.points)

    return model
