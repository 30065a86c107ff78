"""BlazePose (Bazarevsky et al. 2020, arXiv 2006.10204): 33 points of one body and its mask, in a square around the person.

As pose_detection_to_roi.pbtxt, pose_landmark_by_roi_cpu.pbtxt and tensors_to_pose_landmarks_and_segmentation.pbtxt.
"""

from typing import NamedTuple

import cv2
import numpy as np

from model_zoo.mediapipe.network import Network, crop_square, sigmoid, to_frame, warp_to_frame
from model_zoo.mediapipe.ssd import BoxDetection

PX = 256
MIN_PROBABILITY = 0.1  # probability from which a pixel may be of the body
UNCERTAIN = 0.64
CIRCLE_SCALE = 1.25  # the square is so much larger than the circle around the body
NOSE, EYES, EARS, MOUTH, SHOULDERS, ELBOWS, WRISTS = 0, (2, 5), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)
HIPS, KNEES, ANKLES, HEELS, TOES = (23, 24), (25, 26), (27, 28), (29, 30), (31, 32)


class Region(NamedTuple):
    """A turned square, in pixels of the frame."""

    centre: tuple[float, float]
    side: float
    angle: float  # radians, clockwise


class Pose(NamedTuple):
    """One body."""

    score: float  # that there is a body in the region, 0 to 1
    points: np.ndarray  # (33, 2) float32, pixels of the frame
    visible: np.ndarray  # (33,) float32, 0 to 1
    crop_mask: np.ndarray  # (256, 256) float32, 0 to 1: probability of the body in the region
    back: np.ndarray  # (2, 3) from pixels of the region to those of the frame
    region: Region  # around the body as its points show it, for the next look

    def mask(self, height: int, width: int, scale: float = 1.0) -> np.ndarray:
        """Return the probability of the body in each pixel of the frame resized by `scale`, (height, width) float32."""
        return warp_to_frame(self.crop_mask, self.back * scale, (height, width))

    def certainty(self, height: int, width: int) -> float:
        """Return how certain the network is of the mask in a frame of this size, 0 to 1.

        The mean of |2 p - 1| over what may be the body, as it stands between UNCERTAIN (0) and 1 (1).
        """
        grid = np.indices(self.crop_mask.shape)[::-1].reshape(2, -1).T + 0.5
        x, y = to_frame(grid, self.back).T
        inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).reshape(self.crop_mask.shape)
        probabilities = self.crop_mask[inside & (self.crop_mask > MIN_PROBABILITY)]
        mean = float(np.abs(2 * probabilities - 1).mean()) if probabilities.size else 0.0
        return max(0.0, (mean - UNCERTAIN) / (1 - UNCERTAIN))


def region_of(found: BoxDetection) -> Region:
    """Return where to look for the body of a detection of the pose detector."""
    return region_between(found.points[0], found.points[1])


def region_between(hips: np.ndarray, top: np.ndarray) -> Region:
    """Return the region around the middle of the hips whose circle passes through `top`, upright along the line to it."""
    dx, dy = top - hips
    return Region(
        (float(hips[0]), float(hips[1])), 2 * CIRCLE_SCALE * float(np.hypot(dx, dy)), float(np.arctan2(dx, -dy))
    )


def run_pose(run: Network, frame: np.ndarray, region: Region) -> Pose:
    """Return the body in a region of a (h, w, 3) uint8 RGB frame; its score says whether there is one."""
    crop, back = crop_square(frame, *region, PX, cv2.BORDER_REPLICATE)
    landmarks, flag, logits, heat, _ = run(crop.astype(np.float32) / 255)
    values = refine_landmarks(landmarks.reshape(39, 5), heat)
    points = to_frame(values[:, :2], back)
    return Pose(
        float(flag[0]),
        points[:33],
        sigmoid(values[:33, 3]),
        sigmoid(logits[..., 0]),
        back,
        region_between(points[33], points[34]),
    )


def refine_landmarks(values: np.ndarray, heat: np.ndarray, kernel: int = 7, min_confidence: float = 0.5) -> np.ndarray:
    """Return landmarks moved to the centre of mass of their heatmap near them, where the heatmap is sure.

    As RefineLandmarksFromHeatmapCalculator: kernel 7, confidence from 0.5. values: (n, 5) with x and y in pixels. heat:
    (cells, cells, n) logits.
    """
    refined = values.copy()
    num_rows, num_columns = heat.shape[:2]
    for i, (x, y) in enumerate(values[:, :2] / PX):
        column, row = int(x * num_columns), int(y * num_rows)
        if not (0 <= column < num_columns and 0 <= row < num_rows):
            continue
        x0, y0 = max(0, column - kernel // 2), max(0, row - kernel // 2)
        window = sigmoid(heat[y0 : row + kernel // 2 + 1, x0 : column + kernel // 2 + 1, i])
        if window.max() >= min_confidence:
            rows, columns = np.indices(window.shape)
            refined[i, 0] = ((columns + x0) * window).sum() / window.sum() / num_columns * PX
            refined[i, 1] = ((rows + y0) * window).sum() / window.sum() / num_rows * PX
    return refined
