"""Scores of a run on marked pairs (`a2data ui`), for footage of which only some pairs are known."""

from pathlib import Path

import numpy as np

from a2data.records import ElementMeta
from a2data.store.tables import Store
from pipelines import marks as marking
from pipelines.bench.triplets import statistics
from pipelines.bench.triplets.pairs import faces_of, separation, vector_of
from pipelines.bench.triplets.predictions import Prediction, rows
from pipelines.bench.triplets.statistics import Score, proportion
from pipelines.films.truth import KINDS
from pipelines.marks import Mark, Marks

TABLES = ("detect", "ground", "faces", "parse", "background")


def current(work: Path, marks: Marks) -> list[Mark]:
    """Return the marks that apply to a work folder. Raises ValueError if there are none."""
    store = Store(work)
    frames = {e.element_id: e.frame for table in TABLES for e in rows(store, table, ElementMeta)}
    marks_here = marking.current(marks, frames)
    if not marks_here:
        raise ValueError(
            f"none of the {len(marks)} marks is of elements in {work}: name the work folder that was marked"
        )
    return marks_here


def score(prediction: Prediction, marks: list[Mark]) -> list[Score]:
    """Return precision, recall and F0.5 of the references, precision by role, and how well embeddings separate the marks.

    Precision is over marked references, recall over pairs marked as the same. All references of the prediction count.
    """
    is_same_of = {each.elements: each.same for each in marks}
    role_of = {marking.ends(r.element, r.source_element): r.role for s in prediction.samples for r in s.references}
    outcomes = [(role_of[pair], is_same_of[pair]) for pair in sorted(role_of.keys() & is_same_of.keys())]
    marked_same = {pair for pair, is_same in is_same_of.items() if is_same}
    precision = proportion(
        "marked pairs, precision", sum(right for _, right in outcomes), len(outcomes), "no marked reference"
    )
    recall = proportion(
        "marked pairs, recall", len(marked_same & role_of.keys()), len(marked_same), "no pair marked as the same"
    )
    scores = [precision, recall, statistics.f_score("marked pairs, F0.5", precision, recall, 0.5)]
    for name in sorted({name for name, _ in outcomes}):
        right = [is_same for of, is_same in outcomes if of == name]
        scores.append(proportion(f"marked pairs, precision: {name}", sum(right), len(right)))
    return scores + [each for kind in (*KINDS, "face") for each in _separation(prediction, marks, kind)]


def _separation(prediction: Prediction, marks: list[Mark], kind: str) -> list[Score]:
    """Score the embeddings of one kind on the marks; people are compared by face."""
    faces, pairs = faces_of(prediction), []
    for each in marks:
        elements = [prediction.elements.get(name) for name in each.elements]
        vectors = [vector_of(e, faces) for e in elements if e and e.kind == kind]
        if len(vectors) == 2 and all(vectors) and len(vectors[0]) == len(vectors[1]):
            pairs.append((float(np.dot(vectors[0], vectors[1])), each.same))
    similarity, same = np.array([x for x, _ in pairs], float), np.array([s for _, s in pairs], bool)
    return separation(f"marked {kind} embeddings", similarity, same) if pairs else []
