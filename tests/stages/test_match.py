from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import tiny_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from a2data import records
from a2data.media import images
from a2data.records import Caption, Element, Kept, Reject, Subject
from stages import match
from stages.match import Match

HEIGHT, WIDTH = 96, 160
OPAQUE = np.full((40, 40), 255, np.uint8)
RGB = {"red": (210, 20, 20), "grey": (128, 128, 128), "blue": (20, 40, 220), "yellow": (250, 220, 20)}


def element(
    kind: str, number: int, label: str = "", x: int = 60, colour: str = "grey", parent: str = "", **more
) -> Element:
    """A thing 40 px wide and 50 high whose left border is at x, painted in its colour."""
    box = (float(x), 20.0, float(x + 40), 70.0)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:70, x : x + 40] = True
    png = images.to_png(images.cut_out(np.full((HEIGHT, WIDTH, 3), RGB[colour], np.uint8), mask, box))
    values = {
        "frame": 0,
        "box": box,
        "confidence": 0.9,
        "mask": images.to_rle(mask),
        "image": png,
        "embedding": [],
        "embedder": "",
    }
    values |= {"image_sha256": "", "quality": 0.5, "seen_frames": [0], "seen_boxes": [box], "attributes": []}
    return Element("c", f"c/{kind}/{number}", kind, label, parent, **(values | more))


def caption(*phrases: str, place: str = "", types: tuple[str, ...] = ()) -> Caption:
    """A prompt of these phrases, one after the other."""
    prompt, subjects = "In this scene, ", []
    for n, phrase in enumerate(phrases):
        kind = types[n] if types else ""
        subjects.append(Subject(kind, "", "", "", "", "", n == 0, phrase, len(prompt), len(prompt) + len(phrase)))
        prompt += f"{phrase} stands, "
    start = len(prompt) if place else 0
    prompt += place
    other = dict.fromkeys(("shot_type", "shot_angle", "shot_position", "camera_motion", "environment", "lighting"), "")
    end = len(prompt) if place else 0
    return Caption("c", prompt, subjects, **other, environment_start=start, environment_end=end, answers=[])


def run(said: Caption, *elements: Element, stage: Match | None = None, model=None) -> list:
    parts = ("face", "upper", "lower", "shoes", "accessory")
    faces = [e for e in elements if e.kind == "face"]
    parsed = [e for e in elements if e.kind in parts and e.kind != "face"]
    backgrounds = [e for e in elements if e.kind == "background"]
    detected = [e for e in elements if e.kind in ("human", "object")]
    return list((stage or Match()).run(model, [Kept("c", "v")], [said], detected, faces, parsed, backgrounds, []))


def pairs(rows: list) -> dict[str, str]:
    return {row.phrase: row.element_id for row in rows if isinstance(row, records.Match)}


def person(number: int, top: str, x: int = 60) -> list[Element]:
    human = element("human", number, "person", x)
    return [human, element("upper", number, f"{top} upper clothes", x, top, human.element_id)]


def test_two_people_are_distinguished_by_what_they_wear_in_either_order():
    things = [*person(0, "red", 10), *person(1, "blue", 110)]
    for said in permutations(("a person in a blue top", "a person in a red top")):
        found = pairs(run(caption(*said), *things))
        assert found["a person in a red top"] == "c/human/0"
        assert found["a person in a blue top"] == "c/human/1"
        assert found["a red top"] == "c/upper/0"
        assert found["a blue top"] == "c/upper/1"


def test_a_match_points_at_its_phrase_in_the_prompt():
    said = caption("a person in a red top", "a grey cup", place="a blue background")
    rows = run(said, *person(0, "red"), element("object", 0, "cup"), element("background", 0, colour="blue"))
    assert len(rows) == 4
    for row in rows:
        assert said.prompt[row.start : row.end] == row.phrase


def test_two_who_look_alike_are_distinguished_by_their_place():
    things = [*person(0, "red", 110), *person(1, "red", 10)]
    found = pairs(run(caption("a person in a red top on the left", "a person in a red top on the right"), *things))
    assert found["a person in a red top on the left"] == "c/human/1"
    assert found["a person in a red top on the right"] == "c/human/0"


def test_a_phrase_that_fits_two_elements_is_dropped_as_ambiguous():
    things = [*person(0, "red", 10), *person(1, "red", 110)]
    rows = run(caption("a person in a red top", "another person in a red top"), *things)
    assert [(r.reason, r.key) for r in rows] == [
        ("ambiguous phrase", "c 'a person in a red top'"),
        ("ambiguous phrase", "c 'another person in a red top'"),
    ]


def test_two_phrases_that_fit_the_only_person_are_both_without_a_match():
    rows = run(caption("a woman", "a man"), *person(0, "red"))
    assert sorted(r.reason for r in rows) == ["ambiguous phrase", "phrase without element"]


def test_a_person_is_not_an_object_and_an_object_is_not_a_person():
    assert pairs(run(caption("a person"), element("object", 0, "object"))) == {}
    assert pairs(run(caption("a cup"), element("human", 0, "person"))) == {}
    accessory = replace(caption("a hat", types=("Human",)).subjects[0], sub_type="Accessory")
    said = replace(caption("a hat"), subjects=[accessory])
    assert pairs(run(said, element("object", 0, "hat"))) == {"a hat": "c/object/0"}


def test_objects_are_matched_by_label_and_colour():
    things = [
        element("object", 0, "cup", 10, "red"),
        element("object", 1, "cup", 110, "blue"),
        element("object", 2, "bus"),
    ]
    found = pairs(run(caption("a blue cup", "a bus", "a red cup"), *things))
    assert found == {"a blue cup": "c/object/1", "a bus": "c/object/2", "a red cup": "c/object/0"}


def test_a_wrong_colour_is_worse_than_no_element():
    (reject,) = run(caption("a person in a red top"), *person(0, "blue"))
    assert reject.reason == "phrase without element"
    assert "similarity = 0." in reject.detail


def test_the_best_face_of_a_person_shares_the_phrase():
    human, top = person(0, "red")
    faces = [element("face", n, "face", parent=human.element_id, quality=q) for n, q in enumerate((0.2, 0.8, 0.5))]
    rows = run(caption("a person in a red top"), human, top, *faces, element("face", 9, quality=1.0))
    assert [r.element_id for r in rows] == ["c/human/0", "c/face/1", "c/upper/0"]
    assert rows[1].phrase == "a person in a red top"


def test_a_garment_of_another_colour_or_of_two_is_left_out():
    human, top = person(0, "red")
    lower = element("lower", 0, colour="grey", parent=human.element_id)
    said = caption("a person in a red top and blue bottoms")
    assert set(pairs(run(said, human, top, lower)).values()) == {"c/human/0", "c/upper/0"}
    second = element("upper", 1, colour="red", parent=human.element_id)
    assert set(pairs(run(said, human, top, second)).values()) == {"c/human/0"}


def test_the_place_is_matched_unless_its_colours_are_not_there():
    blue = element("background", 0, colour="blue")
    said = caption(place="a blue background")
    (row,) = run(said, blue)
    assert (row.element_id, row.similarity, row.margin) == ("c/background/0", 1.0, 1.0)
    (reject,) = run(caption(place="a red background"), blue)
    assert reject.reason == "phrase without element"
    assert run(caption(), blue) == []


def test_a_network_can_decide_where_words_cannot():
    things = [*person(0, "red", 10), *person(1, "red", 110)]

    def model(phrases: list[str], pictures: list[np.ndarray]) -> np.ndarray:
        assert [p.shape for p in pictures] == [(50, 40, 3)] * 2
        return np.array([[0.1, 0.9]], np.float32)

    (row, *_) = run(caption("a person"), *things, model=model)
    assert row.element_id == "c/human/1"
    assert row.similarity == pytest.approx(0.95)
    assert row.margin == pytest.approx(0.4)


def test_a_network_does_not_overrule_the_type():
    rows = run(caption("a person"), element("object", 0, "cup"), model=lambda *_: np.array([[1.0]], np.float32))
    assert isinstance(rows[0], Reject)


SIMILARITIES = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)


@given(SIMILARITIES, st.floats(0.1, 0.9))
def test_the_assignment_is_one_to_one_above_the_threshold_and_the_best_there_is(similarity, low):
    taken = match.assign(similarity, low)
    used = [e for e in taken if e >= 0]
    assert len(taken) == len(similarity)
    assert len(set(used)) == len(used)
    assert all(similarity[p, e] >= low - 1e-6 for p, e in enumerate(taken) if e >= 0)
    worth = sum(similarity[p, e] if e >= 0 else low for p, e in enumerate(taken))
    if similarity.shape[0] <= 4 and similarity.shape[1] <= 4:  # every way to take them, one by one
        count, elements = similarity.shape
        ways = permutations([*range(elements), *[-1] * count], count)
        best = max(sum(similarity[p, e] if e >= 0 else low for p, e in enumerate(way)) for way in ways)
        assert worth == pytest.approx(best, abs=1e-5)


WORN = st.sampled_from(["red", "blue", "yellow"])


@settings(max_examples=40, deadline=None)
@given(st.lists(WORN, min_size=1, max_size=3), st.lists(WORN, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_elements_does_not_matter_and_no_element_is_taken_twice(tops, said, random):
    things = [e for n, top in enumerate(tops) for e in person(n, top, 5 + 50 * n)]
    words = caption(*(f"{('a', 'another', 'a third')[n]} person in a {top} top" for n, top in enumerate(said)))
    rows = run(words, *things)
    taken = [r.element_id for r in rows if isinstance(r, records.Match)]
    assert len(set(taken)) == len(taken)
    random.shuffle(things)
    assert run(words, *things) == rows


def test_words_alone_need_no_card():
    assert Match().models() == {}
    assert Match().load() is None


def test_a_network_that_learned_colours_tells_things_apart_that_words_cannot(tmp_path):
    pytest.importorskip("open_clip")
    stage = Match(model=f"openclip:{tiny_clip.trained_on_squares(tmp_path)}", model_weight=1.0)
    model = stage.load()
    for first, second in permutations(("red", "blue", "green"), 2):
        # nobody measured a colour, and both are things: by words one is as good as the other
        things = [
            replace(element("object", n, "square", x), image=images.to_png(np.dstack([tiny_clip.square(c), OPAQUE])))
            for n, (c, x) in enumerate([(first, 10), (second, 110)])
        ]
        said = caption(f"a {second} square", f"a {first} square")
        found = pairs(run(said, *things, stage=stage, model=model))
        assert found == {f"a {first} square": "c/object/0", f"a {second} square": "c/object/1"}
    assert stage.models().keys() == {stage.model}
    assert (stage.gpus, Match().gpus) == (0.25, 0)


def test_what_ground_found_is_matched_like_what_detect_found():
    said, cup = caption("a person in a red top", "a grey cup"), element("object", 0, "cup")
    human, top = person(0, "red")
    rows = Match().run(None, [Kept("c", "v")], [said], [human], [], [top], [], [cup])
    assert pairs(list(rows))["a grey cup"] == "c/object/0"


def test_a_phrase_that_fits_both_stands_for_whoever_the_other_phrase_leaves():
    plain_and_red = np.array([[1.0, 1.0], [0.4, 1.0]], np.float32)  # "a person" and "a person in a red top"
    taken = match.assign(plain_and_red, 0.55)
    assert taken == [0, 1]
    # the next best: one of them for nobody
    assert [match.assignment_margin(plain_and_red, 0.55, taken, p) for p in (0, 1)] == pytest.approx(
        [0.45, 0.45], abs=1e-6
    )

    both_plain = np.array([[1.0, 1.0], [1.0, 1.0]], np.float32)
    assert match.assignment_margin(both_plain, 0.55, match.assign(both_plain, 0.55), 0) == pytest.approx(0)

    two_for_one = np.array([[0.9], [0.9]], np.float32)
    taken = match.assign(two_for_one, 0.55)
    assert match.assignment_margin(two_for_one, 0.55, taken, taken.index(0)) == pytest.approx(0)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.floats(0, 1, width=16)))
def test_the_clearance_is_the_lead_over_the_best_assignment_that_gives_the_phrase_something_else(similarity):
    count, elements = similarity.shape

    def total(way):
        return sum(similarity[p, e] if e < elements else 0.5 for p, e in enumerate(way))

    ways = list(permutations(range(elements + count), count))
    taken = match.assign(similarity, 0.5)
    for p, e in enumerate(taken):
        if e >= 0:
            best, other = max(map(total, ways)), max(total(w) for w in ways if w[p] != e)
            assert match.assignment_margin(similarity, 0.5, taken, p) == pytest.approx(best - other, abs=1e-5)
