"""Who is the same: clusters of embeddings that never join what was seen side by side. Pure functions.

A greedy average-linkage clustering over the graph of mutual nearest neighbours, with cannot-link constraints (Davidson and Ravi
2005, "Agglomerative Hierarchical Clustering with Constraints"). The constraints cost nothing: nobody is twice in one frame.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from a2data.similarity import TILE, top_k
from a2data.spread import Spread, in_turn


class Identities(NamedTuple):
    """What `identify` found out about n nodes."""

    cluster: np.ndarray  # (n,) int64, numbered in the order of their first nodes
    cohesion: np.ndarray  # (n,) mean similarity to the others of its cluster; -inf for one that is alone
    # (n,) cohesion minus the mean similarity to the nearest other cluster; inf without one, -inf alone
    margin: np.ndarray
    similarity: np.ndarray  # (n, k) to its nearest neighbours in other groups, best first; -inf where there are fewer
    neighbour: np.ndarray  # (n, k) int64, their indices; -1 where there are fewer


def identify(
    vectors: np.ndarray,
    groups: np.ndarray,
    apart: Sequence[set[int]],
    low: float,
    neighbours: int,
    differ: Callable[[int, int], bool] | None = None,
    approximate_from: int = 0,
    tile: int = TILE,
    spread: Spread = in_turn,
) -> Identities:
    """Cluster nodes that show the same subject.

    vectors: (n, d) float32 of unit length; groups: (n,) integers, the clip of each node: neighbours are sought in other clips;
    apart: for each node, those that are certainly somebody else; low: the similarity from which two nodes may be the same;
    neighbours: how many nearest neighbours are looked at; differ: of two that are each among the other's, whether they are two
    all the same, by what these vectors do not show; approximate_from, tile, spread: see a2data.similarity.top_k.
    """
    how: dict[str, Any] = {"tile": tile, "spread": spread}
    similarity, neighbour = top_k(
        vectors, vectors, neighbours, groups, groups, approximate_from=approximate_from, **how
    )
    pairs = mutual(similarity, neighbour, low)
    if differ:
        apart = [set(others) for others in apart]
        for i, j in pairs:
            if differ(i, j):
                apart[i].add(j)
                apart[j].add(i)
    cluster = merge(vectors, pairs, apart, low)
    cohesion, rival = stand(vectors, cluster, **how)
    alone = np.isneginf(cohesion)
    margin = np.where(alone, -np.inf, np.where(alone, 0, cohesion) - rival)
    return Identities(cluster, cohesion, margin, similarity, neighbour)


def mutual(similarity: np.ndarray, neighbour: np.ndarray, low: float) -> list[tuple[int, int]]:
    """Pairs i < j that are each among the other's nearest neighbours, at `low` or above: most similar first, then by index."""
    n = len(neighbour)
    nodes, ranks = np.nonzero((neighbour >= 0) & (similarity >= low))
    others = neighbour[nodes, ranks]
    both, first, _ = np.intersect1d(nodes * n + others, others * n + nodes, return_indices=True)
    i, j = both // max(n, 1), both % max(n, 1)
    order = np.lexsort((j, i, -similarity[nodes[first], ranks[first]]))
    return [(a, b) for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True) if a < b]


def merge(vectors: np.ndarray, pairs: list[tuple[int, int]], apart: Sequence[set[int]], low: float) -> np.ndarray:
    """Join the clusters of each pair in turn, unless two of their nodes are apart or their mean similarity is below `low`.

    The mean keeps chains short: a is like b and b like c does not make a and c the same. Returns (n,) int64 cluster numbers.
    """
    home = list(range(len(vectors)))
    members = {i: [i] for i in home}
    enemies = {i: set(apart[i]) for i in home}
    total = {i: vectors[i].astype(np.float64) for i in home}
    for i, j in pairs:
        keep, gone = sorted((home[i], home[j]), key=lambda c: (-len(members[c]), c))
        if keep == gone or not enemies[keep].isdisjoint(members[gone]):
            continue
        mean = total[keep] @ total[gone] / (len(members[keep]) * len(members[gone]))
        if round(float(mean), 5) < low:
            continue
        for node in members[gone]:
            home[node] = keep
        members[keep] += members.pop(gone)
        enemies[keep] |= enemies.pop(gone)
        total[keep] += total.pop(gone)
    first = {c: min(nodes) for c, nodes in members.items()}
    number = {c: n for n, c in enumerate(sorted(members, key=first.__getitem__))}
    return np.array([number[c] for c in home], np.int64)


def stand(
    vectors: np.ndarray, cluster: np.ndarray, tile: int = TILE, spread: Spread = in_turn
) -> tuple[np.ndarray, np.ndarray]:
    """How well each node stands in its cluster: its mean similarity to the others in it, and to the nearest other cluster.

    Both (n,) float64, rounded to 5 decimals; -inf where there is nobody to compare with.
    """
    count = np.bincount(cluster)
    total = np.zeros((count.size, vectors.shape[1]))
    np.add.at(total, cluster, vectors)
    own, size = np.einsum("nd,nd->n", vectors, total[cluster] - vectors), count[cluster]
    cohesion = np.where(size > 1, own / np.maximum(size - 1, 1), -np.inf)
    centres = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
    rival, _ = top_k(vectors, centres, 1, cluster, np.arange(count.size), tile=tile, spread=spread)
    return np.round(cohesion, 5), rival[:, 0]


def seen_together(clips: Sequence[str], frames: Sequence[set[int]]) -> list[set[int]]:
    """For each node those of the same clip that share a frame with it: they are certainly somebody else."""
    apart: list[set[int]] = [set() for _ in clips]
    by_clip = defaultdict(list)
    for node, clip in enumerate(clips):
        by_clip[clip].append(node)
    for nodes in by_clip.values():
        for node in nodes:
            apart[node] = {other for other in nodes if other != node and not frames[node].isdisjoint(frames[other])}
    return apart


def number(name: str) -> int:
    """The number of the identity whose first member has that name: 48 bits of its hash, which JSON holds exactly.

    It does not change when others come or go, as a count of clusters would.
    """
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)


def components(names: Iterable[str], links: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Each name -> the first, by alphabet, of those that it is connected with: names that have a link's number in common are."""
    head = {name: name for name in names}

    def find(name: str) -> str:
        while head[name] != name:
            head[name] = name = head[head[name]]
        return name

    first: dict[int, str] = {}
    for name, shared in links:
        a, b = sorted((find(name), find(first.setdefault(shared, name))))
        head[b] = a
    return {name: find(name) for name in head}
