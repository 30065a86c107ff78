"""Nearest neighbours of embeddings. Exact, by tiles: memory is bounded by a tile, nothing is missed; or by an index, for more.

The exact join is one matrix product for each tile. What could still become a neighbour is a handful of the tile's numbers, so
the rest costs one comparison each: a row's worst neighbour so far is the floor that a number must reach. Numpy does it on a CPU,
stages.retrieve.join_gpu the same on a GPU. The index is faiss's IVF-PQ, whose finds are compared again in full (Johnson, Douze
and Jégou 2017, "Billion-scale similarity search with GPUs").
"""

import importlib.util
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.task_map import TaskMap, map_serial
from stages.retrieve.join import BLOCK, NONE, decode, encode, join, recompute_ties_float64

TILE = 32768  # queries and keys of one task; with 512 numbers each, 134 MB

# Of the index; measured by benchmarks/retrieval.py, see docs/pairing.md.
CELLS_PER_ROOT = 2.3  # cells of the index, times the square root of the keys
PROBES = 1 / 20  # share of the cells that a query looks into; a neighbour in another cell is missed
CODE_DIMS = 8  # numbers of an embedding that one 4-bit code stands for
REFINE = 4  # candidates by code, for each neighbour wanted, that are compared in full


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
    ann_min_elements: int = 0,
    tile: int = TILE,
    spread: TaskMap = map_serial,
) -> tuple[np.ndarray, np.ndarray]:
    """The k keys of highest dot product for each query, among those of another group; ties go to the lower index.

    queries: (n, d) float32; keys: (m, d) float32; groups: (n,) and (m,) integers; ann_min_elements: how many keys are too many
    to compare with each, 0 for never. Then some neighbours are missed; the similarities of those found are exact.
    tile: how many queries are compared with how many keys in one task of `spread`.
    Returns similarities (n, k) float64, best first, rounded to STEP, and indices (n, k) int64; -inf and -1 where there are
    fewer than k. They are the same whatever the tile, the machine and the number of threads.
    Raises ModuleNotFoundError where the index is asked for and faiss is not installed.
    """
    if ann_min_elements and len(keys) >= ann_min_elements:
        return search(build_ivfpq(keys), queries, keys, k, query_groups, key_groups)
    return decode(tiles(queries, keys, k, query_groups, key_groups, block, tile, spread))


def tiles(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    query_groups: np.ndarray,
    key_groups: np.ndarray,
    block: int,
    tile: int,
    spread: TaskMap,
) -> np.ndarray:
    """The codes of the nearest keys of each query, (n, k) int64, best first: those of each tile, merged."""
    if tile < 1:
        raise ValueError(f"a tile of {tile} embeddings compares nothing: it must hold at least one")
    rows, columns = ([slice(i, i + tile) for i in range(0, len(x), tile)] for x in (queries, keys))
    things = [(queries[part], query_groups[part]) for part in rows] + [
        (keys[part], key_groups[part]) for part in columns
    ]
    tasks = [(i, len(rows) + j) for i in range(len(rows)) for j in range(len(columns))]
    codes = np.full((len(queries), k), NONE)
    for (i, j), found in zip(tasks, spread(partial(nearest, k=k, block=block), things, tasks), strict=True):
        moved = np.where(found > NONE, found - (j - len(rows)) * tile, NONE)  # to the numbers of all keys
        both = np.concatenate([codes[rows[i]], moved], axis=1)
        codes[rows[i]] = np.sort(both, axis=1)[:, : -k - 1 : -1]
    return codes


def nearest(queries: tuple, keys: tuple, k: int, block: int) -> np.ndarray:
    """The codes of one tile, with a GPU where there is one. queries, keys: vectors and groups."""
    if gpu():
        from stages.retrieve import join_gpu

        return join_gpu.join(queries[0], keys[0], k, queries[1], keys[1])
    return join(queries[0], keys[0], k, queries[1], keys[1], block)


def gpu() -> bool:
    """Whether there is a GPU to multiply on. Torch is not imported where there is none that NVIDIA's driver knows."""
    import os

    if not any(os.path.exists(p) for p in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")):
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


# -- the index ---------------------------------------------------------------------------------------------------------


def build_ivfpq(keys: np.ndarray) -> Any:
    """A faiss index of (m, d) float32 keys: cells around centroids, in them 4-bit product codes, and the keys themselves.

    The same keys give the same index. Raises ModuleNotFoundError without faiss.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "approximate search needs faiss: pip install 'a2data[search]', or set ann_min_elements=0 to search exactly"
        ) from error
    m, d = keys.shape
    cells = max(1, min(round(CELLS_PER_ROOT * m**0.5), m // 39))  # 39: below, faiss warns of too few to train with
    codes = next(n for n in (d // CODE_DIMS, *range(d // CODE_DIMS, 0, -1), 1) if n and d % n == 0)
    index: Any = faiss.index_factory(d, f"IVF{cells},PQ{codes}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
    inner = faiss.extract_index_ivf(index)
    inner.nprobe = max(1, round(cells * PROBES))
    sample = np.linspace(0, m - 1, min(m, 64 * cells)).astype(np.int64)
    index.train(np.ascontiguousarray(keys[sample]))
    index.add(np.ascontiguousarray(keys))
    index.k_factor = REFINE
    return index


def search(
    index: Any, queries: np.ndarray, keys: np.ndarray, k: int, query_groups: np.ndarray, key_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `top_k`, among what the index of the keys finds.

    The own group is left out of what was found, so more is asked for: by the largest group, as far as that is k.
    """
    largest = int(np.unique(key_groups, return_counts=True)[1].max(initial=0))
    wanted = min(k + min(largest, k), len(keys))
    codes = np.full((len(queries), k), NONE)
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        _, found = index.search(np.ascontiguousarray(queries[rows]), wanted)
        scores = np.empty(found.shape)
        each = np.arange(len(found))
        for column in range(found.shape[1]):  # a column at a time: all at once would be `wanted` times the block's size
            near = np.einsum("nd,nd->n", queries[rows], keys[found[:, column]])
            scores[:, column] = recompute_ties_float64(near, queries[rows], keys, each, found[:, column])
        made = encode(scores, found)
        made[(found < 0) | (query_groups[rows, None] == key_groups[found])] = NONE
        best = np.sort(made, axis=1)[:, ::-1][:, :k]
        codes[rows, : best.shape[1]] = best
    return decode(codes)


# -- a similarity and the index that it belongs to, as one integer: the higher similarity is the larger, then the lower index ---
