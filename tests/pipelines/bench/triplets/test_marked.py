"""Scores on marked pairs."""

import numpy as np
import pytest

from pipelines.bench.triplets import marked
from pipelines.bench.triplets.predictions import Element, Prediction, Ref, Sample, SourceMask
from pipelines.marks import mark

SEEN = SourceMask("a.mp4", 0, b"", (0, 0, 1, 1))


def element(name, *embedding):
    return Element(name, name[0], "object", "", SEEN, (0,), (), embedding)


def reference(target, source):
    return Ref("object", target, 0, source, source[0], SEEN)


def test_precision_is_of_marked_references_and_recall_of_pairs_marked_right():
    elements = [element("a/0", 1, 0), element("b/0", 0.8, 0.6), element("c/0", 0.6, 0.8), element("d/0", 0, 1)]
    references = (reference("a/0", "b/0"), reference("a/0", "c/0"), reference("b/0", "d/0"))
    made = Prediction({}, {e.id: e for e in elements}, [Sample("a", "", (), "", references, (), np.zeros(0))])
    marks = [
        mark((a, 0), (b, 0), same) for a, b, same in (("b/0", "a/0", True), ("a/0", "c/0", False), ("c/0", "d/0", True))
    ]
    found = {score.name: score for score in marked.score(made, marks)}
    assert (found["marked pairs, precision"].right, found["marked pairs, precision"].of) == (1, 2)
    assert (found["marked pairs, recall"].right, found["marked pairs, recall"].of) == (1, 2)
    assert found["marked pairs, F0.5"].value == pytest.approx(0.5)
    assert found["marked object embeddings, AUC"].value == 1.0
    assert not [name for name in found if "human" in name]
