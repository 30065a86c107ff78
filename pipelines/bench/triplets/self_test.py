"""Self-test of the benchmark: the prediction of a perfect pipeline, and the same with one fault injected.

The oracle must score 1.000 everywhere; each fault must change its own score and come first in the histogram.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from a2data.media.images import Box, from_rle, to_rle
from pipelines.bench.triplets.match_truth import UNKNOWN_ALPHA, entity_masks
from pipelines.bench.triplets.predictions import Clip, Element, Prediction, Ref, Sample, Slot, SourceMask
from pipelines.films.truth import KINDS, Entity, Truth, Unit

Elements = dict[tuple[str, str], Element]  # clip, id of the entity -> its element


def oracle(truth: Truth) -> Prediction:
    """Return the perfect prediction."""
    clips = {clip_id(u): _clip(u, n) for film in truth.films for n, u in enumerate(Unit(film, s) for s in film.shots)}
    names = sorted({e.id for u in truth.units for e in u.shot.entities})
    elements: Elements = {}
    for unit in truth.units:
        for number, entity in enumerate(unit.expected_entities(0.01)):
            elements[clip_id(unit), entity.id] = _element(unit, entity, number, names)
    samples = [sample for unit in truth.units if (sample := _sample(truth, unit, elements, names))]
    return Prediction(
        clips, {e.id: e for e in elements.values()}, samples, frozenset(s.element for m in samples for s in m.slots)
    )


def clip_id(unit: Unit) -> str:
    return f"{unit.film.file.rpartition('.')[0]}-{unit.shot.start:08d}"


def _clip(unit: Unit, number: int) -> Clip:
    start, end = unit.shot.start, unit.shot.end
    transition = next((t.kind for t in unit.film.transitions if t.end == start), "start")
    transition_in = "cut" if start in unit.film.cuts else transition
    return Clip(clip_id(unit), unit.film.file, number, start, end, transition_in, tuple(range(start, end)))


def _element(unit: Unit, entity: Entity, number: int, names: list[str]) -> Element:
    film, element_id = unit.film, f"{clip_id(unit)}/{entity.kind}/{number}"
    embedding = tuple(float(entity.id == other) for other in names)
    full_frame = (0.0, 0.0, float(film.width), float(film.height))
    if not entity.sights:  # only the shot is known
        source_mask = SourceMask(
            film.file, unit.shot.start, to_rle(np.ones((film.height, film.width), bool)), full_frame
        )
        return Element(
            element_id, clip_id(unit), entity.kind, "", source_mask, (unit.shot.start,), (full_frame,), embedding
        )
    sights = {f: s for f, s in sorted(entity.sights.items()) if s.visible >= 0.5}
    best = max(sights, key=lambda f: (sights[f].visible, _area(sights[f].box), -f))
    mask = sights[best].pixels(film.height, film.width) >= 0.5
    source_mask = SourceMask(film.file, best, to_rle(mask), full_frame)
    return Element(
        element_id,
        clip_id(unit),
        entity.kind,
        "",
        source_mask,
        tuple(sights),
        tuple(s.box for s in sights.values()),
        embedding,
    )


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _sample(truth: Truth, unit: Unit, elements: Elements, names: list[str]) -> Sample | None:
    """Return the triplet of a shot; None if none of its entities can have a reference."""
    refs, slots, prompt = [], [], ""
    for entity in truth.expected[unit.key]:
        phrase = describe(entity)
        prompt += ", " if prompt else ""
        slot = Slot(phrase, len(prompt), len(prompt) + len(phrase), elements[clip_id(unit), entity.id].id)
        prompt += phrase
        slots.append(slot)
        if entity.id in truth.eligible[unit.key]:
            source = _partner(truth, unit, entity, elements)
            refs.append(_ref(slot.element, source, names.index(entity.id), entity.kind, slot))
    if not refs:
        return None
    background = _background(truth, unit)
    environment = f"a {unit.shot.colours[0]} place" if unit.shot.colours else "a place"
    frames = tuple(range(unit.shot.start, unit.shot.end))
    thumbs = np.zeros((0, 18, 24), np.uint8) if unit.film.thumbs is None else unit.film.thumbs[list(frames)]
    return Sample(
        clip_id(unit),
        f"{prompt} before {environment}",
        tuple(slots),
        environment,
        (*refs, *background),
        frames,
        thumbs,
        clip_id(unit),
    )


def describe(entity: Entity) -> str:
    """Return a phrase that describes an entity correctly."""
    noun = entity.nouns[0] if entity.nouns else "person" if entity.kind == "human" else "object"
    colour = next(iter(entity.colours.get("upper" if entity.kind == "human" else "", [])), "")
    if entity.kind == "human":
        return f"a {noun} in a {colour} top" if colour else f"a {noun}"
    return f"a {colour} {noun}" if colour else f"a {noun}"


def _partner(truth: Truth, unit: Unit, entity: Entity, elements: Elements) -> Element:
    """Return the same entity in another take: preferably in the same outfit, then at another place, then the next in order."""
    position = truth.units.index(unit)
    others = [(n, u) for n, u in enumerate(truth.units) if u.take != unit.take and (clip_id(u), entity.id) in elements]

    def order(numbered: tuple[int, Unit]) -> tuple[bool, bool, int]:
        number, other = numbered
        other_entity = other.entity(entity.id)
        same_outfit = other_entity is not None and other_entity.outfit == entity.outfit
        return not same_outfit, other.shot.place == unit.shot.place, (number - position) % len(truth.units)

    other = min(others, key=order)
    return elements[clip_id(other[1]), entity.id]


def _ref(element: str, source: Element, identity: int, role: str, slot: Slot) -> Ref:
    return Ref(role, element, identity, source.id, source.clip, source.best, slot.phrase, slot.start, slot.end)


def _background(truth: Truth, unit: Unit) -> list[Ref]:
    """Return the place as another take shows it, with the entities masked out."""
    for other in truth.units:
        film, frame = other.film, other.shot.start
        if not unit.shot.place or other.shot.place != unit.shot.place or other.take == unit.take:
            continue
        if any(not e.sights for e in other.shot.entities):
            continue
        masks = [m >= UNKNOWN_ALPHA[0] for m in entity_masks(film, other, frame).values()]
        is_background = ~np.max(masks, axis=0) if masks else np.ones((film.height, film.width), bool)
        if is_background.mean() >= 0.25:
            full_frame = (0.0, 0.0, float(film.width), float(film.height))
            source_mask = SourceMask(film.file, frame, to_rle(is_background), full_frame)
            name = f"{clip_id(other)}/background/0"
            return [
                Ref(
                    "background", f"{clip_id(unit)}/background/0", -1, name, clip_id(other), source_mask, box=full_frame
                )
            ]
    return []


# -- faults ------------------------------------------------------------------------------------------------------------

Change = Callable[[Ref], Ref]


def _map_references(prediction: Prediction, change: Change, roles: tuple[str, ...] = KINDS) -> Prediction:
    """Return the prediction with changed references of these roles."""

    def changed(ref: Ref) -> Ref:
        return change(ref) if ref.role in roles else ref

    samples = [replace(s, references=tuple(changed(r) for r in s.references)) for s in prediction.samples]
    return replace(prediction, samples=samples)


def shift_frames(truth: Truth, prediction: Prediction) -> Prediction:
    """Increment the number of every source frame."""

    def shifted(source_mask: SourceMask) -> SourceMask:
        return replace(source_mask, frame=source_mask.frame + 1)

    clips = {
        i: replace(c, frames=tuple(f + 1 for f in c.frames), shot_start=c.shot_start + 1, shot_end=c.shot_end + 1)
        for i, c in prediction.clips.items()
    }
    elements = {
        i: replace(e, best=shifted(e.best), frames=tuple(f + 1 for f in e.frames))
        for i, e in prediction.elements.items()
    }
    samples = [
        replace(
            s,
            frames=tuple(f + 1 for f in s.frames),
            references=tuple(replace(r, origin=shifted(r.origin)) for r in s.references),
        )
        for s in prediction.samples
    ]
    return replace(prediction, clips=clips, elements=elements, samples=samples)


def swap_captions(truth: Truth, prediction: Prediction) -> Prediction:
    """Swap the captions of two clips, but keep the bound elements."""
    samples = list(prediction.samples)
    a, b = next(
        (i, j)
        for i, first in enumerate(samples)
        for j, second in enumerate(samples)
        if i < j
        and len(first.slots) == len(second.slots)
        and all(_contradict(x, y) for x, y in zip(first.slots, second.slots, strict=True))
    )
    samples[a], samples[b] = _with_caption_of(samples[a], samples[b]), _with_caption_of(samples[b], samples[a])
    return replace(prediction, samples=samples)


def _contradict(first: Slot, second: Slot) -> bool:
    """Return whether two phrases contradict each other."""
    return not set(first.phrase.split()) & set(second.phrase.split()) - {"a", "in", "top", "woman", "person"}


def _with_caption_of(sample: Sample, other: Sample) -> Sample:
    slots = tuple(
        replace(other_slot, element=s.element) for s, other_slot in zip(sample.slots, other.slots, strict=True)
    )
    slot_of = {slot.element: slot for slot in slots}
    refs = tuple(
        replace(r, phrase=slot_of[r.element].phrase, start=slot_of[r.element].start, end=slot_of[r.element].end)
        if r.element in slot_of
        else r
        for r in sample.references
    )
    return replace(sample, prompt=other.prompt, slots=slots, references=refs)


def restart_ids(truth: Truth, prediction: Prediction) -> Prediction:
    """Restart the numbers of identities at 0 in every film, and pair elements by these numbers."""
    number_by_name: dict[str, int] = {}
    for film in truth.films:
        names = list(dict.fromkeys(e.id for shot in film.shots for e in shot.entities))
        number_by_name |= {f"{film.file} {name}": n for n, name in enumerate(names)}
    number_of = {  # element -> number of its entity in its film
        element.id: number_by_name[f"{element.best.file} {entity}"]
        for (_, entity), element in _by_entity(truth, prediction).items()
    }

    def by_number(ref: Ref) -> Ref:
        target = prediction.elements[ref.element]
        others = [
            e
            for e in prediction.elements.values()
            if e.kind == target.kind and e.best.file != target.best.file and number_of[e.id] == number_of[target.id]
        ]
        return (
            _with_source(replace(ref, identity=number_of[target.id]), min(others, key=lambda e: e.id))
            if others
            else ref
        )

    return _map_references(prediction, by_number)


def _by_entity(truth: Truth, prediction: Prediction) -> Elements:
    """Return the oracle's elements by clip and entity."""
    names = sorted({e.id for u in truth.units for e in u.shot.entities})
    return {(e.clip, names[e.embedding.index(1.0)]): e for e in prediction.elements.values()}


def _with_source(ref: Ref, source: Element) -> Ref:
    return replace(ref, source_element=source.id, source_clip=source.clip, origin=source.best)


def split_tracks(truth: Truth, prediction: Prediction) -> Prediction:
    """Give each track a new id in the middle of its clip."""
    elements = {}
    for name, e in prediction.elements.items():
        half = len(e.frames) // 2
        elements[name] = replace(e, frames=e.frames[:half], boxes=e.boxes[:half])
        elements[f"{name}+"] = replace(e, id=f"{name}+", frames=e.frames[half:], boxes=e.boxes[half:])
    return replace(prediction, elements=elements)


def pair_within_clip(truth: Truth, prediction: Prediction) -> Prediction:
    """Use the clip's own picture as its reference."""
    return _map_references(prediction, lambda ref: _with_source(ref, prediction.elements[ref.element]))


def pair_at_random(truth: Truth, prediction: Prediction, seed: int = 0) -> Prediction:
    """Pair with a random element of the same kind from another clip."""
    rng = np.random.default_rng(seed)

    def random_element(ref: Ref) -> Ref:
        target = prediction.elements[ref.element]
        others = [e for e in prediction.elements.values() if e.kind == target.kind and e.clip != target.clip]
        return _with_source(ref, others[rng.integers(len(others))])

    return _map_references(prediction, random_element)


def _morph(prediction: Prediction, operation: int, radius_px: int) -> Prediction:
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))

    def morphed(ref: Ref) -> Ref:
        mask = cv2.morphologyEx(from_rle(ref.origin.mask).astype(np.uint8), operation, disk) > 0
        return replace(ref, origin=replace(ref.origin, mask=to_rle(mask)))

    return _map_references(prediction, morphed)


def dilate_masks(truth: Truth, prediction: Prediction) -> Prediction:
    """Dilate masks by 9 px."""
    return _morph(prediction, cv2.MORPH_DILATE, 9)


def erode_masks(truth: Truth, prediction: Prediction) -> Prediction:
    """Erode masks by 9 px."""
    return _morph(prediction, cv2.MORPH_ERODE, 9)


def whole_frame_as_place(truth: Truth, prediction: Prediction) -> Prediction:
    """Use a whole frame, with everyone in it, as the background."""

    def whole(ref: Ref) -> Ref:
        mask = np.ones_like(from_rle(ref.origin.mask))
        return replace(ref, origin=replace(ref.origin, mask=to_rle(mask)))

    return _map_references(prediction, whole, ("background",))


def drop_clip(truth: Truth, prediction: Prediction) -> Prediction:
    """Drop one clip from clips, elements and samples."""
    lost = next(clip_id(u) for u in truth.units if u.key in truth.achievable)
    return replace(
        prediction,
        clips={i: c for i, c in prediction.clips.items() if i != lost},
        elements={i: e for i, e in prediction.elements.items() if e.clip != lost},
        samples=[s for s in prediction.samples if s.clip != lost],
    )


FAULTS: dict[str, Callable[[Truth, Prediction], Prediction]] = {
    "frames shifted by one": shift_frames,
    "two captions swapped": swap_captions,
    "ids restarted": restart_ids,
    "tracks split": split_tracks,
    "paired within the clip": pair_within_clip,
    "paired at random": pair_at_random,
    "masks dilated by 9 px": dilate_masks,
    "masks eroded by 9 px": erode_masks,
    "the whole frame as the place": whole_frame_as_place,
    "a clip dropped": drop_clip,
}
