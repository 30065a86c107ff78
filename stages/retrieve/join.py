"""Exact k nearest neighbours of every row, by tiles of a matrix product."""

from typing import Any

import numpy as np

STEP = 1e-5  # rounding of similarities, so that the summation order of a BLAS never decides who is nearest
ERROR_SCALE = 1.2e-6  # see `error_bound`: twice the largest error measured, for unit vectors of 64 to 2048 dimensions
BLOCK = 2048  # rows of one matrix product; about 50 MB with its candidates
CHUNK = 16  # columns whose maximum represents them all, see `floor_of_new`


def join(
    queries: np.ndarray, keys: np.ndarray, k: int, query_groups: np.ndarray, key_groups: np.ndarray, block: int
) -> np.ndarray:
    """Return the codes of the nearest keys of each query, (n, k) int64, best first; NONE where there are fewer."""
    codes = np.full((len(queries), k), NONE)
    # reused, because a new allocation per block would cost a tenth of the time
    buffer = np.empty(min(block, len(queries)) * min(block, len(keys)), np.float32)
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        best = codes[rows]
        for first in range(0, len(keys), block):
            columns = slice(first, first + block)
            width = len(keys[columns])
            scores = buffer[: len(best) * width].reshape(len(best), width)
            np.matmul(queries[rows], keys[columns].T, out=scores)
            row, column = candidates(scores, best, query_groups[rows], key_groups[columns])
            found = recompute_ties_float64(scores[row, column], queries[rows], keys[columns], row, column)
            merge(best, row, encode(found, first + column))
        best[:] = np.sort(best, axis=1)[:, ::-1]
    return codes


def candidates(
    scores: np.ndarray, best: np.ndarray, query_groups: np.ndarray, key_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of a tile's scores that may be among the best, by row, excluding the row's own group.

    A score that float32 puts slightly below the floor may belong above it, so `error_bound` is subtracted.
    """
    worst = best.min(axis=1)
    floor = similarity(worst) - STEP / 2
    new = worst == NONE
    if new.any():
        floor = np.where(new, floor_of_new(scores, best.shape[1], query_groups, key_groups) - STEP - ERROR_SCALE, floor)
    floor -= 1.2 * ERROR_SCALE
    row, column = np.divmod(np.flatnonzero(scores >= floor.astype(np.float32)[:, None]), scores.shape[1])
    other = query_groups[row] != key_groups[column]
    return row[other], column[other]


def floor_of_new(scores: np.ndarray, k: int, query_groups: np.ndarray, key_groups: np.ndarray) -> np.ndarray:
    """Return for each row of a tile a score that at least k keys of other groups reach, and few more; -inf if there are too few.

    The maxima of chunks of CHUNK scores are ranked: at least as many different scores reach the k-th of them.
    """
    width, largest_group = scores.shape[1], int(np.unique(key_groups, return_counts=True)[1].max())
    chunks = width // CHUNK
    if k + largest_group <= 3 * chunks // 4:
        largest = scores[:, : chunks * CHUNK].reshape(len(scores), CHUNK, chunks).max(axis=1)
        return np.partition(largest, -k - largest_group, axis=1)[:, -k - largest_group]
    if width <= 2 * k:
        return np.full(len(scores), -np.inf)
    other_groups = np.where(query_groups[:, None] == key_groups[None], np.float32(-np.inf), scores)
    return np.partition(other_groups, -k, axis=1)[:, -k]


def recompute_ties_float64(
    scores: np.ndarray, queries: np.ndarray, keys: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Return the dot products of some pairs, (s,) float64, that round to the same value on every machine.

    scores: (s,) float32, off by up to `error_bound`, depending on the summation order. Scores that close to a rounding boundary
    are recomputed: float32 products, which are the same everywhere, summed in float64, where the order does not show.
    """
    products = scores.astype(np.float64)
    steps = products / STEP
    close = np.flatnonzero(0.5 - np.abs(steps - np.rint(steps)) < error_bound(products) / STEP)
    for first in range(0, close.size, 512):  # fits into a cache
        chunk = close[first : first + 512]
        product = queries.take(row[chunk], axis=0)
        product *= keys.take(column[chunk], axis=0)
        products[chunk] = product.sum(axis=1, dtype=np.float64)
    return products


def error_bound(scores: Any) -> Any:
    """Return the error bound of a float32 dot product of unit vectors; array or tensor. It grows with the partial sums.

    The components of an embedding are unordered, so partial sums hardly exceed the result: 0.2 allows for them.
    """
    return ERROR_SCALE * (abs(scores) + 0.2)


def merge(best: np.ndarray, row: np.ndarray, found: np.ndarray) -> None:
    """Merge the codes `found`, (s,) int64, each for a row of `best`, (n, k) int64, into `best` in place. `row` is ascending."""
    if not row.size:
        return
    rows, first, count = np.unique(row, return_index=True, return_counts=True)
    rank = np.arange(row.size) - np.repeat(first, count)
    k = best.shape[1]
    all_codes = np.full((rows.size, k + int(count.max())), NONE)
    all_codes[:, :k] = best[rows]
    all_codes[np.repeat(np.arange(rows.size), count), k + rank] = found
    best[rows] = np.partition(all_codes, -k, axis=1)[:, -k:]


BITS = 32
SHIFT = 1 << BITS
NONE = np.iinfo(np.int64).min


def encode(scores: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.rint(scores / STEP).astype(np.int64) * SHIFT + (SHIFT - 1 - index)


def least_code(low: float) -> int:
    """Return the lowest code of a similarity, as `similarity` rounds it, of at least `low`."""
    step = int(max(low, -2.0) / STEP) - 2
    while similarity(np.array(step * SHIFT)) < low:
        step += 1
    return step * SHIFT


def similarity(code: np.ndarray) -> np.ndarray:
    return np.round((code >> BITS) * STEP, 5)


def neighbour(codes: np.ndarray) -> np.ndarray:
    """Return the indices of codes, int64; SHIFT - 1 for NONE."""
    return SHIFT - 1 - (codes & SHIFT - 1)


def decode(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return similarities, float64, and indices, int64; -inf and -1 for NONE."""
    found = codes > NONE
    return np.where(found, similarity(codes), -np.inf), np.where(found, neighbour(codes), -1)
