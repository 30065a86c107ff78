from dataclasses import replace

import numpy as np
import pytest
import tiny_corpus
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import PROMPT, RED

from a2data.records import Match, Reject
from pipelines.report import contact_sheets
from pipelines.report.contact_sheets import NO_REFERENCE, Highlight, split_at_spans


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 2, 0), (2, 4, 1)], [("ab", (0,)), ("cd", (1,)), ("ef", ())]),
        ([(0, 4, 0), (2, 6, 1)], [("ab", (0,)), ("cd", (1, 0)), ("ef", (1,))]),
        ([(2, 4, 0), (0, 6, 1)], [("ab", (1,)), ("cd", (1, 0)), ("ef", (1,))]),
        ([(0, 6, 0), (0, 6, 0)], [("abcdef", (0,))]),
        ([(3, 99, NO_REFERENCE)], [("abc", ()), ("def", (NO_REFERENCE,))]),
        ([], [("abcdef", ())]),
    ],
    ids=["adjacent", "crossing", "nested", "twice", "too long", "none"],
)
def test_spans_cut_the_prompt_where_they_begin_and_end(spans, expected):
    assert split_at_spans("abcdef", [Highlight(*span) for span in spans]) == expected


numbers = st.integers(0, 14)


@given(st.text(max_size=12), st.lists(st.builds(Highlight, numbers, numbers, st.integers(-1, 3)), max_size=5))
def test_every_character_keeps_its_place_and_has_the_colours_of_the_spans_over_it(prompt, spans):
    found = split_at_spans(prompt, spans)
    assert "".join(piece.text for piece in found) == prompt
    colours = [set(piece.colours) for piece in found for _ in piece.text]
    assert colours == [{s.colour for s in spans if s.start <= at < s.end} for at in range(len(prompt))]


def test_references_beyond_the_last_colour_start_again_and_the_named_come_first():
    kinds = [f"object{n}" for n in range(contact_sheets.COLOURS + 1)]
    references = [replace(tiny_corpus.reference("human", 0.9, 0.1), element_id=f"{RED}/{k}/0", kind=k) for k in kinds]
    named = Match(RED, references[-1].element_id, "walks", 26, 31, 0.3, 0.1)
    _, tiles = contact_sheets.assign_colours(PROMPT, [named], references, {}, {})
    assert [tile.reference.element_id for tile in tiles] == [f"{RED}/{kind}/0" for kind in (kinds[-1], *kinds[:-1])]
    assert [tile.colour for tile in tiles] == [*range(contact_sheets.COLOURS), 0]


def test_a_kind_has_its_colour_in_every_card_and_a_second_of_it_another():
    kinds = ["background", "object", "object", "face"]
    references = [
        replace(tiny_corpus.reference("human", 0.9, 0.1), element_id=f"{RED}/{kind}/{n}", kind=kind)
        for n, kind in enumerate(kinds)
    ]
    for some in (references, references[1:], references[::-1]):
        _, tiles = contact_sheets.assign_colours(PROMPT, [], some, {}, {})
        colours = {tile.reference.element_id.split("/", 1)[1]: tile.colour for tile in tiles}
        assert colours.pop("background/0", 5) == 5
        assert colours == {"object/1": 4, "object/2": 0, "face/3": 1}


def test_a_face_that_the_prompt_does_not_name_goes_by_the_phrase_of_its_person():
    human, face = (
        replace(tiny_corpus.reference("human", 0.9, 0.1), element_id=f"{RED}/{k}/0", kind=k) for k in ("human", "face")
    )
    named = tiny_corpus.match("man in a red coat", "human")
    prompt, tiles = contact_sheets.assign_colours(
        PROMPT, [named], [face, human], {}, {face.element_id: human.element_id}
    )
    assert [(tile.reference, tile.colour, tile.phrase) for tile in tiles] == [
        (human, 0, named.phrase),
        (face, 1, named.phrase),
    ]
    assert prompt[1] == (named.phrase, (1, 0))


def test_frames_with_odd_proportions_become_even_and_fit():
    assert contact_sheets.fit_within(np.zeros((1080, 607, 3), np.uint8), 320, even=True).shape == (320, 180, 3)
    assert contact_sheets.fit_within(np.zeros((3, 900, 3), np.uint8), 300).shape == (1, 300, 3)
    assert contact_sheets.fit_within(np.zeros((20, 30, 3), np.uint8), 300).shape == (20, 30, 3)


def test_samples_are_spread_over_the_whole_corpus():
    assert contact_sheets.sample_evenly(list(range(100)), 4) == [0, 25, 50, 75]
    assert contact_sheets.sample_evenly([1, 2], 5) == [1, 2]


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        (
            "b/face/0: similarity = 0.9, allowed 0.97 to inf: FAIL; margin = 1, allowed 0 to inf: pass",
            "b/face/0: similarity",
        ),
        ("b/face/0: similarity = 0.99, allowed 0.97 to inf: pass", "b/face/0 is similar enough, but"),
        ("side = 26 px, min_side_px = 40", "side = 26 px, min_side_px = 40"),
        ("", "too small"),
    ],
    ids=["failed", "passed", "text", "none"],
)
def test_the_caption_of_a_reject_quotes_no_rule_that_passed(detail, expected):
    said = contact_sheets.caption(Reject("a/upper/0", "too small", detail))
    assert said.startswith(expected)
    assert "pass" not in said
