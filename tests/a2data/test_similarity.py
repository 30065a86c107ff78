import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.similarity import top_k, vectors


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
