"""The exact join of stages.retrieve.nearest on a GPU: the same steps in torch, which is imported on first use."""

from typing import Any

import numpy as np

from stages.retrieve.join import ERROR_SCALE, NONE, SHIFT, STEP, error_bound

ROWS, COLUMNS = 8192, 32768  # size of a tile: 1 GB of float32, and as much again while its floor is computed


def join(
    queries: np.ndarray,
    keys: np.ndarray,
    k: int,
    query_groups: np.ndarray,
    key_groups: np.ndarray,
    device: str = "cuda",
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> np.ndarray:
    """Return what stages.retrieve.join.join returns. Keys move to the GPU by the tile and need not fit into its memory.

    float32 throughout: TF32 would round by a thousandth, a hundred times the rounding step of similarities.
    """
    import torch

    codes = np.full((len(queries), k), NONE)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        for start in range(0, len(queries), rows):
            part = slice(start, start + rows)
            q = torch.from_numpy(np.ascontiguousarray(queries[part])).to(device)
            group = torch.from_numpy(np.ascontiguousarray(query_groups[part], np.int64)).to(device)
            best = torch.full((len(q), k), int(NONE), dtype=torch.int64, device=device)
            for first in range(0, len(keys), columns):
                tile = slice(first, first + columns)
                key = torch.from_numpy(np.ascontiguousarray(keys[tile])).to(device)
                other = torch.from_numpy(np.ascontiguousarray(key_groups[tile], np.int64)).to(device)
                best = _merge(best, q, key, group, other, first)
            codes[part] = best.sort(dim=1, descending=True).values.cpu().numpy()
    finally:
        torch.set_float32_matmul_precision(precision)
    return codes


def _merge(best: Any, queries: Any, keys: Any, query_groups: Any, key_groups: Any, first: int) -> Any:
    """Return the best codes of each query after this tile of keys; first: index of the tile's first key."""
    import torch

    k, scores = best.shape[1], queries @ keys.T
    worst = best.min(dim=1).values
    floor = torch.div(worst, SHIFT, rounding_mode="floor").double() * STEP - STEP / 2
    if bool((worst == NONE).any()):
        if scores.shape[1] > 2 * k:
            others = scores.masked_fill(query_groups[:, None] == key_groups[None], -torch.inf)
            floor_of_new = others.topk(k, dim=1).values[:, -1].double() - STEP - ERROR_SCALE
        else:
            floor_of_new = torch.full_like(floor, -torch.inf)
        floor = torch.where(worst == NONE, floor_of_new, floor)
    row, column = torch.nonzero(scores >= (floor - 1.2 * ERROR_SCALE).float()[:, None], as_tuple=True)
    other = query_groups[row] != key_groups[column]
    row, column = row[other], column[other]
    if not len(row):
        return best
    products = scores[row, column].double()
    close = ((products / STEP).remainder(1) - 0.5).abs() < error_bound(
        products
    ) / STEP  # as in stages.retrieve.join.recompute_ties_float64
    products[close] = (queries[row[close]] * keys[column[close]]).double().sum(dim=1)
    found = (products / STEP).round().long() * SHIFT + (SHIFT - 1 - (first + column))
    count = torch.bincount(row, minlength=len(best))
    rank = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    all_codes = torch.full((len(best), k + int(count.max())), int(NONE), dtype=torch.int64, device=best.device)
    all_codes[:, :k] = best
    all_codes[row, k + rank] = found
    return all_codes.topk(k, dim=1).values
