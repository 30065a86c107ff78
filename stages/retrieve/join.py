"""The k nearest neighbours of every row, by tiles of a matrix product, exactly."""

from typing import Any

import numpy as np

STEP = 1e-5  # similarities are rounded to this, so that the order in which a BLAS sums never decides who is nearest
SLACK = 1.2e-6  # see `slack`: twice what was found at most, for unit vectors of 64 to 2048 numbers
BLOCK = 2048  # rows of one matrix product; with what is found in it, about 50 MB
CHUNK = 16  # numbers of a row of which the largest stands for all, see `lowest`


def join(
    queries: np.ndarray, keys: np.ndarray, k: int, query_groups: np.ndarray, key_groups: np.ndarray, block: int
) -> np.ndarray:
    """The codes of the nearest keys of each query, (n, k) int64, best first; NONE where there are fewer."""
    codes = np.full((len(queries), k), NONE)
    # a new one each time would cost a tenth
    room = np.empty(min(block, len(queries)) * min(block, len(keys)), np.float32)
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        best = codes[rows]
        for first in range(0, len(keys), block):
            columns = slice(first, first + block)
            width = len(keys[columns])
            scores = room[: len(best) * width].reshape(len(best), width)
            np.matmul(queries[rows], keys[columns].T, out=scores)
            row, column = candidates(scores, best, query_groups[rows], key_groups[columns])
            found = recompute_ties_float64(scores[row, column], queries[rows], keys[columns], row, column)
            merge(best, row, encode(found, first + column))
        best[:] = np.sort(best, axis=1)[:, ::-1]
    return codes


def candidates(
    scores: np.ndarray, best: np.ndarray, query_groups: np.ndarray, key_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the numbers of a tile that may be among the best: row by row, those of the own group left out.

    What float32 puts a little below the floor may belong above it.
    """
    worst = best.min(axis=1)
    floor = similarity(worst) - STEP / 2
    new = worst == NONE
    if new.any():
        floor = np.where(new, lowest(scores, best.shape[1], query_groups, key_groups) - STEP - SLACK, floor)
    floor -= 1.2 * SLACK
    row, column = np.divmod(np.flatnonzero(scores >= floor.astype(np.float32)[:, None]), scores.shape[1])
    other = query_groups[row] != key_groups[column]
    return row[other], column[other]


def lowest(scores: np.ndarray, k: int, query_groups: np.ndarray, key_groups: np.ndarray) -> np.ndarray:
    """For each row of a tile a number that at least k of another group reach, and few more; -inf where there are too few.

    It is the largest of each CHUNK numbers that are ranked: as many different ones are as large as the last of them.
    """
    width, own = scores.shape[1], int(np.unique(key_groups, return_counts=True)[1].max())
    chunks = width // CHUNK
    if k + own <= 3 * chunks // 4:
        largest = scores[:, : chunks * CHUNK].reshape(len(scores), CHUNK, chunks).max(axis=1)
        return np.partition(largest, -k - own, axis=1)[:, -k - own]
    if width <= 2 * k:
        return np.full(len(scores), -np.inf)
    others = np.where(query_groups[:, None] == key_groups[None], np.float32(-np.inf), scores)
    return np.partition(others, -k, axis=1)[:, -k]


def recompute_ties_float64(
    scores: np.ndarray, queries: np.ndarray, keys: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """The dot products of some pairs, (s,) float64, that round to the same on every machine.

    scores: (s,) float32, off by up to `slack`, as the order of a sum has it. Those so near to where rounding turns are computed
    again: products in float32, which are the same everywhere, and their sum in float64, whose order does not show.
    """
    out = scores.astype(np.float64)
    steps = out / STEP
    close = np.flatnonzero(0.5 - np.abs(steps - np.rint(steps)) < slack(out) / STEP)
    for first in range(0, close.size, 512):  # what fits into a cache
        some = close[first : first + 512]
        product = queries.take(row[some], axis=0)
        product *= keys.take(column[some], axis=0)
        out[some] = product.sum(axis=1, dtype=np.float64)
    return out


def slack(scores: Any) -> Any:
    """What a float32 dot product of unit vectors may be off by; array or tensor. It grows with the sums on the way.

    A network's numbers come in no order, so that these are hardly above the result: 0.2 allows for them.
    """
    return SLACK * (abs(scores) + 0.2)


def merge(best: np.ndarray, row: np.ndarray, found: np.ndarray) -> None:
    """Take the codes found, (s,) int64, each for a row of best, (n, k) int64, among its best, in place. Rows ascend."""
    if not row.size:
        return
    touched, first, count = np.unique(row, return_index=True, return_counts=True)
    place = np.arange(row.size) - np.repeat(first, count)
    k = best.shape[1]
    wide = np.full((touched.size, k + int(count.max())), NONE)
    wide[:, :k] = best[touched]
    wide[np.repeat(np.arange(touched.size), count), k + place] = found
    best[touched] = np.partition(wide, -k, axis=1)[:, -k:]


SHIFT = 1 << 32
NONE = np.iinfo(np.int64).min


def encode(scores: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.rint(scores / STEP).astype(np.int64) * SHIFT + (SHIFT - 1 - index)


def similarity(code: np.ndarray) -> np.ndarray:
    return np.round(code // SHIFT * STEP, 5)


def decode(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarities, float64, and indices, int64; -inf and -1 for NONE."""
    found = codes > NONE
    return np.where(found, similarity(codes), -np.inf), np.where(found, SHIFT - 1 - codes % SHIFT, -1)
