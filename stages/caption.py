"""Structured captions: what a base captioner and experts say of a clip, fused field by field, and the prompt made of it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import cv2
import numpy as np

from a2data import phrases, records
from a2data.records import Answer, Element, Film, Kept, Subject
from a2data.scenery import background_colours
from a2data.stage import Stage
from model_zoo import cards
from model_zoo.captions import Thing

# SkyReels-V2's schema (github.com/SkyworkAI/SkyReels-V2, skycaptioner_v1/scripts/vllm_struct_caption.py)
CHOICES = {
    "shot_type": ("long_shot", "full_shot", "medium_shot", "close_up", "extreme_close_up"),
    "shot_angle": ("eye_level", "high_angle", "low_angle"),
    "shot_position": (
        *("front_view", "back_view", "side_view", "over_the_shoulder"),
        *("overhead_view", "point_of_view", "aerial_view", "overlooking_view"),
    ),
}
TEXTS = ("camera_motion", "environment", "lighting")
SUBJECT_FIELDS = ("type", "sub_type", "appearance", "action", "expression", "position")
COUNTED = ("another", "a third", "a fourth", "a fifth", "a sixth", "a seventh", "an eighth", "a ninth", "a tenth")


@dataclass(frozen=True)
class Caption(Stage):
    """Films and what was found in them -> structured captions and prompts whose phrases are known by their spans.

    Three roles, three kinds of card, each open to a network:

    * caption: `base(frames, fps, things) -> dict`, a whole caption in SkyReels-V2's schema: "subjects" (a list of {"TYPES":
      {"type", "sub_type"}, "appearance", "action", "expression", "position", "is_main_subject"}), "shot_type", "shot_angle",
      "shot_position", "camera_motion", "environment", "lighting". What it leaves out is empty; a word that the schema does
      not know counts as "other". frames: (t, h, w, 3) uint8 RGB; things: hints, which it is free to leave unread.
    * caption-expert: `expert(frames, fps, things, scene) -> [(field, value, confidence)]` for the fields it knows something
      of; a subject's field is called "subjects.<n>.expression", n counting the subjects of `scene`, the base's answer.
    * fusion: `fuse(scene) -> str`, the prompt, with every subject's "phrase" and the "environment_phrase" in it exactly once,
      letter by letter. `scene` is what was decided: the schema, with type and sub_type as the subject's own fields.

    For each field the surest answer counts; between two that are equally sure, the later expert's. The camera's sentence never
    passes through the fusion: it is appended, as SkyReels-V2 does.
    """

    reads = {"select": Kept, "segment": Film, "detect": Element, "faces": Element, "parse": Element}
    writes = records.Caption
    version = 2

    captioner: str = "builtin-caption"  # card of the base captioner
    experts: str = "builtin-shot,builtin-camera"  # cards of the experts, comma-separated; "" for none
    fusion: str = "template"  # card of the fusion
    base_confidence: float = 0.5  # of whatever the base captioner says, 0 to 1
    min_confidence: float = 0.4  # answers below it are kept, but not believed, 0 to 1
    max_subjects: int = 4  # subjects in the prompt; the captioner puts the most important first
    max_phrase_words: int = 14  # words of a subject's phrase; appearance beyond it is cut at a comma or an "and"

    def _cards(self) -> list[str]:
        return [self.captioner, *(name for name in self.experts.split(",") if name), self.fusion]

    def models(self) -> dict[str, str]:
        return {name: cards.revision(name) for name in self._cards()}

    def load(self) -> dict[str, Any]:
        return {name: cards.load(name) for name in self._cards()}

    def run(
        self,
        models: dict[str, Any],
        kept: list[Kept],
        films: list[Film],
        detected: list[Element],
        faces: list[Element],
        parsed: list[Element],
    ) -> Iterator[records.Caption]:
        chosen = {k.clip_id for k in kept}
        for film in films:
            if film.clip_id in chosen:
                mine = [e for e in (*detected, *faces, *parsed) if e.clip_id == film.clip_id]
                yield self._caption(models, film, hints(film.frames, mine))

    def _caption(self, models: dict[str, Any], film: Film, things: list[Thing]) -> records.Caption:
        base, *experts, fusion = self._cards()
        scene = models[base](film.frames, film.fps, things)
        answers = [Answer(base, field, value, self.base_confidence) for field, value in flat(scene)]
        for name in experts:
            said = models[name](film.frames, film.fps, things, scene)
            answers += [Answer(name, field, value, float(sure)) for field, value, sure in said if value]
        decided = scene_of(decide(answers, self.min_confidence), main_subject(scene), self.max_subjects)
        spoken = told_apart(decided["subjects"], self.max_phrase_words)
        for subject, phrase in zip(decided["subjects"], spoken, strict=True):
            subject["phrase"] = phrase
        decided["environment_phrase"] = environment_phrase(decided["environment"])
        prompt = with_camera(models[fusion](decided), decided["camera_motion"])
        caption = spanned(film.clip_id, prompt, decided, answers)
        check(caption)
        return caption


def hints(frames: np.ndarray, elements: Sequence[Element]) -> list[Thing]:
    """The elements as captioners are told of them, and the background, measured where the middle frame shows it."""
    things = [
        Thing(
            e.element_id,
            e.kind,
            e.label,
            e.parent_id,
            e.seen_frames or [e.frame],
            e.seen_boxes or [e.box],
            dict(a.split("=", 1) for a in e.attributes),
        )
        for e in sorted(elements, key=lambda e: e.element_id)
    ]
    middle = len(frames) // 2
    boxes = [nearest(t, middle) for t in things if t.kind in ("human", "object")]
    luma = float(cv2.cvtColor(frames[middle], cv2.COLOR_RGB2GRAY).mean()) / 255
    measured = {"colours": " ".join(background_colours(frames[middle], boxes)), "luma": f"{luma:.3f}"}
    return [*things, Thing("background", "background", "", "", [middle], [], measured)]


def nearest(thing: Thing, frame: int) -> records.Box:
    """The box of the sighting nearest in time to a frame."""
    return min(zip(thing.frames, thing.boxes, strict=True), key=lambda seen: abs(seen[0] - frame))[1]


def flat(scene: dict[str, Any]) -> list[tuple[str, str]]:
    """A base captioner's answer as (field, value), empty ones left out. Raises ValueError for what is no caption."""
    subjects = scene.get("subjects", []) if isinstance(scene, dict) else None
    if not isinstance(subjects, list) or not all(isinstance(s, dict) for s in subjects):
        raise ValueError(f"the captioner answered with no structured caption: {str(scene)[:80]!r}")
    pairs = [(field, str(scene.get(field) or "")) for field in (*CHOICES, *TEXTS)]
    for n, subject in enumerate(subjects):
        values = {**subject, **(subject.get("TYPES") or {})}
        pairs += [(f"subjects.{n}.{field}", str(values.get(field) or "")) for field in SUBJECT_FIELDS]
    return [(field, " ".join(value.split())) for field, value in pairs if value.strip() and value != "other"]


def main_subject(scene: dict[str, Any]) -> int:
    """The number of the first subject that the base calls the main one; 0 where it calls none so."""
    return next((n for n, s in enumerate(scene.get("subjects", [])) if s.get("is_main_subject")), 0)


def decide(answers: Sequence[Answer], min_confidence: float) -> dict[str, str]:
    """The surest answer for each field, the later of two that are equally sure; none below `min_confidence`."""
    best: dict[str, Answer] = {}
    for answer in answers:
        if answer.confidence >= max(min_confidence, best[answer.field].confidence if answer.field in best else 0.0):
            best[answer.field] = answer
    return {field: answer.value for field, answer in best.items()}


def scene_of(fields: dict[str, str], main: int, max_subjects: int) -> dict[str, Any]:
    """Decided fields as a scene, main subject first; a value outside its enumeration becomes "other".

    As SkyReels-V2 does, an expression is dropped unless it is a person's or an animal's.
    """
    numbers = sorted({int(f.split(".")[1]) for f in fields if f.startswith("subjects.")}, key=lambda n: (n != main, n))
    subjects = []
    for n in numbers[:max_subjects]:
        subject: dict[str, Any] = {field: fields.get(f"subjects.{n}.{field}", "") for field in SUBJECT_FIELDS}
        if subject["type"] not in ("Human", "Animal") or subject["sub_type"] == "Accessory":
            subject["expression"] = ""
        subjects.append({**subject, "is_main_subject": n == main})
    scene: dict[str, Any] = {"subjects": subjects}
    for field, known in CHOICES.items():
        scene[field] = fields.get(field) if fields.get(field) in known else "other"
    return scene | {field: fields.get(field, "") for field in TEXTS}


def told_apart(subjects: Sequence[dict[str, Any]], max_words: int) -> list[str]:
    """A noun phrase for each subject, none of which is found inside another.

    Two that would read alike are told apart by where they are, and where that does not help, by counting: "another person".
    Things without a name get their place too: "a red object on the left".
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
    """A phrase in ever plainer words, each counted: "a cup in an orange top", "another cup in an orange top" …, "a cup" …

    Counting alone does not tell "a cup in an orange top" from "an orange", which every one of its counted forms has in it.
    """
    article, _, rest = phrase.partition(" ")
    noun = re.split(r",| in | with | wearing | on the ", rest)[0]
    for words, first in ((rest, article), (noun, article), ("subject", "a")):
        yield from (f"{word} {words}" for word in (first, *COUNTED))
    yield from (f"the {n}th subject" for n in count(11))


def noun_phrase(subject: dict[str, Any], max_words: int) -> str:
    """ "a person in a yellow top", "a red bottle", "a woman with long black hair, wearing a blue shirt"."""
    noun = (subject["sub_type"] or subject["type"] or "object").lower()
    look = subject["appearance"].rstrip(". ")
    look = look[:1].lower() + look[1:]
    colour = re.match(rf"(?:{'|'.join(sorted(phrases.COLOURS))})(?= with | in |,|$)", look)
    if colour:
        noun, look = f"{colour.group()} {noun}", look[colour.end() :].lstrip(", ")
    elif look and " " not in look:
        noun, look = f"{look} {noun}", ""
    if look and not look.startswith(("in ", "with ", "wearing ", "dressed ")):
        look = f"with {look}"
    words = shortened(f"{noun} {look}".rstrip(), max_words - 1)
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def shortened(words: str, max_words: int) -> str:
    """At most so many words, cut before a comma or an "and" where there is one, and never after a word that wants another."""
    if len(words.split()) <= max_words:
        return words
    cut = " ".join(words.split()[:max_words])
    joints = [m.start() for m in re.finditer(r",| and | wearing ", cut)]
    if not joints:
        return re.sub(r"(,|\s+(a|an|the|in|with|of|on|and|wearing|dressed))+$", "", cut)
    first, comma, last = cut[: joints[-1]].rpartition(", ")  # a list that lost its end gets its "and" back
    return f"{first} and {last}" if comma and not last.startswith(("wearing ", "with ", "in ")) else cut[: joints[-1]]


def environment_phrase(environment: str) -> str:
    """The environment as a phrase inside a sentence: a noun phrase begins small, a sentence stays one, without its full stop."""
    words = environment.rstrip(". ")
    return words[:1].lower() + words[1:] if words.startswith(("A ", "An ")) and " is " not in words else words


def with_camera(prompt: str, camera_motion: str) -> str:
    """The prompt and, last, the camera's sentence."""
    said = camera_motion.rstrip(". ")
    return f"{prompt} {said[:1].upper()}{said[1:]}." if said else prompt


def within(phrase: str, text: str) -> bool:
    return bool(occurrences(phrase, text))


def occurrences(phrase: str, text: str) -> list[int]:
    """Where a phrase begins in a text, whole words only: "a cup" is not in "a cupboard"."""
    return [m.start() for m in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text)]


def span(phrase: str, prompt: str) -> tuple[int, int]:
    """Start and end of a phrase. Raises ValueError unless the prompt has it exactly once; (0, 0) for no phrase."""
    if not phrase:
        return 0, 0
    found = occurrences(phrase, prompt)
    if len(found) != 1:
        raise ValueError(f"the fused prompt has the phrase {phrase!r} {len(found)} times, not once: {prompt!r}")
    return found[0], found[0] + len(phrase)


def spanned(clip_id: str, prompt: str, scene: dict[str, Any], answers: list[Answer]) -> records.Caption:
    """The record of a scene and its prompt, each phrase with its span."""
    subjects = []
    for s in scene["subjects"]:
        start, end = span(s["phrase"], prompt)
        subjects.append(Subject(**s, start=start, end=end))
    start, end = span(scene["environment_phrase"], prompt)
    texts = {field: scene[field] for field in (*CHOICES, *TEXTS)}
    return records.Caption(
        clip_id, prompt, subjects, **texts, environment_start=start, environment_end=end, answers=answers
    )


def check(caption: records.Caption) -> None:
    """Raises ValueError for an empty prompt, for a span that does not hold its phrase, and for phrases that overlap."""
    where = f"caption of {caption.clip_id}"
    if len(caption.prompt.strip(" -.")) == 0:
        raise ValueError(f"{where}: the prompt is empty")
    spans = [(s.start, s.end) for s in caption.subjects]
    for subject in caption.subjects:
        if not subject.phrase or caption.prompt[subject.start : subject.end] != subject.phrase:
            raise ValueError(f"{where}: {subject.start}:{subject.end} does not hold {subject.phrase!r}")
    if (caption.environment_start, caption.environment_end) != (0, 0):
        spans.append((caption.environment_start, caption.environment_end))
    spans.sort()
    for (start, end), (following, _) in zip([(0, 0), *spans], [*spans, (len(caption.prompt), 0)], strict=True):
        if not start <= end <= following:
            raise ValueError(f"{where}: the phrases at {start}:{end} and from {following} overlap")
