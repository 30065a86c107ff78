"""Patch-wise similarity of two objects: local features of vision transformers under the objects' masks.

DINOv2 (Oquab et al. 2023), DINOv3 (Siméoni et al. 2025) and SigLIP 2 NaFlex (Tschannen et al. 2025), through transformers. One
embedding per picture merges objects of one kind; patches distinguish their handles and prints.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model_zoo import weights
from model_zoo.compare.mobilenet import MEAN, STD, alone
from model_zoo.embeddings import unit
from model_zoo.roles import Card

GRID = 16  # patches per side, as in the training of SigLIP 2 NaFlex, and of DINO at 224 or 256 px
BATCH = 8
COVERED = 0.5  # covered fraction from which a patch belongs to the object

NETWORKS = {  # transformers class per checkpoint type
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "siglip2": "Siglip2VisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
}


def similarity(card: Card, device: str) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]:
    """Similarity of masked objects: the mean over one's patches of the best cosine with any patch of the other, both ways.

    The model takes n pictures, (h, w, 3) uint8 RGB, and n masks, (h, w) bool, and returns (n, n) float32 from -1 to 1, symmetric,
    1 for an object with itself; 0 with an object whose mask is empty.
    """
    features = _features(card, device)

    def compare(pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
        found = [tokens[own] for tokens, own in features(pictures, masks)]
        out = np.zeros((len(found), len(found)), np.float32)
        for i, a in enumerate(found):
            for j, b in enumerate(found[: i + 1]):
                if len(a) and len(b):
                    cosines = a @ b.T
                    out[i, j] = out[j, i] = (cosines.max(1).mean() + cosines.max(0).mean()) / 2
        return out.clip(-1, 1)

    return compare


def embedder(card: Card, device: str) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], np.ndarray]:
    """An object's embedding by DINO or SigLIP 2 through transformers: the mean of the patches under its mask.

    The model takes n pictures, (h, w, 3) uint8 RGB, and n masks, (h, w) bool, and returns (n, d) float32, rows of unit length;
    for an empty mask the mean of all patches, which are white.
    """
    features = _features(card, device)

    def embed(pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
        rows = [tokens[own if own.any() else ...].mean(0) for tokens, own in features(pictures, masks)]
        return unit(np.stack(rows)) if rows else np.zeros((0, features.dimension), np.float32)  # type: ignore[attr-defined]

    return embed


def own_patches(mask: np.ndarray, patch_px: int) -> np.ndarray:
    """Return the object's patches of `alone(picture, mask, GRID * patch_px)`, (GRID * GRID,) bool, row by row.

    An object too thin to cover half of any patch has the patch that it covers most; an empty mask has none.
    """
    side = GRID * patch_px
    # black where the object is: the same geometry
    white = alone(np.zeros((*mask.shape, 3), np.uint8), mask, side)[..., 0]
    share = 1 - white.reshape(GRID, patch_px, GRID, patch_px).mean((1, 3)).ravel() / 255
    return share >= min(COVERED, share.max()) if share.any() else np.zeros(GRID * GRID, bool)


def patchify(pixels: np.ndarray, patch_px: int) -> np.ndarray:
    """Return (n, 3, side, side) as SigLIP 2's input, (n, patches, patch_px * patch_px * 3): rows first, channels last."""
    count, channels, side, _ = pixels.shape
    grid = side // patch_px
    cells = pixels.reshape(count, channels, grid, patch_px, grid, patch_px)
    return cells.transpose(0, 2, 4, 3, 5, 1).reshape(count, grid * grid, patch_px * patch_px * channels)


def _features(card: Card, device: str) -> Any:
    """Return a function of pictures and masks to each object's (GRID * GRID, d) patches of unit length, and which are its own."""
    import torch

    network, kind = _network(card, device)
    patch_px = int(network.config.patch_size)
    siglip = kind.startswith("siglip2")
    mean, std = (np.float32(0.5), np.float32(0.5)) if siglip else (MEAN, STD)
    before = 0 if siglip else 1 + getattr(network.config, "num_register_tokens", 0)  # the class token, and registers

    def tokens(batch: list[np.ndarray]) -> np.ndarray:
        pixels = ((np.stack(batch).astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
        if siglip:
            cells = torch.from_numpy(patchify(pixels, patch_px)).to(device)
            shapes = torch.tensor([[GRID, GRID]] * len(batch), device=device)
            whole = torch.ones(cells.shape[:2], dtype=torch.int64, device=device)
            out = network(pixel_values=cells, pixel_attention_mask=whole, spatial_shapes=shapes)
        else:
            out = network(pixel_values=torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
        return unit(out.last_hidden_state[:, before:].float().cpu().numpy())

    def features(pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        shown = [alone(p, m, GRID * patch_px) for p, m in zip(pictures, masks, strict=True)]
        cuda = device.startswith("cuda")
        found: list[np.ndarray] = []
        with torch.inference_mode(), torch.autocast("cuda" if cuda else "cpu", torch.bfloat16, enabled=cuda):
            for start in range(0, len(shown), BATCH):
                found.extend(tokens(shown[start : start + BATCH]))
        return [(rows, own_patches(mask, patch_px)) for rows, mask in zip(found, masks, strict=True)]

    features.dimension = int(network.config.hidden_size)  # type: ignore[attr-defined]
    return features


def _network(card: Card, device: str) -> tuple[Any, str]:
    """Return the network of the card's folder and its type. Raises ValueError for an unsupported or incomplete one."""
    folder = weights.find(card)
    import transformers

    kind = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if kind not in NETWORKS:
        raise ValueError(f"model {card.name!r}: {folder} has a {kind!r}; supported are {', '.join(NETWORKS)}")
    speaks = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # otherwise it reports each unused weight of the text tower
    network, report = getattr(transformers, NETWORKS[kind]).from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    transformers.logging.set_verbosity(speaks)
    if report["missing_keys"]:  # transformers would initialise them at random
        raise ValueError(f"model {card.name!r}: {folder} is missing {', '.join(sorted(report['missing_keys'])[:3])} …")
    return network.eval().to(device), kind
