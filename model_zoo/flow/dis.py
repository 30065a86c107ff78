"""Optical flow without a network: DIS (Kroeger et al. 2016, arXiv 1603.03590) of OpenCV, the fallback for RAFT."""

import cv2
import numpy as np

from model_zoo.flow.motion import Flow
from model_zoo.roles import Card


def dis(card: Card, device: str) -> Flow:
    """DIS with OpenCV's medium preset, on the CPU. It takes frames of any size."""

    def field(frames: np.ndarray) -> np.ndarray:
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        out = np.zeros((max(0, len(grey) - 1), *frames.shape[1:3], 2), np.float32)
        for n in range(len(out)):
            # a new instance per pair starts from zero, so that a pair's flow depends on the pair alone
            out[n] = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(grey[n], grey[n + 1], None)  # type: ignore[call-overload]
        return out

    return field
