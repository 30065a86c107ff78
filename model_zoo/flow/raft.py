"""Optical flow by RAFT (Teed & Deng 2020, arXiv 2003.12039)."""

import re
from typing import Any

import numpy as np

from model_zoo.flow.motion import Flow
from model_zoo.roles import Card
from model_zoo.weights import find

UPDATES = 12  # iterations, as in torchvision and the paper's small network; the demo of the large one has 20
BATCH = 4  # pairs of frames per batch: 13 MB of correlations each

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


def raft_small(card: Card, device: str) -> Flow:
    """RAFT-small. The weights may be Princeton's (raft-small.pth) or torchvision's."""
    return _network("raft_small", card, device)


def raft_large(card: Card, device: str) -> Flow:
    """RAFT. The weights are torchvision's (raft_large_C_T_V1: the paper's raft-things)."""
    return _network("raft_large", card, device)


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
