"""Motion metrics of a clip, from its optical flow."""

from collections.abc import Callable

import cv2
import numpy as np

SIDE_PX = 256  # shorter side at which flow is measured: VBench defines its threshold for it
CELL_PX = 8  # RAFT requires sides that are multiples of this
RATE_FPS = 8  # approximate frame rate to which a clip is thinned, as in VBench
TOP = 0.05  # fraction of the pixels that move most
FAST_PX = 6.0  # displacement of these for VBench to call a pair of frames dynamic
OFTEN = 4 / 16  # fraction of dynamic pairs for VBench to call the clip dynamic

# (t, h, w, 3) uint8 RGB -> (t - 1, h, w, 2) float32, px: role flow
Flow = Callable[[np.ndarray], np.ndarray]


def measure(flow: Flow, frames: np.ndarray, fps: float) -> dict[str, float]:
    """Return the motion in (t, h, w, 3) uint8 RGB frames at `fps`, thinned to about 8 fps, with a shorter side of 256 px.

    flow: mean speed over all pixels, in picture widths per second. flow_top5: mean displacement, between frames of the thinned
    clip, of the twentieth of the pixels that move most, in pixels at that size. flow_dynamic: 1 if VBench's "dynamic degree"
    counts the clip (Huang et al. 2024, arXiv 2311.17982; there with the large network and the whole picture), else 0. A clip of
    one frame has 0, 0, 0. Frames without texture that grow lighter seem to flow (0.02 for a fade from black), while motion
    vectors are 0.
    """
    step = max(1, round(fps / RATE_FPS))
    few = np.stack([shrink(frame) for frame in frames[::step]])
    if len(few) < 2:
        return {"flow": 0.0, "flow_top5": 0.0, "flow_dynamic": 0.0}
    height, width = few.shape[1:3]
    true_height, true_width = scaled(*frames.shape[1:3])
    shift = flow(few) * np.array([true_width / width, true_height / height], np.float32)
    length = np.hypot(shift[..., 0], shift[..., 1]).reshape(len(shift), -1)
    count = max(1, int(TOP * length.shape[1]))
    top = np.partition(length, -count, axis=1)[:, -count:].mean(1)
    dynamic = int((top > FAST_PX).sum()) >= max(1, round(OFTEN * len(few)))
    return {
        "flow": float(length.mean() / true_width * fps / step),
        "flow_top5": float(top.mean()),
        "flow_dynamic": float(dynamic),
    }


def scaled(height: int, width: int) -> tuple[float, float]:
    """Return height and width of a picture scaled to a shorter side of SIDE_PX; not integers."""
    scale = SIDE_PX / min(height, width)
    return height * scale, width * scale


def shrink(frame: np.ndarray) -> np.ndarray:
    """Return a frame at the size at which flow is measured: sides rounded to multiples of 8, without padding or cropping."""
    height, width = (max(1, round(side / CELL_PX)) * CELL_PX for side in scaled(*frame.shape[:2]))
    way = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=way)
