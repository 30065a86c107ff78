import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.retrieve.clusters import (
    Clusters,
    cannot_link_pairs,
    cluster_identities,
    cluster_sums,
    cohesion_and_separation,
    components,
    low_margin_nodes,
    may_merge,
    merge,
    mutual_neighbours,
    neighbourhood_margin,
    stable_identity_id,
)
from stages.retrieve.join import encode


def planted(seed, people, takes, noise, d=64):
    """Takes of people: each is its person's direction plus noise. Returns vectors and who each shows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    who = np.repeat(np.arange(people), takes)
    x = centres[who] + noise * rng.normal(size=(len(who), d)) / np.sqrt(d)
    order = rng.permutation(len(who))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x[order], who[order]


def nobody(n):
    return [set() for _ in range(n)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 6))
def test_planted_people_are_found_again(seed, people, takes):
    x, who = planted(seed, people, takes, noise=0.5)
    found = cluster_identities(x, np.arange(len(x)), nobody(len(x)), min_similarity=0.6, neighbours=32)
    same = found.cluster[:, None] == found.cluster[None]
    assert not np.any(same & (who[:, None] != who[None]))
    assert same.sum() >= 0.9 * (who[:, None] == who[None]).sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_two_who_were_seen_together_are_never_one(seed):
    rng = np.random.default_rng(seed)
    x, _ = planted(seed, 3, 6, noise=0.8)
    apart = nobody(len(x))
    for i, j in rng.integers(0, len(x), (20, 2)):
        if i != j:
            apart[i].add(int(j))
            apart[j].add(int(i))
    found = cluster_identities(x, np.arange(len(x)), apart, min_similarity=0.2, neighbours=32)
    for i, enemies in enumerate(apart):
        assert all(found.cluster[i] != found.cluster[j] for j in enemies)


def test_twins_in_one_frame_stay_two_although_they_look_the_same():
    x = np.float32([[1, 0], [1, 0], [1, 0]])
    apart = [{1}, {0}, set()]
    assert merge(x, [(0, 2), (1, 2)], apart, min_similarity=0.9).tolist() == [0, 1, 0]


def test_a_chain_of_likenesses_does_not_join_its_ends():
    angles = np.deg2rad(np.arange(0, 91, 15))
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    chain = [(i, i + 1) for i in range(len(x) - 1)]
    cluster = merge(x, chain, nobody(len(x)), min_similarity=np.cos(np.deg2rad(30)))
    assert cluster[0] != cluster[-1]
    for one in set(cluster.tolist()):
        inside = np.flatnonzero(cluster == one)
        assert np.ptp(angles[inside]) <= np.deg2rad(61)


def test_pairs_are_neighbours_of_each_other_and_come_most_similar_first():
    codes = encode(np.array([[0.9, 0.7], [0.9, 0.8], [0.8, 0.7]]), np.array([[1, 2], [0, 2], [1, 0]]))
    assert mutual_neighbours(codes, 0.0).tolist() == [[0, 1], [1, 2], [0, 2]]
    assert mutual_neighbours(codes, 0.75).tolist() == mutual_neighbours(codes, 0.8).tolist() == [[0, 1], [1, 2]]
    assert mutual_neighbours(codes, 0.80001).tolist() == [[0, 1]]
    assert mutual_neighbours(codes[:, :1], 0.0).tolist() == [[0, 1]]  # 2 likes 1, but 1 likes 0 better


def test_the_margin_is_how_much_better_the_own_cluster_is_than_the_next():
    x, _ = planted(3, 3, 4, noise=0.4)
    found = cluster_identities(x, np.arange(len(x)), nobody(len(x)), min_similarity=0.6, neighbours=32)
    for i in range(len(x)):
        means = {
            c: np.mean([x[i] @ x[j] for j in range(len(x)) if found.cluster[j] == c and j != i])
            for c in set(found.cluster)
        }
        own = means.pop(found.cluster[i])
        assert np.isclose(found.cohesion[i], own, atol=1e-4)
        assert np.isclose(found.margin[i], own - max(means.values()), atol=1e-4)


def test_one_who_is_alone_has_no_cohesion():
    cohesion, rival = cohesion_and_separation(np.float32([[1, 0], [0, 1]]), np.array([0, 1]))
    assert np.all(np.isneginf(cohesion))
    assert rival.tolist() == [0, 0]


def test_only_those_who_share_a_frame_of_a_clip_are_apart():
    clips = ["a", "a", "a", "b"]
    frames = [{0, 5}, {5, 10}, {10}, {5}]
    assert cannot_link_pairs(clips, frames) == [{1}, {0, 2}, {1}, set()]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_the_order_of_the_nodes_does_not_matter(seed, neighbours):
    rng = np.random.default_rng(seed)
    x, _ = planted(seed, 4, 5, noise=0.8)
    apart = nobody(len(x))
    for i, j in rng.integers(0, len(x), (8, 2)):
        if i != j:
            apart[i].add(int(j))
            apart[j].add(int(i))
    order = rng.permutation(len(x))
    place = np.argsort(order)
    moved = [{int(place[j]) for j in apart[i]} for i in order]
    one = cluster_identities(x, np.arange(len(x)), apart, 0.3, neighbours)
    other = cluster_identities(x[order], np.arange(len(x)), moved, 0.3, neighbours)
    scores = np.sort(np.unique(np.round(x @ x.T, 5))[:-1])
    if np.diff(scores).min() > 0 and len(scores) == len(x) * (len(x) - 1) // 2:  # no two pairs alike: no tie to break
        same = one.cluster[order][:, None] == one.cluster[order][None]
        assert np.array_equal(same, other.cluster[:, None] == other.cluster[None])
        np.testing.assert_allclose(one.margin[order], other.margin, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.8))
def test_every_cluster_is_as_dense_as_asked_for_when_its_last_two_parts_were_joined(seed, low):
    x, _ = planted(seed, 3, 6, noise=1.0)
    found = cluster_identities(x, np.arange(len(x)), nobody(len(x)), low, 16)
    for cluster in set(found.cluster.tolist()):
        members = x[found.cluster == cluster].astype(np.float64)
        if len(members) > 1:  # a mean of means of at least `low` each
            assert (np.sum(members @ members.T) - len(members)) / (len(members) * (len(members) - 1)) >= low - 1e-4


@pytest.mark.parametrize("neighbours", [4, 8])
def test_a_person_of_more_clips_than_neighbours_is_one_cluster(neighbours):
    x, who = planted(1, people=4, takes=60, noise=0.75)
    found = cluster_identities(x, np.arange(len(x)), nobody(len(x)), min_similarity=0.45, neighbours=neighbours)
    assert len({*zip(found.cluster.tolist(), who.tolist(), strict=True)}) == found.cluster.max() + 1 == 4
    assert found.margin.min() > 0.1


def test_pieces_whose_nodes_were_seen_together_or_differ_stay_apart():
    x, _ = planted(2, people=1, takes=60, noise=0.75)
    each = np.arange(len(x))
    apart = nobody(len(x))
    apart[0], apart[1] = {1}, {0}
    parted = cluster_identities(x, each, apart, 0.45, 4)
    assert parted.cluster[0] != parted.cluster[1]
    half = [n % 2 for n in range(len(x))]
    parted = cluster_identities(x, each, nobody(len(x)), 0.45, 4, differ=lambda i, j: half[i] != half[j])
    assert all(len({half[i] for i in np.flatnonzero(parted.cluster == c)}) == 1 for c in {*parted.cluster.tolist()})
    assert parted.cluster.max() == 1


def test_joins_of_pieces_do_not_depend_on_the_tile():
    x, _ = planted(3, people=5, takes=40, noise=0.8)
    one, other = (
        cluster_identities(x, np.arange(len(x)), nobody(len(x)), 0.45, 6, tile=tile) for tile in (1 << 15, 37)
    )
    assert np.array_equal(one.cluster, other.cluster)
    assert np.array_equal(one.margin, other.margin)


def test_clusters_that_are_complete_are_not_looked_at_again():
    x, _ = planted(4, people=5, takes=6, noise=0.3)
    found = cluster_identities(x, np.arange(len(x)), nobody(len(x)), min_similarity=0.6, neighbours=16)
    assert not may_merge(found.codes, found.cluster, 0.6).any()
    halved = np.arange(len(x)) % 2 + 2 * found.cluster
    assert may_merge(found.codes, halved, 0.6).all()
    assert may_merge(found.codes[:, :3], found.cluster, 0.6).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_clusters_keep_their_sums_and_constraints_through_any_joins(seed, joins):
    rng = np.random.default_rng(seed)
    x, _ = planted(seed, 3, 5, noise=1.0)
    apart = nobody(len(x))
    for i, j in rng.integers(0, len(x), (5, 2)).tolist():
        if i != j:
            apart[i].add(j)
    clusters = Clusters(x, apart)
    for i, j in rng.integers(0, len(x), (joins, 2)).tolist():
        clusters.join(i, j, min_similarity=-1.0)
    cluster = clusters.labels()
    assert cluster[0] == 0
    assert all(cluster[i] != cluster[j] for i, others in enumerate(apart) for j in others)
    for head, members in clusters.members.items():
        assert sorted(members) == np.flatnonzero(cluster == cluster[head]).tolist()
        np.testing.assert_allclose(clusters.vector_sum(head), x[members].astype(float).sum(0), atol=1e-9)


def test_a_view_left_alone_is_not_a_rival_to_one_that_is_nearer_to_many_of_its_own():
    rng = np.random.default_rng(0)
    front, side = np.eye(16)[:2]
    angle = np.deg2rad(np.linspace(0, 60, 80))
    views = np.cos(angle)[:, None] * front + np.sin(angle)[:, None] * side + 0.02 * rng.normal(size=(80, 16))
    alone = np.cos(np.deg2rad(68)) * front + np.sin(np.deg2rad(68)) * side
    x = np.vstack([views, alone])
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    cluster = np.array([0] * 80 + [1])
    cohesion, rival = cohesion_and_separation(x, cluster)
    assert cohesion[79] < rival[79]  # by the mean of all views, the profile belongs with the one that is alone
    nodes = low_margin_nodes(cluster, cohesion - rival, 0.6)
    near = dict(zip(nodes.tolist(), neighbourhood_margin(x, cluster, nodes, np.arange(2)), strict=True))
    own = np.sort(x[:79].astype(float) @ x[79].astype(float))[::-1][:10].mean()
    assert near[79] == pytest.approx(own - float(x[79] @ x[80]), abs=1e-4)
    assert 80 not in near


def test_small_clusters_are_compared_by_all_of_their_members():
    assert low_margin_nodes(np.repeat([0, 1], [11, 12]), np.zeros(23), 0.5).tolist() == list(range(11, 23))


def test_two_that_differ_by_something_else_are_never_one():
    x, who = planted(5, 2, 6, noise=0.3)
    odd = [n % 2 for n in range(len(x))]
    found = cluster_identities(x, np.arange(len(x)), nobody(len(x)), 0.5, 16, differ=lambda i, j: odd[i] != odd[j])
    assert all(len({odd[i] for i in np.flatnonzero(found.cluster == c)}) == 1 for c in set(found.cluster.tolist()))
    plain = cluster_identities(x, np.arange(len(x)), nobody(len(x)), 0.5, 16)
    assert plain.cluster.max() + 1 == 2 < found.cluster.max() + 1
    assert len(who) == 12


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 6)), max_size=12), st.randoms())
def test_components_are_those_that_a_walk_over_the_links_reaches(links, random):
    found = components("abcdefgh", links)
    for start in "abcdefgh":
        reached = {start}
        while len(grown := {n for n, s in links if s in {s for m, s in links if m in reached}} | reached) > len(
            reached
        ):
            reached = grown
        assert found[start] == min(reached)
    random.shuffle(links)
    assert components("hgfedcba", links) == found


def test_the_number_of_an_identity_fits_into_json():
    assert 0 <= stable_identity_id("clip/face/0") < 2**48
    assert stable_identity_id("clip/face/0") != stable_identity_id("clip/face/1")


def test_the_sums_of_clusters_are_those_of_adding_one_vector_at_a_time():
    rng = np.random.default_rng(3)
    x, cluster = rng.standard_normal((200, 21)).astype(np.float32), rng.integers(0, 9, 200)
    total = np.zeros((cluster.max() + 1, 21))
    np.add.at(total, cluster, x)
    assert np.array_equal(cluster_sums(x, cluster), total)
