"""Optical flow without a network: DIS (Kroeger et al. 2016, arXiv 1603.03590) of OpenCV, the fallback for RAFT."""

from collections.abc import Callable

import cv2
import numpy as np

from model_zoo.flow import raft
from model_zoo.flow.raft import Flow
from model_zoo.roles import Card


def quality(card: Card, device: str) -> Callable[[np.ndarray, float], dict[str, float]]:
    """DIS as a quality model, see `model_zoo.flow.raft.measure`."""
    field = fields(card, device)

    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        return raft.measure(field, frames, fps)

    return model


def fields(card: Card, device: str) -> Flow:
    """`flow(frames)`: (t, h, w, 3) uint8 RGB -> (t - 1, h, w, 2) float32, x and y in pixels. CPU, OpenCV's medium preset."""

    def field(frames: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        out = np.zeros((max(0, len(grey) - 1), *frames.shape[1:3], 2), np.float32)
        for n in range(len(out)):
            # a new instance per pair starts from zero, so that a pair's flow depends on the pair alone
            out[n] = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[n], grey[n + 1], None)  # type: ignore[call-overload]
        return out

    return field
