"""Names of references in prompts, from phrase spans."""

from dataclasses import replace

import tiny_shards

from pipelines.export.prompts import prompt

TEXT = "A man in a coat pets a dog in a park."
SPANS = {"human": (0, 15), "upper": (9, 15), "object": (21, 26), "background": (30, 36)}


def given(*roles, phrases=True):
    made = []
    for n, role in enumerate(roles):
        each = tiny_shards.reference("bg" if role == "background" else f"ref{n}", role, "clip")
        start, end = SPANS[role]
        made.append(replace(each, phrase=TEXT[start:end], start=start, end=end) if phrases else each)
    return made


def test_plain_prompts_stay():
    assert prompt(TEXT, given("human"), "plain") == TEXT


def test_each_phrase_is_followed_by_the_numbers_of_its_pictures():
    assert prompt(TEXT, given("human", "object", "background"), "picture") == (
        "A man in a coat <Picture 1> pets a dog <Picture 2> in a park <Picture 3>."
    )


def test_phrases_that_end_together_share_a_place():
    assert (
        prompt(TEXT, given("human", "upper"), "picture")
        == "A man in a coat <Picture 1> <Picture 2> pets a dog in a park."
    )


def test_a_reference_without_a_phrase_is_named_at_the_end():
    assert prompt(TEXT, given("object", phrases=False), "picture") == f"{TEXT} <Picture 1> shows the object."


def test_the_sections_of_h3_define_every_subject_and_picture():
    made = prompt(TEXT, given("human", "object", "background"), "h3")
    sections = dict(part.split(":", 1) for part in made.split("\n\n"))
    assert list(sections) == [
        "subject_definitions", "summary", "retention_analysis", "detailed_description", "overall_soundscape",
        "non_diegetic_music",
    ]  # fmt: skip
    assert sections["subject_definitions"].strip().splitlines() == [
        "<Subject 1> is A man in a coat, shown in <Picture 1>.",
        "<Subject 2> is a dog, shown in <Picture 2>.",
        "<Picture 3> shows a park.",
    ]
    told = "A man in a coat <Subject 1> pets a dog <Subject 2> in a park <Picture 3>."
    assert sections["summary"].strip() == f"[reference generation] {told}"
    assert sections["detailed_description"].strip() == f"[Shot 1] {told}"
    assert [line.split(":")[0] for line in sections["retention_analysis"].strip().splitlines()] == [
        "<Subject 1>", "<Subject 2>", "<Picture 3>",
    ]  # fmt: skip
