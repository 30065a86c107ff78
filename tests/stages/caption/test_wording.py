import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.elements import phrases
from stages.caption import wording


def subject(sub_type: str = "", appearance: str = "", **others: str) -> dict:
    blank = dict.fromkeys(("type", "action", "expression", "position"), "")
    return {**blank, "sub_type": sub_type, "appearance": appearance, **others}


def phrase(sub_type: str, appearance: str = "") -> str:
    return wording.noun_phrase(wording.normalize_subject(subject(sub_type, appearance)), 14)


@pytest.mark.parametrize(
    ("sub_type", "appearance", "expected"),
    [
        ("Woman", "wearing a yellow hoodie", "a woman wearing a yellow hoodie"),
        (
            "Woman",
            "Long dark hair tied back, light skin, wearing a bright yellow hoodie with white drawstrings and blue denim jeans.",
            "a woman in a bright yellow hoodie and blue denim jeans",
        ),
        (
            "Man",
            "The man has short brown hair and a beard. He is wearing a black suit jacket over a white shirt and a red tie.",
            "a man in a black suit jacket and a white shirt",
        ),
        ("Young Woman (left)", "She wears an orange T-shirt", "a young woman wearing an orange T-shirt"),
        ("Woman", "Elderly woman with grey hair", "an elderly woman with grey hair"),
        ("person_1", "", "a person"),
        ("A cup", "red", "a red cup"),
        ("Women", "in red coats", "some women in red coats"),
        ("Two men", "", "two men"),
        ("Glasses", "", "some glasses"),
        ("Glass", "", "a glass"),
        ("Bus", "", "a bus"),
        ("", "", "an object"),
        ("Frau", "mit grüner Brille", "a frau with mit grüner Brille"),
        ("Dog", "The dog's fur is brown", "a dog with fur brown"),
    ],
)
def test_what_a_language_model_says_of_a_subject_becomes_a_noun_phrase(sub_type, appearance, expected):
    assert phrase(sub_type, appearance) == expected


@pytest.mark.parametrize(
    ("appearance", "worn"),
    [
        ("Long dark hair, pale skin and a calm look, wearing a bright yellow hoodie.", [("upper", "yellow")]),
        ("She wears a red jacket and black jeans.", [("upper", "red"), ("lower", "black")]),
        ("The woman is wearing a navy blazer", [("upper", "blue")]),
        ("a tall woman with very long straight hair who seems to be in a hurry, in a green coat", [("upper", "green")]),
    ],
)
def test_the_phrase_reads_as_a_person_with_the_clothes_that_were_said(appearance, worn):
    said = phrases.parse(phrase("Woman", appearance))
    assert said.human
    assert [(g.kind, g.colour) for g in said.garments] == worn


@pytest.mark.parametrize(
    ("said", "position", "place"),
    [
        ("Left side", "on the left", 0.0),
        ("In the center of the frame.", "in the centre", 0.5),
        ("far right", "on the far right", 1.0),
        ("standing to the left", "on the left", 0.0),
        ("behind the table", "behind the table", None),
    ],
)
def test_a_place_in_the_frame_is_said_one_way(said, position, place):
    assert wording.normalize_subject(subject(position=said))["position"] == position
    assert phrases.position(position) == place


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("The woman is speaking to the camera. She waves.", "is speaking to the camera, then waves"),
        ("Speaking", "Speaking"),
        ("He walks 3.5 metres", "walks 3.5 metres"),
        ("runs across the lawn", "runs across the lawn"),
        ("The dog runs across the lawn", "runs across the lawn"),
    ],
)
def test_a_sentence_about_an_action_becomes_a_predicate(said, action):
    assert wording.normalize_subject(subject(action=said))["action"] == action


def test_what_a_phrase_names_is_spoken_of_again_with_the():
    text = "holds a red cup, a red cupboard behind, another woman near a red cup"
    told = ["a red cup", "another woman"]
    assert (
        wording.deduplicate_phrases(text, told)
        == "holds the red cup, a red cupboard behind, the woman near the red cup"
    )


WORDS = st.sampled_from(["a", "another", "some", "the", "woman", "women", "cup", "red", "two", "in", "étui", "top,"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=6)), max_size=6))
def test_phrases_are_never_found_inside_one_another_nor_in_other_texts(said):
    subjects = [subject(" ".join(noun), " ".join(look)) for noun, look in said]
    told = wording.disambiguate([wording.normalize_subject(s) for s in subjects], 14)
    for n, one in enumerate(told):
        assert not any(wording.find_phrase(one, other) for m, other in enumerate(told) if m != n)
        assert not wording.find_phrase(one, wording.deduplicate_phrases(f"holds {one} and {one}", told))
