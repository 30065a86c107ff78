"""Candidate references: groups of comparable elements, and the same-identity neighbours of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stages.retrieve.clusters import Identities, cluster_sums, low_margin_nodes, neighbourhood_margin
from stages.retrieve.corpus import PARTS, Corpus, kind_code
from stages.retrieve.join import decode
from stages.retrieve.nearest import top_k

PAIRS_PER_BLOCK = 2048  # targets and candidates that are judged at a time, whose clips' thumbnails take 140 KB each
TARGETS_PER_WAVE = 200_000  # targets whose pictures and thumbnails are spooled at a time: up to 10 GB in TMPDIR
MAX_COMBINATIONS, MAX_OVERHEAD = 256, 2  # combinations that `dense_blocks` returns at a time, and for each pair


class NeighbourPairs(NamedTuple):
    """Pairs of a node and another of the same identity in another clip, the pairs of one node together, most similar first."""

    query: np.ndarray  # (p,) int64, index into the queried nodes, ascending
    other: np.ndarray  # (p,) int64, node
    similarity: np.ndarray  # (p,) float64


@dataclass(frozen=True)
class Group:
    """Elements that were compared with one another. A node is an index into the group, a row an index into the corpus."""

    rows: np.ndarray  # (n,) int64
    clustering: Identities
    min_similarity: float
    identities: np.ndarray  # (c,) int64: cluster -> identity id, see stages.retrieve.clusters.stable_identity_id
    clips: np.ndarray  # (n,) int64, clip of each node
    videos: np.ndarray  # (n,) int64, video of each node
    vectors_of: Callable[[np.ndarray], np.ndarray]  # rows -> embeddings, (m, d) float32

    @cached_property
    def _members(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the nodes sorted by cluster, and the offset at which each cluster begins."""
        order = np.argsort(self.clustering.cluster, kind="stable")
        return order, np.searchsorted(self.clustering.cluster[order], np.arange(int(self.clustering.cluster.max()) + 2))

    @cached_property
    def num_in_other_clips(self) -> np.ndarray:
        """Return for each node the number of nodes of its cluster in other clips."""
        cluster = self.clustering.cluster
        cluster_and_clip = cluster * (int(self.clips.max()) + 1) + self.clips
        _, inverse, count = np.unique(cluster_and_clip, return_inverse=True, return_counts=True)
        return np.bincount(cluster)[cluster] - count[inverse]

    def in_other_clips(self, node: int) -> np.ndarray:
        """Return the nodes of the same cluster that are in other clips, ascending."""
        order, first = self._members
        cluster = self.clustering.cluster[node]
        members = order[first[cluster] : first[cluster + 1]]
        return members[self.clips[members] != self.clips[node]]

    def nearest_in_cluster(self, nodes: np.ndarray) -> NeighbourPairs:
        """Return the nearest nodes of the same cluster in other clips, for each node at most as many as were searched.

        If other clusters fill a node's neighbour list, such as ten thousand clips of a lookalike, its own cluster is searched
        separately.
        """
        similarity, neighbour = decode(self.clustering.codes[nodes])
        same_cluster = (neighbour >= 0) & (
            self.clustering.cluster[neighbour] == self.clustering.cluster[nodes][:, None]
        )
        limit = neighbour.shape[1]
        incomplete = ~same_cluster.all(1) & (same_cluster.sum(1) < np.minimum(limit, self.num_in_other_clips[nodes]))
        same_cluster[incomplete] = False
        query, rank = np.nonzero(same_cluster)
        parts = [NeighbourPairs(query, neighbour[query, rank], similarity[query, rank])]
        for n in np.flatnonzero(incomplete).tolist():
            other, score = self._by_similarity_to(int(nodes[n]), self.in_other_clips(int(nodes[n])))
            parts.append(NeighbourPairs(np.full(min(limit, len(other)), n), other[:limit], score[:limit]))
        if len(parts) == 1:
            return parts[0]
        merged = NeighbourPairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        order = np.argsort(merged.query, kind="stable")
        return NeighbourPairs(*(column[order] for column in merged))

    def next_in_cluster(self, nodes: np.ndarray) -> NeighbourPairs:
        """Return further nodes of the clusters, for nodes whose nearest ones are all copies.

        The nearest of each other video come first, then nodes of its own video; at most twice as many as the search returned.
        Nodes of its own video are evenly spaced by rank, because the nearest are from one shot.
        """
        near, limit = self.nearest_in_cluster(nodes), self.clustering.codes.shape[1]
        parts = [NeighbourPairs(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.float64)))]
        has_more = np.bincount(near.query, minlength=len(nodes)) < self.num_in_other_clips[nodes]
        for n in np.flatnonzero(has_more).tolist():
            node = int(nodes[n])
            other, score = self._by_similarity_to(node, self.in_other_clips(node))
            remaining = ~np.isin(other, near.other[near.query == n])
            other, score = other[remaining], score[remaining]
            same_video = self.videos[other] == self.videos[node]
            _, first = np.unique(self.videos[other], return_index=True)
            other_videos = np.sort(first[~same_video[first]])[:limit]
            in_same_video = np.flatnonzero(same_video)
            step = -(-len(in_same_video) // limit) or 1
            chosen = np.concatenate([other_videos, in_same_video[step - 1 :: step]])
            parts.append(NeighbourPairs(np.full(len(chosen), n), other[chosen], score[chosen]))
        return NeighbourPairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _by_similarity_to(self, node: int, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return these nodes of the same cluster, most similar first, and their similarities."""
        if not len(others):
            return others, np.empty(0)
        vector, vectors = self.vectors_of(self.rows[[node]]), self.vectors_of(self.rows[others])
        similarity, order = top_k(vector, vectors, len(others), np.array([-1]), np.zeros(len(others), np.int64))
        return others[order[0]], similarity[0]

    def nearest_in_any_cluster(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and similarities of the most similar elements in other clips, in any cluster; -1 if there is none."""
        similarity, other = decode(self.clustering.codes[nodes, 0])
        return np.where(other < 0, -1, self.rows[other]), similarity


def margin_ignoring(
    clustering: Identities,
    vectors: np.ndarray,
    names: Sequence[str],
    incompatible: Callable[[str, str], bool],
    min_similarity: float = 0.0,
) -> Identities:
    """Return the identities with margins that ignore rival clusters whose names rule them out.

    A blue case resembles a green one in everything but colour; if colour tells them apart, the green one is not a rival. names:
    (n,), one per node; a cluster is ignored for the nodes whose names are incompatible with all names of its members;
    min_similarity: see stages.retrieve.clusters.low_margin_nodes.
    """
    distinct_names, code = np.unique(np.array(names, object).astype(str), return_inverse=True)
    count = int(clustering.cluster.max()) + 1
    centres = (cluster_sums(vectors, clustering.cluster) / np.bincount(clustering.cluster)[:, None]).astype(np.float32)
    names_in_cluster = np.zeros((count, len(distinct_names)), bool)  # names present in each cluster
    names_in_cluster[clustering.cluster, code] = True
    margin = clustering.margin.copy()
    for number, name in enumerate(distinct_names.tolist()):
        possible = names_in_cluster[:, [not incompatible(name, other) for other in distinct_names.tolist()]].any(1)
        nodes, clusters = np.flatnonzero(code == number), np.flatnonzero(possible)
        rival, _ = top_k(vectors[nodes], centres[clusters], 1, clustering.cluster[nodes], clusters)
        clustered = np.isfinite(clustering.cohesion[nodes])
        margin[nodes[clustered]] = clustering.cohesion[nodes[clustered]] - rival[clustered, 0]
        uncertain = np.intersect1d(nodes, low_margin_nodes(clustering.cluster, margin, min_similarity))
        neighbourhood = neighbourhood_margin(vectors, clustering.cluster, uncertain, clusters)
        margin[uncertain] = np.maximum(margin[uncertain], neighbourhood)
    return clustering._replace(margin=margin)


class Groups:
    """All groups of a corpus, with the group and node of each row."""

    def __init__(self, rows: int, groups: list[Group]):
        self.groups = groups
        self.group = np.full(rows, -1, np.int32)
        self.node = np.full(rows, -1, np.int64)
        for number, group in enumerate(groups):
            self.group[group.rows], self.node[group.rows] = number, np.arange(len(group.rows))

    def margins(self, corpus: Corpus, rows: np.ndarray) -> np.ndarray:
        """Return the margin of the element that identifies each row, (n,) float64; all rows must have an identity."""
        targets, margins = Targets.of(corpus, self, rows), np.full(len(rows), np.nan)
        for number, group in enumerate(self.groups):
            in_group = targets.group == number
            margins[in_group] = group.clustering.margin[targets.nodes[in_group]]
        return margins


class Targets(NamedTuple):
    """Elements that need a reference, with the node that identifies each: a human and its parts by the face."""

    rows: np.ndarray  # (n,)
    identified_by: np.ndarray  # (n,) row of the element that identifies it; -1 for none
    group: np.ndarray  # (n,) number of the node's group; -1: no identity
    nodes: np.ndarray  # (n,)

    @classmethod
    def of(cls, corpus: Corpus, group_of: Groups, rows: np.ndarray) -> "Targets":
        kind = corpus.kind[rows]
        part = np.isin(kind, [kind_code(corpus, name) for name in PARTS])
        human = np.where(part, corpus.parent[rows], rows)
        identified_by = np.where(human < 0, -1, corpus.face_of[human])
        identified_by = np.where(part | (kind == kind_code(corpus, "human")), identified_by, rows)
        unidentified = (identified_by < 0) | (part & (corpus.embedding_index[rows] < 0))
        return cls(
            rows,
            np.where(unidentified, -1, identified_by),
            np.where(unidentified, -1, group_of.group[identified_by]),
            group_of.node[identified_by],
        )

    def take(self, indices: np.ndarray) -> "Targets":
        return Targets(*(column[indices] for column in self))


def waves(group_of: Groups, targets: Targets) -> Iterator[list[tuple[Group, Targets]]]:
    """Divide the blocks of targets so that the pictures of a wave fit on a disk: a row group is read once for each wave."""
    wave, size = list[tuple[Group, Targets]](), 0
    for number, group in enumerate(group_of.groups):
        for block in blocks(group, targets.take(targets.group == number)):
            wave.append((group, block))
            size += len(block.rows)
            if size >= TARGETS_PER_WAVE:
                yield wave
                wave, size = [], 0
    if wave:
        yield wave


def blocks(group: Group, targets: Targets) -> Iterator[Targets]:
    """Divide the targets of a group so that a block has about PAIRS_PER_BLOCK candidates; those of one identity come together.

    They share their candidates, whose pictures and thumbnails are then read once.
    """
    order = np.lexsort((targets.rows, group.clustering.cluster[targets.nodes]))
    targets = targets.take(order)
    count = np.cumsum(np.minimum(group.num_in_other_clips[targets.nodes], group.clustering.codes.shape[1]) + 1)
    for part in np.split(np.arange(len(order)), np.flatnonzero(np.diff(count // PAIRS_PER_BLOCK)) + 1):
        if len(part):
            yield targets.take(part)


def dense_blocks(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Divide pairs (a, b), (p,) numbers each, into groups whose combinations are few, so that all of them can be computed.

    Pairs of equal a are adjacent, and so are those of one identity, most of whose combinations are pairs. Yields indices.
    """
    source_of, begin, size, sources = b.tolist(), 0, 0, set[int]()
    first = np.flatnonzero(np.r_[True, a[1:] != a[:-1]]).tolist() if len(a) else []
    for start, end in pairwise([*first, len(a)]):
        merged = sources.union(source_of[start:end])
        if size and (size + 1) * len(merged) > min(MAX_COMBINATIONS, MAX_OVERHEAD * (end - begin)):
            yield np.arange(begin, start)
            begin, size, merged = start, 0, set(source_of[start:end])
        size, sources = size + 1, merged
    if len(a):
        yield np.arange(begin, len(a))
