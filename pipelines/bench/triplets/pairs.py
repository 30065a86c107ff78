"""Pairing scores: whether a reference is the same person, object or background, from another clip, and not a copy."""

from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.bench.triplets import statistics
from pipelines.bench.triplets.match_truth import EntityMatch, GroundTruthMatcher, Key
from pipelines.bench.triplets.predictions import Element, Prediction, Ref, Sample
from pipelines.bench.triplets.statistics import Score, proportion
from pipelines.films.truth import KINDS, Unit

SUBJECTS = ("human", "object", "face")
MAX_HAMMING = 8  # largest Hamming distance of near copies, of the 64 bits of a difference hash
SIZES = (("small", 0.02, 0.05), ("medium", 0.05, 0.15), ("large", 0.15, 1.01))  # fractions of the picture


@dataclass(frozen=True)
class Pair:
    """A reference with its ground truth."""

    sample: Sample
    ref: Ref
    target_unit: Unit | None
    source_unit: Unit | None
    target_match: EntityMatch
    source_match: EntityMatch

    @property
    def is_annotated(self) -> bool:
        """Return whether both target and reference show an entity of the ground truth, and not a poster of it."""
        if self.ref.role == "background":
            return self.target_unit is not None and self.source_unit is not None
        return all(f.entity is not None and f.entity.kind in KINDS for f in (self.target_match, self.source_match))

    @property
    def same_subject(self) -> bool:
        """Return whether both show the same person, object or place; for a garment, also in the same outfit."""
        if self.ref.role == "background":
            return self.is_annotated and self.target_unit.shot.place == self.source_unit.shot.place  # type: ignore[union-attr]
        if not self.is_annotated or self.target_match.id != self.source_match.id:
            return False
        worn = self.ref.role not in (*SUBJECTS, "hair")
        return not worn or self.target_match.entity.outfit == self.source_match.entity.outfit  # type: ignore[union-attr]

    @property
    def is_cross_clip(self) -> bool:
        return self.ref.source_clip != self.sample.clip

    @property
    def is_cross_take(self) -> bool:
        """Return whether the shots have different takes. A shot paired with itself passes: `other_clip` counts it."""
        same_shot = (
            self.target_unit is not None
            and self.source_unit is not None
            and self.target_unit.key == self.source_unit.key
        )
        return (
            same_shot
            or self.target_unit is None
            or self.source_unit is None
            or self.target_unit.take != self.source_unit.take
        )

    @property
    def is_correct(self) -> bool:
        return self.same_subject and self.is_cross_clip


def make_pairs(matcher: GroundTruthMatcher) -> list[Pair]:
    """Return the references of all samples whose kinds the truth labels."""
    pairs = []
    for sample in matcher.prediction.samples:
        unit = matcher.unit_of.get(sample.clip)
        for ref in sample.references:
            source = matcher.find_unit(ref.origin.file, (ref.origin.frame,))
            if not is_labelled(ref.role, unit, source):
                continue
            target = _target_match(matcher, ref)
            pairs.append(Pair(sample, ref, unit, source, target, matcher.of_ref(sample.clip, ref)))
    return pairs


def is_labelled(role: str, *units: Unit | None) -> bool:
    """Return whether the truth labels a role in these shots. None, for outside all shots, counts as labelled."""
    if role == "background":
        return all(unit is None or unit.shot.place for unit in units)
    return all(unit is None or (role if role in KINDS else "human") in unit.film.labelled for unit in units)


def _target_match(matcher: GroundTruthMatcher, ref: Ref) -> EntityMatch:
    """Return the entity that the element of a reference shows. Garments are not read; their wearer stands for them."""
    owner = matcher.prediction.owners.get(ref.element, ref.element)
    return matcher.of_element(owner)


def pairing_scores(matcher: GroundTruthMatcher, pairs: list[Pair]) -> list[Score]:
    """Return precision, recall and F0.5 over people, objects and faces; precision by role and hard negative; copy scores."""
    subject_pairs = [p for p in pairs if p.ref.role in SUBJECTS]
    precision = proportion("pairing, precision", sum(p.is_correct for p in subject_pairs), len(subject_pairs))
    eligible = {(key, name) for key, names in matcher.truth.eligible.items() for name in names}
    found = {(p.target_unit.key, p.target_match.id) for p in subject_pairs if p.is_correct and p.target_unit}
    recall = proportion("pairing, recall", len(found & eligible), len(eligible))
    scores = [precision, recall, statistics.f_score("pairing, F0.5", precision, recall, 0.5)]
    for role in sorted({p.ref.role for p in pairs}):
        role_pairs = [p for p in pairs if p.ref.role == role]
        scores.append(proportion(f"pairing, precision: {role}", sum(p.is_correct for p in role_pairs), len(role_pairs)))
    negatives = sorted(
        {h for u in matcher.truth.units for e in matcher.truth.expected[u.key] for h in e.hard_negatives}
    )
    for name in negatives:
        role_pairs = [
            p for p in subject_pairs if p.target_match.entity and name in p.target_match.entity.hard_negatives
        ]
        scores.append(proportion(f"pairing, precision: {name}", sum(p.is_correct for p in role_pairs), len(role_pairs)))
    return [*scores, *copy_scores(matcher, pairs)]


def copy_scores(matcher: GroundTruthMatcher, pairs: list[Pair]) -> list[Score]:
    """Score references from another clip, from another take, and from frames unlike those of their target."""
    hashes = {}
    for film in matcher.truth.films:
        if film.thumbs is not None:
            hashes[film.file] = np.stack([dhash(t) for t in film.thumbs])
    is_near = [d <= MAX_HAMMING for p in pairs if (d := _distance(matcher, p, hashes)) is not None]
    return [
        proportion("references from another clip", sum(p.is_cross_clip for p in pairs), len(pairs)),
        proportion("references from another take", sum(p.is_cross_take for p in pairs), len(pairs)),
        proportion(
            "references from a frame unlike the clip's", sum(not n for n in is_near), len(is_near), "no thumbnails"
        ),
    ]


def dhash(grey: np.ndarray) -> np.ndarray:
    """Return the difference hash of an (h, w) uint8 picture, (64,) bool: whether each of 8 x 8 cells is darker than the next."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()


def _distance(matcher: GroundTruthMatcher, pair: Pair, hashes: dict[str, np.ndarray]) -> int | None:
    """Return the Hamming distance of the reference's frame to the nearest target frame; None if frames are not known."""
    clip = matcher.prediction.clips.get(pair.sample.clip)
    target_hashes, source_hashes = hashes.get(clip.file if clip else ""), hashes.get(pair.ref.origin.file)
    frame = pair.ref.origin.frame
    frames = [f for f in pair.sample.frames if target_hashes is not None and f < len(target_hashes)]
    if target_hashes is None or source_hashes is None or not frames or frame >= len(source_hashes):
        return None
    return int((target_hashes[frames] != source_hashes[frame]).sum(1).min())


def entity_scores(matcher: GroundTruthMatcher) -> list[Score]:
    """Return the recall of entities, also by size, and the precision of elements."""
    found: dict[Key, set[str]] = defaultdict(set)
    num_elements = num_matched = 0
    for element in matcher.prediction.elements.values():
        unit = matcher.unit_of.get(element.clip)
        if element.kind not in KINDS or not is_labelled(element.kind, unit):
            continue
        match = matcher.of_element(element.id)
        num_elements += 1
        num_matched += match.entity is not None and match.entity.kind in KINDS
        if unit and match.id and (match.iou is None or match.iou >= 0.5):
            found[unit.key].add(match.id)
    required = [(u, e) for u in matcher.truth.units for e in matcher.truth.expected[u.key]]
    scores = [proportion("entities, precision", num_matched, num_elements)]
    scores.append(proportion("entities, recall", sum(e.id in found[u.key] for u, e in required), len(required)))
    for name, low, high in SIZES:
        sized = [(u, e) for u, e in required if e.sights and low <= u.size(e) < high]
        scores.append(proportion(f"entities, recall: {name}", sum(e.id in found[u.key] for u, e in sized), len(sized)))
    return scores


def embedding_scores(matcher: GroundTruthMatcher) -> list[Score]:
    """Return AP, AUC and TAR over all pairs of elements from different takes, independent of the pipeline's thresholds."""
    return [score for kind in KINDS for score in separation(f"{kind} embeddings", *_all_pairs(matcher, kind))]


def separation(name_prefix: str, similarity: np.ndarray, same: np.ndarray) -> list[Score]:
    """Return how well a similarity separates matching pairs from others: AP, AUC and TAR. similarity: (n,), same: (n,) bool."""
    names = (f"{name_prefix}, AP", f"{name_prefix}, AUC")
    rates = ((0.01, f"{name_prefix}, TAR at FAR 1e-2"), (0.001, f"{name_prefix}, TAR at FAR 1e-3"))
    if not same.any() or same.all():
        note = "no two pairs to compare"
        return [Score(name, None, note=note) for name in (*names, *(name for _, name in rates))]
    values = (statistics.average_precision(similarity, same), statistics.roc_auc(similarity, same))
    scores = [Score(name, value, of=len(same)) for name, value in zip(names, values, strict=True)]
    return scores + [Score(n, statistics.accept_rate(similarity, same, far), of=len(same)) for far, n in rates]


def _all_pairs(matcher: GroundTruthMatcher, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines of all pairs from different takes, and whether they show one entity. People are compared by face."""
    faces = faces_of(matcher.prediction)
    rows: list[tuple[tuple[float, ...], str, str]] = []
    for element in matcher.prediction.elements.values():
        match, unit = matcher.of_element(element.id), matcher.unit_of.get(element.clip)
        vector = vector_of(element, faces)
        if element.kind == kind and match.entity and match.entity.kind in KINDS and unit and vector:
            rows.append((vector, match.id, unit.take))
    if len({len(vector) for vector, _, _ in rows}) != 1:
        return np.zeros(0), np.zeros(0, bool)
    matrix = np.array([vector for vector, _, _ in rows], np.float32)
    names, takes = (np.array([row[n] for row in rows]) for n in (1, 2))
    a, b = np.triu_indices(len(rows), 1)
    is_cross_take = takes[a] != takes[b]
    return (matrix @ matrix.T)[a, b][is_cross_take], (names[a] == names[b])[is_cross_take]


def faces_of(prediction: Prediction) -> dict[str, Element]:
    """Return person -> face with an embedding."""
    return {e.parent: e for e in prediction.elements.values() if e.kind == "face" and e.embedding}


def vector_of(element: Element, faces: dict[str, Element]) -> tuple[float, ...]:
    """Return the embedding to compare an element by; for humans that of the face, () without a face if others have one."""
    if element.kind == "human" and faces:
        return faces[element.id].embedding if element.id in faces else ()
    return element.embedding


def cluster_scores(matcher: GroundTruthMatcher, pairs: list[Pair]) -> list[Score]:
    """Return B-cubed scores of the references' identities, over the elements of eligible entities."""
    cluster_of: dict[str, tuple[str, int]] = {}
    for pair in pairs:
        if pair.ref.role in KINDS and pair.ref.identity >= 0:
            for name in (pair.ref.element, pair.ref.source_element):
                cluster_of[name] = (pair.ref.role, pair.ref.identity)
    clusters, classes = [], []
    for element in matcher.prediction.elements.values():
        unit, match = matcher.unit_of.get(element.clip), matcher.of_element(element.id)
        if element.kind in KINDS and unit and match.id in matcher.truth.eligible[unit.key]:
            clusters.append(cluster_of.get(element.id, element.id))
            classes.append(match.id)
    precision, recall = statistics.b_cubed(clusters, classes)
    if not clusters:
        return [Score(f"identities, B3 {name}", None, note="no elements") for name in ("precision", "recall", "F1")]
    return [
        Score("identities, B3 precision", precision, of=len(clusters)),
        Score("identities, B3 recall", recall, of=len(clusters)),
        Score("identities, B3 F1", statistics.f_beta(precision, recall, 1.0), of=len(clusters)),
    ]
