"""Candidate references: groups of comparable elements, and the same-identity neighbours of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stages.retrieve.clusters import Identities, doubtful, neighbourhood_margin
from stages.retrieve.nearest import top_k


@dataclass(frozen=True)
class Candidate:
    """An element of the same identity as a target."""

    row: int
    identity: int
    similarity: float
    min_similarity: float  # threshold of `similarity`
    margin: float  # smaller of the pair's margins to the nearest other identity
    cohesion: float  # smaller of the pair's mean similarities to the rest of their identity
    group_min_similarity: float  # threshold of `cohesion`


@dataclass(frozen=True)
class Group:
    """Elements that were compared with one another. A node is an index into the group, a row an index into the corpus."""

    rows: np.ndarray  # (n,) int64
    found: Identities
    min_similarity: float
    identities: dict[int, int]  # cluster -> identity id, see stages.retrieve.clusters.stable_identity_id
    clips: np.ndarray  # (n,) int64, clip of each node
    videos: np.ndarray  # (n,) int64, video of each node
    vectors_of: Callable[[np.ndarray], np.ndarray]  # rows -> embeddings, (m, d) float32

    def identity(self, node: int) -> int:
        return self.identities[int(self.found.cluster[node])]

    @cached_property
    def _members(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the nodes sorted by cluster, and the offset at which each cluster begins."""
        order = np.argsort(self.found.cluster, kind="stable")
        return order, np.searchsorted(self.found.cluster[order], np.arange(int(self.found.cluster.max()) + 2))

    def others(self, node: int) -> np.ndarray:
        """Return the nodes of the same cluster that are in other clips, ascending."""
        order, first = self._members
        cluster = self.found.cluster[node]
        members = order[first[cluster] : first[cluster + 1]]
        return members[self.clips[members] != self.clips[node]]

    def same_identity_neighbours(self, node: int) -> list[Candidate]:
        """Return the nearest nodes of the same cluster in other clips, most similar first, at most as many as were searched.

        If other clusters fill the node's neighbour list, such as ten thousand clips of a lookalike, its own cluster is searched
        separately.
        """
        found = self.found
        own = (found.neighbour[node] >= 0) & (found.cluster[found.neighbour[node]] == found.cluster[node])
        wanted = found.neighbour.shape[1]
        if not own.all() and own.sum() < min(wanted, len(others := self.others(node))):
            return self._by_similarity(node, others)[:wanted]
        return self._candidates(node, found.neighbour[node][own], found.similarity[node][own])

    def farther_neighbours(self, node: int) -> list[Candidate]:
        """Return further nodes of the cluster, for a target whose nearest ones are all copies.

        The nearest of each other video come first, then nodes of its own video; at most twice as many as the search returned.
        Nodes of its own video are evenly spaced by rank, because the nearest are from one shot.
        """
        wanted, others, near = (
            self.found.neighbour.shape[1],
            self.others(node),
            {k.row for k in self.same_identity_neighbours(node)},
        )
        if len(others) == len(near):
            return []
        ranked = [k for k in self._by_similarity(node, others) if k.row not in near]
        video_of = dict(zip(self.rows[others].tolist(), self.videos[others].tolist(), strict=True))
        own = int(self.videos[node])
        elsewhere: dict[int, Candidate] = {}
        for one in ranked:
            elsewhere.setdefault(video_of[one.row], one)
        elsewhere.pop(own, None)
        here = [k for k in ranked if video_of[k.row] == own]
        step = -(-len(here) // wanted) or 1
        return [*list(elsewhere.values())[:wanted], *here[step - 1 :: step]]

    def _by_similarity(self, node: int, others: np.ndarray) -> list[Candidate]:
        """Return these nodes of the same cluster, most similar first."""
        if not len(others):
            return []
        vector, vectors = self.vectors_of(self.rows[[node]]), self.vectors_of(self.rows[others])
        similarity, place = top_k(vector, vectors, len(others), np.array([-1]), np.zeros(len(others), np.int64))
        return self._candidates(node, others[place[0]], similarity[0])

    def _candidates(self, node: int, others: np.ndarray, similarities: np.ndarray) -> list[Candidate]:
        found = self.found
        return [
            Candidate(
                row=int(self.rows[other]),
                identity=self.identity(node),
                similarity=similarity,
                min_similarity=self.min_similarity,
                margin=float(min(found.margin[node], found.margin[other])),
                cohesion=float(min(found.cohesion[node], found.cohesion[other])),
                group_min_similarity=self.min_similarity,
            )
            for other, similarity in zip(others.tolist(), similarities.tolist(), strict=True)
        ]

    def nearest(self, node: int) -> tuple[int, float] | None:
        """Return the row and similarity of the most similar element in another clip, in any cluster; None if there is none."""
        other = int(self.found.neighbour[node, 0])
        return None if other < 0 else (int(self.rows[other]), float(self.found.similarity[node, 0]))


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
    centres = np.zeros((count, vectors.shape[1]))
    np.add.at(centres, found.cluster, vectors)
    centres = (centres / np.bincount(found.cluster)[:, None]).astype(np.float32)
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

    def __contains__(self, row: int) -> bool:
        return row >= 0 and self.group[row] >= 0

    def __getitem__(self, row: int) -> tuple[Group, int]:
        """Return the group of a row and its node there. Raises KeyError for a row that was not compared."""
        if row not in self:
            raise KeyError(row)
        return self.groups[self.group[row]], int(self.node[row])

    def items(self) -> Iterator[tuple[int, tuple[Group, int]]]:
        """Yield each compared row, ascending, with its group and its node there."""
        return ((row, self[row]) for row in np.flatnonzero(self.group >= 0).tolist())
