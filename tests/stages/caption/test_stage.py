from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data import records
from a2data.media import images, video
from a2data.records import ClipVideo, Element, ExpertOutput, Kept
from model_zoo import cards
from model_zoo.caption import fusion_template
from stages.caption import stage as caption
from stages.caption import wording
from stages.caption.stage import Caption

HEIGHT, WIDTH, COUNT = 96, 160, 4
PIXELS = np.full((COUNT, HEIGHT, WIDTH, 3), (128, 128, 128), np.uint8)
FILM = ClipVideo(
    clip_id="v-00000000",
    video_id="v",
    shot=0,
    shot_start=0,
    shot_end=COUNT,
    transition_in="start",
    fps=15.0,
    width=WIDTH,
    height=HEIGHT,
    source_frames=list(range(COUNT)),
    source_pts_s=[0.0] * COUNT,
    crop=(0.0, 0.0, WIDTH, HEIGHT),
    bars=0.0,
    luma=[0.5] * COUNT,
    sharpness=[1.0] * COUNT,
    motion=[0.0] * COUNT,
    thumbnails=b"",
    video=video.encode(PIXELS, 15.0),
)


PAINTS = {
    "yellow": (250, 220, 20),
    "red": (210, 20, 20),
    "blue": (20, 40, 220),
    "black": (5, 5, 5),
    "orange": (240, 120, 20),
}


def painted(attributes: tuple[str, ...]) -> np.ndarray:
    """The first frame in the colour that was measured, so that it was measured rightly."""
    paint = next((PAINTS.get(a.removeprefix("colour=")) for a in attributes if a.startswith("colour=")), None)
    return PIXELS[0] if paint is None else np.full_like(PIXELS[0], paint)


def element(kind: str, number: int, box: tuple, label: str = "", parent: str = "", *attributes: str) -> Element:
    x0, y0, x1, y1 = images.clamp(box, HEIGHT, WIDTH)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    png = images.to_png(images.cut_out(painted(attributes), mask, box))
    return Element(
        clip_id=FILM.clip_id,
        element_id=f"{FILM.clip_id}/{kind}/{number}",
        kind=kind,
        label=label,
        parent_id=parent,
        frame=0,
        box=box,
        confidence=0.9,
        mask=images.to_rle(mask),
        image=png,
        image_sha256=images.sha16(png),
        embedding=[],
        embedder="",
        quality=0.5,
        seen_frames=[0, COUNT - 1],
        seen_boxes=[box, box],
        attributes=list(attributes),
    )


def builtin(*elements: Element, stage: Caption | None = None) -> records.Caption:
    stage = stage or Caption()
    of = {kind: [e for e in elements if e.kind == kind] for kind in ("human", "object", "face", "upper")}
    tables = [*of["human"], *of["object"]], of["face"], of["upper"]
    (made,) = stage.run(stage.load(), [Kept(FILM.clip_id, "v")], [FILM], *tables)
    return made


def told(*subjects: dict, **fields: str) -> dict:
    """What a base captioner may answer; a subject: appearance, action and so on, type and sub_type among them."""
    nested = [
        {
            **{k: v for k, v in s.items() if k not in ("type", "sub_type")},
            "TYPES": {k: s.get(k, "") for k in ("type", "sub_type")},
        }
        for s in subjects
    ]
    return {"subjects": nested, **fields}


def from_base(scene: dict, *experts, stage: Caption | None = None) -> records.Caption:
    """The caption when the base captioner says `scene` and an expert is a list of answers."""
    names = [f"expert{n}" for n, _ in enumerate(experts)]
    stage = replace(stage or Caption(), captioner="base", experts=",".join(names))
    models = {name: lambda *_, said=said: said for name, said in zip(names, experts, strict=True)}
    models |= {"base": lambda *_: scene, "template": fusion_template.fuse}
    (made,) = stage.run(models, [Kept(FILM.clip_id, "v")], [FILM], [], [], [])
    return made


def test_a_measured_clip_reads_as_a_sentence_and_its_phrase_is_found():
    person = element("human", 0, (100.0, 10.0, 150.0, 96.0), "person")
    face = element("face", 0, (115.0, 15.0, 135.0, 35.0), "face", person.element_id, "yaw=0.05")
    top = element("upper", 0, (105.0, 45.0, 145.0, 80.0), "yellow upper clothes", person.element_id, "colour=yellow")
    made = builtin(person, face, top)
    assert made.prompt.startswith(
        "In a medium shot at eye level, seen from the front, a person in a yellow top stays still on the right. "
        "The scene is set against a grey background."
    )
    (subject,) = made.subjects
    assert made.prompt[subject.start : subject.end] == subject.phrase == "a person in a yellow top"
    assert made.prompt[made.environment_start : made.environment_end] == "a grey background"
    assert (made.shot_type, made.shot_angle, made.shot_position) == ("medium_shot", "eye_level", "front_view")


def test_the_colour_of_a_garment_is_said_only_where_it_takes_half_of_it():
    person = element("human", 0, (100.0, 10.0, 150.0, 96.0), "person")
    top = element("upper", 0, (105.0, 45.0, 145.0, 85.0), "black upper clothes", person.element_id, "colour=black")
    rgba = images.from_png(top.image)
    for orange, phrase in ((10, "a person in a black top"), (24, "a person")):
        rgba[:orange, :, :3] = PAINTS["orange"]
        made = builtin(person, replace(top, image=images.to_png(rgba)))
        assert [s.phrase for s in made.subjects] == [phrase]


def test_a_thing_without_a_good_picture_is_not_mentioned():
    cup = element("object", 0, (10.0, 30.0, 50.0, 80.0), "cup", "", "colour=red")
    assert [s.phrase for s in builtin(cup).subjects] == ["a red cup"]
    assert builtin(replace(cup, quality=0.2)).subjects == []


def test_a_thing_that_comes_and_goes_is_not_spoken_of():
    person = element("human", 0, (100.0, 10.0, 150.0, 96.0), "person")
    person = replace(person, seen_frames=[0, 1, 2, 3], seen_boxes=[person.box] * 4)
    cup = element("object", 0, (10.0, 30.0, 50.0, 80.0), "cup", "", "colour=red")
    often = replace(cup, seen_frames=[0, 1, 3], seen_boxes=[cup.box] * 3)
    assert {s.phrase for s in builtin(person, often).subjects} == {"a person", "a red cup"}
    assert {s.phrase for s in builtin(person, cup).subjects} == {"a person"}


def test_two_that_look_alike_are_distinguished_by_their_sides_though_both_move():
    boxes = {
        0: ((5.0, 30.0, 45.0, 80.0), (35.0, 30.0, 75.0, 80.0)),
        1: ((110.0, 30.0, 150.0, 80.0), (80.0, 30.0, 120.0, 80.0)),
    }
    first, second = (
        replace(element("object", n, b[0], "cup", "", "colour=red"), seen_boxes=list(b)) for n, b in boxes.items()
    )
    assert {s.phrase for s in builtin(first, second).subjects} == {"a red cup on the left", "a red cup on the right"}

    crossed = replace(second, seen_boxes=[*second.seen_boxes[:1], (5.0, 30.0, 45.0, 80.0)])
    said = {s.phrase for s in builtin(first, crossed).subjects}
    assert said == {"a red cup", "another red cup"}


def test_an_empty_clip_has_a_prompt_too():
    made = builtin()
    assert made.prompt.startswith("A view of a grey background against which nothing stands out.")
    assert made.subjects == []


def test_only_kept_clips_are_captioned():
    stage = Caption()
    assert list(stage.run(stage.load(), [Kept("another", "v")], [FILM], [], [], [])) == []


def test_every_card_that_it_names_can_be_loaded_and_is_part_of_the_key():
    stage = Caption()
    assert sorted(stage.models()) == [
        "builtin-camera",
        "builtin-caption",
        "builtin-expression",
        "builtin-shot",
        "template",
    ]
    assert sorted(stage.load()) == sorted(stage.models())
    assert cards.card("builtin-shot").role == "caption-expert"
    assert sorted(replace(stage, experts="").models()) == ["builtin-caption", "template"]


LABELS = st.sampled_from(["person", "bottle", "cup", "cupboard", "dining table", "object", "top", "orange", ""])
NAMED = st.sampled_from(["red", "orange", "grey", "black"])


@st.composite
def elements(draw) -> list[Element]:
    made = []
    for n in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["human", "object"]))
        x0, y0 = draw(st.integers(0, WIDTH - 20)), draw(st.integers(0, HEIGHT - 20))
        box = (float(x0), float(y0), float(x0 + draw(st.integers(4, 20))), float(y0 + draw(st.integers(4, 20))))
        colour = [f"colour={draw(NAMED)}"] if draw(st.booleans()) else []
        made.append(element(kind, n, box, draw(LABELS), "", *colour))
        if kind == "human" and draw(st.booleans()):
            made.append(element("upper", n, box, "", made[-1].element_id, f"colour={draw(NAMED)}"))
    return made


@settings(max_examples=8, deadline=None)
@given(elements(), st.randoms(use_true_random=False))
def test_spans_hold_and_the_order_of_elements_does_not_matter(found, random):
    once = builtin(*found)
    caption.check_spans(once)
    for subject in once.subjects:
        assert wording.find_phrase(subject.phrase, once.prompt) == [subject.start]
    assert len({s.phrase for s in once.subjects}) == len(once.subjects) <= 4
    random.shuffle(found)
    assert builtin(*found) == once


def test_a_phrase_that_is_part_of_anothers_clothes_ends_no_run():
    subjects = [
        {"sub_type": "Orange", "type": "", "appearance": "", "position": ""},
        {"sub_type": "Woman", "type": "", "appearance": "in an orange top", "position": ""},
    ]
    assert wording.disambiguate(subjects, 14) == ["an orange", "a woman"]


def test_two_alike_are_distinguished_by_place_and_else_by_counting():
    def people(*places: str) -> list[dict]:
        return [{"sub_type": "Person", "type": "", "appearance": "in a grey top", "position": p} for p in places]

    assert wording.disambiguate(people("on the left", "on the right"), 12) == [
        "a person in a grey top on the left",
        "a person in a grey top on the right",
    ]
    assert wording.disambiguate(people("", "", ""), 12) == [
        "a person in a grey top",
        "another person in a grey top",
        "a third person in a grey top",
    ]


@pytest.mark.parametrize(
    ("sub_type", "appearance", "phrase"),
    [
        ("Bottle", "red", "a red bottle"),
        ("Object", "", "an object"),
        ("Ship", "White with a blue hull", "a white ship with a blue hull"),
        ("Woman", "Long black hair, wearing a blue shirt.", "a woman with long black hair, wearing a blue shirt"),
        (
            "Man",
            "wearing a dark suit, a white shirt and shoes that shine",
            "a man wearing a dark suit and a white shirt",
        ),
        ("Dog", "with very long fur that hangs over both of the eyes", "a dog with very long fur that hangs over both"),
    ],
)
def test_appearance_becomes_part_of_a_noun_phrase_of_limited_length(sub_type, appearance, phrase):
    assert wording.noun_phrase({"type": "", "sub_type": sub_type, "appearance": appearance}, 11) == phrase


def test_the_surest_answer_counts_and_the_later_of_two():
    answers = [
        ExpertOutput("a", "x", "first", 0.5),
        ExpertOutput("b", "x", "sure", 0.9),
        ExpertOutput("c", "x", "unsure", 0.8),
    ]
    answers += [
        ExpertOutput("a", "y", "first", 0.5),
        ExpertOutput("b", "y", "later", 0.5),
        ExpertOutput("a", "z", "never", 0.3),
    ]
    assert caption.most_confident(answers, min_confidence=0.4) == {"x": "sure", "y": "later"}


def test_an_expert_overrules_the_base_and_both_answers_are_kept():
    scene = told({"type": "Human", "sub_type": "Woman", "expression": "Sad"}, shot_type="long_shot", camera_motion="")
    answers = [
        ("shot_type", "close_up", 0.9),
        ("subjects.0.expression", "Happy", 0.7),
        ("camera_motion", "it pans", 0.2),
    ]
    made = from_base(scene, answers)
    assert made.shot_type == "close_up"
    assert made.subjects[0].expression == "Happy"
    assert "it pans" not in made.prompt.lower()  # not sure enough
    assert {(a.expert, a.value) for a in made.answers if a.field == "shot_type"} == {
        ("base", "long_shot"),
        ("expert0", "close_up"),
    }
    assert ("expert0", "it pans") in {(a.expert, a.value) for a in made.answers}


def test_the_camera_comes_last_and_never_passes_through_the_fusion():
    scene = told({"type": "Object", "sub_type": "Cup"}, camera_motion="use a tracking shot.", lighting="dim")
    assert from_base(scene).prompt.endswith("The lighting is dim. Use a tracking shot.")


@pytest.mark.parametrize(
    ("type", "sub_type", "kept"),
    [("Human", "Woman", "smiling"), ("Animal", "Dog", "smiling"), ("Human", "Accessory", ""), ("Plant", "Tree", "")],
)
def test_only_people_and_animals_have_an_expression(type, sub_type, kept):
    made = from_base(told({"type": type, "sub_type": sub_type, "expression": "smiling"}))
    assert made.subjects[0].expression == kept


def test_the_main_subject_comes_first_and_the_least_are_left_out():
    things = [{"sub_type": name, "is_main_subject": name == "Cup"} for name in ("Hat", "Cup", "Pen", "Fork", "Book")]
    made = from_base(told(*things), stage=Caption(max_subjects=3))
    assert [s.sub_type for s in made.subjects] == ["Cup", "Hat", "Pen"]


def test_words_outside_the_schema_are_other():
    assert from_base(told(shot_type="Medium Shot", shot_angle="eye_level")).shot_type == "other"


@pytest.mark.parametrize("answer", ["{}", None, {"subjects": "a dog"}, {"subjects": ["a dog"]}])
def test_an_answer_that_is_not_a_caption_is_an_error(answer):
    with pytest.raises(ValueError, match="structured caption"):
        from_base(answer)


def test_a_fusion_that_loses_or_repeats_a_phrase_is_an_error():
    for prompt in ("Somebody waves.", "There is a cup and a cup."):
        with pytest.raises(ValueError, match=r"has the phrase 'a cup' \d times"):
            wording.span("a cup", prompt)
    assert wording.span("a cup", "In a cupboard, a cup.") == (15, 20)


def test_check_finds_broken_spans_overlaps_and_empty_prompts():
    good = from_base(told({"type": "Object", "sub_type": "Cup"}, environment="a white background"))
    caption.check_spans(good)
    moved = replace(good.subjects[0], start=good.subjects[0].start + 1)
    with pytest.raises(ValueError, match="is not the phrase"):
        caption.check_spans(replace(good, subjects=[moved]))
    with pytest.raises(ValueError, match="overlap"):
        caption.check_spans(replace(good, environment_start=good.subjects[0].start + 2))
    with pytest.raises(ValueError, match="overlap"):
        caption.check_spans(replace(good, environment_end=len(good.prompt) + 1))
    with pytest.raises(ValueError, match="empty"):
        caption.check_spans(replace(good, prompt="-", subjects=[], environment_start=0, environment_end=0))
