import pytest

from a2data.elements import phrases


def test_a_person_is_read_with_clothes_and_place():
    said = phrases.parse("a person in a yellow top and black bottoms on the left")
    assert (said.noun, said.human, said.colours, said.position) == ("person", True, (), 0.0)
    assert [(g.kind, g.colour) for g in said.garments] == [("upper", "yellow"), ("lower", "black")]


@pytest.mark.parametrize(
    ("phrase", "garments"),
    [
        ("a woman wearing a light blue silk shirt, grey trousers", ["a light blue silk shirt", "grey trousers"]),
        ("another person in white shoes", ["white shoes"]),
        ("a man with short brown hair", ["short brown hair"]),
        ("a red top", []),  # without a wearer
    ],
)
def test_each_garment_is_found_as_its_own_phrase(phrase, garments):
    assert [phrase[g.start : g.end] for g in phrases.parse(phrase).garments] == garments


def test_an_object_is_read_with_colour_size_and_name():
    said = phrases.parse("a small gray dining table in the middle")
    assert (said.noun, said.human, said.colours, said.size, said.position) == (
        "dining table",
        False,
        ("grey",),
        -1,
        0.5,
    )
    assert phrases.parse("another large cup") == phrases.ParsedPhrase("cup", False, (), (), None, 1)


def test_left_and_right_are_places_only_where_they_say_where():
    assert phrases.position("On the far right, next to the door") == 1.0
    assert phrases.position("moves to the left") is None


def test_colours_are_read_from_whole_words_in_order():
    assert phrases.colours("A redecorated wall, navy blue and Gold") == ("blue", "blue", "yellow")
