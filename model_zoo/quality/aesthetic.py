"""Aesthetic scores: LAION's heads on CLIP's image embeddings (Schuhmann et al. 2022, arXiv 2210.08402)."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from model_zoo import cards
from model_zoo.embeddings import unit
from model_zoo.roles import Card
from model_zoo.weights import find

BATCH = 16
HIDDEN = (1024, 128, 64, 16)  # layer widths of sac+logos+ava1; only dropout between them

Vectors = Callable[[Sequence[np.ndarray]], np.ndarray]


def clip_pictures(card: Card, device: str) -> Vectors:
    """The image tower of a CLIP (Radford et al. 2021, arXiv 2103.00020) through open_clip.

    The weights are a folder with open_clip_config.json, as in the hub's repositories for open_clip. The model takes n pictures,
    (h, w, 3) uint8 RGB, and returns (n, d) float32, rows of unit length. Raises ValueError for a folder without that file.
    """
    import open_clip
    import torch
    from PIL import Image

    folder = find(card)
    if not (folder / "open_clip_config.json").is_file():
        raise ValueError(f"{folder} is not an open_clip folder: it has no open_clip_config.json")
    half = device.startswith("cuda")
    network, prepare = open_clip.create_model_from_pretrained(
        f"local-dir:{folder}", precision="fp16" if half else "fp32", device=device
    )
    network.eval()
    dtype = torch.float16 if half else torch.float32

    def model(pictures: Sequence[np.ndarray]) -> np.ndarray:
        if not len(pictures):
            return np.zeros((0, network.visual.output_dim), np.float32)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures), BATCH):
                few = [prepare(Image.fromarray(picture)) for picture in pictures[start : start + BATCH]]
                rows.append(network.encode_image(torch.stack(few).to(device, dtype)).float().cpu().numpy())
        vectors = np.concatenate(rows)
        return unit(vectors)

    return model


def laion(card: Card, device: str) -> Callable[[np.ndarray, float], dict[str, float]]:
    """LAION's head on the embeddings of a CLIP.

    `model(frames (t, h, w, 3) uint8 RGB, fps) -> {"aesthetic": mean over the frames}`, about 1 to 10, 5 for a plain picture. The
    card's weights are the head; its companion is the CLIP that it was trained on. Raises ValueError for an unknown head, or one
    for embeddings of another width.
    """
    score = head(find(card))
    (tower,) = card.companions
    vectors = cards.load(tower, device)

    def model(frames: np.ndarray, fps: float) -> dict[str, float]:
        return {"aesthetic": float(score(vectors(list(frames))).mean())}

    return model


def head(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return `score(vectors (n, d) float32 of unit length) -> (n,) float32` from a file of weights, by their names.

    "weight" and "bias" for one linear layer (sa_0_4_vit_*_linear), "layers.*" for five (sac+logos+ava1-l14-linearMSE). Strict:
    raises ValueError for any other file.
    """
    import torch

    state = _read(path)
    try:
        network = _linear(state) if "weight" in state else _layers(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not an aesthetic head of LAION: it has {', '.join(sorted(state)[:6])}") from error
    network.eval()
    width = network[0].in_features

    def score(vectors: np.ndarray) -> np.ndarray:
        if vectors.shape[1] != width:
            raise ValueError(f"{path} is a head for embeddings of {width} dimensions, got {vectors.shape[1]}")
        with torch.inference_mode():
            return network(torch.from_numpy(vectors)).numpy()[:, 0]

    return score


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _linear(state: dict[str, Any]) -> Any:
    from torch import nn

    network = nn.Sequential(nn.Linear(state["weight"].shape[1], 1))
    network.load_state_dict({f"0.{key}": value for key, value in state.items()})
    return network


def _layers(state: dict[str, Any]) -> Any:
    from torch import nn

    widths = (state["layers.0.weight"].shape[1], *HIDDEN, 1)
    layers: list[Any] = []
    for n, (before, after) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(before, after))
        if n < 3:
            layers.append(nn.Dropout())  # keeps the layer numbers of training; has no effect here
    network = nn.Sequential(*layers)
    network.load_state_dict({key.removeprefix("layers."): value for key, value in state.items()})
    return network
