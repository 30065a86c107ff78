"""Optical flow by RAFT (Teed & Deng 2020, arXiv 2003.12039), and motion metrics from it."""

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

SIDE_PX = 256  # shorter side of its input, for which VBench defines its threshold
CELL_PX = 8  # the network requires sides that are multiples of this
UPDATES = 12  # iterations, as in torchvision and the paper's small network; the demo of the large one has 20
BATCH = 4  # pairs of frames per batch: 13 MB of correlations each
RATE_FPS = 8  # approximate frame rate to which a clip is thinned, as in VBench
TOP = 0.05  # fraction of the pixels that move most
FAST_PX = 6.0  # displacement of these for VBench to call a pair of frames dynamic
OFTEN = 4 / 16  # fraction of dynamic pairs for VBench to call the clip dynamic

Flow = Callable[[np.ndarray], np.ndarray]

# Names in Princeton's own release on the left, in torchvision on the right.
NAMES = [
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(feature_encoder|context_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(feature_encoder|context_encoder)\.conv2\.", r"\1.conv."),
    (r"\.(layer\d\.\d)\.conv(\d)\.", r".\1.convnormrelu\2.0."),
    (r"\.encoder\.convc(\d)\.", r".motion_encoder.convcorr\1.0."),
    (r"\.encoder\.convf(\d)\.", r".motion_encoder.convflow\1.0."),
    (r"\.encoder\.conv\.", ".motion_encoder.conv.0."),
    (r"\.gru\.", ".recurrent_block.convgru1."),
]


def raft_small(card: Card, device: str) -> Callable[[np.ndarray, float], dict[str, float]]:
    """RAFT-small as a quality model, see `measure`. The weights may be Princeton's (raft-small.pth) or torchvision's."""
    return _quality(_network("raft_small", card, device))


def raft_large(card: Card, device: str) -> Callable[[np.ndarray, float], dict[str, float]]:
    """RAFT as a quality model, see `measure`. The weights are torchvision's (raft_large_C_T_V1: the paper's raft-things)."""
    return _quality(_network("raft_large", card, device))


def fields(card: Card, device: str) -> Flow:
    """The flow of a RAFT card itself, see `_network`: for custom metrics."""
    return _network(card.builder.partition(":")[2], card, device)


def _quality(flow: Flow) -> Callable[[np.ndarray, float], dict[str, float]]:
    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        return measure(flow, frames, fps)

    return model


def _network(name: str, card: Card, device: str) -> Flow:
    """`flow(frames)`: (t, h, w, 3) uint8, sides multiples of 8 -> (t - 1, h, w, 2) float32, x and y in pixels.

    Raises ValueError if the weights are of another network.
    """
    import torch
    from torchvision.models import optical_flow

    path = find(card)
    network = getattr(optical_flow, name)(weights=None, progress=False)
    try:
        network.load_state_dict(torchvision_names(torch.load(path, map_location="cpu", weights_only=True)))
    except RuntimeError as error:
        raise ValueError(f"{path} has no weights of {name}: {str(error).splitlines()[1].strip()[:200]}") from error
    network.eval().to(device)

    def flow(frames: np.ndarray) -> np.ndarray:
        rows = [np.zeros((0, *frames.shape[1:3], 2), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(frames) - 1, BATCH):
                few = torch.from_numpy(frames[start : start + BATCH + 1]).to(device).permute(0, 3, 1, 2)
                pictures = few.float() / 127.5 - 1
                found = network(pictures[:-1].contiguous(), pictures[1:].contiguous(), num_flow_updates=UPDATES)[-1]
                rows.append(found.permute(0, 2, 3, 1).cpu().numpy())
        return np.concatenate(rows)

    return flow


def torchvision_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of Princeton's small network under torchvision's names; torchvision's own unchanged."""
    if not any(key.startswith("module.") for key in state):
        return state
    renamed = {}
    for key, value in state.items():
        for old, new in NAMES:
            key = re.sub(old, new, key)
        renamed[key] = value
    return renamed


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
    """Return a frame at RAFT's input size: sides rounded to multiples of 8, without padding or cropping."""
    height, width = (max(1, round(side / CELL_PX)) * CELL_PX for side in scaled(*frame.shape[:2]))
    way = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, height), interpolation=way)
