"""Nearest neighbours of embeddings: exact, by tiles that bound the memory, or approximate, by an index for larger corpora.

The exact join is one matrix product per tile. Only a handful of a tile's scores can still become neighbours, so the rest costs
one comparison each: the similarity of a row's worst neighbour so far is the floor that a score must reach. The join runs in NumPy
on a CPU and in stages.retrieve.join_gpu on a GPU. The index is faiss's IVF-PQ, whose candidates are compared again in full
precision (Johnson, Douze and Jégou 2017, "Billion-scale similarity search with GPUs").
"""

import importlib.util
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.task_map import TaskMap, map_serial
from stages.retrieve.join import BLOCK, NONE, decode, encode, join, recompute_ties_float64

TILE = 32768  # queries and keys of one task; 134 MB at 512 dimensions

# Parameters of the index; measured by benchmarks/retrieval.py, see docs/pairing.md.
CELLS_PER_ROOT = 2.3  # cells of the index per square root of the number of keys
PROBES = 1 / 20  # fraction of the cells that a query probes; neighbours in other cells are missed
CODE_DIMS = 8  # dimensions of an embedding per 4-bit code
REFINE = 4  # candidates by code that are compared in full, per neighbour requested


def vectors(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of an embedding column that have one, (n,) int64, and their embeddings, (n, d) float32, without a copy.

    Raises ValueError if lengths differ (embeddings of two models cannot be compared) or an embedding is not of unit length.
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
        raise ValueError(
            f"the embedding in row {row} is not of unit length: normalise embeddings in the model's adapter"
        )
    return rows, found


def top_k(*args: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest keys that `top_k_codes` finds, (n, k) each: similarities, float64, and indices, int64.

    Best first; -inf and -1 where there are fewer than k.
    """
    return decode(top_k_codes(*args, **options))


def top_k_codes(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    query_groups: np.ndarray,
    key_groups: np.ndarray,
    block: int = BLOCK,
    ann_min_elements: int = 0,
    tile: int = TILE,
    task_map: TaskMap = map_serial,
) -> np.ndarray:
    """Return the k keys with the highest dot product for each query, among those of other groups; ties go to the lower index.

    queries: (n, d) float32; keys: (m, d) float32; groups: (n,) and (m,) integers; ann_min_elements: number of keys from which the
    index is used, 0 for never (it misses some neighbours; the similarities of those found are exact); tile: number of queries and
    of keys that one task of `task_map` compares.

    Returns their codes (stages.retrieve.join.encode), (n, k) int64, best first, with similarities rounded to STEP; NONE where
    there are fewer than k. The result does not depend on the tile, the machine or the number of threads. Raises
    ModuleNotFoundError if the index is needed and faiss is not installed.
    """
    if ann_min_elements and len(keys) >= ann_min_elements:
        return search(build_ivfpq(keys), queries, keys, k, query_groups, key_groups)
    return tiles(queries, keys, k, query_groups, key_groups, block, tile, task_map)


def tiles(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    query_groups: np.ndarray,
    key_groups: np.ndarray,
    block: int,
    tile: int,
    task_map: TaskMap,
) -> np.ndarray:
    """Return the codes of the nearest keys of each query, (n, k) int64, best first, merged over all tiles."""
    if tile < 1:
        raise ValueError(f"retrieve.tile is {tile}: set it to at least 1")
    rows, columns = ([slice(i, i + tile) for i in range(0, len(x), tile)] for x in (queries, keys))
    arguments = [(queries[part], query_groups[part]) for part in rows] + [
        (keys[part], key_groups[part]) for part in columns
    ]
    tasks = [(i, len(rows) + j) for i in range(len(rows)) for j in range(len(columns))]
    codes = np.full((len(queries), k), NONE)
    for (i, j), found in zip(tasks, task_map(partial(nearest, k=k, block=block), arguments, tasks), strict=True):
        # from indices in the tile to indices in all keys
        moved = np.where(found > NONE, found - (j - len(rows)) * tile, NONE)
        both = np.concatenate([codes[rows[i]], moved], axis=1)
        codes[rows[i]] = np.sort(both, axis=1)[:, : -k - 1 : -1]
    return codes


def nearest(queries: tuple, keys: tuple, k: int, block: int) -> np.ndarray:
    """Return the codes of one tile, computed on a GPU if there is one. queries, keys: vectors and groups."""
    if gpu():
        from stages.retrieve import join_gpu

        return join_gpu.join(queries[0], keys[0], k, queries[1], keys[1])
    return join(queries[0], keys[0], k, queries[1], keys[1], block)


def gpu() -> bool:
    """Return whether there is a CUDA GPU. Torch is imported only if NVIDIA's driver reports one."""
    import os

    if not any(os.path.exists(p) for p in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")):
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


# -- the index ---------------------------------------------------------------------------------------------------------


def build_ivfpq(keys: np.ndarray) -> Any:
    """Return a faiss index of (m, d) float32 keys: cells around centroids with 4-bit product codes, and the keys themselves.

    The same keys give the same index. Raises ModuleNotFoundError without faiss.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "approximate search needs faiss: pip install 'a2data[search]', or set ann_min_elements=0 to search exactly"
        ) from error
    m, d = keys.shape
    # 39: faiss warns below this number of training points per cell
    cells = max(1, min(round(CELLS_PER_ROOT * m**0.5), m // 39))
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
) -> np.ndarray:
    """Return what `top_k_codes` returns, among the candidates of the index of the keys.

    Results of the query's own group are dropped, so the search asks for more: by the size of the largest group, at most k.
    """
    largest = int(np.unique(key_groups, return_counts=True)[1].max(initial=0))
    num_candidates = min(k + min(largest, k), len(keys))
    codes = np.full((len(queries), k), NONE)
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        _, found = index.search(np.ascontiguousarray(queries[rows]), num_candidates)
        scores = np.empty(found.shape)
        each = np.arange(len(found))
        # one column at a time: all at once would take `num_candidates` times the memory of the block
        for column in range(found.shape[1]):
            products = np.einsum("nd,nd->n", queries[rows], keys[found[:, column]])
            scores[:, column] = recompute_ties_float64(products, queries[rows], keys, each, found[:, column])
        found_codes = encode(scores, found)
        found_codes[(found < 0) | (query_groups[rows, None] == key_groups[found])] = NONE
        best = np.sort(found_codes, axis=1)[:, ::-1][:, :k]
        codes[rows, : best.shape[1]] = best
    return codes


# -- codes: a similarity and the index of its key in one integer; higher similarity is larger, then lower index ---
