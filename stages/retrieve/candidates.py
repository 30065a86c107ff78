"""Candidate references: groups of comparable elements, and the same-identity neighbours of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stages.retrieve.clusters import Identities, doubtful, neighbourhood_margin, sums
from stages.retrieve.corpus import PARTS, Corpus, kind_code
from stages.retrieve.join import decode
from stages.retrieve.nearest import top_k

PAIRS = 2048  # targets and candidates that are judged at a time, whose clips' thumbnails take 140 KB each
WAVE = 200_000  # targets whose pictures and thumbnails are spooled at a time: up to 10 GB in TMPDIR
MOST, WASTE = 256, 2  # combinations that `dense` returns at a time, and for each pair


class Near(NamedTuple):
    """Pairs of a node and another of the same identity in another clip, the pairs of one node together, most similar first."""

    which: np.ndarray  # (p,) int64, index into the nodes that were asked for, ascending
    other: np.ndarray  # (p,) int64, node
    similarity: np.ndarray  # (p,) float64


@dataclass(frozen=True)
class Group:
    """Elements that were compared with one another. A node is an index into the group, a row an index into the corpus."""

    rows: np.ndarray  # (n,) int64
    found: Identities
    min_similarity: float
    identities: np.ndarray  # (c,) int64: cluster -> identity id, see stages.retrieve.clusters.stable_identity_id
    clips: np.ndarray  # (n,) int64, clip of each node
    videos: np.ndarray  # (n,) int64, video of each node
    vectors_of: Callable[[np.ndarray], np.ndarray]  # rows -> embeddings, (m, d) float32

    @cached_property
    def _members(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the nodes sorted by cluster, and the offset at which each cluster begins."""
        order = np.argsort(self.found.cluster, kind="stable")
        return order, np.searchsorted(self.found.cluster[order], np.arange(int(self.found.cluster.max()) + 2))

    @cached_property
    def num_others(self) -> np.ndarray:
        """Return for each node the number of nodes of its cluster in other clips."""
        cluster = self.found.cluster
        own = cluster * (int(self.clips.max()) + 1) + self.clips
        _, place, count = np.unique(own, return_inverse=True, return_counts=True)
        return np.bincount(cluster)[cluster] - count[place]

    def others(self, node: int) -> np.ndarray:
        """Return the nodes of the same cluster that are in other clips, ascending."""
        order, first = self._members
        cluster = self.found.cluster[node]
        members = order[first[cluster] : first[cluster + 1]]
        return members[self.clips[members] != self.clips[node]]

    def near(self, nodes: np.ndarray) -> Near:
        """Return the nearest nodes of the same cluster in other clips, for each node at most as many as were searched.

        If other clusters fill a node's neighbour list, such as ten thousand clips of a lookalike, its own cluster is searched
        separately.
        """
        similarity, neighbour = decode(self.found.codes[nodes])
        own = (neighbour >= 0) & (self.found.cluster[neighbour] == self.found.cluster[nodes][:, None])
        wanted = neighbour.shape[1]
        short = ~own.all(1) & (own.sum(1) < np.minimum(wanted, self.num_others[nodes]))
        own[short] = False
        which, rank = np.nonzero(own)
        found = [Near(which, neighbour[which, rank], similarity[which, rank])]
        for n in np.flatnonzero(short).tolist():
            other, score = self._by_similarity(int(nodes[n]), self.others(int(nodes[n])))
            found.append(Near(np.full(min(wanted, len(other)), n), other[:wanted], score[:wanted]))
        if len(found) == 1:
            return found[0]
        every = Near(*(np.concatenate(column) for column in zip(*found, strict=True)))
        order = np.argsort(every.which, kind="stable")
        return Near(*(column[order] for column in every))

    def farther(self, nodes: np.ndarray) -> Near:
        """Return further nodes of the clusters, for nodes whose nearest ones are all copies.

        The nearest of each other video come first, then nodes of its own video; at most twice as many as the search returned.
        Nodes of its own video are evenly spaced by rank, because the nearest are from one shot.
        """
        near, wanted = self.near(nodes), self.found.codes.shape[1]
        found = [Near(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.float64)))]
        for n in np.flatnonzero(np.bincount(near.which, minlength=len(nodes)) < self.num_others[nodes]).tolist():
            node = int(nodes[n])
            other, score = self._by_similarity(node, self.others(node))
            left = ~np.isin(other, near.other[near.which == n])
            other, score = other[left], score[left]
            here = self.videos[other] == self.videos[node]
            _, first = np.unique(self.videos[other], return_index=True)
            elsewhere = np.sort(first[~here[first]])[:wanted]
            own = np.flatnonzero(here)
            step = -(-len(own) // wanted) or 1
            chosen = np.concatenate([elsewhere, own[step - 1 :: step]])
            found.append(Near(np.full(len(chosen), n), other[chosen], score[chosen]))
        return Near(*(np.concatenate(column) for column in zip(*found, strict=True)))

    def _by_similarity(self, node: int, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return these nodes of the same cluster, most similar first, and their similarities."""
        if not len(others):
            return others, np.empty(0)
        vector, vectors = self.vectors_of(self.rows[[node]]), self.vectors_of(self.rows[others])
        similarity, place = top_k(vector, vectors, len(others), np.array([-1]), np.zeros(len(others), np.int64))
        return others[place[0]], similarity[0]

    def nearest(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and similarities of the most similar elements in other clips, in any cluster; -1 if there is none."""
        similarity, other = decode(self.found.codes[nodes, 0])
        return np.where(other < 0, -1, self.rows[other]), similarity


def margin_ignoring(
    found: Identities,
    vectors: np.ndarray,
    names: Sequence[str],
    opposed: Callable[[str, str], bool],
    min_similarity: float = 0.0,
) -> Identities:
    """Return the identities with margins that ignore rival clusters whose names rule them out.

    A blue case resembles a green one in everything but colour; if colour tells them apart, the green one is not a rival. names:
    (n,), one per node; a cluster is ignored for the nodes whose names are opposed to all names of its members; min_similarity:
    see stages.retrieve.clusters.doubtful.
    """
    known, code = np.unique(np.array(names, object).astype(str), return_inverse=True)
    count = int(found.cluster.max()) + 1
    centres = (sums(vectors, found.cluster) / np.bincount(found.cluster)[:, None]).astype(np.float32)
    held = np.zeros((count, len(known)), bool)  # names present in each cluster
    held[found.cluster, code] = True
    margin = found.margin.copy()
    for number, name in enumerate(known.tolist()):
        possible = held[:, [not opposed(name, other) for other in known.tolist()]].any(1)
        nodes, clusters = np.flatnonzero(code == number), np.flatnonzero(possible)
        rival, _ = top_k(vectors[nodes], centres[clusters], 1, found.cluster[nodes], clusters)
        together = np.isfinite(found.cohesion[nodes])
        margin[nodes[together]] = found.cohesion[nodes[together]] - rival[together, 0]
        unsure = np.intersect1d(nodes, doubtful(found.cluster, margin, min_similarity))
        near = neighbourhood_margin(vectors, found.cluster, unsure, clusters)
        margin[unsure] = np.maximum(margin[unsure], near)
    return found._replace(margin=margin)


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
        asked, out = Targets.of(corpus, self, rows), np.full(len(rows), np.nan)
        for number, group in enumerate(self.groups):
            mine = asked.group == number
            out[mine] = group.found.margin[asked.nodes[mine]]
        return out


class Targets(NamedTuple):
    """Elements that need a reference, with the node that identifies each: a human and its parts by the face."""

    rows: np.ndarray  # (n,)
    known_by: np.ndarray  # (n,) row of the element that identifies it; -1 for none
    group: np.ndarray  # (n,) number of the node's group; -1: no identity
    nodes: np.ndarray  # (n,)

    @classmethod
    def of(cls, corpus: Corpus, group_of: Groups, rows: np.ndarray) -> "Targets":
        kind = corpus.kind[rows]
        part = np.isin(kind, [kind_code(corpus, name) for name in PARTS])
        human = np.where(part, corpus.parent[rows], rows)
        known_by = np.where(human < 0, -1, corpus.face_of[human])
        known_by = np.where(part | (kind == kind_code(corpus, "human")), known_by, rows)
        none = (known_by < 0) | (part & (corpus.place[rows] < 0))
        return cls(
            rows, np.where(none, -1, known_by), np.where(none, -1, group_of.group[known_by]), group_of.node[known_by]
        )

    def at(self, chosen: np.ndarray) -> "Targets":
        return Targets(*(column[chosen] for column in self))


def waves(group_of: Groups, asked: Targets) -> Iterator[list[tuple[Group, Targets]]]:
    """Divide the blocks of targets so that the pictures of a wave fit on a disk: a row group is read once for each wave."""
    wave, size = list[tuple[Group, Targets]](), 0
    for number, group in enumerate(group_of.groups):
        for block in blocks(group, asked.at(asked.group == number)):
            wave.append((group, block))
            size += len(block.rows)
            if size >= WAVE:
                yield wave
                wave, size = [], 0
    if wave:
        yield wave


def blocks(group: Group, asked: Targets) -> Iterator[Targets]:
    """Divide the targets of a group so that a block has about PAIRS candidates; those of one identity come together.

    They share their candidates, whose pictures and thumbnails are then read once.
    """
    order = np.lexsort((asked.rows, group.found.cluster[asked.nodes]))
    asked = asked.at(order)
    count = np.cumsum(np.minimum(group.num_others[asked.nodes], group.found.codes.shape[1]) + 1)
    for part in np.split(np.arange(len(order)), np.flatnonzero(np.diff(count // PAIRS)) + 1):
        if len(part):
            yield asked.at(part)


def dense(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Divide pairs (a, b), (p,) numbers each, into groups whose combinations are few, so that all of them can be computed.

    Pairs of equal a are adjacent, and so are those of one identity, most of whose combinations are pairs. Yields indices.
    """
    other, begin, size, held = b.tolist(), 0, 0, set[int]()
    first = np.flatnonzero(np.r_[True, a[1:] != a[:-1]]).tolist() if len(a) else []
    for start, end in pairwise([*first, len(a)]):
        both = held.union(other[start:end])
        if size and (size + 1) * len(both) > min(MOST, WASTE * (end - begin)):
            yield np.arange(begin, start)
            begin, size, both = start, 0, set(other[start:end])
        size, held = size + 1, both
    if len(a):
        yield np.arange(begin, len(a))
