from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.records import ClipTimes, EmbeddedElement
from a2data.store.schema import to_table
from stages.retrieve.corpus import Blobs, Footage, assemble


def look(name, kind, parent="", quality=0.5, vector=(1.0, 0.0), frames=(0, 5)):
    at = name.split("/")[0]
    traits = (at, name, kind, kind, parent, 0, "", "dlib", quality, list(frames), ["colour=red"])
    return EmbeddedElement(*traits, embedding=list(vector))


def tables(rows, split=2):
    """The rows dealt to two tables of two shards."""
    dealt = [rows[n::split] for n in range(split)]
    return [
        to_table(EmbeddedElement, part).append_column("shard", pa.array([n] * len(part), pa.int32()))
        for n, part in enumerate(dealt)
    ]


ROWS = [
    look("b/human/0", "human", frames=(0, 5, 10)),
    look("b/face/0", "face", "b/human/0", 0.4, (0.6, 0.8)),
    look("b/face/1", "face", "b/human/0", 0.9, (0.8, 0.6)),
    look("b/face/2", "face", "b/human/0", 0.95, ()),
    look("b/upper/0", "upper", "b/human/0", vector=(0.0, 1.0), frames=(5,)),
    look("a/object/0", "object", vector=(1.0, 0.0)),
    look("a/face/0", "face", "", vector=(0.0, 1.0)),
]


@settings(max_examples=20, deadline=None)
@given(st.permutations(ROWS), st.integers(1, 3))
def test_whatever_the_order_of_rows_and_tables_everybody_is_found_with_what_is_theirs(rows, split):
    corpus = assemble(tables(rows, split))
    ids = [t.element_id for t in corpus.elements]
    at = ids.index
    assert ids == sorted(r.element_id for r in ROWS)
    for row in ROWS:
        mine = corpus.vector(at(row.element_id))
        assert (mine is None) == (row.embedding == [])
        assert mine is None or np.allclose(mine, row.embedding)
    human = at("b/human/0")
    assert corpus.face_of[human] == at("b/face/1")  # the best of those that have an embedding
    assert corpus.human_of[at("b/face/1")] == human
    assert corpus.human_of[at("b/face/0")] == -1
    assert corpus.parts(human, "upper") == [at("b/upper/0")]
    assert corpus.parts(human, "hair") == corpus.parts(-1, "face") == []
    assert corpus.frames_seen(at("b/upper/0")) == {0, 5, 10}
    assert corpus.with_embedding("face").tolist() == [at("a/face/0"), at("b/face/0"), at("b/face/1")]


def test_vectors_of_rows_are_theirs_in_that_order():
    corpus = assemble(tables(ROWS))
    faces = corpus.with_embedding("face")[::-1]
    assert np.allclose(corpus.vectors_of(faces), np.stack([corpus.vector(row) for row in faces]))


def test_embeddings_of_two_lengths_are_refused():
    rows = [ROWS[1], look("c/face/0", "face", vector=(1.0, 0.0, 0.0))]
    with pytest.raises(ValueError, match="make them all with the same model"):
        assemble(tables(rows))


def test_seconds_between_clips_of_one_source_and_none_between_two_sources():
    takes = [
        ClipTimes("a", "v", [1.0, 1.5, 2.0]),
        ClipTimes("b", "v", [1.8, 2.5]),
        ClipTimes("c", "v", [4.0, 5.0]),
        ClipTimes("d", "w", [0.0, 9.0]),
    ]
    footage = Footage(to_table(ClipTimes, takes))
    shared_s, gap_s = footage.overlap_and_gap_s(np.array([0, 2, 0]), np.array([1, 0, 3]))
    assert shared_s.tolist() == [pytest.approx(0.2), -2.0, -np.inf]
    assert gap_s.tolist() == [0.0, 2.0, np.inf]


def test_outfits_agree_if_two_tops_have_one_colour():
    worn = {"a": ["red"], "b": ["red", "blue"], "c": ["blue"], "d": [], "e": [""]}
    rows = [look(f"{clip}/human/0", "human") for clip in worn]
    for clip, tops in worn.items():
        for n, colour in enumerate(tops):
            top = look(f"{clip}/upper/{n}", "upper", f"{clip}/human/0")
            rows.append(replace(top, attributes=["yaw=1", f"colour={colour}"] if colour else ["yaw=1"]))
    corpus = assemble(tables(rows))
    ids = [t.element_id for t in corpus.elements]
    a, b, c, d, e = (ids.index(f"{clip}/human/0") for clip in worn)
    assert corpus.outfits(np.array([a, a, b, a, e]), np.array([b, c, c, d, e])).tolist() == [1.0, 0.0, 1.0, 0.5, 1.0]


def test_blobs_are_read_as_they_were_written():
    blobs = Blobs()
    for n in (7, 3, 5):
        blobs.put(n, bytes([n]) * n)
    assert [blobs.get(n) for n in (3, 5, 7)] == [bytes([n]) * n for n in (3, 5, 7)]
    assert blobs.missing(np.array([9, 3, 1, 9])).tolist() == [1, 9]
