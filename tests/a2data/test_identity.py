import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.identity import components, identify, merge, mutual, number, seen_together, stand


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
    found = identify(x, np.arange(len(x)), nobody(len(x)), low=0.6, neighbours=32)
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
    found = identify(x, np.arange(len(x)), apart, low=0.2, neighbours=32)
    for i, enemies in enumerate(apart):
        assert all(found.cluster[i] != found.cluster[j] for j in enemies)


def test_twins_in_one_frame_stay_two_although_they_look_the_same():
    x = np.float32([[1, 0], [1, 0], [1, 0]])
    apart = [{1}, {0}, set()]
    assert merge(x, [(0, 2), (1, 2)], apart, low=0.9).tolist() == [0, 1, 0]


def test_a_chain_of_likenesses_does_not_join_its_ends():
    angles = np.deg2rad(np.arange(0, 91, 15))
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    chain = [(i, i + 1) for i in range(len(x) - 1)]
    cluster = merge(x, chain, nobody(len(x)), low=np.cos(np.deg2rad(30)))
    assert cluster[0] != cluster[-1]
    for one in set(cluster.tolist()):
        inside = np.flatnonzero(cluster == one)
        assert np.ptp(angles[inside]) <= np.deg2rad(61)


def test_pairs_are_neighbours_of_each_other_and_come_most_similar_first():
    similarity = np.array([[0.9, 0.7], [0.9, 0.8], [0.8, 0.7]])
    neighbour = np.array([[1, 2], [0, 2], [1, 0]])
    assert mutual(similarity, neighbour, 0.0) == [(0, 1), (1, 2), (0, 2)]
    assert mutual(similarity, neighbour, 0.75) == [(0, 1), (1, 2)]
    assert mutual(similarity[:, :1], neighbour[:, :1], 0.0) == [(0, 1)]  # 2 likes 1, but 1 likes 0 better


def test_the_margin_is_how_much_better_the_own_cluster_is_than_the_next():
    x, _ = planted(3, 3, 4, noise=0.4)
    found = identify(x, np.arange(len(x)), nobody(len(x)), low=0.6, neighbours=32)
    for i in range(len(x)):
        means = {
            c: np.mean([x[i] @ x[j] for j in range(len(x)) if found.cluster[j] == c and j != i])
            for c in set(found.cluster)
        }
        own = means.pop(found.cluster[i])
        assert np.isclose(found.cohesion[i], own, atol=1e-4)
        assert np.isclose(found.margin[i], own - max(means.values()), atol=1e-4)


def test_one_who_is_alone_has_no_cohesion():
    cohesion, rival = stand(np.float32([[1, 0], [0, 1]]), np.array([0, 1]))
    assert np.all(np.isneginf(cohesion))
    assert rival.tolist() == [0, 0]


def test_only_those_who_share_a_frame_of_a_clip_are_apart():
    clips = ["a", "a", "a", "b"]
    frames = [{0, 5}, {5, 10}, {10}, {5}]
    assert seen_together(clips, frames) == [{1}, {0, 2}, {1}, set()]


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
    one = identify(x, np.arange(len(x)), apart, 0.3, neighbours)
    other = identify(x[order], np.arange(len(x)), moved, 0.3, neighbours)
    scores = np.sort(np.unique(np.round(x @ x.T, 5))[:-1])
    if np.diff(scores).min() > 0 and len(scores) == len(x) * (len(x) - 1) // 2:  # no two pairs alike: no tie to break
        same = one.cluster[order][:, None] == one.cluster[order][None]
        assert np.array_equal(same, other.cluster[:, None] == other.cluster[None])
        np.testing.assert_allclose(one.margin[order], other.margin, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.8))
def test_every_cluster_is_as_dense_as_asked_for_when_its_last_two_parts_were_joined(seed, low):
    x, _ = planted(seed, 3, 6, noise=1.0)
    found = identify(x, np.arange(len(x)), nobody(len(x)), low, 16)
    for cluster in set(found.cluster.tolist()):
        members = x[found.cluster == cluster].astype(np.float64)
        if len(members) > 1:  # a mean of means of at least `low` each
            assert (np.sum(members @ members.T) - len(members)) / (len(members) * (len(members) - 1)) >= low - 1e-4


def test_two_that_differ_by_something_else_are_never_one():
    x, who = planted(5, 2, 6, noise=0.3)
    odd = [n % 2 for n in range(len(x))]
    found = identify(x, np.arange(len(x)), nobody(len(x)), 0.5, 16, differ=lambda i, j: odd[i] != odd[j])
    assert all(len({odd[i] for i in np.flatnonzero(found.cluster == c)}) == 1 for c in set(found.cluster.tolist()))
    plain = identify(x, np.arange(len(x)), nobody(len(x)), 0.5, 16)
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
    assert 0 <= number("clip/face/0") < 2**48
    assert number("clip/face/0") != number("clip/face/1")
