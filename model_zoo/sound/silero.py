"""Voice activity by Silero VAD (github.com/snakers4/silero-vad)."""

from collections.abc import Callable

import numpy as np

from model_zoo.roles import Card
from model_zoo.weights import find

RATE_HZ = 16_000
STEP = 512  # samples per probability
CONTEXT = 64  # samples before them that the network also sees
MAX_STEPS = 2000  # per call of the network: a minute


def silero(card: Card, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """Silero VAD, exported over whole sequences. One thread of the CPU."""
    weights = find(card)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])

    def model(samples: np.ndarray) -> np.ndarray:
        steps = -(-len(samples) // STEP)
        padded = np.zeros(CONTEXT + steps * STEP, np.float32)
        padded[CONTEXT : CONTEXT + len(samples)] = samples
        windows = (
            np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + STEP)[::STEP] if steps else padded[None, :0]
        )
        h = c = np.zeros((1, 1, 128), np.float32)
        found = [np.zeros(0, np.float32)]
        for first in range(0, steps, MAX_STEPS):
            block = np.ascontiguousarray(windows[first : first + MAX_STEPS])
            some, h, c = session.run(None, {"input": block, "h": h, "c": c})
            found.append(some)
        return np.concatenate(found)

    return model
