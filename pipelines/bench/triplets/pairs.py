"""Pairing scores: whether a reference is the same person, object or background, from another clip, and not a copy."""

from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.bench.triplets import statistics
from pipelines.bench.triplets.match_truth import EntityMatch, GroundTruthMatcher, Key
from pipelines.bench.triplets.predictions import Element, Prediction, Ref, Sample
from pipelines.bench.triplets.statistics import Score, share
from pipelines.films.truth import KINDS, Unit

SUBJECTS = ("human", "object", "face")
NEAR = 8  # largest Hamming distance of near copies, of the 64 bits of a difference hash
SIZES = (("small", 0.02, 0.05), ("medium", 0.05, 0.15), ("large", 0.15, 1.01))  # fractions of the picture


@dataclass(frozen=True)
class Pair:
    """A reference with its ground truth."""

    sample: Sample
    ref: Ref
    unit: Unit | None  # of the target
    source: Unit | None  # of the reference
    target: EntityMatch
    found: EntityMatch

    @property
    def known(self) -> bool:
        """Return whether both target and reference show an entity of the ground truth, and not a poster of it."""
        if self.ref.role == "background":
            return self.unit is not None and self.source is not None
        return all(f.entity is not None and f.entity.kind in KINDS for f in (self.target, self.found))

    @property
    def same_subject(self) -> bool:
        """Return whether both show the same person, object or place; for a garment, also in the same outfit."""
        if self.ref.role == "background":
            return self.known and self.unit.shot.place == self.source.shot.place  # type: ignore[union-attr]
        if not self.known or self.target.id != self.found.id:
            return False
        worn = self.ref.role not in (*SUBJECTS, "hair")
        return not worn or self.target.entity.outfit == self.found.entity.outfit  # type: ignore[union-attr]

    @property
    def other_clip(self) -> bool:
        return self.ref.source_clip != self.sample.clip

    @property
    def other_take(self) -> bool:
        """Return whether the shots have different takes. A shot paired with itself passes: `other_clip` counts it."""
        same_shot = self.unit is not None and self.source is not None and self.unit.key == self.source.key
        return same_shot or self.unit is None or self.source is None or self.unit.take != self.source.take

    @property
    def right(self) -> bool:
        return self.same_subject and self.other_clip


def make_pairs(ground: GroundTruthMatcher) -> list[Pair]:
    """Return the references of all samples whose kinds the truth labels."""
    out = []
    for sample in ground.prediction.samples:
        unit = ground.unit_of.get(sample.clip)
        for ref in sample.references:
            source = ground.find_unit(ref.origin.file, (ref.origin.frame,))
            if not is_labelled(ref.role, unit, source):
                continue
            target = _target(ground, ref)
            out.append(Pair(sample, ref, unit, source, target, ground.of_ref(sample.clip, ref)))
    return out


def is_labelled(role: str, *units: Unit | None) -> bool:
    """Return whether the truth labels a role in these shots. None, for outside all shots, counts as labelled."""
    if role == "background":
        return all(unit is None or unit.shot.place for unit in units)
    return all(unit is None or (role if role in KINDS else "human") in unit.film.labelled for unit in units)


def _target(ground: GroundTruthMatcher, ref: Ref) -> EntityMatch:
    """Return the entity that the element of a reference shows. Garments are not read; their wearer stands for them."""
    owner = ground.prediction.owners.get(ref.element, ref.element)
    return ground.of_element(owner)


def pairing_scores(ground: GroundTruthMatcher, pairs: list[Pair]) -> list[Score]:
    """Return precision, recall and F0.5 over people, objects and faces; precision by role and hard negative; copy scores."""
    mine = [p for p in pairs if p.ref.role in SUBJECTS]
    precision = share("pairing, precision", sum(p.right for p in mine), len(mine))
    wanted = {(key, name) for key, names in ground.truth.eligible.items() for name in names}
    got = {(p.unit.key, p.target.id) for p in mine if p.right and p.unit}
    recall = share("pairing, recall", len(got & wanted), len(wanted))
    scores = [precision, recall, statistics.f_score("pairing, F0.5", precision, recall, 0.5)]
    for role in sorted({p.ref.role for p in pairs}):
        of = [p for p in pairs if p.ref.role == role]
        scores.append(share(f"pairing, precision: {role}", sum(p.right for p in of), len(of)))
    hard = sorted({h for u in ground.truth.units for e in ground.truth.expected[u.key] for h in e.hard_negatives})
    for name in hard:
        of = [p for p in mine if p.target.entity and name in p.target.entity.hard_negatives]
        scores.append(share(f"pairing, precision: {name}", sum(p.right for p in of), len(of)))
    return [*scores, *copy_scores(ground, pairs)]


def copy_scores(ground: GroundTruthMatcher, pairs: list[Pair]) -> list[Score]:
    """Score references from another clip, from another take, and from frames unlike those of their target."""
    hashes = {}
    for film in ground.truth.films:
        if film.thumbs is not None:
            hashes[film.file] = np.stack([dhash(t) for t in film.thumbs])
    near = [d <= NEAR for p in pairs if (d := _distance(ground, p, hashes)) is not None]
    return [
        share("references from another clip", sum(p.other_clip for p in pairs), len(pairs)),
        share("references from another take", sum(p.other_take for p in pairs), len(pairs)),
        share("references from a frame unlike the clip's", sum(not n for n in near), len(near), "no thumbnails"),
    ]


def dhash(grey: np.ndarray) -> np.ndarray:
    """Return the difference hash, (64,) bool, of an (h, w) uint8 picture: is each of 8 x 8 cells darker than its right one."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()


def _distance(ground: GroundTruthMatcher, pair: Pair, hashes: dict[str, np.ndarray]) -> int | None:
    """Return the Hamming distance of the reference's frame to the nearest target frame; None if frames are not known."""
    clip = ground.prediction.clips.get(pair.sample.clip)
    here, there = hashes.get(clip.file if clip else ""), hashes.get(pair.ref.origin.file)
    frame = pair.ref.origin.frame
    frames = [f for f in pair.sample.frames if here is not None and f < len(here)]
    if here is None or there is None or not frames or frame >= len(there):
        return None
    return int((here[frames] != there[frame]).sum(1).min())


def entity_scores(ground: GroundTruthMatcher) -> list[Score]:
    """Return the recall of entities, also by size, and the precision of elements."""
    found: dict[Key, set[str]] = defaultdict(set)
    total = real = 0
    for element in ground.prediction.elements.values():
        unit = ground.unit_of.get(element.clip)
        if element.kind not in KINDS or not is_labelled(element.kind, unit):
            continue
        is_found = ground.of_element(element.id)
        total += 1
        real += is_found.entity is not None and is_found.entity.kind in KINDS
        if unit and is_found.id and (is_found.iou is None or is_found.iou >= 0.5):
            found[unit.key].add(is_found.id)
    wanted = [(u, e) for u in ground.truth.units for e in ground.truth.expected[u.key]]
    scores = [share("entities, precision", real, total)]
    scores.append(share("entities, recall", sum(e.id in found[u.key] for u, e in wanted), len(wanted)))
    for name, low, high in SIZES:
        of = [(u, e) for u, e in wanted if e.sights and low <= u.size(e) < high]
        scores.append(share(f"entities, recall: {name}", sum(e.id in found[u.key] for u, e in of), len(of)))
    return scores


def embedding_scores(ground: GroundTruthMatcher) -> list[Score]:
    """Return AP, AUC and TAR over all pairs of elements from different takes, independent of the pipeline's thresholds."""
    return [score for kind in KINDS for score in separation(f"{kind} embeddings", *_all_pairs(ground, kind))]


def separation(what: str, similarity: np.ndarray, same: np.ndarray) -> list[Score]:
    """Return how well a similarity tells pairs of the same from others: AP, AUC and TAR. similarity: (n,), same: (n,) bool."""
    names = (f"{what}, AP", f"{what}, AUC")
    rates = ((0.01, f"{what}, TAR at FAR 1e-2"), (0.001, f"{what}, TAR at FAR 1e-3"))
    if not same.any() or same.all():
        note = "no two pairs to compare"
        return [Score(name, None, note=note) for name in (*names, *(name for _, name in rates))]
    values = (statistics.average_precision(similarity, same), statistics.roc_auc(similarity, same))
    scores = [Score(name, value, of=len(same)) for name, value in zip(names, values, strict=True)]
    return scores + [Score(n, statistics.accept_rate(similarity, same, far), of=len(same)) for far, n in rates]


def _all_pairs(ground: GroundTruthMatcher, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of all pairs from different takes, and whether they show one entity. People are compared by face."""
    faces = faces_of(ground.prediction)
    known: list[tuple[tuple[float, ...], str, str]] = []
    for element in ground.prediction.elements.values():
        found, unit = ground.of_element(element.id), ground.unit_of.get(element.clip)
        vector = vector_of(element, faces)
        if element.kind == kind and found.entity and found.entity.kind in KINDS and unit and vector:
            known.append((vector, found.id, unit.take))
    if len({len(vector) for vector, _, _ in known}) != 1:
        return np.zeros(0), np.zeros(0, bool)
    matrix = np.array([vector for vector, _, _ in known], np.float32)
    names, takes = (np.array([row[n] for row in known]) for n in (1, 2))
    a, b = np.triu_indices(len(known), 1)
    other_take = takes[a] != takes[b]
    return (matrix @ matrix.T)[a, b][other_take], (names[a] == names[b])[other_take]


def faces_of(prediction: Prediction) -> dict[str, Element]:
    """Return person -> face with an embedding."""
    return {e.parent: e for e in prediction.elements.values() if e.kind == "face" and e.embedding}


def vector_of(element: Element, faces: dict[str, Element]) -> tuple[float, ...]:
    """Return the embedding to compare an element by; for humans that of the face, () without a face if others have one."""
    if element.kind == "human" and faces:
        return faces[element.id].embedding if element.id in faces else ()
    return element.embedding


def cluster_scores(ground: GroundTruthMatcher, pairs: list[Pair]) -> list[Score]:
    """Return B-cubed scores of the references' identities, over the elements of eligible entities."""
    cluster: dict[str, tuple[str, int]] = {}
    for pair in pairs:
        if pair.ref.role in KINDS and pair.ref.identity >= 0:
            for name in (pair.ref.element, pair.ref.source_element):
                cluster[name] = (pair.ref.role, pair.ref.identity)
    clusters, classes = [], []
    for element in ground.prediction.elements.values():
        unit, found = ground.unit_of.get(element.clip), ground.of_element(element.id)
        if element.kind in KINDS and unit and found.id in ground.truth.eligible[unit.key]:
            clusters.append(cluster.get(element.id, element.id))
            classes.append(found.id)
    precision, recall = statistics.b_cubed(clusters, classes)
    if not clusters:
        return [Score(f"identities, B3 {name}", None, note="no elements") for name in ("precision", "recall", "F1")]
    return [
        Score("identities, B3 precision", precision, of=len(clusters)),
        Score("identities, B3 recall", recall, of=len(clusters)),
        Score("identities, B3 F1", statistics.f_beta(precision, recall, 1.0), of=len(clusters)),
    ]
