"""The comparison of two runs or data sets: what counts as a difference, and which reason is given."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_shards

from a2data.dataset.triplet import Triplet
from benchmarks.audit_faults import pack
from pipelines.cli.main import main
from pipelines.corpus.diff import changed_parts, comparable_parts


def shards(folder: Path, *triplets: Triplet) -> str:
    pack(folder, list(triplets))
    return str(folder)


def test_equal_data_sets_have_no_differences(tmp_path, capsys):
    made = [tiny_shards.triplet(n) for n in range(2)]
    assert main(["diff", shards(tmp_path / "a", *made), shards(tmp_path / "b", *made)]) == 0
    assert capsys.readouterr().out == "0 only in the first, 0 only in the second, 0 differ, 2 are the same\n"


def test_every_part_that_differs_is_named():
    one = tiny_shards.triplet(0)
    parts = comparable_parts(one)
    given = one.facts.references
    assert changed_parts(parts, comparable_parts(tiny_shards.triplet(0))) == []
    assert changed_parts(parts, parts | {"prompt": "a mug"}) == ["prompt"]
    assert changed_parts(parts, parts | {"references": parts["references"][:1]}) == ["references: 2 → 1"]
    other = replace(one, facts=replace(one.facts, references=[replace(given[0], identity=99), *given[1:]]))
    assert changed_parts(parts, comparable_parts(other)) == [f"references: ref0 ({given[0].phrase or given[0].role})"]


def test_another_picture_of_a_reference_is_a_difference_and_another_compression_is_not():
    one, other = tiny_shards.triplet(0), tiny_shards.triplet(1)
    swapped = replace(one, cut_outs=one.cut_outs | {"ref0": other.cut_outs["ref0"]})
    assert changed_parts(comparable_parts(one), comparable_parts(swapped))[0].startswith("references: ref0")


def test_a_triplet_that_one_side_lacks_is_drawn_on_the_other(tmp_path, capsys):
    made = [tiny_shards.triplet(n) for n in range(2)]
    page = tmp_path / "page.html"
    assert main(["diff", shards(tmp_path / "a", *made), shards(tmp_path / "b", made[0]), "--html", str(page)]) == 1
    said = capsys.readouterr().out
    assert "clip01-00000000: only in the first; the other: not in its index" in said
    text = page.read_text()
    assert text.count("<img") == 3  # the clip and its two references
    assert "not there" in text
    assert made[1].prompt in text


@pytest.mark.slow
def test_a_clip_that_new_thresholds_reject_is_told_with_the_rule(tmp_path, capsys):
    tiny_shards.make(tmp_path / "shards", count=3, tars=1)
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["import", str(tmp_path / "shards"), "--from", "shards", "--in-process", "--quiet"]
    assert main([*words, "--work", str(first)]) == 0
    shutil.copytree(first, second)
    assert main([*words, "--work", str(second), "--set", "segment.max_frames=13", "--allow-shrink"]) in (0, 1)
    capsys.readouterr()
    assert main(["diff", str(first), str(second)]) == 1
    said = capsys.readouterr().out
    assert "max_frames: 600 → 13" in said
    assert "only in the first; the other: segment: too long (14 frames, max_frames = 13)" in said
