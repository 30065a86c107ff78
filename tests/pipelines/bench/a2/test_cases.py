import json
import shutil

import numpy as np
import pytest
import tiny_shards
from PIL import Image

from pipelines.bench.a2 import cases, from_pictures, leakage
from pipelines.bench.a2.cases import Case, Element


def paint(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Five people, twelve kinds of things with two pictures each, four places."""
    home = tmp_path / "pool"
    for n in range(5):
        paint(home / f"human/old_man_{n}.png", n)
    for kind in range(12):
        for n in range(2):
            paint(home / f"object/kind {chr(97 + kind)}/{n}.png", 20 + kind * 2 + n)
    for n in range(4):
        paint(home / f"background/{n}.jpg", 100 + n)
        (home / f"background/{n}.txt").write_text("empty kitchen\n")
    return home


def test_fifty_combinations_are_different_and_use_every_picture_and_category(folder):
    made = from_pictures.draw(from_pictures.read_pool(folder))
    assert len(made) == len({case.elements for case in made}) == len({case.id for case in made}) == 50
    for role, count in (("human", 5), ("object", 24), ("background", 4)):
        used = [case.of(role)[0].path for case in made]
        times = [used.count(path) for path in set(used)]
        assert len(times) == count
        assert max(times) - min(times) <= 4  # decks are dealt out whole; a combination that comes again is drawn anew
    kinds = [case.of("object")[0].category for case in made[:12]]
    assert len(set(kinds)) == 12


def test_the_same_seed_gives_the_same_cases_and_another_seed_others(folder):
    pictures = from_pictures.read_pool(folder)
    assert (
        from_pictures.draw(pictures, 20, 7)
        == from_pictures.draw(pictures, 20, 7)
        != from_pictures.draw(pictures, 20, 8)
    )


def test_labels_come_from_the_text_the_folder_or_the_name_and_stand_in_the_prompt(folder):
    pictures = from_pictures.read_pool(folder)
    assert {element.label for element in pictures["human"]} == {"old man"}
    assert {element.label for element in pictures["background"]} == {"empty kitchen"}
    assert pictures["object"][0].label == "kind a"
    for case in from_pictures.draw(pictures, 20):
        assert "n old man" in case.prompt
        assert "an empty kitchen" in case.prompt
        assert f"a {case.of('object')[0].label}" in case.prompt
        assert case.prompt[0].isupper()
        assert case.prompt.endswith(".")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("teapot", "a teapot"),
        ("old umbrella", "an old umbrella"),
        ("the sea", "the sea"),
        ("red shoes", "red shoes"),
        ("yellow bus", "a yellow bus"),
        ("glass", "a glass"),
        ("two cups of tea", "two cups of tea"),
    ],
)
def test_a_label_gets_an_article_where_it_needs_one(label, said):
    assert from_pictures.with_article(label) == said


def test_all_combinations_can_be_drawn_and_not_one_more(tmp_path):
    paint(tmp_path / "human/woman.png", 1)
    for n in range(3):
        paint(tmp_path / f"object/cup_{n}.png", 2 + n)
        paint(tmp_path / f"background/hall_{n}.png", 9 + n)
    pictures = from_pictures.read_pool(tmp_path)
    assert len({case.elements for case in from_pictures.draw(pictures, 9)}) == 9
    with pytest.raises(ValueError, match="allow 9 combinations, not 10"):
        from_pictures.draw(pictures, 10)


def test_a_role_without_a_picture_is_named(folder):
    shutil.rmtree(folder / "background")
    with pytest.raises(ValueError, match="background has no image"):
        from_pictures.read_pool(folder)


def test_cases_come_back_from_their_folder_wherever_it_lies(folder, tmp_path):
    made = from_pictures.draw(from_pictures.read_pool(folder), 6)
    cases.write(made, tmp_path / "first")
    shutil.move(tmp_path / "first", tmp_path / "bench")
    shutil.rmtree(folder)
    back = cases.read(tmp_path / "bench")
    assert [(case.id, case.prompt) for case in back] == [(case.id, case.prompt) for case in made]
    assert [[(e.role, e.label, e.category) for e in case.elements] for case in back] == [
        [(e.role, e.label, e.category) for e in case.elements] for case in made
    ]
    assert all(e.path.is_file() for case in back for e in case.elements)


def test_a_picture_that_was_exchanged_is_named(folder, tmp_path):
    file = cases.write(from_pictures.draw(from_pictures.read_pool(folder), 2), tmp_path / "bench")
    one = cases.read(file)[1].elements[0].path
    paint(one, 255)
    with pytest.raises(ValueError, match=r"has changed since the case was written"):
        cases.read(file)


def test_opens2v_eval_is_read_with_roles_by_label_or_folder(tmp_path):
    names = [
        "Images/singleobject/cup/52.jpg",
        "Images/humanreal/face/1.jpg",
        "Images/x/3.jpg",
        "Images/environment/4.jpg",
    ]
    for n, name in enumerate(names):
        paint(tmp_path / name, n)
    made = {
        "faceobj_1": {"img_paths": names, "prompt": "A man drinks.", "class_label": ["Cup", "Man", "Woman", "Beach"]}
    }
    (tmp_path / "Open-Domain_Eval.json").write_text(json.dumps(made))
    (case,) = cases.read(tmp_path / "Open-Domain_Eval.json")
    assert (case.id, case.prompt) == ("faceobj_1", "A man drinks.")
    assert [e.role for e in case.elements] == ["object", "human", "human", "background"]
    assert [e.label for e in case.elements] == ["cup", "man", "woman", "beach"]


def test_pictures_in_folders_by_role_are_joined_by_their_names(tmp_path):
    for role in cases.ROLES:
        for name in ("01", "02"):
            paint(tmp_path / role / f"{name}.png", 5)
    (tmp_path / "object/02.png").unlink()
    (tmp_path / "prompts.json").write_text(json.dumps({"01": "One.", "02": "Two."}))
    first, second = cases.read(tmp_path)
    assert [e.role for e in first.elements] == ["human", "object", "background"]
    assert [e.role for e in second.elements] == ["human", "background"]
    assert second.prompt == "Two."


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": "a/b", "prompt": "", "elements": []}', "cannot be used as a file name"),
        ('{"id": "a", "elements": []}', "line 1 lacks 'prompt'"),
        ('{"id": "a", "prompt": "", "elements": [{"role": "human", "path": "none.png"}]}', "which does not exist"),
        ('{"id": "a", "prompt": "", "elements": [{"role": "pet", "path": "x.png"}]}', "has the unknown role 'pet'"),
        ("{", "line 1 is not valid JSON"),
        ("", "has no cases"),
    ],
)
def test_an_invalid_file_of_cases_is_reported(tmp_path, line, complaint):
    (tmp_path / "cases.jsonl").write_text(line)
    with pytest.raises(ValueError, match=complaint):
        cases.read(tmp_path / "cases.jsonl")


def test_references_of_training_shards_are_found_by_bytes_and_by_pixels(tmp_path):
    shards = tiny_shards.make(tmp_path / "shards", 4)
    known = tiny_shards.triplet(2)
    same, again, other = tmp_path / "same.png", tmp_path / "again.bmp", paint(tmp_path / "other.png", 77)
    same.write_bytes(known.pictures["ref0"])
    Image.open(same).save(again)
    elements = tuple(Element("object", path) for path in (same, again, other))
    found = leakage.overlaps([Case("a", "", elements), Case("b", "", elements[2:])], [shards])
    mine = [f for f in found if f.sample == known.facts.clip_id]
    assert {(f.case, f.picture, f.reference, f.evidence) for f in mine} == {
        ("a", same, "ref0", "bytes"),
        ("a", again, "ref0", "pixels"),
    }
    assert all(f.shard.endswith(".tar") for f in found)
    assert other not in {f.picture for f in found}
