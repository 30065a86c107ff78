"""Phrase scores: whether each phrase is bound to the right entity and describes it correctly. Uses a vocabulary only."""

from dataclasses import dataclass

from a2data.elements import phrases
from pipelines.bench.triplets.match_truth import GroundTruthMatcher
from pipelines.bench.triplets.predictions import Sample, Slot
from pipelines.bench.triplets.statistics import Score, proportion
from pipelines.films.truth import KINDS, Entity, Unit

GENERIC_OBJECT = {"object", "thing", "item", ""}
GENERIC_PERSON = {"person", "human", "adult", "figure"}


@dataclass(frozen=True)
class ClaimCounts:
    """Counts of a phrase's true and false statements about an entity. Unannotated properties do not count."""

    true: int = 0
    false: int = 0


@dataclass(frozen=True)
class PhraseCounts:
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

    def __add__(self, other: "PhraseCounts") -> "PhraseCounts":
        return PhraseCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def kind_of(phrase: str) -> str:
    return "human" if phrases.parse(phrase).human else "object"


def count_claims(phrase: str, entity: Entity) -> ClaimCounts:
    """Count the colours and nouns of a phrase that are true and false of an entity. Unannotated properties do not count."""
    parsed = phrases.parse(phrase)
    true = false = 0
    claims = [(colour, entity.colours.get("")) for colour in parsed.colours]
    claims += [(garment.colour, entity.colours.get(garment.kind)) for garment in parsed.garments if garment.colour]
    nouns = set(parsed.noun.split())
    if entity.nouns and not nouns & (GENERIC_PERSON if parsed.human else GENERIC_OBJECT) and nouns:
        claims.append((next(iter(sorted(nouns & set(entity.nouns))), parsed.noun), entity.nouns))
    for claim, truth in claims:
        if truth is not None:
            true, false = true + (claim in truth), false + (claim not in truth)
    return ClaimCounts(true, false)


def mean_x(unit: Unit, entity: Entity) -> float | None:
    """Return the mean horizontal position of an entity, 0 (left) to 1 (right); None without sights."""
    if not entity.sights:
        return None
    centres = [(s.box[0] + s.box[2]) / 2 for s in entity.sights.values()]
    return sum(centres) / len(centres) / unit.film.width


def mismatch(unit: Unit, phrase: str, entity: Entity) -> float:
    """Return how badly a phrase describes an entity of its kind: the number of false statements, and 1 for the wrong side."""
    stated_x, true_x = phrases.parse(phrase).position, mean_x(unit, entity)
    distance = abs(stated_x - true_x) if stated_x is not None and true_x is not None else 0.0
    return count_claims(phrase, entity).false + (1.0 if distance > 0.5 else 0.0)


def is_correct(unit: Unit, sample: Sample, slot: Slot, entity: Entity | None) -> bool:
    """Return whether a phrase is at its stated span of the prompt and fits no other entity of the shot better than its own."""
    if entity is None or sample.prompt[slot.start : slot.end] != slot.phrase or entity.kind != kind_of(slot.phrase):
        return False
    others = [e for e in unit.shot.entities if e.kind == entity.kind]
    return mismatch(unit, slot.phrase, entity) <= min(mismatch(unit, slot.phrase, e) for e in others)


def labelled_slots(unit: Unit, sample: Sample) -> list[Slot]:
    """Return the phrases of the kinds that the truth labels."""
    return [slot for slot in sample.slots if kind_of(slot.phrase) in unit.film.labelled]


def count_phrases(matcher: GroundTruthMatcher, sample: Sample) -> PhraseCounts:
    """Return the counts of one sample."""
    unit = matcher.unit_of.get(sample.clip)
    if unit is None:
        return PhraseCounts(slots=len(sample.slots), invented=len(sample.slots))
    num_correct, named_ids, true, false = 0, set(), 0, 0
    slots = labelled_slots(unit, sample)
    bound = [slot for slot in slots if slot.element]
    for slot in bound:
        entity = matcher.of_element(slot.element).entity
        claims = count_claims(slot.phrase, entity) if entity else ClaimCounts()
        true, false = true + claims.true, false + claims.false
        if is_correct(unit, sample, slot, entity):
            num_correct += 1
            named_ids.add(entity.id)  # type: ignore[union-attr]
    required_ids = {e.id for e in matcher.truth.expected[unit.key]}
    num_entities = {kind: sum(e.kind == kind for e in unit.shot.entities) for kind in KINDS}
    num_phrases = {kind: sum(kind_of(slot.phrase) == kind for slot in slots) for kind in KINDS}
    num_invented = sum(max(0, num_phrases[kind] - num_entities[kind]) for kind in KINDS)
    colours = phrases.colours(sample.environment) if unit.shot.colours else ()
    num_correct_colours = sum(colour in unit.shot.colours for colour in colours)
    return PhraseCounts(
        num_correct,
        len(bound),
        len(named_ids & required_ids),
        len(required_ids),
        num_invented,
        len(slots),
        true,
        false,
        num_correct_colours,
        len(colours) - num_correct_colours,
    )


def phrase_scores(total: PhraseCounts) -> list[Score]:
    return [
        proportion("phrases, on the right entity", total.right, total.bound),
        proportion("phrases, entities named", total.named, total.wanted),
        proportion("phrases, not invented", total.slots - total.invented, total.slots),
        proportion("phrases, colours and nouns true", total.true, total.true + total.false),
        proportion("phrases, colours of the place true", total.place_true, total.place_true + total.place_false),
    ]
