import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.task_map import map_serial
from pipelines.run.local import thread_task_map
from stages.retrieve import join, join_gpu
from stages.retrieve.nearest import top_k, vectors


def unit(rng, n, d):
    x = rng.normal(size=(n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def sorted_pairs(queries, keys, k, query_groups, key_groups):
    """The same, one pair at a time."""
    out = []
    for q, group in zip(queries, query_groups, strict=True):
        pairs = [(-round(float(np.dot(q, key)), 5), j) for j, key in enumerate(keys) if key_groups[j] != group]
        out.append(sorted(pairs)[:k])
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.integers(1, 8), st.sampled_from([1, 3, 7, 4096])
)
def test_the_blocked_join_finds_what_comparing_every_pair_finds(seed, n, m, k, block):
    rng = np.random.default_rng(seed)
    queries, keys = unit(rng, n, 16), unit(rng, m, 16)
    query_groups, key_groups = rng.integers(0, 4, n), rng.integers(0, 4, m)
    similarity, index = top_k(queries, keys, k, query_groups, key_groups, block)
    for row, expected in enumerate(sorted_pairs(queries, keys, k, query_groups, key_groups)):
        found = similarity[row][index[row] >= 0]
        np.testing.assert_allclose(found, [-s for s, _ in expected], atol=2e-5)
        assert np.all(key_groups[index[row][: len(found)]] != query_groups[row])
        assert np.all(index[row][len(expected) :] == -1)
        assert np.all(np.isneginf(similarity[row][len(expected) :]))


@pytest.mark.parametrize("block", [2, 5, 4096])
def test_equal_similarities_go_to_the_lower_index_across_blocks(block):
    keys = np.tile(np.float32([[1, 0]]), (9, 1))
    similarity, index = top_k(keys[:1], keys, 4, np.array([0]), np.array([0, 1, 1, 1, 1, 1, 1, 1, 1]), block)
    assert index.tolist() == [[1, 2, 3, 4]]
    assert similarity.tolist() == [[1, 1, 1, 1]]


def test_opposite_vectors_are_found_with_their_sign():
    similarity, index = top_k(np.float32([[1, 0]]), np.float32([[-1, 0], [0, 1]]), 2, np.array([0]), np.array([1, 2]))
    assert index.tolist() == [[1, 0]]
    assert similarity.tolist() == [[0, -1]]


def column(rows):
    half = len(rows) // 2
    kind = pa.list_(pa.float32())
    return pa.chunked_array([pa.array(rows[:half], kind), pa.array(rows[half:], kind)])


def test_rows_without_an_embedding_are_left_out():
    rows, found = vectors(column([[1.0, 0.0], [], [0.0, 1.0], []]))
    assert rows.tolist() == [0, 2]
    np.testing.assert_array_equal(found, [[1, 0], [0, 1]])


def test_a_column_without_any_embedding_gives_none():
    rows, found = vectors(column([[], []]))
    assert rows.size == 0
    assert len(found) == 0


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [([[1.0], [0.6, 0.8]], "same model"), ([[0.6, 0.8], [3.0, 4.0]], "row 1 is not of unit length")],
)
def test_embeddings_that_cannot_be_compared_are_refused(rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        vectors(column(rows))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.integers(1, 6), st.sampled_from([2, 7, 64]))
def test_the_join_for_a_gpu_finds_the_same(seed, n, m, k, tile):
    pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    queries, keys = unit(rng, n, 16), unit(rng, m, 16)
    groups = rng.integers(0, 4, n), rng.integers(0, 4, m)
    expected = join.join(queries, keys, k, *groups, block=16)
    found = join_gpu.join(queries, keys, k, *groups, device="cpu", rows=tile, columns=tile)
    assert np.array_equal(found, expected)


def test_memory_is_that_of_a_tile_however_many_keys_there_are():
    import tracemalloc

    x, each = unit(np.random.default_rng(1), 4000, 16), np.arange(4000)
    peaks = []
    for keys in (1000, 4000):
        tracemalloc.start()
        join.join(x[:256], x[:keys], 8, each[:256], each[:keys], 256)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 256 * 4000 * 4


def clustered(people, takes, d=64):
    rng = np.random.default_rng(0)
    x = np.repeat(unit(rng, people, d), takes, axis=0) + 0.6 * unit(rng, people * takes, d)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_above_a_size_an_index_finds_nearly_all_with_exact_similarities():
    pytest.importorskip("faiss")
    x, groups = clustered(300, 15), np.arange(4500) // 3  # three of each fifteen are in one clip
    exact, expected = top_k(x, x, 10, groups, groups)
    near, found = top_k(x, x, 10, groups, groups, ann_min_elements=4000)
    shared = [len({*a} & {*b} - {-1}) / 10 for a, b in zip(found.tolist(), expected.tolist(), strict=True)]
    assert np.mean(shared) > 0.9
    assert np.all(groups[found[found >= 0]] != np.repeat(groups, 10).reshape(-1, 10)[found >= 0])
    rows = np.flatnonzero(found[:, 0] >= 0)
    np.testing.assert_allclose(near[rows, 0], np.sum(x[rows] * x[found[rows, 0]], axis=1), atol=2e-5)
    again = top_k(x, x, 10, groups, groups, ann_min_elements=4000)
    assert np.array_equal(again[1], found)
    assert np.array_equal(top_k(x, x, 10, groups, groups, ann_min_elements=5000)[0], exact)


def test_without_faiss_the_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    x = clustered(2, 2)
    with pytest.raises(ModuleNotFoundError, match=r"a2data\[search\].*ann_min_elements=0"):
        top_k(x, x, 1, np.arange(4), np.arange(4), ann_min_elements=1)


def by_float64(x, k, groups):
    """Similarities and indices of the nearest of other groups, from sums in float64, rounded."""
    scores = np.round(np.stack([(row * x).sum(axis=1, dtype=np.float64) for row in x]), 5)
    scores[groups[:, None] == groups[None]] = -np.inf
    index = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, index, 1), index


@pytest.mark.parametrize(("block", "tile"), [(2048, 32768), (64, 64), (37, 100), (1000, 333)])
def test_tiles_of_any_size_find_the_same_to_the_last_digit(block, tile):
    x, groups = clustered(50, 12, d=256), np.arange(600) // 2
    x[300:320] = x[300]  # many of one picture: ties
    expected = by_float64(x, 9, groups)
    for spread in (map_serial, lambda *work: thread_task_map(3, *work)):
        found = top_k(x, x, 9, groups, groups, block, tile=tile, task_map=spread)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])


def test_a_sum_in_another_order_rounds_to_the_same():
    x, each = clustered(400, 2, d=512), np.arange(800)
    dims = np.random.default_rng(3).permutation(512)
    one, other = top_k(x, x, 20, each, each), top_k(x[:, dims].copy(), x[:, dims].copy(), 20, each, each)
    near = x @ x.T, x[:, dims] @ x[:, dims].T
    # float32 alone would not do
    assert np.any(np.rint(near[0] / np.float32(1e-5)) != np.rint(near[1] / np.float32(1e-5)))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize("d", [64, 512, 1280])
def test_float32_is_never_off_by_more_than_is_allowed_for(d):
    plain = clustered(100, 2, d=d)
    for x in (plain, np.abs(plain)):
        exact = x.astype(np.float64) @ x.T.astype(np.float64)
        assert np.all(np.abs(x @ x.T - exact) < join.error_bound(exact))


def test_a_tile_that_holds_nothing_is_refused():
    x = clustered(2, 2)
    with pytest.raises(ValueError, match="tile is 0"):
        top_k(x, x, 1, np.arange(4), np.arange(4), tile=0)
