"""Semantic duplicates and caption flags over a corpus."""

import numpy as np
import pyarrow as pa
import pytest

from a2data.records import ClipEmbedding, Kept, Reject
from a2data.store.schema import to_table
from model_zoo.embeddings import unit
from stages import curate
from stages.curate import Curate, Matched, Prompt
from stages.embed import embedding


class Memory:
    """What `a2data.store.earlier.Earlier` keeps, in memory."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], pa.Table] = {}

    def load(self, name: str, key: str) -> pa.Table | None:
        return self.tables.get((name, key))

    def save(self, name: str, table: pa.Table, key: str) -> None:
        self.tables[name, key] = table


def run(vectors: dict[str, np.ndarray], prompts: dict[str, str] | None = None, order=None, memory=None, **settings):
    ids = list(order or vectors)
    tables = [
        to_table(Kept, [Kept(clip_id, "v") for clip_id in ids]),
        to_table(ClipEmbedding, [ClipEmbedding(c, "card", vectors[c].tolist()) for c in ids if c in vectors]),
        to_table(Prompt, [Prompt(c, (prompts or {}).get(c, f"words about clip {c}")) for c in ids]),
        to_table(Matched, [Matched(c) for c in ids if c != "unnamed"]),
    ]
    made = list(Curate(**settings).run(None, *tables, earlier=memory))
    assert [row.clip_id if isinstance(row, Kept) else row.key for row in made] == ids
    return {row.key: (row.reason, row.detail) for row in made if isinstance(row, Reject)}


def corpus(groups: int, copies: int, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    centres = unit(draw.normal(size=(groups, 32)))
    noisy = unit(np.repeat(centres, copies, axis=0) + 0.01 * draw.normal(size=(groups * copies, 32)))
    return {f"{n % copies}{n // copies:02d}": row for n, row in enumerate(noisy)}


def test_of_clips_of_one_content_the_first_is_kept():
    dropped = run(corpus(20, 3))
    assert set(dropped) == {f"{copy}{group:02d}" for copy in (1, 2) for group in range(20)}
    assert {reason for reason, _ in dropped.values()} == {"semantic duplicate"}
    assert all(detail.endswith(f"with 0{key[1:]}") for key, (_, detail) in dropped.items())


def test_clips_in_any_order_and_small_blocks_give_the_same(monkeypatch):
    vectors = corpus(20, 3)
    whole = run(vectors)
    monkeypatch.setattr(curate, "BLOCK", 7)
    assert run(vectors, order=sorted(vectors, reverse=True)) == whole


def test_a_corpus_that_grows_shrinks_and_changes_gives_what_it_gives_at_once():
    vectors, memory = corpus(20, 3), Memory()
    ids = np.random.default_rng(1).permutation(sorted(vectors)).tolist()
    for some in (ids[:25], ids[:45], ids, ids[10:]):
        now = {clip_id: vectors[clip_id] for clip_id in some}
        assert run(now, memory=memory) == run(now)
    now[some[0]] = now[some[1]]
    assert run(now, memory=memory) == run(now)


def test_only_new_clips_are_compared(monkeypatch):
    compared = []
    vectors, memory, real = corpus(5, 2), Memory(), curate.similar_pairs
    monkeypatch.setattr(curate, "similar_pairs", lambda v, new, least: compared.append(len(new)) or real(v, new, least))
    run({c: v for c, v in vectors.items() if c != "004"}, memory=memory)
    run(vectors, memory=memory)
    assert compared == [9, 1]


def test_a_chain_of_similar_clips_loses_only_those_near_a_kept_one():
    angles = np.radians([0, 15, 30, 45])
    chain = {f"{n}": np.array([np.cos(a), np.sin(a)], np.float32) for n, a in enumerate(angles)}
    assert set(run(chain, duplicate_similarity=0.95)) == {"1", "3"}


def test_without_embeddings_and_flags_nothing_is_dropped():
    assert run({}, order=["a", "b"], prompts={"a": "x", "b": "x"}) == {}


def test_embeddings_of_two_models_are_an_error():
    rows = to_table(ClipEmbedding, [ClipEmbedding("a", "one", [1.0]), ClipEmbedding("b", "two", [1.0])])
    with pytest.raises(ValueError, match="embeddings of one and two"):
        curate.matrix(rows)


@pytest.mark.parametrize(
    ("flag", "clip_id"), [("too short", "c"), ("too long", "d"), ("repeated", "b"), ("names nothing", "unnamed")]
)
def test_a_caption_flag_drops_clips_only_when_told_to(flag, clip_id):
    prompts = {"a": "a man walks by", "b": "a man walks by", "c": "a cat", "d": "one two three four five six"}
    order = [*prompts, "unnamed"]
    dropped = run({}, prompts, order, drop_captions=flag, max_caption_words=5, min_caption_words=3)
    assert {key: reason for key, (reason, _) in dropped.items()} == {clip_id: f"caption {flag}"}


def test_a_caption_is_not_repeated_by_that_of_a_duplicate():
    pair = {"a": np.array([1.0, 0.0], np.float32), "b": np.array([1.0, 0.0], np.float32)}
    dropped = run(pair, {"a": "the same words here", "b": "the same words here"}, drop_captions="repeated")
    assert dropped["b"][0] == "semantic duplicate"
    assert set(dropped) == {"b"}


def test_an_unknown_flag_is_reported():
    with pytest.raises(ValueError, match=r"curate.drop_captions 'too shrot': 'too shrot' is not one of too short"):
        run({}, order=["a"], drop_captions="too shrot")


def test_a_mirrored_clip_has_the_same_embedding():
    frames = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), np.uint8)

    def first_column(pictures, masks):
        return np.stack([picture[:, 0].ravel() for picture in pictures]).astype(np.float32)

    assert embedding(first_column, frames, 2) == pytest.approx(embedding(first_column, frames[:, :, ::-1], 2), abs=1e-6)
