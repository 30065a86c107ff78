"""Wording of captions: the noun phrases of subjects, and their spans in the prompt. Works on text only.

A captioner may be a language model, so its output may have sentences, plurals, "left side" for a position, and the words for one
subject inside those for another. The results are phrases that a2data.elements.phrases parses and that occur exactly once in the
prompt.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from a2data.elements import phrases

ORDINALS = ("another", "a third", "a fourth", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth", "a tenth")
GROUP_ORDINALS = ("some other", "some more", "yet other", "still more")  # the same for groups
NUMBERS = "two|three|four|five|six|seven|eight|nine|ten|several|many|some"
ARTICLE = re.compile(rf"(?:{'|'.join([*ORDINALS, *GROUP_ORDINALS, NUMBERS])}|an?|the) ")  # how a phrase begins
# last word of "young women", "cups"
PLURAL = re.compile(r"(?:people|men|women|children|feet|mice|geese|.*(?<![suios])s)$")
SINGULAR_IN_S = frozenset(
    ["jeans", "trousers", "glasses", "sunglasses", "shorts", "scissors", "pants", "leggings", "binoculars"]
)
SUBJECT = r"(?:the |an? |this |that |his |her |their )\w+(?: \w+)??|he|she|it|they|who|which"
SUBJECT_AND_VERB = re.compile(
    rf"^(?:{SUBJECT}) (?=(?:is|are|was|has|have|had|wears?|appears?|seems?|\w+s)\b)", re.IGNORECASE
)
CLAUSES = (
    (
        re.compile(r"^(?:is|are|appears?|seems?)(?: to be)? (?:wearing|dressed in|clad in|clothed in) ", re.I),
        "wearing ",
    ),
    (re.compile(r"^(?:wears?|dressed in|clad in) ", re.I), "wearing "),
    (re.compile(r"^(?:(?:the|his|her|their|its) )?(?:\w+'s )?((?!there|that)\w+(?: \w+)?) (?:is|are) ", re.I), r"\1 "),
    (re.compile(r"^(?:has|have|with|features?) ", re.I), "with "),
    (re.compile(r"^(?:is|are|appears?|seems?)(?: to be)? ", re.I), ""),
)
SIDE = re.compile(
    r"^(?:(?:positioned|located|standing|sitting) )?(?:(?:to|on|at|in|of) )?(?:the )?(?P<far>far )?"
    r"(?P<side>left|right|cent(?:er|re)|middle)(?:[- ]?(?:hand )?side)?"
    r"(?: of (?:the )?(?:frame|screen|image|picture|shot|scene|video))?$",
    re.IGNORECASE,
)


def normalize_subject(subject: dict[str, Any]) -> dict[str, Any]:
    """Return a subject with its texts as sentence parts: "The man is asleep." -> "is asleep", "Left side" -> "on the left"."""
    side_match = SIDE.match(subject["position"].rstrip(". "))
    action = _predicates(subject["action"])
    texts = {"action": ", then ".join(action), "appearance": ", ".join(_attributes(subject["appearance"]))}
    expression = _predicates(subject["expression"])
    texts["expression"] = (
        re.sub(r"^(?:is|are|has|looks|appears|seems) (?:an? )?", "", expression[0]) if expression else ""
    )
    if side_match:
        side = side_match["side"].lower().replace("center", "centre")
        texts["position"] = (
            f"{'on' if side in ('left', 'right') else 'in'} the {side_match['far'] or ''}{side}".replace("  ", " ")
        )
    return subject | texts


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=\w)[.;!?]+(?:\s+|$)", text.strip(" .")) if part.strip()]


def _predicates(text: str) -> list[str]:
    """Return the sentences of a text without their subjects: "The man sits. He waves." -> "sits", "waves"."""
    return [SUBJECT_AND_VERB.sub("", part.strip()) for part in _sentences(text)]


def _attributes(text: str) -> list[str]:
    """Return an appearance as attributes: "She has long hair. She wears a red top" -> "with long hair", "wearing …"."""
    attributes = []
    for part in _predicates(text):
        for pattern, replacement in CLAUSES:
            if pattern.match(part):
                part = pattern.sub(replacement, part, count=1)
                break
        attributes.append(part)
    return attributes


def disambiguate(subjects: Sequence[dict[str, Any]], max_words: int) -> list[str]:
    """Return a noun phrase for each subject, none of which is contained in another.

    Equal phrases are disambiguated by position, and if that does not help, by counting: "another person". Objects without a name
    get their position too: "a red object on the left".
    """
    noun_phrases = [noun_phrase(s, max_words) for s in subjects]
    positioned = []
    for n, (subject, phrase) in enumerate(zip(subjects, noun_phrases, strict=True)):
        similar = [m for m, other in enumerate(noun_phrases) if m != n and overlap(phrase, other)]
        position = subject["position"]
        is_brief = position.startswith(("in ", "on ", "at ")) and len(position.split()) <= 4
        is_vague = subject["sub_type"].lower() in ("object", "thing", "") and subject["type"] != "Human"
        distinguishes = (similar or is_vague) and is_brief and all(subjects[m]["position"] != position for m in similar)
        positioned.append(f"{phrase} {position}" if distinguishes else phrase)
    distinct: list[str] = []
    for phrase in positioned:
        distinct.append(next(v for v in phrase_variants(phrase) if not any(overlap(v, other) for other in distinct)))
    return distinct


def phrase_variants(phrase: str) -> Iterator[str]:
    """Yield ever plainer forms of a phrase, each counted: "a cup in an orange top", "another cup in an orange top" …, "a cup" …

    Counting alone cannot separate "a cup in an orange top" from "an orange", which each of its counted forms contains.
    """
    article, _, words_after = phrase.partition(" ")
    is_group = article not in ("a", "an", "the")
    noun = re.split(r",| in | with | wearing | on the ", words_after)[0]
    for words, first in ((words_after, article), (noun, article)):
        yield from (f"{word} {words}" for word in (first, *(GROUP_ORDINALS if is_group else ORDINALS)))
    yield from (f"{word} subject" for word in ("a", *ORDINALS))
    yield from (f"the {n}th subject" for n in count(11))


def noun_phrase(subject: dict[str, Any], max_words: int) -> str:
    """Return a subject's noun phrase: "a person in a yellow top", "a red bottle", "two men".

    Of a person described at length, only coloured garments are kept, since they distinguish people and are references themselves:
    "Long dark hair, light skin, a calm look, wearing a yellow hoodie" -> "a woman in a yellow hoodie". Otherwise: "a woman with
    long black hair, wearing a blue shirt".
    """
    noun = noun_of(subject)
    appearance = subject["appearance"].rstrip(". ")
    repeated = re.match(
        rf"(?:an? |the )?((?:[\w-]+ ){{0,2}}){re.escape(noun)}(?=$|,| in | with | wearing | dressed )", appearance, re.I
    )
    if repeated:  # "an elderly woman with grey hair" repeats the noun
        noun, appearance = f"{repeated.group(1).lower()}{noun}", appearance[repeated.end() :].lstrip(", ")
    appearance = appearance[:1].lower() + appearance[1:] if not appearance[:2].isupper() else appearance
    colour = re.match(rf"(?:{'|'.join(sorted(phrases.COLOURS))})(?= with | in |,|$)", appearance)
    if colour:
        noun, appearance = f"{colour.group()} {noun}", appearance[colour.end() :].lstrip(", ")
    elif appearance and " " not in appearance:
        noun, appearance = f"{appearance} {noun}", ""
    if appearance and not appearance.startswith(("in ", "with ", "wearing ", "dressed ")):
        appearance = f"with {appearance}"
    words = truncate(f"{noun} {appearance}".rstrip(), max_words - 1)
    coloured = garments(appearance)
    if any(garment not in words for garment in coloured):
        fitting = [
            coloured[: n + 1]
            for n in range(len(coloured))
            if len(" ".join([noun, "in", *coloured[: n + 1]]).split()) < max_words - 1
        ]
        words = f"{noun} in {_listed(fitting[-1])}" if fitting else words
    if re.match(rf"(?:{NUMBERS}) ", words):
        return words
    if is_plural(noun) or noun.split()[-1] in SINGULAR_IN_S:
        return f"some {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def noun_of(subject: dict[str, Any]) -> str:
    """Return a subject's noun, lower-case: its sub_type, without article, brackets and numbering; else its type or "object"."""
    for name in (subject["sub_type"], subject["type"]):
        noun = " ".join(re.sub(r"\([^)]*\)|[_/\d.,:;#]+", " ", name).lower().split())
        noun = re.sub(r"^(?:an?|the) ", "", noun)
        if noun and noun not in ("unknown", "none", "other", "n a"):
            return noun
    return "object"


def is_plural(noun: str) -> bool:
    """Return whether a noun is plural: "women", "cups"; not "glass", "bus" or "jeans"."""
    last = noun.split()[-1]
    return last not in SINGULAR_IN_S and bool(PLURAL.match(last))


def garments(appearance: str) -> list[str]:
    """Return the coloured garments of a person's appearance, in order, with an article unless there are two of it.

    "a yellow hoodie", "blue jeans". Hair is not a garment, nor is what is listed beside shoes.
    """
    garments_found, text, end = [], f"a person {appearance}", 0
    for garment in phrases.parse(text).garments:
        words = text[max(garment.start, end) : garment.end].strip()  # after "a coat over a shirt" comes "over a shirt"
        end = garment.end
        if garment.colour and garment.kind in ("upper", "lower", "shoes"):
            words_bare = re.sub(r"^(?:(?:over|under|beneath|atop|plus) )?(?:(?:an?|the|his|her|their) )?", "", words)
            is_single = not is_plural(words_bare) and words_bare.split()[-1] not in SINGULAR_IN_S
            article = ("an " if words_bare[0] in "aeiou" else "a ") if is_single else ""
            garments_found.append(article + words_bare)
    return garments_found


def _listed(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def truncate(words: str, max_words: int) -> str:
    """Return at most `max_words` words, cut before a comma or an "and" if possible, never after a word that needs another one."""
    if len(words.split()) <= max_words:
        return words
    cut = " ".join(words.split()[:max_words])
    breaks = [m.start() for m in re.finditer(r",| and | wearing ", cut)]
    if not breaks:
        return re.sub(r"(,|\s+(a|an|the|in|with|of|on|and|wearing|dressed))+$", "", cut)
    first, comma, last = cut[: breaks[-1]].rpartition(", ")  # restore the "and" of a truncated list
    return f"{first} and {last}" if comma and not last.startswith(("wearing ", "with ", "in ")) else cut[: breaks[-1]]


def deduplicate_phrases(text: str, phrases_used: Sequence[str]) -> str:
    """Return a text with repeated phrases made definite: "holds a red cup" becomes "holds the red cup".

    English refers to known subjects this way, and a phrase that occurs twice in the prompt has no unique span.
    """
    for phrase in sorted(phrases_used, key=len, reverse=True):
        article = ARTICLE.match(phrase)
        rest = phrase[article.end() :] if article else phrase
        definite = f"that {rest}" if phrase.startswith("the ") else f"the {rest}"
        text = definite.join(re.split(rf"(?<!\w){re.escape(phrase)}(?!\w)", text))
    return text


def environment_phrase(environment: str) -> str:
    """Return the environment as a phrase inside a sentence: a noun phrase in lower case, a sentence without its full stop."""
    words = environment.rstrip(". ")
    return words[:1].lower() + words[1:] if words.startswith(("A ", "An ")) and " is " not in words else words


def with_camera(prompt: str, camera_motion: str) -> str:
    """Return the prompt with the camera sentence at its end."""
    sentence = camera_motion.rstrip(". ")
    return f"{prompt} {sentence[:1].upper()}{sentence[1:]}." if sentence else prompt


def overlap(a: str, b: str) -> bool:
    """Return whether one of two phrases occurs in the other."""
    return bool(find_phrase(a, b) or find_phrase(b, a))


def find_phrase(phrase: str, text: str) -> list[int]:
    """Return the offsets of a phrase in a text, whole words only: "a cup" is not in "a cupboard"."""
    return [m.start() for m in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)]


def span(phrase: str, prompt: str) -> tuple[int, int]:
    """Return start and end of a phrase, (0, 0) for "". Raises ValueError unless it occurs exactly once in the prompt."""
    if not phrase:
        return 0, 0
    offsets = find_phrase(phrase, prompt)
    if len(offsets) != 1:
        raise ValueError(f"the fused prompt has the phrase {phrase!r} {len(offsets)} times, expected once: {prompt!r}")
    return offsets[0], offsets[0] + len(phrase)
