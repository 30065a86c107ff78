"""dlib's face recognition network (King 2017) by torch: a fifth of the time of dlib's own code, which often lacks a BLAS.

The layers are those of dlib's example dnn_face_recognition_ex.cpp; the file is read as dlib's serialize.h writes it.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CHIP_PX = 150  # side of a chip
MEAN = (122.782, 117.001, 104.298)  # of the channels, subtracted before division by 256
WIDTHS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)  # channels of the residual blocks
STRIDED_BLOCKS = (3, 7, 10, 13)  # blocks that halve the picture

Network = Callable[[np.ndarray], np.ndarray]


def network(path: str | Path) -> Network:
    """Load dlib_face_recognition_resnet_model_v1.dat: (n, 150, 150, 3) uint8 RGB chips -> (n, 128) float32, not normalised.

    Raises ValueError for another file.
    """
    import torch
    import torch.nn.functional as f

    weights = [torch.from_numpy(values) for values in tensors(Path(path).read_bytes())]
    if len(weights) != 4 * len(WIDTHS) + 3:
        raise ValueError(f"{path}: {len(weights)} layers with weights, not those of dlib's face recognition network")
    convolutions = list(zip(weights[:-1:2], weights[1:-1:2], strict=True))
    folded = [_fold_affine(*pair, cin) for pair, cin in zip(convolutions, _input_channels(), strict=True)]

    def conv(x: Any, layer: int, stride: int = 1) -> Any:
        return f.conv2d(x, *folded[layer], stride=stride, padding=1 if stride == 1 else 0)

    def run(chips: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy((chips.astype(np.float32) - np.array(MEAN, np.float32)) / 256).permute(0, 3, 1, 2)
            x = f.max_pool2d(conv(x, 0, 2).relu(), 3, 2)
            for block in range(len(WIDTHS)):
                stride = 2 if block in STRIDED_BLOCKS else 1
                y = conv(conv(x, 2 * block + 1, stride).relu(), 2 * block + 2)
                x = _add_padded(y, f.avg_pool2d(x, 2) if stride == 2 else x).relu()
            return (x.mean((2, 3)) @ weights[-1].reshape(-1, 128)).numpy()

    return run


def _input_channels() -> list[int]:
    """Return the number of input channels of each convolution."""
    return [3, *(n for before, now in pairwise((32, *WIDTHS)) for n in (before, now))]


def _fold_affine(conv: Any, affine: Any, channels: int) -> tuple[Any, Any]:
    """Return the kernel and the bias of a convolution and the scale and shift after it."""
    out = affine.numel() // 2
    side = round(((conv.numel() - out) / (out * channels)) ** 0.5)
    scale, shift = affine[:out], affine[out:]
    kernel = conv[:-out].reshape(out, channels, side, side)
    return kernel * scale[:, None, None, None], conv[-out:] * scale + shift


def _add_padded(a: Any, b: Any) -> Any:
    """Return the sum of two (n, c, h, w) tensors, each extended by zeros to the larger size."""
    import torch.nn.functional as f

    channels, height, width = (max(p, q) for p, q in zip(a.shape[1:], b.shape[1:], strict=True))
    return sum(f.pad(x, (0, width - x.shape[3], 0, height - x.shape[2], 0, channels - x.shape[1])) for x in (a, b))


def tensors(data: bytes) -> Iterator[np.ndarray]:
    """Yield the parameters of each convolution , scale and full connection, from the input on."""
    for match in re.finditer(rb"con_4|affine_|fc_2", data):
        offset, dimensions = match.end(), []
        for _ in range(7 if match[0] == b"fc_2" else 5):  # the outputs and inputs of fc_2; a version, and four sizes
            size = data[offset]
            dimensions.append(int.from_bytes(data[offset + 1 : offset + 1 + size], "little"))
            offset += 1 + size
        yield np.frombuffer(data, "<f4", int(np.prod(dimensions[-4:])), offset).copy()
