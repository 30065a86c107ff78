"""Exact nearest neighbours of embeddings, by blocks: memory is bounded, nothing is missed. Numpy alone."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STEP = 1e-5  # similarities are rounded to this, so that the order in which a BLAS sums never decides who is nearest
BLOCK = 2048  # rows of one tile; a tile with its codes takes about 100 MB


def vectors(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of an embedding column have one, (n,) int64, and those embeddings, (n, d) float32, without a copy.

    Raises ValueError where lengths differ (two models' embeddings cannot be compared) or one is not of unit length.
    """
    lengths = pc.list_value_length(column).to_numpy()
    rows = np.flatnonzero(lengths)
    sizes = np.unique(lengths[rows])
    if sizes.size > 1:
        raise ValueError(f"embeddings of {sizes.tolist()} numbers in one column: make them all with the same model")
    flat = pc.list_flatten(column).combine_chunks().to_numpy()
    found = flat.reshape(rows.size, sizes[0]) if rows.size else np.zeros((0, 0), np.float32)
    lengths_found = np.linalg.norm(found, axis=1)
    if np.any(np.abs(lengths_found - 1) > 1e-2):
        row = int(rows[np.argmax(np.abs(lengths_found - 1))])
        raise ValueError(f"the embedding in row {row} is not of unit length: normalise it where it is made")
    return rows, found


def top_k(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    query_groups: np.ndarray,
    key_groups: np.ndarray,
    block: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """The k keys of highest dot product for each query, among those of another group; ties go to the lower index.

    queries: (n, d) float32; keys: (m, d) float32; groups: (n,) and (m,) integers.
    Returns similarities (n, k) float64, best first, rounded to STEP, and indices (n, k) int64; -inf and -1 where there are
    fewer than k.
    """
    similarity = np.full((len(queries), k), -np.inf)
    index = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        best = np.full((len(queries[rows]), k), _NONE)
        for low in range(0, len(keys), block):
            columns = slice(low, low + block)
            tile = queries[rows] @ keys[columns].T
            codes = _encode(tile, low)
            codes[query_groups[rows, None] == key_groups[None, columns]] = _NONE
            best = np.partition(np.hstack([best, codes]), -k, axis=1)[:, -k:]
        best = np.sort(best, axis=1)[:, ::-1]
        found = best > _NONE
        similarity[rows][found] = _similarity(best[found])
        index[rows][found] = _index(best[found])
    return similarity, index


# A similarity and the index that it belongs to as one integer: the higher similarity is the larger, then the lower index.
_SHIFT = 1 << 32
_NONE = np.iinfo(np.int64).min


def _encode(tile: np.ndarray, first: int) -> np.ndarray:
    index = np.arange(first, first + tile.shape[1])
    return np.rint(tile / STEP).astype(np.int64) * _SHIFT + (_SHIFT - 1 - index)


def _similarity(code: np.ndarray) -> np.ndarray:
    return np.round(code // _SHIFT * STEP, 5)


def _index(code: np.ndarray) -> np.ndarray:
    return _SHIFT - 1 - code % _SHIFT
