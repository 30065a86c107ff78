"""Embeddings of unit length."""

import numpy as np


def unit(rows: np.ndarray) -> np.ndarray:
    """Return (..., d) vectors scaled to unit length, float32; vectors of zeros are unchanged."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(np.float32, copy=False)
