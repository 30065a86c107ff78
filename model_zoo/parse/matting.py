"""Alpha mattes of people with soft edges, for hair and veils."""

from collections.abc import Callable, Sequence

import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

Matte = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
BATCH = 4  # pictures at a time


def sapiens2(card: Card, device: str = "cpu") -> Matte:
    """Sapiens 2 matting through transformers. Its licence forbids biometric processing.

    The model takes (h, w, 3) uint8 RGB pictures of one person each and returns (h, w) float32 alphas, 0 to 1. Raises
    FileNotFoundError.
    """
    weights = find(card)
    import torch
    from torch.nn.functional import interpolate
    from transformers import AutoImageProcessor, Sapiens2ForImageMatting

    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    processor = AutoImageProcessor.from_pretrained(weights, local_files_only=True)
    network = Sapiens2ForImageMatting.from_pretrained(weights, local_files_only=True, dtype=dtype).eval().to(device)

    def matte(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        alphas: list[np.ndarray] = []
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            pixels = processor(images=list(batch), return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                found = network(pixel_values=pixels.to(device, dtype)).alphas.float()
            for alpha, picture in zip(found, batch, strict=True):
                large = interpolate(alpha[None], size=picture.shape[:2], mode="bilinear", align_corners=False)[0, 0]
                alphas.append(large.cpu().numpy())
        return alphas

    return matte
