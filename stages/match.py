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
        chosen = {k.clip_id for k in kept}
        for caption in captions:
            if caption.clip_id in chosen:
                mine = [
                    sorted((e for e in table if e.clip_id == caption.clip_id), key=lambda e: e.element_id)
                    for table in ([*detected, *grounded], [*faces, *parsed], backgrounds)
                ]
                yield from self._subjects(model, caption, mine[0], mine[1])
                yield from place(caption, mine[2], self.min_similarity)

    def _subjects(
        self, model: Matcher | None, caption: Caption, elements: list[Element], parts: list[Element]
    ) -> Iterator[Any]:
        subjects = sorted(caption.subjects, key=lambda s: s.start)
        similarity = by_words(subjects, looks(elements, parts))
        if model is not None and similarity.size:
            seen = np.asarray(model([s.phrase for s in subjects], [picture(e) for e in elements]))
            both = (1 - self.model_weight) * similarity + self.model_weight * seen
            similarity = np.where(similarity > 0, both, 0)  # a person never matches a cup, however similar
        taken = assign(similarity, self.min_similarity)
        for p, subject in enumerate(subjects):
            key = f"{caption.clip_id} {subject.phrase!r}"
            if taken[p] < 0:
                best = Rule("similarity", float(similarity[p].max(initial=0.0)), self.min_similarity, inf)
                yield Reject(key, "phrase without element", str(best))
                continue
            owner, margin = elements[taken[p]], clearance(similarity, self.min_similarity, taken, p)
            clear = Rule("margin", margin, self.min_margin, inf)
            if not clear.passed:
                yield Reject(key, "ambiguous phrase", str(clear))
                continue
            sure = float(similarity[p, taken[p]])
            yield records.Match(
                caption.clip_id, owner.element_id, subject.phrase, subject.start, subject.end, sure, margin
            )
            own = [part for part in parts if part.parent_id == owner.element_id]
            for part, start, end in garments_of(subject.phrase, own):
                at = subject.start + start, subject.start + end
                yield records.Match(
                    caption.clip_id, part.element_id, subject.phrase[start:end], *at, similarity=sure, margin=margin
                )


class Look(NamedTuple):
    """The measurements of an element, in the terms that phrases use."""

    human: bool
    label: str
    colours: tuple[str, ...]
    clothes: dict[str, str]  # kind of garment -> colour
    centre: float  # 0 at the left border of the picture, 1 at the right
    size: float  # 1 for the largest in the clip


def looks(elements: Sequence[Element], parts: Sequence[Element]) -> list[Look]:
    """Return the measurements of each element; parts: the faces and garments of all of them."""
    areas = [float(np.mean([(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in e.seen_boxes or [e.box]])) for e in elements]
    found = []
    for element, area in zip(elements, areas, strict=True):
        width = images.from_rle(element.mask).shape[1]
        centre = float(np.mean([(x0 + x1) / 2 for x0, _, x1, _ in element.seen_boxes or [element.box]])) / width
        worn = {p.kind: colour(p) for p in parts if p.parent_id == element.element_id and p.kind != "face"}
        human = element.kind == "human"
        own = () if human else (colour(element),)
        found.append(Look(human, element.label.lower(), own, worn, centre, area / max(areas)))
    return found


def colour(element: Element) -> str:
    """Return the measured colour of an element, else the colour of its picture."""
    said = dict(a.split("=", 1) for a in element.attributes)
    if "colour" in said:
        return said["colour"]
    rgba = images.from_png(element.image)
    return colours.name_in(rgba[..., :3], rgba[..., 3] > 0)


def picture(element: Element) -> np.ndarray:
    """Return an element's cut-out on white, (h, w, 3) uint8."""
    return images.on_white(images.from_png(element.image))


def by_words(subjects: Sequence[Subject], looks: Sequence[Look]) -> np.ndarray:
    """Return how well each phrase describes each element, (phrases, elements) float32, 0 to 1; 0 for a wrong type."""
    return np.array([[agreement(s, look) for look in looks] for s in subjects], np.float32).reshape(
        len(subjects), len(looks)
    )


def agreement(subject: Subject, look: Look) -> float:
    """Return the weighted mean agreement over the attributes that are both in the phrase and measured, see WEIGHTS."""
    said = phrases.read(subject.phrase)
    human = said.human or (subject.type == "Human" and subject.sub_type != "Accessory")
    if human != look.human:
        return 0.0
    values = {"type": 1.0}
    if not human:
        values["label"] = same_label(said.noun, look.label)
        if said.colours:
            values["colour"] = float(np.mean([max(colours.alike(c, d) for d in look.colours) for c in said.colours]))
    worn = [colours.alike(g.colour, look.clothes[g.kind]) for g in said.garments if g.colour and g.kind in look.clothes]
    if worn:
        values["colour"] = float(np.mean(worn))
    where = said.place if said.place is not None else phrases.place(subject.position)
    if where is not None:
        values["place"] = 1 - abs(where - look.centre) * (2 if where == 0.5 else 1)
    if said.size:
        values["size"] = look.size if said.size > 0 else 1 - look.size
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
    none = np.where(np.eye(count, dtype=bool), min_similarity, -1e3)
    rows, columns = linear_sum_assignment(np.hstack([similarity, none]), maximize=True)
    taken = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return [taken[p] if taken[p] < elements else -1 for p in range(count)]


def clearance(similarity: np.ndarray, min_similarity: float, taken: Sequence[int], p: int) -> float:
    """Return the loss of the best assignment if phrase p must not have its element: 0 if another element does as well.

    This is the lead over the next best element, given the other phrases: "a person" beside "a person in a red top" is the
    remaining person. If a second phrase describes the only person as well, it is unknown which of the two is present.
    """
    other = similarity.copy()
    other[p, taken[p]] = 0.0
    instead = assign(other, min_similarity)
    return worth(similarity, min_similarity, taken) - worth(other, min_similarity, instead)


def worth(similarity: np.ndarray, min_similarity: float, taken: Sequence[int]) -> float:
    """Return the sum that `assign` maximises."""
    return float(sum(similarity[p, e] if e >= 0 else min_similarity for p, e in enumerate(taken)))


def garments_of(phrase: str, parts: Sequence[Element]) -> Iterator[tuple[Element, int, int]]:
    """Yield the face and the garments of a phrase's subject, each with the span of the phrase that describes it.

    The best face is described by the whole phrase. A garment must be the only one of its kind and of the named colour.
    """
    faces = sorted((p for p in parts if p.kind == "face"), key=lambda f: (-f.quality, f.element_id))
    if faces:
        yield faces[0], 0, len(phrase)
    for garment in phrases.read(phrase).garments:
        noun = phrase[garment.start : garment.end].split()[-1].lower()
        fits = [p for p in parts if p.kind == garment.kind and (not garment.colour or colour(p) == garment.colour)]
        if garment.kind == "accessory":  # a hat is not a bag
            fits = [p for p in fits if noun in p.label.lower().split()]
        if len(fits) == 1:
            yield fits[0], garment.start, garment.end


def place(caption: Caption, backgrounds: Sequence[Element], min_similarity: float) -> Iterator[Any]:
    """Yield the match of the environment phrase and the background, unless the colours that the phrase names are missing."""
    start, end = caption.environment_start, caption.environment_end
    phrase = caption.prompt[start:end]
    if not phrase or not backgrounds:
        return
    wanted = phrases.colours(phrase)
    scores = []
    for element in backgrounds:
        found = scenery.background_colours(picture(element), [])
        hits = [max((colours.alike(w, f) for f in found), default=0.0) for w in wanted]
        values = {"type": 1.0} | ({"colour": float(np.mean(hits))} if hits else {})
        scores.append(sum(WEIGHTS[k] * v for k, v in values.items()) / sum(WEIGHTS[k] for k in values))
    best = int(np.argmax(scores))
    fits = Rule("similarity", scores[best], min_similarity, inf)
    if not fits.passed:
        yield Reject(f"{caption.clip_id} {phrase!r}", "phrase without element", str(fits))
        return
    margin = scores[best] - max([0.0, *np.delete(scores, best).tolist()])
    yield records.Match(caption.clip_id, backgrounds[best].element_id, phrase, start, end, scores[best], margin)
