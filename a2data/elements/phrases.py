"""Parser of noun phrases: noun, colours, clothes, position, size. Uses words only, never pictures."""

import re
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PEOPLE = _words(
    "person man woman boy girl child kid baby toddler lady guy gentleman human adult teenager player worker"
)
COLOURS = {
    **{c: c for c in _words("black white grey red orange yellow green cyan blue purple pink brown beige")},
    **{"gray": "grey", "silver": "grey", "navy": "blue", "teal": "cyan", "turquoise": "cyan", "cream": "beige"},
    **{"tan": "beige", "gold": "yellow", "golden": "yellow", "violet": "purple", "maroon": "red", "crimson": "red"},
}
CLOTHES = {
    **dict.fromkeys(_words("top shirt t-shirt blouse sweater jumper hoodie jacket coat vest blazer cardigan"), "upper"),
    **dict.fromkeys(_words("bottoms trousers pants jeans skirt shorts leggings"), "lower"),
    **dict.fromkeys(_words("shoes boots sneakers sandals heels"), "shoes"),
    **dict.fromkeys(_words("hat cap helmet glasses sunglasses scarf tie necklace bag backpack"), "accessory"),
    "hair": "hair",
}
POSITIONS = {"left": 0.0, "centre": 0.5, "center": 0.5, "middle": 0.5, "right": 1.0}
SIZES = {"small": -1, "little": -1, "tiny": -1, "large": 1, "big": 1, "huge": 1}
DETERMINERS = _words("a an the another third fourth fifth sixth seventh eighth ninth tenth")
BREAK_WORDS = _words("in on at with and or of by from near behind beside wearing dressed holding who which is")


class Garment(NamedTuple):
    """A garment, or hair, mentioned in a phrase: "a yellow top"."""

    kind: str  # element kind: upper, lower, shoes, accessory, hair
    colour: str  # "" if not mentioned
    start: int  # phrase[start:end] is its own noun phrase
    end: int


class ParsedPhrase(NamedTuple):
    """Parsed noun phrase."""

    noun: str  # its head: "person", "bottle", "dining table"
    human: bool
    colours: tuple[str, ...]  # of the subject itself, not of its clothes
    garments: tuple[Garment, ...]
    position: float | None  # 0 left, 0.5 centre, 1 right
    size: int  # -1 small, 1 large, 0 not mentioned


def parse(phrase: str) -> ParsedPhrase:
    """Parse a noun phrase such as "a small red bottle on the left"."""
    words = [(m.group().lower(), m.start(), m.end()) for m in re.finditer(r"[\w'-]+|,", phrase)]
    head = []
    for word, _, _ in words:
        if word in BREAK_WORDS or word == ",":
            break
        head.append(word)
    nouns = [w for w in head if w not in COLOURS and w not in SIZES and w not in DETERMINERS]
    size = next((SIZES[w] for w in head if w in SIZES), 0)
    human = any(w in PEOPLE for w in nouns)
    own_colours = colours(" ".join(head))
    return ParsedPhrase(" ".join(nouns), human, own_colours, _garments(words) if human else (), position(phrase), size)


def colours(words: str) -> tuple[str, ...]:
    """Return the colours mentioned in words, in order, by their names in a2data.media.colours."""
    return tuple(COLOURS[w] for w in re.findall(r"\w+", words.lower()) if w in COLOURS)


def position(phrase: str) -> float | None:
    """Return the position given by "on the left" and the like: 0 left, 0.5 centre, 1 right; None if not mentioned."""
    match = re.search(r"\b(?:on|in|at) the (?:far )?(left|right|cent(?:er|re)|middle)\b", phrase.lower())
    return POSITIONS[match.group(1)] if match else None


def _garments(words: list[tuple[str, int, int]]) -> tuple[Garment, ...]:
    garments = []
    for n, (word, _, end) in enumerate(words):
        if word not in CLOTHES:
            continue
        first = n
        while first and words[first - 1][0] not in BREAK_WORDS and words[first - 1][0] != ",":
            first -= 1
        modifiers = [w for w, _, _ in words[first:n]]
        colour = next((COLOURS[w] for w in reversed(modifiers) if w in COLOURS), "")
        garments.append(Garment(CLOTHES[word], colour, words[first][1], end))
    return tuple(garments)
