"""Phrase scores: whether each phrase is bound to the right entity and describes it correctly. Uses a vocabulary only."""

from dataclasses import dataclass

from a2data.elements import phrases
from pipelines.bench.triplets.match_truth import GroundTruthMatcher
from pipelines.bench.triplets.predictions import Sample, Slot
from pipelines.bench.triplets.statistics import Score, share
from pipelines.films.truth import KINDS, Entity, Unit

GENERIC_OBJECT = {"object", "thing", "item", ""}
GENERIC_PERSON = {"person", "human", "adult", "figure"}


@dataclass(frozen=True)
class Reading:
    """Counts of a phrase's true and false statements about an entity. Unannotated properties do not count."""

    true: int = 0
    false: int = 0


@dataclass(frozen=True)
class Words:
    """Counts over the phrases of samples."""

    right: int = 0  # phrases bound to the entity they describe best
    bound: int = 0
    named: int = 0  # entities to be found that have a right phrase
    wanted: int = 0
    invented: int = 0  # phrases in excess of the entities of their kind
    slots: int = 0
    true: int = 0  # colours and nouns
    false: int = 0
    place_true: int = 0  # colours of the place
    place_false: int = 0

    def __add__(self, other: "Words") -> "Words":
        return Words(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def kind_of(phrase: str) -> str:
    return "human" if phrases.parse(phrase).human else "object"


def read(phrase: str, entity: Entity) -> Reading:
    """Count the colours and nouns of a phrase that are true and false of an entity. Unannotated properties do not count."""
    said = phrases.parse(phrase)
    true = false = 0
    claims = [(colour, entity.colours.get("")) for colour in said.colours]
    claims += [(garment.colour, entity.colours.get(garment.kind)) for garment in said.garments if garment.colour]
    nouns = set(said.noun.split())
    if entity.nouns and not nouns & (GENERIC_PERSON if said.human else GENERIC_OBJECT) and nouns:
        claims.append((next(iter(sorted(nouns & set(entity.nouns))), said.noun), entity.nouns))
    for claim, known in claims:
        if known is not None:
            true, false = true + (claim in known), false + (claim not in known)
    return Reading(true, false)


def side(unit: Unit, entity: Entity) -> float | None:
    """Return the mean horizontal position of an entity, 0 (left) to 1 (right); None without sights."""
    if not entity.sights:
        return None
    middles = [(s.box[0] + s.box[2]) / 2 for s in entity.sights.values()]
    return sum(middles) / len(middles) / unit.film.width


def misfit(unit: Unit, phrase: str, entity: Entity) -> float:
    """Return how badly a phrase describes an entity of its kind: the number of false statements, and 1 for the wrong side."""
    where, there = phrases.parse(phrase).position, side(unit, entity)
    away = abs(where - there) if where is not None and there is not None else 0.0
    return read(phrase, entity).false + (1.0 if away > 0.5 else 0.0)


def is_right(unit: Unit, sample: Sample, slot: Slot, entity: Entity | None) -> bool:
    """Return whether a phrase is at its stated span of the prompt and fits no other entity of the shot better than its own."""
    if entity is None or sample.prompt[slot.start : slot.end] != slot.phrase or entity.kind != kind_of(slot.phrase):
        return False
    others = [e for e in unit.shot.entities if e.kind == entity.kind]
    return misfit(unit, slot.phrase, entity) <= min(misfit(unit, slot.phrase, e) for e in others)


def slots_to_judge(unit: Unit, sample: Sample) -> list[Slot]:
    """Return the phrases of the kinds that the truth labels."""
    return [slot for slot in sample.slots if kind_of(slot.phrase) in unit.film.labelled]


def count_words(ground: GroundTruthMatcher, sample: Sample) -> Words:
    """Return the counts of one sample."""
    unit = ground.unit_of.get(sample.clip)
    if unit is None:
        return Words(slots=len(sample.slots), invented=len(sample.slots))
    right, named, true, false = 0, set(), 0, 0
    slots = slots_to_judge(unit, sample)
    bound = [slot for slot in slots if slot.element]
    for slot in bound:
        entity = ground.of_element(slot.element).entity
        reading = read(slot.phrase, entity) if entity else Reading()
        true, false = true + reading.true, false + reading.false
        if is_right(unit, sample, slot, entity):
            right += 1
            named.add(entity.id)  # type: ignore[union-attr]
    wanted = {e.id for e in ground.truth.expected[unit.key]}
    there = {kind: sum(e.kind == kind for e in unit.shot.entities) for kind in KINDS}
    said = {kind: sum(kind_of(slot.phrase) == kind for slot in slots) for kind in KINDS}
    invented = sum(max(0, said[kind] - there[kind]) for kind in KINDS)
    colours = phrases.colours(sample.environment) if unit.shot.colours else ()
    fits = sum(colour in unit.shot.colours for colour in colours)
    return Words(
        right,
        len(bound),
        len(named & wanted),
        len(wanted),
        invented,
        len(slots),
        true,
        false,
        fits,
        len(colours) - fits,
    )


def word_scores(total: Words) -> list[Score]:
    return [
        share("phrases, on the right entity", total.right, total.bound),
        share("phrases, entities named", total.named, total.wanted),
        share("phrases, not invented", total.slots - total.invented, total.slots),
        share("phrases, colours and nouns true", total.true, total.true + total.false),
        share("phrases, colours of the place true", total.place_true, total.place_true + total.place_false),
    ]
