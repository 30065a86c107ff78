"""Marked pairs as a file: what is written is read, in one order, and a wrong file is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import marks as marking
from pipelines.marks import mark

names = st.text(min_size=1, max_size=8)


@given(
    st.lists(st.tuples(names, names, st.integers(0, 99), st.integers(0, 99), st.booleans()), max_size=6), st.randoms()
)
def test_what_is_written_is_read_and_neither_order_nor_direction_changes_a_byte(tmp_path_factory, rows, random):
    folder = tmp_path_factory.mktemp("marks")
    made = {m.elements: m for a, b, x, y, same in rows if (m := mark((a, x), (b, y), same))}
    turned = list(made.values())
    random.shuffle(turned)
    for name, some in (("one", made.values()), ("two", turned)):
        marking.write(f"{folder}/{name}", {m.elements: m for m in some})
    assert marking.read(f"{folder}/one") == made
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
    assert mark(("a", 1), ("b", 2), True) == mark(("b", 2), ("a", 1), True)


def test_no_file_has_no_marks_and_another_file_is_named(tmp_path):
    path = tmp_path / "work.marks.json"
    assert marking.read(str(path)) == {}
    for text in (
        '{"format": "x", "marks": []}',
        "[]",
        "{",
        '{"format": "a2data-marks/1", "marks": [{"elements": ["a"]}]}',
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"work\.marks\.json is not a file of marks"):
            marking.read(str(path))


def test_a_mark_of_an_element_that_was_detected_again_does_not_apply():
    kept, moved = mark(("a", 1), ("b", 2), True), mark(("a", 1), ("c", 3), False)
    marks = {each.elements: each for each in (kept, moved)}
    assert marking.current(marks, {"a": 1, "b": 2, "c": 4}) == [kept]
