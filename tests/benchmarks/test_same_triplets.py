"""Comparison of two data sets: what counts as a difference."""

from benchmarks.same_triplets import compare

CLIP = {"prompt": "a cup", "video": "1f", "references": [("object", "a cup")], "unpaired": []}


def test_equal_data_sets_have_no_differences():
    assert compare({"a": CLIP}, {"a": dict(CLIP)}) == []


def test_every_part_that_differs_is_named():
    other = CLIP | {"prompt": "a mug", "references": []}
    assert compare({"a": CLIP}, {"a": other}) == ["a: another prompt, references"]


def test_a_triplet_that_one_side_lacks_is_named():
    assert compare({"a": CLIP}, {"a": CLIP, "b": CLIP}) == ["b: only in the second"]
    assert compare({"a": CLIP, "b": CLIP}, {"a": CLIP}) == ["b: only in the first"]
