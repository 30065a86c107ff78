from dataclasses import replace

import numpy as np
import pytest

from a2data.media import images
from a2data.records import Caption, Element, Kept, Reject, Subject
from model_zoo.roles import Detection
from stages.ground import Ground, Models, missing_nouns

SHAPE = (120, 160)
KETTLE, CUP = (20, 30, 70, 80), (90, 40, 140, 100)


def caption(*phrases: str) -> Caption:
    prompt, subjects = "Here: ", []
    for phrase in phrases:
        kind = "Human" if "person" in phrase else "Object"
        subjects.append(Subject(kind, "", "", "", "", "", True, phrase, len(prompt), len(prompt) + len(phrase)))
        prompt += phrase + ", "
    return Caption("clip", prompt, subjects, "", "", "", "", "", 0, 0, "", [])


def box_mask(box):
    mask = np.zeros(SHAPE, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def finder(**boxes):
    """A model that finds each of these wherever it is asked for by that name."""

    def model(frames, phrases):
        model.asked = list(phrases)
        found = [(name, box) for name, box in boxes.items() if name in phrases]
        return [[Detection("object", name, 0.8, box, box_mask(box)) for name, box in found] for _ in frames]

    return model


def mean_colour(pictures, masks):
    rows = np.array([p[m].mean(0) + 1 for p, m in zip(pictures, masks, strict=True)], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def run(make_film):
    film = make_film(np.random.default_rng(0).integers(0, 255, (11, *SHAPE, 3)).astype(np.uint8))

    def go(model, said, known=(), **settings):
        stage = Ground(model="a-finder", **settings)
        return list(stage.run(Models(model, mean_colour), [Kept("clip", "v")], [film], list(known), said))

    return go


@pytest.fixture
def thing(make_element):
    def make(box, label, number=0, kind="object"):
        seen = {n: tuple(float(v) for v in box) for n in (0, 5, 10)}
        return make_element(box_mask(box), seen, f"{kind}/{number}", kind, label=label)

    return make


def test_an_undetected_object_of_the_caption_is_searched_for_and_labelled_by_its_noun(run):
    model = finder(**{"copper kettle": KETTLE})
    (row,) = run(model, [caption("a person in a red top", "a small red copper kettle on the left")])
    assert model.asked == ["copper kettle"]
    assert row.label == "copper kettle"


def test_a_found_thing_is_an_element_to_the_pixel(run):
    (row,) = run(finder(kettle=KETTLE), [caption("a kettle")])
    assert isinstance(row, Element)
    assert (row.element_id, row.kind, row.label, row.parent_id) == ("clip/object/0", "object", "kettle", "")
    assert row.box == KETTLE
    assert row.seen_frames == [0, 5, 10]
    assert np.array_equal(images.from_rle(row.mask), box_mask(KETTLE))
    assert np.linalg.norm(row.embedding) == pytest.approx(1, abs=1e-5)


def test_its_number_continues_from_those_of_detect(run, thing):
    known = [thing(CUP, "cup", 0), thing((0, 90, 30, 119), "ball", 1), thing((100, 0, 150, 35), "person", 0, "human")]
    (row,) = run(finder(kettle=KETTLE), [caption("a kettle", "a cup")], known)
    assert row.element_id == "clip/object/2"


def test_what_lies_where_an_element_lies_is_that_element(run, thing):
    known = [thing(KETTLE, "object")]
    (row,) = run(finder(kettle=KETTLE), [caption("a kettle")], known)
    assert isinstance(row, Reject)
    assert (row.key, row.reason) == ("clip/kettle@0", "already found")
    assert row.detail == "clip/object/0: overlap = 1.00, nms_iou = 0.7"
    (row,) = run(finder(kettle=KETTLE), [caption("a kettle")], known, nms_iou=1.0)
    assert isinstance(row, Element)


def test_too_small_or_too_unsure_things_are_none(run):
    assert [r.reason for r in run(finder(kettle=KETTLE), [caption("a kettle")], min_side_px=60)] == ["too small"]
    assert run(finder(kettle=KETTLE), [caption("a kettle")], confidence=0.9) == []


def test_people_vague_words_and_what_has_its_element_are_not_looked_for(thing):
    said = caption("a person in a red top", "a red cup", "another cup", "an object", "a blue dog", "a coffee mug")
    assert missing_nouns(said, []) == ["cup", "dog", "coffee mug"]
    assert missing_nouns(said, [thing(CUP, "Cup"), thing(KETTLE, "mug", 1)]) == ["cup", "dog"]
    assert missing_nouns(said, [thing(CUP, "cup"), thing(KETTLE, "cup", 1)]) == ["dog", "coffee mug"]


def test_a_clip_without_a_caption_or_with_nothing_to_look_for_runs_no_model(run):
    def never(frames, phrases):
        raise AssertionError("the model ran")

    assert run(never, []) == []
    assert run(never, [caption("a person in a red top", "an object")]) == []


def test_only_so_many_nouns_are_asked_for(run):
    model = finder()
    run(model, [caption("a kettle", "a dog", "a lamp")], max_nouns=2)
    assert model.asked == ["kettle", "dog"]


def test_without_a_model_nothing_is_loaded_and_nothing_found(make_film):
    stage = Ground()
    film = replace(make_film(np.zeros((1, 32, 32, 3), np.uint8)), video=b"not decoded")
    assert (stage.models(), stage.load(), stage.gpus) == ({}, None, 0)
    assert list(stage.run(None, [Kept("clip", "v")], [film], [], [caption("a cup")])) == []


def test_with_a_model_it_is_part_of_the_key():
    with pytest.raises(FileNotFoundError, match="llmdet_large"):
        Ground(model="llmdet_large").models()
    assert Ground(model="llmdet_large", mask_model="sam3").gpus == 1.0
