"""Embeddings for copy detection, robust to edits: SSCD, and a perceptual hash without weights."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from PIL import Image

from model_zoo.compare.mobilenet import normalise
from model_zoo.embeddings import unit
from model_zoo.roles import Card
from model_zoo.weights import find

SIDE_PX = 288  # shorter side of SSCD's input; the aspect is kept
BATCH = 16
HASH_PX = 32  # side of the grey picture for the hash
HASH_SIDE = 8  # frequencies per direction in the hash

Vectors = Callable[[Sequence[np.ndarray]], np.ndarray]


def sscd(card: Card, device: str) -> Vectors:
    """SSCD (Pizzi et al. 2022, arXiv 2202.10261), from the TorchScript files that its authors publish.

    The model takes n pictures, (h, w, 3) uint8 RGB, and returns (n, 512) float32, rows of unit length; of pairs with a cosine
    above 0.75, 90 % are copies (sscd_disc_mixup on DISC). A TorchScript file contains its own program, limited to torch's
    operators: use the authors' file. Raises ValueError for a file that is not TorchScript.
    """
    import torch

    path = find(card)
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript file: use the one that ends in .torchscript.pt") from error

    def model(pictures: Sequence[np.ndarray]) -> np.ndarray:
        inputs = [normalise(shrink(picture)) for picture in pictures]
        alike = defaultdict(list)  # by shape, as required for a batch
        for n, picture in enumerate(inputs):
            alike[picture.shape].append(n)
        rows = np.zeros((len(inputs), 0), np.float32)
        with torch.inference_mode():
            for places in alike.values():
                for start in range(0, len(places), BATCH):
                    few = places[start : start + BATCH]
                    found = network(torch.from_numpy(np.stack([inputs[n] for n in few])).to(device)).float().cpu()
                    if not rows.shape[1]:
                        rows = np.zeros((len(inputs), found.shape[1]), np.float32)
                    rows[few] = found.numpy()
        return unit(rows)

    return model


def shrink(picture: np.ndarray, side_px: int = SIDE_PX) -> np.ndarray:
    """Return a picture with a shorter side of side_px, as in SSCD's training: bilinear, antialiased when scaled down."""
    height, width = picture.shape[:2]
    scale = side_px / min(height, width)
    size = (max(side_px, int(width * scale)), max(side_px, int(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def phash(card: Card, device: str) -> Vectors:
    """A perceptual hash as vectors: n pictures, (h, w, 3) uint8 RGB -> (n, 64) float32, each component 1/8 or -1/8.

    The cosine of two is 1 - 2 d / 64 for d differing bits: 0 for unrelated pictures, 1 for copies; see `bits`.
    """

    def model(pictures: Sequence[np.ndarray]) -> np.ndarray:
        rows = [np.where(bits(picture), 1.0, -1.0) for picture in pictures]
        return (np.stack(rows) / HASH_SIDE).astype(np.float32) if rows else np.zeros((0, HASH_SIDE**2), np.float32)

    return model


def bits(picture: np.ndarray) -> np.ndarray:
    """Return the 64 bits of a picture's perceptual hash (Zauner 2010), (64,) bool.

    The cosine transform of the picture in grey, 32 x 32: whether each of the 8 x 8 lowest frequencies that vary in both
    directions is above the median of all. Invariant to size, brightness and contrast, nearly so to JPEG. Finds neither mirrored
    nor cropped copies, for which SSCD is used.
    """
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (HASH_PX, HASH_PX), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(grey.astype(np.float32))[1 : HASH_SIDE + 1, 1 : HASH_SIDE + 1].ravel()
    return waves > np.median(waves)
