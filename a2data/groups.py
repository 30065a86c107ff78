"""Elements that were compared with one another, and who in them shows the same subject as whom."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from a2data.identity import Identities
from a2data.similarity import top_k


@dataclass(frozen=True)
class Kin:
    """An element that shows the same subject as a target does."""

    row: int
    identity: int
    similarity: float
    low: float  # what the similarity must reach
    margin: float  # the smaller one of the pair's: how far they stand from the nearest other identity
    cohesion: float  # the smaller one of the pair's: how far they stand in their own
    group_low: float  # what the cohesion must reach


@dataclass(frozen=True)
class Group:
    """Elements that were compared with one another. Nodes count them, rows count the elements of the corpus."""

    rows: np.ndarray  # (n,) int64
    found: Identities
    low: float
    identities: dict[int, int]  # cluster -> the number of its identity, see a2data.identity.number

    def identity(self, node: int) -> int:
        return self.identities[int(self.found.cluster[node])]

    def kin(self, node: int) -> list[Kin]:
        """The node's neighbours of its own cluster, most similar first."""
        found, cluster = self.found, int(self.found.cluster[node])
        return [
            Kin(
                row=int(self.rows[other]),
                identity=self.identities[cluster],
                similarity=similarity,
                low=self.low,
                margin=float(min(found.margin[node], found.margin[other])),
                cohesion=float(min(found.cohesion[node], found.cohesion[other])),
                group_low=self.low,
            )
            for other, similarity in zip(found.neighbour[node].tolist(), found.similarity[node].tolist(), strict=True)
            if other >= 0 and found.cluster[other] == cluster
        ]

    def nearest(self, node: int) -> tuple[int, float] | None:
        """The row of the most similar element of another clip, of the node's cluster or not, and its similarity."""
        other = int(self.found.neighbour[node, 0])
        return None if other < 0 else (int(self.rows[other]), float(self.found.similarity[node, 0]))


def clear_of(
    found: Identities, vectors: np.ndarray, names: Sequence[str], opposed: Callable[[str, str], bool]
) -> Identities:
    """The same with margins for which only those clusters count that may be a node's by their names.

    A blue case is like a green one in all but its colour: where that is known to tell them apart, the green one is no rival.
    names: (n,) of the nodes; a cluster is out of the question for those whose names are opposed to all of its members'.
    """
    known, code = np.unique(np.array(names, object).astype(str), return_inverse=True)
    count = int(found.cluster.max()) + 1
    centres = np.zeros((count, vectors.shape[1]))
    np.add.at(centres, found.cluster, vectors)
    centres = (centres / np.bincount(found.cluster)[:, None]).astype(np.float32)
    held = np.zeros((count, len(known)), bool)  # which names are in each cluster
    held[found.cluster, code] = True
    margin = found.margin.copy()
    for number, name in enumerate(known.tolist()):
        possible = held[:, [not opposed(name, other) for other in known.tolist()]].any(1)
        nodes, clusters = np.flatnonzero(code == number), np.flatnonzero(possible)
        rival, _ = top_k(vectors[nodes], centres[clusters], 1, found.cluster[nodes], clusters)
        together = np.isfinite(found.cohesion[nodes])
        margin[nodes[together]] = found.cohesion[nodes[together]] - rival[together, 0]
    return found._replace(margin=margin)


class Groups:
    """All groups of a corpus: to which each row belongs, and as which node."""

    def __init__(self, rows: int, groups: list[Group]):
        self.groups = groups
        self.group = np.full(rows, -1, np.int32)
        self.node = np.full(rows, -1, np.int64)
        for number, group in enumerate(groups):
            self.group[group.rows], self.node[group.rows] = number, np.arange(len(group.rows))

    def __contains__(self, row: int) -> bool:
        return row >= 0 and self.group[row] >= 0

    def __getitem__(self, row: int) -> tuple[Group, int]:
        """Raises KeyError for a row that was not compared."""
        if row not in self:
            raise KeyError(row)
        return self.groups[self.group[row]], int(self.node[row])

    def items(self) -> Iterator[tuple[int, tuple[Group, int]]]:
        """Each row that was compared, ascending, with its group and its node there."""
        return ((row, self[row]) for row in np.flatnonzero(self.group >= 0).tolist())
