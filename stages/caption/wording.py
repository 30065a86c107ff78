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

COUNTED = ("another", "a third", "a fourth", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth", "a tenth")
MORE = ("some other", "some more", "yet other", "still more")  # the same for groups
NUMBERS = "two|three|four|five|six|seven|eight|nine|ten|several|many|some"
FIRST = re.compile(rf"(?:{'|'.join([*COUNTED, *MORE, NUMBERS])}|an?|the) ")  # how a phrase begins
# last word of "young women", "cups"
PLURAL = re.compile(r"(?:people|men|women|children|feet|mice|geese|.*(?<![suios])s)$")
ONE_S = frozenset(
    ["jeans", "trousers", "glasses", "sunglasses", "shorts", "scissors", "pants", "leggings", "binoculars"]
)
SUBJECT = r"(?:the |an? |this |that |his |her |their )\w+(?: \w+)??|he|she|it|they|who|which"
SAYS = re.compile(rf"^(?:{SUBJECT}) (?=(?:is|are|was|has|have|had|wears?|appears?|seems?|\w+s)\b)", re.IGNORECASE)
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


def plain(subject: dict[str, Any]) -> dict[str, Any]:
    """Return a subject with its texts as sentence parts: "The man is asleep." -> "is asleep", "Left side" -> "on the left"."""
    sides = SIDE.match(subject["position"].rstrip(". "))
    action = _predicates(subject["action"])
    told = {"action": ", then ".join(action), "appearance": ", ".join(_looks(subject["appearance"]))}
    mood = _predicates(subject["expression"])
    told["expression"] = re.sub(r"^(?:is|are|has|looks|appears|seems) (?:an? )?", "", mood[0]) if mood else ""
    if sides:
        side = sides["side"].lower().replace("center", "centre")
        told["position"] = f"{'on' if side in ('left', 'right') else 'in'} the {sides['far'] or ''}{side}".replace(
            "  ", " "
        )
    return subject | told


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=\w)[.;!?]+(?:\s+|$)", text.strip(" .")) if part.strip()]


def _predicates(text: str) -> list[str]:
    """Return the sentences of a text without their subjects: "The man sits. He waves." -> "sits", "waves"."""
    return [SAYS.sub("", part.strip()) for part in _sentences(text)]


def _looks(text: str) -> list[str]:
    """Return an appearance as attributes: "She has long hair. She wears a red top" -> "with long hair", "wearing …"."""
    out = []
    for part in _predicates(text):
        for pattern, instead in CLAUSES:
            if pattern.match(part):
                part = pattern.sub(instead, part, count=1)
                break
        out.append(part)
    return out


def disambiguate(subjects: Sequence[dict[str, Any]], max_words: int) -> list[str]:
    """Return a noun phrase for each subject, none of which is contained in another.

    Equal phrases are disambiguated by position, and if that does not help, by counting: "another person". Objects without a name
    get their position too: "a red object on the left".
    """
    plain = [noun_phrase(s, max_words) for s in subjects]
    placed = []
    for n, (subject, phrase) in enumerate(zip(subjects, plain, strict=True)):
        alike = [m for m, other in enumerate(plain) if m != n and (within(phrase, other) or within(other, phrase))]
        where = subject["position"]
        brief = where.startswith(("in ", "on ", "at ")) and len(where.split()) <= 4
        vague = subject["sub_type"].lower() in ("object", "thing", "") and subject["type"] != "Human"
        tells = (alike or vague) and brief and all(subjects[m]["position"] != where for m in alike)
        placed.append(f"{phrase} {where}" if tells else phrase)
    told: list[str] = []
    for phrase in placed:
        told.append(next(o for o in tellings(phrase) if not any(within(o, t) or within(t, o) for t in told)))
    return told


def tellings(phrase: str) -> Iterator[str]:
    """Yield ever plainer forms of a phrase, each counted: "a cup in an orange top", "another cup in an orange top" …, "a cup" …

    Counting alone cannot separate "a cup in an orange top" from "an orange", which each of its counted forms contains.
    """
    article, _, rest = phrase.partition(" ")
    several = article not in ("a", "an", "the")
    noun = re.split(r",| in | with | wearing | on the ", rest)[0]
    for words, first in ((rest, article), (noun, article)):
        yield from (f"{word} {words}" for word in (first, *(MORE if several else COUNTED)))
    yield from (f"{word} subject" for word in ("a", *COUNTED))
    yield from (f"the {n}th subject" for n in count(11))


def noun_phrase(subject: dict[str, Any], max_words: int) -> str:
    """Return a subject's noun phrase: "a person in a yellow top", "a red bottle", "two men".

    Of a person described at length, only coloured garments are kept, since they distinguish people and are references themselves:
    "Long dark hair, light skin, a calm look, wearing a yellow hoodie" -> "a woman in a yellow hoodie". Otherwise: "a woman with
    long black hair, wearing a blue shirt".
    """
    noun = kind_of(subject)
    look = subject["appearance"].rstrip(". ")
    own = re.match(
        rf"(?:an? |the )?((?:[\w-]+ ){{0,2}}){re.escape(noun)}(?=$|,| in | with | wearing | dressed )", look, re.I
    )
    if own:  # "an elderly woman with grey hair" repeats the noun
        noun, look = f"{own.group(1).lower()}{noun}", look[own.end() :].lstrip(", ")
    look = look[:1].lower() + look[1:] if not look[:2].isupper() else look
    colour = re.match(rf"(?:{'|'.join(sorted(phrases.COLOURS))})(?= with | in |,|$)", look)
    if colour:
        noun, look = f"{colour.group()} {noun}", look[colour.end() :].lstrip(", ")
    elif look and " " not in look:
        noun, look = f"{look} {noun}", ""
    if look and not look.startswith(("in ", "with ", "wearing ", "dressed ")):
        look = f"with {look}"
    words = shortened(f"{noun} {look}".rstrip(), max_words - 1)
    worn = garments(look)
    if any(garment not in words for garment in worn):
        kept = [
            worn[: n + 1]
            for n in range(len(worn))
            if len(" ".join([noun, "in", *worn[: n + 1]]).split()) < max_words - 1
        ]
        words = f"{noun} in {_listed(kept[-1])}" if kept else words
    if re.match(rf"(?:{NUMBERS}) ", words):
        return words
    if is_plural(noun) or noun.split()[-1] in ONE_S:
        return f"some {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def kind_of(subject: dict[str, Any]) -> str:
    """Return a subject's noun, lower-case: its sub_type, without article, brackets and numbering; else its type or "object"."""
    for said in (subject["sub_type"], subject["type"]):
        noun = " ".join(re.sub(r"\([^)]*\)|[_/\d.,:;#]+", " ", said).lower().split())
        noun = re.sub(r"^(?:an?|the) ", "", noun)
        if noun and noun not in ("unknown", "none", "other", "n a"):
            return noun
    return "object"


def is_plural(noun: str) -> bool:
    """Return whether a noun is plural: "women", "cups"; not "glass", "bus" or "jeans"."""
    last = noun.split()[-1]
    return last not in ONE_S and bool(PLURAL.match(last))


def garments(look: str) -> list[str]:
    """Return the coloured garments of a person's appearance, in order, with an article unless there are two of it.

    "a yellow hoodie", "blue jeans". Hair is not a garment, nor is what is listed beside shoes.
    """
    found, text, end = [], f"a person {look}", 0
    for garment in phrases.read(text).garments:
        words = text[max(garment.start, end) : garment.end].strip()  # after "a coat over a shirt" comes "over a shirt"
        end = garment.end
        if garment.colour and garment.kind in ("upper", "lower", "shoes"):
            bare = re.sub(r"^(?:(?:over|under|beneath|atop|plus) )?(?:(?:an?|the|his|her|their) )?", "", words)
            one = not is_plural(bare) and bare.split()[-1] not in ONE_S
            article = ("an " if bare[0] in "aeiou" else "a ") if one else ""
            found.append(article + bare)
    return found


def _listed(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def shortened(words: str, max_words: int) -> str:
    """Return at most `max_words` words, cut before a comma or an "and" if possible, never after a word that needs another one."""
    if len(words.split()) <= max_words:
        return words
    cut = " ".join(words.split()[:max_words])
    joints = [m.start() for m in re.finditer(r",| and | wearing ", cut)]
    if not joints:
        return re.sub(r"(,|\s+(a|an|the|in|with|of|on|and|wearing|dressed))+$", "", cut)
    first, comma, last = cut[: joints[-1]].rpartition(", ")  # restore the "and" of a truncated list
    return f"{first} and {last}" if comma and not last.startswith(("wearing ", "with ", "in ")) else cut[: joints[-1]]


def deduplicate_phrases(text: str, told: Sequence[str]) -> str:
    """Return a text with repeated phrases made definite: "holds a red cup" becomes "holds the red cup".

    English refers to known subjects this way, and a phrase that occurs twice in the prompt has no unique span.
    """
    for phrase in sorted(told, key=len, reverse=True):
        article = FIRST.match(phrase)
        rest = phrase[article.end() :] if article else phrase
        again = f"that {rest}" if phrase.startswith("the ") else f"the {rest}"
        text = again.join(re.split(rf"(?<!\w){re.escape(phrase)}(?!\w)", text))
    return text


def environment_phrase(environment: str) -> str:
    """Return the environment as a phrase inside a sentence: a noun phrase in lower case, a sentence without its full stop."""
    words = environment.rstrip(". ")
    return words[:1].lower() + words[1:] if words.startswith(("A ", "An ")) and " is " not in words else words


def with_camera(prompt: str, camera_motion: str) -> str:
    """Return the prompt with the camera sentence at its end."""
    said = camera_motion.rstrip(". ")
    return f"{prompt} {said[:1].upper()}{said[1:]}." if said else prompt


def within(phrase: str, text: str) -> bool:
    return bool(occurrences(phrase, text))


def occurrences(phrase: str, text: str) -> list[int]:
    """Return the offsets of a phrase in a text, whole words only: "a cup" is not in "a cupboard"."""
    return [m.start() for m in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)]


def span(phrase: str, prompt: str) -> tuple[int, int]:
    """Return start and end of a phrase, (0, 0) for "". Raises ValueError unless it occurs exactly once in the prompt."""
    if not phrase:
        return 0, 0
    found = occurrences(phrase, prompt)
    if len(found) != 1:
        raise ValueError(f"the fused prompt has the phrase {phrase!r} {len(found)} times, expected once: {prompt!r}")
    return found[0], found[0] + len(phrase)
