"""Scores of a run on marked pairs (`a2data ui`), for footage of which only some pairs are known."""

from pathlib import Path

import numpy as np

from a2data.records import ElementMeta
from a2data.store.tables import Store
from pipelines import marks as marking
from pipelines.bench.triplets import statistics
from pipelines.bench.triplets.pairs import faces_of, separation, vector_of
from pipelines.bench.triplets.predictions import Prediction, rows
from pipelines.bench.triplets.statistics import Score, share
from pipelines.films.truth import KINDS
from pipelines.marks import Mark, Marks

TABLES = ("detect", "ground", "faces", "parse", "background")


def current(work: Path, marks: Marks) -> list[Mark]:
    """Return the marks that apply to a work folder. Raises ValueError if there are none."""
    store = Store(work)
    frames = {e.element_id: e.frame for table in TABLES for e in rows(store, table, ElementMeta)}
    found = marking.current(marks, frames)
    if not found:
        raise ValueError(
            f"none of the {len(marks)} marks is of elements in {work}: name the work folder that was marked"
        )
    return found


def score(prediction: Prediction, marks: list[Mark]) -> list[Score]:
    """Return precision, recall and F0.5 of the references, precision by role, and how well embeddings separate the marks.

    Precision is over marked references, recall over pairs marked as the same. All references of the prediction count.
    """
    same = {each.elements: each.same for each in marks}
    role = {marking.ends(r.element, r.source_element): r.role for s in prediction.samples for r in s.references}
    known = [(role[pair], same[pair]) for pair in sorted(role.keys() & same.keys())]
    right = {pair for pair, is_same in same.items() if is_same}
    precision = share("marked pairs, precision", sum(good for _, good in known), len(known), "no marked reference")
    recall = share("marked pairs, recall", len(right & role.keys()), len(right), "no pair marked as the same")
    scores = [precision, recall, statistics.f_score("marked pairs, F0.5", precision, recall, 0.5)]
    for name in sorted({name for name, _ in known}):
        good = [is_same for of, is_same in known if of == name]
        scores.append(share(f"marked pairs, precision: {name}", sum(good), len(good)))
    return scores + [each for kind in (*KINDS, "face") for each in _separation(prediction, marks, kind)]


def _separation(prediction: Prediction, marks: list[Mark], kind: str) -> list[Score]:
    """Score the embeddings of one kind on the marks; people are compared by face."""
    faces, known = faces_of(prediction), []
    for each in marks:
        ends = [prediction.elements.get(name) for name in each.elements]
        vectors = [vector_of(e, faces) for e in ends if e and e.kind == kind]
        if len(vectors) == 2 and all(vectors) and len(vectors[0]) == len(vectors[1]):
            known.append((float(np.dot(vectors[0], vectors[1])), each.same))
    similarity, same = np.array([x for x, _ in known], float), np.array([s for _, s in known], bool)
    return separation(f"marked {kind} embeddings", similarity, same) if known else []
