"""Inpainting with LaMa (Suvorov et al. 2022), as TorchScript or ONNX."""

from collections.abc import Callable

import cv2
import numpy as np

from model_zoo import weights
from model_zoo.pictures import shrink
from model_zoo.roles import Card

STEP_PX = 8  # LaMa halves the picture three times
LONG_PX = 1024  # of the TorchScript network's input: bounds its memory; it was trained on crops of 256
SQUARE_PX = 512  # fixed input size of the ONNX network

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def lama_torchscript(card: Card, device: str) -> Fill:
    """LaMa as `big-lama.pt`: a picture and a mask from 0 to 1 give the whole picture, from 0 to 1, in multiples of 8 pixels.

    The model takes a picture, (h, w, 3) uint8 RGB, and a mask, (h, w) bool, and returns the picture, (h, w, 3) uint8, with new
    pixels inside the mask and bit-identical ones outside.
    """
    import torch

    network = torch.jit.load(str(weights.find(card)), map_location=device).eval()

    def paint(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = network(torch.from_numpy(pixels).to(device), torch.from_numpy(hole).to(device))
        return out[0].float().cpu().numpy() * 255

    def fill(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return filled(picture, mask, paint, LONG_PX, square=False)

    return fill


def lama_onnx(card: Card, device: str) -> Fill:
    """LaMa as ONNX: 512 x 512 pixels from 0 to 1 and a mask, named "image" and "mask", give 0 to 255. Call as above."""
    import onnxruntime

    ready = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
    providers = [p for p in (*wanted, "CPUExecutionProvider") if p in ready]
    session = onnxruntime.InferenceSession(str(weights.find(card)), providers=providers)

    def paint(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": pixels, "mask": hole})[0][0]

    def fill(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return filled(picture, mask, paint, SQUARE_PX, square=True)

    return fill


def filled(picture: np.ndarray, mask: np.ndarray, paint: Fill, long_px: int, square: bool) -> np.ndarray:
    """Return the picture with the output of `paint` inside the mask.

    `paint` takes (1, 3, H, W) float32 from 0 to 1 and (1, 1, H, W) float32, 0 or 1, and returns (3, H, W), 0 to 255. Its input is
    at most `long_px` long, with the aspect kept, mirrored at the right and below up to a multiple of 8 pixels or to a square.
    Raises ValueError if the sizes of mask and picture differ.
    """
    height, width = picture.shape[:2]
    if mask.shape != (height, width):
        raise ValueError(f"the picture has {height} x {width} pixels, but its mask {' x '.join(map(str, mask.shape))}")
    if not mask.any():
        return picture.copy()
    small = shrink(picture, long_px)
    size = small.shape[1::-1]
    # A pixel that contains any part of the hole is hole, so that the removed object does not colour the result.
    hole = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    target = (long_px, long_px) if square else tuple(-(-side // STEP_PX) * STEP_PX for side in hole.shape)
    more = [(0, t - side) for t, side in zip(target, hole.shape, strict=True)]
    pixels = np.pad(small, [*more, (0, 0)], mode="symmetric").astype(np.float32).transpose(2, 0, 1)[None] / 255
    out = paint(np.ascontiguousarray(pixels), np.pad(hole, more, mode="symmetric").astype(np.float32)[None, None])
    painted = out[:, : size[1], : size[0]].transpose(1, 2, 0)
    if size != (width, height):
        painted = cv2.resize(painted, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(mask[..., None], np.rint(painted).clip(0, 255).astype(np.uint8), picture)
