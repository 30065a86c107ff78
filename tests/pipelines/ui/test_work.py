"""A work folder in `a2data ui`: filters, marks, explanations, on a wide and on a narrow screen, and text that stays text."""

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import tiny_corpus
from tiny_corpus import GREEN, GREY, RED

from a2data.records import Reject, Rule
from a2data.store.tables import Store
from pipelines import marks as marking
from pipelines.report.audit import Pair
from pipelines.triplets import triplets
from pipelines.ui.browse import filter_rows
from pipelines.ui.pairs import Filters, filter_pairs
from pipelines.ui.work import WorkFolder

HOSTILE = "${alert(1)} {{7}} <img src=x onerror=alert(2)>"
TEXT = f"{GREEN}/human/0: similarity = 0.42, allowed 0.6 to inf: FAIL"


@pytest.fixture
def root(tmp_path):
    store = Store(tmp_path / "work")
    tiny_corpus.write(store)
    rejected = [Reject(f"{RED}/human/0", HOSTILE, TEXT), Reject(f"{GREEN}/upper/0", "no", TEXT)]
    references = [tiny_corpus.reference("human", 0.9, 0.2), tiny_corpus.reference("upper", 0.7, 0.4)]
    tiny_corpus.put(store, "retrieve", 0, tiny_corpus.Reference, references, rejected=rejected)
    return tmp_path / "work"


@pytest.fixture
def work(root):
    return WorkFolder(str(root), triplets(), marking.beside(str(root)))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_mark_is_beside_the_work_folder_found_again_and_removed_and_the_folder_stays_as_it_is(root, work):
    before = contents(root)
    pair = next(pair for pair in work.pairs[0] if not pair.accepted)
    work.mark(pair, False)
    assert json.loads((root.parent / "work.marks.json").read_text())["marks"] == [
        {"elements": [pair.target, pair.source], "frames": [2, 2], "same": False}
    ]
    again = WorkFolder(str(root), triplets(), work.marks_path)
    assert [again.mark_of(each) for each in again.pairs[0] if each.target == pair.target] == [False, False]
    again.mark(pair, None)
    work.reload()
    assert work.marks == {}
    assert contents(root) == before


def test_a_mark_of_an_element_that_was_detected_again_is_not_shown(root, work):
    pair = work.pairs[0][0]
    work.mark(pair, True)
    known = work.marks[pair.target, pair.source]
    marking.write(work.marks_path, {known.elements: known._replace(frames=(7, 7))})
    work.reload()
    assert work.mark_of(pair) is None


def test_a_damaged_part_stays_where_it_is(root, work):
    part = root / "detect" / "00000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"detect/00000\.parquet"):
        _ = work.elements
    assert sorted(os.listdir(root / "detect")) == ["00000.parquet", "00001.parquet"]


def test_a_garment_and_a_face_are_not_a_pair(work):
    assert {(pair.target, pair.source) for pair in work.pairs[0]} == {
        (f"{RED}/human/0", f"{GREEN}/human/0"),
        (f"{RED}/upper/0", f"{GREEN}/upper/0"),
    }


def test_pairs_are_filtered_by_state_kind_mark_and_text_and_ordered():
    def pair(n, kind, accepted, value):
        rules = [Rule("similarity", value, 0.6, math.inf)]
        return Pair(f"c/{kind}/{n}", f"d/{kind}/{n}", kind, accepted, "" if accepted else "only copies", 0, rules, {})

    pairs = [pair(0, "face", True, 0.9), pair(1, "face", False, 0.5), pair(2, "human", True, 0.65)]
    marks = {"c/face/0": True, "c/face/1": False}

    def found(**by):
        return filter_pairs(pairs, lambda each: marks.get(each.target), Filters(outcome="all")._replace(**by))

    assert found() == [0, 1, 2]
    assert (found(outcome="references"), found(outcome="rejected"), found(kind="human")) == ([0, 2], [1], [2])
    assert (found(marked="right"), found(marked="wrong"), found(marked="not marked")) == ([0], [1], [2])
    assert (found(search="FACE/1"), found(search="copies")) == ([1], [1])
    assert found(order="nearest to a threshold") == [2, 1, 0]
    assert sorted(found(order="shuffled")) == [0, 1, 2]
    assert found(order="shuffled") == found(order="shuffled")


def test_clips_have_fates_elements_kinds_and_rejects_reasons(work):
    assert {row.key: row.group for row in work.rows("Clips")} == {
        RED: "in the shards",
        GREY: "select: motion",
        GREEN: "kept",
    }
    assert work.groups("Elements")["human"] == 2
    assert work.groups("Rejected")["detect: blurred"] == 2
    assert [row.key for row in filter_rows(work.rows("Elements"), "upper", RED)] == [f"{RED}/upper/0"]
    rows = work.rows("Elements") + work.rows("Clips")
    assert {row.key for row in rows} == work.pictures(rows).keys()


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="lacks gradio")
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_pairs_are_marked_and_rejects_explained_on_wide_and_narrow_screens(opened, work, tmp_path, width, scheme):
    screen = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    tab = opened(None, None, str(tmp_path), None, work, **screen)
    dialogs = []
    tab.on("dialog", lambda dialog: dialogs.append(dialog.dismiss()))
    tab.locator("#pair svg image").first.wait_for()
    tab.locator("h1").click()
    tab.keyboard.press("r")
    tab.get_by_text("Pair 2 of 2").wait_for()
    tab.locator("#pair-wrong").click()
    tab.get_by_text("1 right, 1 wrong").wait_for()
    tab.get_by_text("marked wrong").wait_for()
    assert [each.same for each in marking.read(work.marks_path).values()] == [True, False]

    tab.locator("#pair-which input").click()
    tab.get_by_role("option", name="rejected").click()
    tab.get_by_text(f"rejected: {HOSTILE}").wait_for()
    assert "similarity" in tab.locator("#pair tr.fail").inner_text()
    fits(tab, width)

    tab.get_by_role("tab", name="Browse").click()
    tab.get_by_label("Rejected").check()
    tab.get_by_text(f"retrieve: {HOSTILE}").first.click()
    tab.locator("#explained").get_by_text("similarity = 0.42").first.wait_for()
    assert tab.locator("#key input, #key textarea").input_value() == f"{RED}/human/0"
    fits(tab, width)
    assert dialogs == []


def walk(tab, elem_id: str, key: str = "Tab") -> None:
    """Press Tab until the focus is in an element."""
    for _ in range(30):
        tab.keyboard.press(key)
        if tab.evaluate("id => document.activeElement.closest(`#${id}`) != null", elem_id):
            return
    raise AssertionError(f"{key} does not reach {elem_id}")


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="lacks gradio")
def test_pairs_are_filtered_and_marked_with_the_keyboard_alone(opened, work, tmp_path):
    tab = opened(None, None, str(tmp_path), None, work)
    tab.locator("#pair svg image").first.wait_for()
    walk(tab, "pair-right")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Enter")
    tab.get_by_text("Pair 2 of 2").wait_for()
    tab.keyboard.press("w")
    tab.get_by_text("1 right, 1 wrong").wait_for()
    tab.keyboard.press("p")
    tab.get_by_text("Pair 1 of 2").wait_for()
    tab.keyboard.press("u")
    tab.get_by_text("0 right, 1 wrong").wait_for()
    tab.keyboard.press("n")
    tab.get_by_text("marked wrong").wait_for()

    walk(tab, "pair-which", "Shift+Tab")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.get_by_text(f"rejected: {HOSTILE}").wait_for()
    walk(tab, "pair-search")
    tab.keyboard.type("upper")  # u and r are letters here
    tab.get_by_text("No pair passes the filters").wait_for()
    assert [each.same for each in marking.read(work.marks_path).values()] == [False]


def fits(tab, width: int) -> None:
    """Nothing is wider than the screen, and no button breaks a word."""
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    cut = "all => all.filter(b => b.offsetParent && b.scrollWidth > b.clientWidth + 1).map(b => b.innerText)"
    assert tab.eval_on_selector_all(".tabitem button.lg, .tabitem button.md, .tabitem button.sm", cut) == []
