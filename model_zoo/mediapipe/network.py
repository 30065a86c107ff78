"""A TFLite network, and the crops of a frame that it sees."""

from collections.abc import Callable

import cv2
import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

Network = Callable[[np.ndarray], list[np.ndarray]]
MAX_LINEAR_SCALE = (
    5.0  # pixels per pixel of a crop from which linear interpolation, as in the graphs, leaves out too much
)


def network(card: Card, device: str = "cpu") -> Network:
    """Load a TFLite file: (h, w, 3) float32 -> its outputs, without the batch axis, in its own order. One thread of the CPU."""
    weights = find(card)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(weights), num_threads=1)
    interpreter.allocate_tensors()
    (input_details,) = interpreter.get_input_details()
    output_details = interpreter.get_output_details()

    def run(picture: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(input_details["index"], picture[None].astype(np.float32, copy=False))
        interpreter.invoke()
        return [interpreter.get_tensor(out["index"])[0] for out in output_details]

    return run


def crop_square(
    frame: np.ndarray,
    centre: tuple[float, float],
    side: float,
    angle: float,
    px: int,
    border: int = cv2.BORDER_CONSTANT,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a turned square of a frame as (px, px, 3) uint8, and the (2, 3) map from its pixels to the frame's.

    centre: (x, y) in pixels of the frame. angle: radians, clockwise in the picture. border: OpenCV's border mode, for what is
    outside of the frame.
    """
    scale = side / px
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    half = px / 2
    back = np.array(
        [[cos, -sin, centre[0] - half * (cos - sin)], [sin, cos, centre[1] - half * (sin + cos)]], np.float64
    )
    shrink = max(1.0, scale / MAX_LINEAR_SCALE)
    source, to_source = frame, back
    if shrink > 1:
        size = max(1, round(frame.shape[1] / shrink)), max(1, round(frame.shape[0] / shrink))
        source = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        to_source = back * np.array([[size[0] / frame.shape[1]], [size[1] / frame.shape[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, to_source, (px, px), flags=flags, borderMode=border), back


def to_frame(points: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return (n, 2) points of a crop in pixels of the frame. back: see `square`."""
    return points @ back[:, :2].T + back[:, 2]


def warp_to_frame(picture: np.ndarray, back: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a crop's (px, px) float32 map at its place in the frame, (h, w) float32; 0 outside of it."""
    return cv2.warpAffine(picture, back, (shape[1], shape[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function, clipped where float32 would overflow."""
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))
