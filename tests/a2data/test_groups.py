import numpy as np

from a2data.groups import Group, Groups, clear_of
from a2data.identity import identify


def unit(*rows):
    x = np.array(rows, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# two of one thing, and one that is almost the same
VECTORS = unit((1, 0, 0.1), (1, 0, -0.1), (1, 0.3, 0))
CLIPS = np.arange(3)


def test_a_rival_of_an_opposed_name_takes_nothing_from_the_margin():
    apart = [set(), set(), set()]
    found = identify(VECTORS, CLIPS, apart, 0.9, 2, differ=lambda a, b: 2 in (a, b))
    assert found.cluster.tolist() == [0, 0, 1]

    near = clear_of(found, VECTORS, ["blue", "blue", "blue"], lambda a, b: a != b)
    far = clear_of(found, VECTORS, ["blue", "blue", "red"], lambda a, b: a != b)
    expected = found.cohesion[0] - VECTORS[0] @ VECTORS[2]
    assert np.allclose(near.margin[:2], [expected, found.cohesion[1] - VECTORS[1] @ VECTORS[2]], atol=1e-4)
    assert np.all(np.isposinf(far.margin[:2]))
    assert np.isneginf(far.margin[2])


def test_a_cluster_counts_as_a_rival_as_long_as_one_of_its_members_may_be_meant():
    found = identify(VECTORS, CLIPS, [set(), set(), set()], 0.9, 2, differ=lambda a, b: 0 in (a, b))
    assert found.cluster.tolist() == [0, 1, 1]
    alone = found._replace(cohesion=np.array([1.0, *found.cohesion[1:]]))  # as if it were not

    mixed = clear_of(alone, VECTORS, ["blue", "red", "blue"], lambda a, b: a != b)
    other = clear_of(alone, VECTORS, ["blue", "red", "red"], lambda a, b: a != b)
    assert np.isfinite(mixed.margin[0])
    assert np.isposinf(other.margin[0])


def test_every_row_is_found_in_its_group():
    found = identify(VECTORS, CLIPS, [set(), set(), set()], 0.9, 2)
    groups = Groups(7, [Group(np.array([5, 1, 4]), found, 0.9, {0: 77}), Group(np.array([2]), found, 0.9, {0: 9})])
    assert [row for row, _ in groups.items()] == [1, 2, 4, 5]
    assert groups[4][1] == 2
    assert groups[2][0].identity(0) == 9
    assert 3 not in groups
    assert -1 not in groups
    assert {k.row for k in groups[5][0].kin(0)} == {1, 4}
