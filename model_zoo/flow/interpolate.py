"""Frame interpolation: AMT-S (Li et al. 2023, arXiv 2304.09790), and fallbacks by optical flow."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from model_zoo.flow.dis import dis
from model_zoo.flow.motion import Flow
from model_zoo.roles import Card
from model_zoo.weights import find

SETTINGS = {"corr_radius": 3, "corr_lvls": 4, "num_flows": 3}  # of AMT-S, as in its cfgs/AMT-S.yaml
PACKAGES = ("networks", "utils")  # of its checkout
CELL_PX = 16  # AMT requires sides that are multiples of this

# two (h, w, 3) uint8 RGB -> the frame half way between them, of the same kind
Between = Callable[[np.ndarray, np.ndarray], np.ndarray]


def amt(card: Card, device: str) -> Between:
    """AMT-S by its authors' own code: the weights are a checkout of MCG-NKU/AMT with amt-s.pth in it or in pretrained/.

    Raises FileNotFoundError for a folder without that code or those weights.
    """
    import torch

    folder = find(card)
    code = folder / "networks" / "AMT-S.py"
    there = [path for path in (folder / "amt-s.pth", folder / "pretrained" / "amt-s.pth") if path.is_file()]
    if not code.is_file() or not there:
        raise FileNotFoundError(
            f"{folder} has no networks/AMT-S.py or no amt-s.pth: clone MCG-NKU/AMT there, with its weights"
        )
    state = torch.load(there[0], map_location="cpu", weights_only=True)
    with _importable(folder):
        network = importlib.import_module("networks.AMT-S").Model(**SETTINGS)
    network.load_state_dict(state.get("state_dict", state))
    network.eval().to(device)
    half = torch.full((1, 1, 1, 1), 0.5, device=device)

    def tensor(frame: np.ndarray) -> Any:
        height, width = frame.shape[:2]
        down, right = -height % CELL_PX, -width % CELL_PX
        sides = (down // 2, down - down // 2, right // 2, right - right // 2)
        padded = cv2.copyMakeBorder(frame, *sides, cv2.BORDER_REPLICATE)
        return torch.from_numpy(padded).to(device).permute(2, 0, 1)[None].float() / 255

    def interpolate(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        height, width = before.shape[:2]
        top, left = (-height % CELL_PX) // 2, (-width % CELL_PX) // 2
        with torch.inference_mode():
            made = network(tensor(before), tensor(after), half, scale_factor=1.0, eval=True)["imgt_pred"]
        picture = (made[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()  # truncated, as in AMT
        return picture[top : top + height, left : left + width]

    return interpolate


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Import the folder's packages while the block lasts: their names are common and mean something else elsewhere."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in PACKAGES}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
            del sys.modules[name]
        sys.modules.update(kept)


def by_dis(card: Card, device: str) -> Between:
    """Both frames, each warped half way by DIS, and the mean of the two."""
    return by_flow(dis(card, device))


def by_flow(flow: Flow) -> Between:
    """Return an interpolator by optical flow: the mean of both frames, each warped half way. For sizes that the flow accepts.

    It is the fallback for an interpolation network, without handling of disocclusion.
    """

    def interpolate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        height, width = a.shape[:2]
        there, back = (flow(np.stack(pair))[0] for pair in ((a, b), (b, a)))
        x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(width), np.arange(height)))
        moved = []
        for picture, shift in ((a, there), (b, back)):
            from_x, from_y = x - shift[..., 0] / 2, y - shift[..., 1] / 2
            moved.append(
                cv2.remap(picture, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(float)
            )
        return np.round((moved[0] + moved[1]) / 2).astype(np.uint8)

    return interpolate
