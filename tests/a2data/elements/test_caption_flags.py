"""Flags of captions: each of its kind, and near-duplicates as an exhaustive comparison finds them."""

import random

from a2data.elements.caption_flags import MIN_JACCARD, flags, near_duplicates

LONG = "a person in a red coat carries a small white cup across a bright kitchen and sets it on the wooden table by the window"


def test_a_corpus_of_different_captions_is_not_flagged():
    assert flags({"a": "A dog runs over the wet grass.", "b": "Two people talk in a kitchen."}) == {}


def test_each_flag_names_its_clip_and_the_one_it_repeats():
    found = flags(
        {
            "a": LONG,
            "b": LONG.upper() + ".",
            "c": LONG.replace("window", "door"),
            "d": "A cup.",
            "e": " ".join(f"word{n}" for n in range(251)),
        }
    )
    assert found["repeated"] == {"b": "the same words as a"}
    assert list(found["near-duplicate"]) == ["c"]
    assert found["near-duplicate"]["c"].endswith("with a")
    assert found["too short"] == {"d": "2 words, min = 4"}
    assert found["too long"] == {"e": "251 words, max = 250"}


def test_near_duplicates_are_those_of_an_exhaustive_comparison():
    draw = random.Random(0)
    words = [f"w{n}" for n in range(60)]
    texts = {}
    for n in range(60):
        made = draw.choices(words, k=40)
        texts[f"{n:03d}"] = " ".join(made)
        for k in range(draw.randrange(3)):  # copies with one to three other words
            for _ in range(k + 1):
                made[draw.randrange(40)] = "other"
            texts[f"{n:03d}-{k}"] = " ".join(made)

    def shingles(text: str) -> set[tuple[str, ...]]:
        parts = text.split()
        return {tuple(parts[i : i + 3]) for i in range(len(parts) - 2)}

    sets = {key: shingles(text) for key, text in texts.items()}
    expected = {
        (one, other) for one in sets for other in sets
        if other < one and len(sets[one] & sets[other]) / len(sets[one] | sets[other]) >= MIN_JACCARD
    }  # fmt: skip
    assert len(expected) > 10
    assert {(one, other) for one, other, _ in near_duplicates(texts)} == expected
