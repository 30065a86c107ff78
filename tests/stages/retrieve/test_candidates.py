import numpy as np
import pytest

from stages.retrieve.candidates import Group, Groups, margin_ignoring
from stages.retrieve.clusters import cluster_identities


def unit(*rows):
    x = np.array(rows, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# two of one thing, and one that is almost the same
VECTORS = unit((1, 0, 0.1), (1, 0, -0.1), (1, 0.3, 0))
CLIPS = np.arange(3)


def test_a_rival_of_an_opposed_name_takes_nothing_from_the_margin():
    apart = [set(), set(), set()]
    found = cluster_identities(VECTORS, CLIPS, apart, 0.9, 2, differ=lambda a, b: 2 in (a, b))
    assert found.cluster.tolist() == [0, 0, 1]

    near = margin_ignoring(found, VECTORS, ["blue", "blue", "blue"], lambda a, b: a != b)
    far = margin_ignoring(found, VECTORS, ["blue", "blue", "red"], lambda a, b: a != b)
    expected = found.cohesion[0] - VECTORS[0] @ VECTORS[2]
    assert np.allclose(near.margin[:2], [expected, found.cohesion[1] - VECTORS[1] @ VECTORS[2]], atol=1e-4)
    assert np.all(np.isposinf(far.margin[:2]))
    assert np.isneginf(far.margin[2])


def test_a_cluster_counts_as_a_rival_as_long_as_one_of_its_members_may_be_meant():
    found = cluster_identities(VECTORS, CLIPS, [set(), set(), set()], 0.9, 2, differ=lambda a, b: 0 in (a, b))
    assert found.cluster.tolist() == [0, 1, 1]
    alone = found._replace(cohesion=np.array([1.0, *found.cohesion[1:]]))  # as if it were not

    mixed = margin_ignoring(alone, VECTORS, ["blue", "red", "blue"], lambda a, b: a != b)
    other = margin_ignoring(alone, VECTORS, ["blue", "red", "red"], lambda a, b: a != b)
    assert np.isfinite(mixed.margin[0])
    assert np.isposinf(other.margin[0])


def test_every_row_is_found_in_its_group():
    found = cluster_identities(VECTORS, CLIPS, [set(), set(), set()], 0.9, 2)
    about = (CLIPS, CLIPS, lambda rows: VECTORS[: len(rows)])
    several, one = (
        Group(np.array([5, 1, 4]), found, 0.9, np.array([77]), *about),
        Group(np.array([2]), found, 0.9, np.array([9]), *about),
    )
    groups = Groups(7, [several, one])
    assert groups.group.tolist() == [-1, 0, 1, -1, 0, 0, -1]
    assert groups.node[[5, 1, 4, 2]].tolist() == [0, 1, 2, 0]
    assert set(several.rows[several.nearest_in_cluster(np.array([0])).other].tolist()) == {1, 4}
    assert several.nearest_in_any_cluster(np.array([0]))[0].tolist() == [1]


def crowd(seed=0):
    """Twelve clips of Anna, four a video, and sixty of a lookalike, who is nearer to each of them than she is herself."""
    rng = np.random.default_rng(seed)
    anna, double = np.eye(24)[0], np.eye(24)[0] + 0.1 * np.eye(24)[1]
    x = np.vstack([anna + 0.06 * rng.normal(size=(12, 24)), double + 0.001 * rng.normal(size=(60, 24))])
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    apart = [{*range(12, 72)} if n < 12 else {*range(12)} for n in range(72)]
    found = cluster_identities(x, np.arange(72), apart, 0.5, 8)
    return Group(
        np.arange(72), found, 0.5, np.array([1, 2]), np.arange(72), np.arange(72) // 4, lambda rows: x[rows]
    ), x


def test_members_displaced_from_the_neighbours_by_a_lookalike_are_found():
    group, x = crowd()
    own = [(group.clustering.cluster[group.clustering.neighbour[n]] == 0).sum() for n in range(12)]
    assert min(own) < 8
    near = group.nearest_in_cluster(np.arange(12))
    assert near.query.tolist() == np.repeat(np.arange(12), 8).tolist()
    for node in range(12):
        mine = near.query == node
        expected = sorted((float(x[node] @ x[n]) for n in range(12) if n != node), reverse=True)[:8]
        assert near.similarity[mine].tolist() == pytest.approx(expected, abs=2e-5)
        assert (near.other[mine] < 12).all()


def test_farther_neighbours_come_from_other_videos_first_and_then_from_all_ranks_of_the_own():
    group, _ = crowd()
    near, farther = (
        {*group.nearest_in_cluster(np.array([20])).other.tolist()},
        group.next_in_cluster(np.array([20])).other.tolist(),
    )
    assert not near & {*farther}
    elsewhere = [row for row in farther if row // 4 != 5]
    assert elsewhere == farther[: len(elsewhere)]
    assert len({row // 4 for row in elsewhere}) == len(elsewhere) == 8
    assert len(farther) <= 16
    assert {*group.next_in_cluster(np.array([0])).other.tolist()} <= {*range(12)}
