"""Identity clusters of embeddings, with cannot-link constraints for elements that appear together. Pure functions.

Greedy average-linkage clustering over the graph of mutual nearest neighbours, with cannot-link constraints (Davidson and Ravi
2005, "Agglomerative Hierarchical Clustering with Constraints"). The constraints need no labels: a subject appears at most once in
a frame. Further rounds then join whole clusters, because a cluster may have more nodes than a neighbour list holds.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from a2data.task_map import TaskMap, map_serial
from stages.retrieve.join import decode, least_code, neighbour
from stages.retrieve.nearest import TILE, top_k, top_k_codes

# A node is compared with this fraction of a cluster, its nearest nodes, but at least MIN_NEAREST; see `neighbourhood_margin`.
NEAREST_FRACTION, MIN_NEAREST = 0.1, 10
SAMPLE = 1000  # nodes, evenly spaced, that represent a cluster in the search for its nearest tenth
BLOCK = 512  # nodes whose similarities to a sample are held at a time: 4 MB
RIVALS = 8  # clusters, nearest by mean, whose nearest tenth is searched
ENTRIES = 16384  # entries of neighbour lists, or nodes, that are handled at a time
COLUMNS = 16  # of vectors, copied at a time
MAX_COMPARED = 16  # nodes of each of two clusters passed to `differ`


class Identities(NamedTuple):
    """The result of `cluster_identities` for n nodes."""

    cluster: np.ndarray  # (n,) int64, numbered in the order of their first nodes
    cohesion: np.ndarray  # (n,) mean similarity to the others of its cluster; -inf for a singleton
    # (n,) cohesion minus the mean similarity to the nearest other cluster, or `neighbourhood_margin` if that is larger; inf
    # without another cluster, -inf for a singleton
    margin: np.ndarray
    codes: (
        np.ndarray
    )  # (n, k) int64, the nearest neighbours in other groups, best first, see stages.retrieve.join.decode

    @property
    def similarity(self) -> np.ndarray:
        """(n, k) float64; -inf where there are fewer."""
        return decode(self.codes)[0]

    @property
    def neighbour(self) -> np.ndarray:
        """(n, k) int64; -1 where there are fewer."""
        return decode(self.codes)[1]


def cluster_identities(
    vectors: np.ndarray,
    groups: np.ndarray,
    cannot_link: Sequence[set[int]],
    min_similarity: float,
    neighbours: int,
    differ: Callable[[int, int], bool] | None = None,
    ann_min_elements: int = 0,
    tile: int = TILE,
    task_map: TaskMap = map_serial,
    codes: np.ndarray | None = None,
) -> Identities:
    """Cluster nodes that show the same subject.

    vectors: (n, d) float32 of unit length; groups: (n,) integers, the clip of each node: neighbours are searched in other clips;
    cannot_link: for each node, its cannot-link nodes; min_similarity: of two nodes of one subject; neighbours: length of each
    neighbour list; differ: whether two mutual neighbours are different subjects by evidence that is not in these vectors;
    ann_min_elements, tile, task_map: see stages.retrieve.nearest.top_k_codes; codes: the neighbours, if they are known already.
    """
    search_options: dict[str, Any] = {"tile": tile, "task_map": task_map}
    if codes is None:
        codes = top_k_codes(
            vectors, vectors, neighbours, groups, groups, ann_min_elements=ann_min_elements, **search_options
        )
    pairs = mutual_neighbours(codes, min_similarity)
    clusters = Clusters(vectors, cannot_link)
    for i, j in iter_pairs(pairs) if differ else ():
        if differ and differ(i, j):
            clusters.forbid(i, j)
    for i, j in iter_pairs(pairs):
        clusters.join(i, j, min_similarity)
    mergeable = may_merge(codes, clusters.labels(), min_similarity)
    consolidate(clusters, groups, mergeable, min_similarity, neighbours, differ, **search_options)
    cluster = clusters.labels()
    cohesion, rival = cohesion_and_separation(vectors, cluster, **search_options)
    singleton = np.isneginf(cohesion)
    margin = np.where(singleton, -np.inf, np.where(singleton, 0, cohesion) - rival)
    nodes = low_margin_nodes(cluster, margin, min_similarity)
    margin[nodes] = np.maximum(
        margin[nodes], neighbourhood_margin(vectors, cluster, nodes, np.unique(cluster), **search_options)
    )
    return Identities(cluster, cohesion, margin, codes)


def mutual_neighbours(codes: np.ndarray, min_similarity: float) -> np.ndarray:
    """Return the mutual nearest neighbours i < j that reach `min_similarity`, (p, 2), most similar first, then by index."""
    pairs, scores = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for start in range(0, len(codes), BLOCK):
        nodes, others, similarity = pairs_above(codes[start : start + BLOCK], min_similarity)
        nodes += start
        ascending = np.flatnonzero(nodes < others)
        for first in range(0, len(ascending), ENTRIES):
            chunk = ascending[first : first + ENTRIES]
            mutual = chunk[(neighbour(codes[others[chunk]]) == nodes[chunk, None]).any(1)]
            pairs.append(np.stack([nodes[mutual], others[mutual]], 1))
            scores.append(similarity[mutual])
    all_pairs, all_scores = np.concatenate(pairs), np.concatenate(scores)
    return all_pairs[np.lexsort((all_pairs[:, 1], all_pairs[:, 0], -all_scores))]


def iter_pairs(pairs: np.ndarray) -> Iterator[list[int]]:
    """Yield the rows of (p, 2) pairs, of which few are Python objects at a time."""
    for start in range(0, len(pairs), ENTRIES):
        yield from pairs[start : start + ENTRIES].tolist()


def pairs_above(codes: np.ndarray, min_similarity: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nodes, their neighbours and similarities, (p,) each, of all entries of a list that reach `min_similarity`."""
    nodes, ranks = np.nonzero(codes >= least_code(min_similarity))
    similarity, neighbours = decode(codes[nodes, ranks])
    return nodes, neighbours, similarity


def merge(
    vectors: np.ndarray, pairs: list[tuple[int, int]], cannot_link: Sequence[set[int]], min_similarity: float
) -> np.ndarray:
    """Join the clusters of each pair in turn, unless a cannot-link pair or a mean similarity below `min_similarity` forbids it.

    The mean prevents chains: if a resembles b and b resembles c, a and c need not be the same. Returns (n,) int64 cluster
    numbers.
    """
    clusters = Clusters(vectors, cannot_link)
    for i, j in pairs:
        clusters.join(i, j, min_similarity)
    return clusters.labels()


class Clusters:
    """A partition of nodes, all singletons at first, that joins make coarser. Each cluster is identified by one of its nodes.

    The mean similarity of two clusters follows from the sums of their vectors, and constraints are kept between clusters, not
    between nodes. A test of two clusters therefore costs the same whatever their sizes, and all joins together cost n log n.
    """

    def __init__(self, vectors: np.ndarray, cannot_link: Sequence[set[int]]):
        """vectors: (n, d) float32 of unit length; cannot_link: for each node, its cannot-link nodes."""
        self.vectors = vectors
        self.cluster_of = list(range(len(vectors)))  # cluster of each node
        self.members = {i: [i] for i in self.cluster_of}
        self.cannot_link: dict[int, set[int]] = defaultdict(set)  # cluster -> its cannot-link clusters
        self._vector_sums: dict[int, np.ndarray] = {}  # of clusters with several nodes
        for i, others in enumerate(cannot_link):
            for j in others:
                self.forbid(i, j)

    def forbid(self, a: int, b: int) -> None:
        """Forbid these two clusters to be joined."""
        self.cannot_link[a].add(b)
        self.cannot_link[b].add(a)

    def vector_sum(self, cluster: int) -> np.ndarray:
        """Return the sum of the vectors of a cluster's nodes, (d,) float64."""
        return self._vector_sums[cluster] if cluster in self._vector_sums else self.vectors[cluster].astype(np.float64)

    def centre(self, cluster: int) -> np.ndarray:
        """Return the mean of the vectors of a cluster's nodes, (d,) float64."""
        return self.vector_sum(cluster) / len(self.members[cluster])

    def mean_similarity(self, a: int, b: int) -> float:
        """Return the mean similarity of the nodes of one cluster to those of another."""
        return round(float(self.vector_sum(a) @ self.vector_sum(b)) / (len(self.members[a]) * len(self.members[b])), 5)

    def cohesion(self, cluster: int) -> float:
        """Return the mean similarity of the nodes of a cluster to one another; nan for a singleton."""
        count, total = len(self.members[cluster]), self.vector_sum(cluster)
        return round(float(total @ total - count) / (count * (count - 1)), 5) if count > 1 else float("nan")

    def join(self, i: int, j: int, min_similarity: float) -> bool:
        """Join the clusters of two nodes unless constrained or below `min_similarity` on average; return whether it did."""
        kept, absorbed = self.cluster_of[i], self.cluster_of[j]
        if kept == absorbed:
            return False
        if (-len(self.members[absorbed]), absorbed) < (-len(self.members[kept]), kept):
            kept, absorbed = absorbed, kept
        if absorbed in self.cannot_link.get(kept, ()) or self.mean_similarity(kept, absorbed) < min_similarity:
            return False
        self._vector_sums[kept] = self.vector_sum(kept) + self.vector_sum(absorbed)
        self._vector_sums.pop(absorbed, None)
        for node in self.members[absorbed]:
            self.cluster_of[node] = kept
        self.members[kept] += self.members.pop(absorbed)
        for other in self.cannot_link.pop(absorbed, ()):
            self.cannot_link[other].discard(absorbed)
            self.forbid(kept, other)
        return True

    def labels(self) -> np.ndarray:
        """Return the cluster of each node, (n,) int64, numbered in the order of their first nodes."""
        _, first, inverse = np.unique(np.array(self.cluster_of, np.int64), return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[inverse]


def may_merge(codes: np.ndarray, cluster: np.ndarray, min_similarity: float) -> np.ndarray:
    """Return which nodes may still reach `min_similarity` with a node of another cluster, (n,) bool.

    If a node's neighbour list goes down below `min_similarity`, it contains every node that reaches it; if those are all in the
    node's own cluster, that cluster cannot be joined with another one. This holds for most clusters smaller than the list.
    """
    mergeable = codes[:, -1] >= least_code(min_similarity)
    for start in range(0, len(codes), BLOCK):
        nodes, others, _ = pairs_above(codes[start : start + BLOCK], min_similarity)
        mergeable[start + nodes[cluster[others] != cluster[start + nodes]]] = True
    return mergeable


def consolidate(
    clusters: Clusters,
    groups: np.ndarray,
    mergeable: np.ndarray,
    min_similarity: float,
    neighbours: int,
    differ: Callable[[int, int], bool] | None = None,
    **search_options: Any,
) -> None:
    """Join the clusters of `cluster_identities` with one another until none of their mean similarities reaches `min_similarity`.

    A subject with more nodes than a neighbour list holds is found in pieces, because its nodes fill one another's lists. Each
    round searches the nearest neighbours of the pieces by their mean vectors, whose product is their mean similarity, and joins
    the most similar first. It is enough that one of the two is among the other's nearest: otherwise a large piece could take in
    only as many small ones per round as its own list holds.

    groups: (n,) the clip of each node; mergeable: (n,) bool, the nodes whose clusters may have to be joined.
    """
    heads = np.unique(np.array(clusters.cluster_of, np.int64)[mergeable]).tolist()
    while len(heads) > 1:
        heads.sort(key=lambda head: min(clusters.members[head]))
        centres = np.stack([clusters.centre(head) for head in heads]).astype(np.float32)
        clips = [{int(groups[node]) for node in clusters.members[head]} for head in heads]
        only_clip = np.array([next(iter(clip)) if len(clip) == 1 else -1 - n for n, clip in enumerate(clips)])
        similarity, neighbour = top_k(centres, centres, neighbours, only_clip, only_clip, **search_options)
        joined = 0
        for i, j in neighbour_pairs(similarity, neighbour, min_similarity):
            a, b = clusters.cluster_of[heads[i]], clusters.cluster_of[heads[j]]
            near = differ is not None and a != b and clusters.mean_similarity(a, b) >= min_similarity
            if differ and near and clusters_differ(clusters, a, b, differ):
                clusters.forbid(a, b)
            joined += clusters.join(a, b, min_similarity)
        if not joined:
            return
        # The mean over a union is at most the larger mean over its parts: a cluster too far from all others now stays too far.
        near_another = np.array(heads)[similarity[:, 0] >= min_similarity].tolist()
        heads = sorted({clusters.cluster_of[head] for head in near_another})


def neighbour_pairs(similarity: np.ndarray, neighbour: np.ndarray, min_similarity: float) -> list[tuple[int, int]]:
    """Return pairs i < j, one among the other's nearest, that reach `min_similarity`: most similar first, then by index."""
    nodes, ranks = np.nonzero((neighbour >= 0) & (similarity >= min_similarity))
    others = neighbour[nodes, ranks]
    code = np.minimum(nodes, others) * max(len(neighbour), 1) + np.maximum(nodes, others)
    code, first = np.unique(code, return_index=True)
    i, j = np.divmod(code, max(len(neighbour), 1))
    order = np.lexsort((j, i, -similarity[nodes[first], ranks[first]]))
    return list(zip(i[order].tolist(), j[order].tolist(), strict=True))


def clusters_differ(clusters: Clusters, a: int, b: int, differ: Callable[[int, int], bool]) -> bool:
    """Return whether two clusters differ, by comparing the MAX_COMPARED nodes of each that are most like the other cluster."""

    def nearest(cluster: int, other: int) -> list[int]:
        nodes = np.array(sorted(clusters.members[cluster]))
        scores = np.round(clusters.vectors[nodes] @ clusters.centre(other), 5)
        return nodes[np.argsort(-scores, kind="stable")[:MAX_COMPARED]].tolist()

    return any(differ(i, j) for i in nearest(a, b) for j in nearest(b, a))


def cluster_sums(vectors: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return the sum of the vectors of each cluster, (clusters, d) float64, as np.add.at would in ten times the time."""
    total = np.empty((int(cluster.max()) + 1, vectors.shape[1]))
    for start in range(0, vectors.shape[1], COLUMNS):
        # a copy of several columns at a time reads each line of the cache once
        for number, column in enumerate(np.ascontiguousarray(vectors[:, start : start + COLUMNS].T), start):
            total[:, number] = np.bincount(cluster, column, len(total))
    return total


def cohesion_and_separation(
    vectors: np.ndarray, cluster: np.ndarray, tile: int = TILE, task_map: TaskMap = map_serial
) -> tuple[np.ndarray, np.ndarray]:
    """Return each node's mean similarity to the rest of its cluster, and to the nearest other cluster.

    Both (n,) float64, rounded to 5 decimals; -inf where there are no other nodes to compare with.
    """
    count = np.bincount(cluster)
    total = cluster_sums(vectors, cluster)
    size, own = count[cluster], np.empty(len(vectors))
    for start in range(0, len(vectors), ENTRIES):
        rows = slice(start, start + ENTRIES)
        own[rows] = np.einsum("nd,nd->n", vectors[rows], total[cluster[rows]] - vectors[rows])
    cohesion = np.where(size > 1, own / np.maximum(size - 1, 1), -np.inf)
    centres = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
    rival, _ = top_k(vectors, centres, 1, cluster, np.arange(count.size), tile=tile, task_map=task_map)
    return np.round(cohesion, 5), rival[:, 0]


def low_margin_nodes(cluster: np.ndarray, margin: np.ndarray, min_similarity: float) -> np.ndarray:
    """Return the nodes of large clusters whose margin is less than half of the distance from `min_similarity` to 1."""
    large = np.bincount(cluster)[cluster] > MIN_NEAREST + 1
    return np.flatnonzero(large & np.isfinite(margin) & (margin < (1 - min_similarity) / 2))


def neighbourhood_margin(
    vectors: np.ndarray, cluster: np.ndarray, nodes: np.ndarray, clusters: np.ndarray, **search_options: Any
) -> np.ndarray:
    """Return how much more similar each node is to the nearest tenth of its own cluster than to that of any other cluster.

    A person in thousands of clips is seen from many sides, and some views are so far from the rest that they remain singletons.
    The more there are, the more likely another side view is nearer to one of those than to the overall mean. The nearest tenth is
    used rather than the single nearest, which among ten thousand is near by chance.

    nodes: (m,) indices into vectors; clusters: the clusters that count as others. Returns (m,) float64, rounded to 5 decimals.
    """
    if not len(nodes):
        return np.empty(0)
    order = np.argsort(cluster, kind="stable")
    first = np.searchsorted(cluster[order], np.arange(int(cluster.max()) + 2))
    count = np.diff(first)
    members = np.split(order, first[1:-1])
    total = cluster_sums(vectors, cluster)
    centres = (total[clusters] / count[clusters, None]).astype(np.float32)
    _, rivals = top_k(vectors[nodes], centres, RIVALS, cluster[nodes], clusters, **search_options)
    index, rank = np.nonzero(rivals >= 0)

    rival = np.full(len(nodes), -np.inf)
    np.maximum.at(rival, index, mean_of_nearest(vectors, members, nodes[index], clusters[rivals[index, rank]]))
    return np.round(mean_of_nearest(vectors, members, nodes, cluster[nodes]) - rival, 5)


def mean_of_nearest(
    vectors: np.ndarray, members: Sequence[np.ndarray], nodes: np.ndarray, clusters: np.ndarray
) -> np.ndarray:
    """Return the mean similarity of each of m nodes to the nearest tenth of its paired cluster, itself excluded; (m,) float64.

    members: the nodes of each cluster, of which at most SAMPLE are compared, so that the cost is linear in the number of pairs.
    """
    out = np.empty(len(nodes))
    order = np.argsort(clusters, kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1) if len(nodes) else []:
        sample = members[clusters[pairs[0]]]
        sample = sample[np.linspace(0, len(sample) - 1, min(len(sample), SAMPLE)).astype(np.int64)]
        sample_vectors = vectors[sample].astype(np.float64)
        for start in range(0, len(pairs), BLOCK):
            rows = pairs[start : start + BLOCK]
            scores = vectors[nodes[rows]].astype(np.float64) @ sample_vectors.T
            scores[nodes[rows][:, None] == sample[None]] = -np.inf
            num_others = np.isfinite(scores).sum(1)
            num_nearest = np.maximum(
                np.minimum(num_others, MIN_NEAREST), np.ceil(NEAREST_FRACTION * num_others).astype(np.int64)
            )
            best = -np.sort(-scores, axis=1)
            out[rows] = np.cumsum(best, axis=1)[np.arange(len(rows)), num_nearest - 1] / num_nearest
    return out


def cannot_link_pairs(clips: Sequence[str], frames: Sequence[set[int]]) -> list[set[int]]:
    """Return for each node the nodes of the same clip that share a frame with it: its cannot-link nodes."""
    cannot_link: list[set[int]] = [set() for _ in clips]
    by_clip = defaultdict(list)
    for node, clip in enumerate(clips):
        by_clip[clip].append(node)
    for nodes in by_clip.values():
        for node in nodes:
            cannot_link[node] = {
                other for other in nodes if other != node and not frames[node].isdisjoint(frames[other])
            }
    return cannot_link


def stable_identity_id(name: str) -> int:
    """Return the id of the identity whose first member has that name: 48 bits of its hash, which JSON holds exactly.

    Unlike a running number, it does not change when other clusters appear or disappear.
    """
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16)


def components(names: Iterable[str], links: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Map each name to the alphabetically first one of its connected component; names with a common link number are linked."""
    head = {name: name for name in names}

    def find(name: str) -> str:
        while head[name] != name:
            head[name] = name = head[head[name]]
        return name

    first: dict[int, str] = {}
    for name, link in links:
        a, b = sorted((find(name), find(first.setdefault(link, name))))
        head[b] = a
    return {name: find(name) for name in head}
