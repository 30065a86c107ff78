"""One-to-one matching of the prompt's phrases to elements, restricted to unambiguous pairs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from a2data import records
from a2data.elements import background_colours as scenery
from a2data.elements import phrases
from a2data.media import colours, images
from a2data.records import Caption, Element, Kept, Reject, Rule, Subject
from a2data.stage import Stage
from a2data.store.lookup import ELEMENT_TABLES
from model_zoo import cards

Matcher = Callable[[list[str], list[np.ndarray]], np.ndarray]

# Weight of each kind of word. The type is a common floor; colour separates people and objects best.
WEIGHTS = {"type": 1.0, "label": 2.0, "colour": 2.0, "place": 1.5, "size": 0.5}


@dataclass(frozen=True)
class Match(Stage):
    """Captions and elements -> the element of each phrase.

    A subject's phrase is matched to one person or object, and to that person's face; a garment named in it ("a yellow top") to
    that person's garment of the kind and colour; the environment phrase to the background. Similarity compares the words with the
    measurements of the element and ignores which element the caption was made from, so captions of any origin are matched alike.
    A card as `model` compares phrases with pictures: `model(phrases, pictures) -> (p, e) float32`, 0 to 1, pictures (h, w, 3)
    uint8 on white.
    """

    reads = {"select": Kept, "caption": Caption} | dict.fromkeys(ELEMENT_TABLES, Element)
    writes = records.Match
    row_noun = "phrases"
    version = 3

    model: str = "words"
    """"words" = words against measurements only; else the card of an additional text-image model"""
    model_weight: float = 0.5
    """weight of that model's similarity against that of the words, 0 to 1"""
    min_similarity: float = 0.55
    """lowest similarity of a matched phrase, 0 to 1"""
    min_margin: float = 0.05
    """lead of the best assignment over any that gives the phrase another element"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return 0.0 if self.model == "words" else cards.gpus(self.model)

    def models(self) -> dict[str, str]:
        return {} if self.model == "words" else {self.model: cards.revision(self.model)}

    def load(self) -> Matcher | None:
        return None if self.model == "words" else cards.load(self.model, cards.device())

    def run(
        self,
        model: Matcher | None,
        kept: list[Kept],
        captions: list[Caption],
        detected: list[Element],
        faces: list[Element],
        parsed: list[Element],
        backgrounds: list[Element],
        grounded: list[Element],
    ) -> Iterator[Any]:
        kept_ids = {k.clip_id for k in kept}
        for caption in captions:
            if caption.clip_id in kept_ids:
                of_clip = [
                    sorted((e for e in table if e.clip_id == caption.clip_id), key=lambda e: e.element_id)
                    for table in ([*detected, *grounded], [*faces, *parsed], backgrounds)
                ]
                yield from self._subjects(model, caption, of_clip[0], of_clip[1])
                yield from match_environment(caption, of_clip[2], self.min_similarity)

    def _subjects(
        self, model: Matcher | None, caption: Caption, elements: list[Element], parts: list[Element]
    ) -> Iterator[Any]:
        subjects = sorted(caption.subjects, key=lambda s: s.start)
        similarity = by_words(subjects, measure_elements(elements, parts))
        if model is not None and similarity.size:
            image_similarity = np.asarray(model([s.phrase for s in subjects], [picture(e) for e in elements]))
            combined = (1 - self.model_weight) * similarity + self.model_weight * image_similarity
            similarity = np.where(similarity > 0, combined, 0)  # a person never matches a cup, however similar
        assigned = assign(similarity, self.min_similarity)
        for p, subject in enumerate(subjects):
            key = f"{caption.clip_id} {subject.phrase!r}"
            if assigned[p] < 0:
                best_rule = Rule("similarity", float(similarity[p].max(initial=0.0)), self.min_similarity, inf)
                yield Reject(key, "phrase without element", str(best_rule))
                continue
            owner, margin = elements[assigned[p]], assignment_margin(similarity, self.min_similarity, assigned, p)
            margin_rule = Rule("margin", margin, self.min_margin, inf)
            if not margin_rule.passed:
                yield Reject(key, "ambiguous phrase", str(margin_rule))
                continue
            subject_similarity = float(similarity[p, assigned[p]])
            yield records.Match(
                caption.clip_id,
                owner.element_id,
                subject.phrase,
                subject.start,
                subject.end,
                subject_similarity,
                margin,
            )
            parts_of_owner = [part for part in parts if part.parent_id == owner.element_id]
            for part, start, end in garments_of(subject.phrase, parts_of_owner):
                span = subject.start + start, subject.start + end
                yield records.Match(
                    caption.clip_id,
                    part.element_id,
                    subject.phrase[start:end],
                    *span,
                    similarity=subject_similarity,
                    margin=margin,
                )


class MeasuredElement(NamedTuple):
    """The measurements of an element, in the terms that phrases use."""

    human: bool
    label: str
    colours: tuple[str, ...]
    clothes: dict[str, str]  # kind of garment -> colour
    centre: float  # 0 at the left border of the picture, 1 at the right
    size: float  # 1 for the largest in the clip


def measure_elements(elements: Sequence[Element], parts: Sequence[Element]) -> list[MeasuredElement]:
    """Return the measurements of each element; parts: the faces and garments of all of them."""
    areas = [float(np.mean([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in e.seen_boxes or [e.box]])) for e in elements]
    measured = []
    for element, area in zip(elements, areas, strict=True):
        width = images.from_rle(element.mask).shape[1]
        centre = float(np.mean([(x0 + x1) / 2 for x0, _, x1, _ in element.seen_boxes or [element.box]])) / width
        clothes = {p.kind: colour(p) for p in parts if p.parent_id == element.element_id and p.kind != "face"}
        human = element.kind == "human"
        own_colours = () if human else (colour(element),)
        measured.append(MeasuredElement(human, element.label.lower(), own_colours, clothes, centre, area / max(areas)))
    return measured


def colour(element: Element) -> str:
    """Return the measured colour of an element, else the colour of its picture."""
    attributes = dict(a.split("=", 1) for a in element.attributes)
    if "colour" in attributes:
        return attributes["colour"]
    rgba = images.from_png(element.image)
    return colours.name_in(rgba[..., :3], rgba[..., 3] > 0)


def picture(element: Element) -> np.ndarray:
    """Return an element's cut-out on white, (h, w, 3) uint8."""
    return images.on_white(images.from_png(element.image))


def by_words(subjects: Sequence[Subject], measured: Sequence[MeasuredElement]) -> np.ndarray:
    """Return how well each phrase describes each element, (phrases, elements) float32, 0 to 1; 0 for a wrong type."""
    return np.array([[agreement(s, element) for element in measured] for s in subjects], np.float32).reshape(
        len(subjects), len(measured)
    )


def agreement(subject: Subject, element: MeasuredElement) -> float:
    """Return the weighted mean agreement over the attributes that are both in the phrase and measured, see WEIGHTS."""
    parsed = phrases.parse(subject.phrase)
    human = parsed.human or (subject.type == "Human" and subject.sub_type != "Accessory")
    if human != element.human:
        return 0.0
    values = {"type": 1.0}
    if not human:
        values["label"] = same_label(parsed.noun, element.label)
        if parsed.colours:
            values["colour"] = float(
                np.mean([max(colours.name_similarity(c, d) for d in element.colours) for c in parsed.colours])
            )
    clothes_agreement = [
        colours.name_similarity(g.colour, element.clothes[g.kind])
        for g in parsed.garments
        if g.colour and g.kind in element.clothes
    ]
    if clothes_agreement:
        values["colour"] = float(np.mean(clothes_agreement))
    position = parsed.position if parsed.position is not None else phrases.position(subject.position)
    if position is not None:
        values["place"] = 1 - abs(position - element.centre) * (2 if position == 0.5 else 1)
    if parsed.size:
        values["size"] = element.size if parsed.size > 0 else 1 - element.size
    return sum(WEIGHTS[k] * v for k, v in values.items()) / sum(WEIGHTS[k] for k in values)


def same_label(noun: str, label: str) -> float:
    """Return 1 for the same word ("cup", "coffee cup"), 0.5 if one of them only says "object", else 0."""
    if noun == label or set(noun.split()) & set(label.split()):
        return 1.0
    return 0.5 if {"object", "thing", "item", ""} & {noun, label} else 0.0


def assign(similarity: np.ndarray, min_similarity: float) -> list[int]:
    """Return the element of each phrase in the best one-to-one assignment (Kuhn 1955), -1 for none.

    similarity: (phrases, elements). Each phrase has a column of its own that stands for "none" and is worth `min_similarity`.
    """
    from scipy.optimize import linear_sum_assignment  # takes 0.5 s, which other commands need not wait for

    count, elements = similarity.shape
    unassigned = np.where(np.eye(count, dtype=bool), min_similarity, -1e3)
    rows, columns = linear_sum_assignment(np.hstack([similarity, unassigned]), maximize=True)
    assigned = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [assigned[p] if assigned[p] < elements else -1 for p in range(count)]


def assignment_margin(similarity: np.ndarray, min_similarity: float, assigned: Sequence[int], p: int) -> float:
    """Return the loss of the best assignment if phrase p must not have its element: 0 if another element does as well.

    This is the lead over the next best element, given the other phrases: "a person" beside "a person in a red top" is the
    remaining person. If a second phrase describes the only person as well, it is unknown which of the two is present.
    """
    other = similarity.copy()
    other[p, assigned[p]] = 0.0
    alternative = assign(other, min_similarity)
    return assignment_score(similarity, min_similarity, assigned) - assignment_score(other, min_similarity, alternative)


def assignment_score(similarity: np.ndarray, min_similarity: float, assigned: Sequence[int]) -> float:
    """Return the sum that `assign` maximises."""
    return float(sum(similarity[p, e] if e >= 0 else min_similarity for p, e in enumerate(assigned)))


def garments_of(phrase: str, parts: Sequence[Element]) -> Iterator[tuple[Element, int, int]]:
    """Yield the face and the garments of a phrase's subject, each with the span of the phrase that describes it.

    The best face is described by the whole phrase. A garment must be the only one of its kind and of the named colour.
    """
    faces = sorted((p for p in parts if p.kind == "face"), key=lambda f: (-f.quality, f.element_id))
    if faces:
        yield faces[0], 0, len(phrase)
    for garment in phrases.parse(phrase).garments:
        noun = phrase[garment.start : garment.end].split()[-1].lower()
        fits = [p for p in parts if p.kind == garment.kind and (not garment.colour or colour(p) == garment.colour)]
        if garment.kind == "accessory":  # a hat is not a bag
            fits = [p for p in fits if noun in p.label.lower().split()]
        if len(fits) == 1:
            yield fits[0], garment.start, garment.end


def match_environment(caption: Caption, backgrounds: Sequence[Element], min_similarity: float) -> Iterator[Any]:
    """Yield the match of the environment phrase and the background, unless the colours that the phrase names are missing."""
    start, end = caption.environment_start, caption.environment_end
    phrase = caption.prompt[start:end]
    if not phrase or not backgrounds:
        return
    named_colours = phrases.colours(phrase)
    scores = []
    for element in backgrounds:
        measured = scenery.background_colours(picture(element), [])
        agreement = [max((colours.name_similarity(w, f) for f in measured), default=0.0) for w in named_colours]
        values = {"type": 1.0} | ({"colour": float(np.mean(agreement))} if agreement else {})
        scores.append(sum(WEIGHTS[k] * v for k, v in values.items()) / sum(WEIGHTS[k] for k in values))
    best = int(np.argmax(scores))
    rule = Rule("similarity", scores[best], min_similarity, inf)
    if not rule.passed:
        yield Reject(f"{caption.clip_id} {phrase!r}", "phrase without element", str(rule))
        return
    margin = scores[best] - max([0.0, *np.delete(scores, best).tolist()])
    yield records.Match(caption.clip_id, backgrounds[best].element_id, phrase, start, end, scores[best], margin)
