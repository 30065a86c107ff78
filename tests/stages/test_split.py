"""A split that no video and no identity crosses."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from toy_pairs import fill, make, stages

from a2data.dataset.writer import manifest as published_manifest
from a2data.dataset.writer import split_statistics
from a2data.records import Packed, Reference
from a2data.store.ledger import Ledger
from a2data.store.tables import Store
from pipelines.run import outputs
from stages.pack.splits import parse_fractions, split_of
from stages.pack.stage import Pack

PEOPLE = {f"{n:02d}aa": f"p{n // 2} q{n // 4}" if n % 4 < 2 else f"p{n // 2}" for n in range(24)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Twelve pairs of videos of one person each, some of them linked by another; a third is held out."""
    store = Store(tmp_path_factory.mktemp("split") / "work")
    fill(store, PEOPLE, per_shard=12)
    make(store, stages(store, PEOPLE, split="eval=0.33"))
    outputs.write_index(Ledger(store), folder(store), "builtin", stages(store, PEOPLE, split="eval=0.33"))
    return store


def folder(store):
    return type(store).__mro__[1](store.path("shards"))


def index(store):
    return pq.read_table(store.path("shards/index.parquet")).to_pylist()


def test_train_and_eval_share_no_video_no_identity_and_no_reference(store):
    rows = index(store)
    split_of = {row["clip_id"]: row["split"] for row in rows}
    assert {*split_of.values()} == {"train", "eval"}
    seen = {"train": set(), "eval": set()}
    for n in store.shards("retrieve"):
        for r in store.read("retrieve", n, Reference):
            videos = {r.clip_id.rpartition("-")[0], r.source_clip_id.rpartition("-")[0]}
            seen[split_of[r.clip_id]] |= {*videos, r.identity, *PEOPLE[r.clip_id[:4]].split()}
    assert not seen["train"] & seen["eval"]


def test_the_tars_are_named_by_their_split_and_the_manifest_counts_it(store):
    rows = index(store)
    assert all(row["shard"].startswith(f"{row['split']}-0000") for row in rows)
    manifest = json.loads(Path(store.path("shards/manifest.json")).read_text())
    assert sum(about["samples"] for about in manifest["splits"].values()) == len(rows)
    assert {tar["name"] for tar in manifest["shards"]} == {row["shard"] for row in rows}
    assert "eval: " in outputs.describe_splits(published_manifest(folder(store)))


def test_without_a_split_tars_are_named_without_one_and_those_of_a_split_go(store, tmp_path):
    again = Store(tmp_path / "work")
    fill(again, PEOPLE, per_shard=12)
    for settings in ({"split": "eval=0.33"}, {}):
        make(again, stages(again, PEOPLE, **settings))
        outputs.write_index(Ledger(again), folder(again), "builtin", stages(again, PEOPLE, **settings))
    tars = sorted(p.name for p in Path(again.path("shards")).glob("*.tar"))
    assert [name[:10] for name in tars] == ["00000-000-", "00001-000-"]
    assert {row["split"] for row in index(again)} == {""}
    assert outputs.describe_splits(published_manifest(folder(again))) == ""


def test_shares_come_out_on_average_and_a_component_keeps_its_place():
    shares = parse_fractions("eval=0.1,test=0.2")
    found = [split_of(f"video {n}", shares) for n in range(4000)]
    assert 0.08 < found.count("eval") / 4000 < 0.12
    assert 0.17 < found.count("test") / 4000 < 0.23
    assert [split_of(f"video {n}", shares) for n in range(50)] == found[:50]
    assert split_of("video 1", {}) == ""


@pytest.mark.parametrize(
    "text", ["eval", "eval=2", "eval=0", "train=0.1", "Eval=0.1", "a=0.6,b=0.6", "a=0.1,a=0.1", "e-v=0.1"]
)
def test_a_split_that_is_none_is_a_sentence(text):
    with pytest.raises(ValueError, match=r"pack\.split"):
        parse_fractions(text)


def row(split, component, n=0):
    return Packed(f"c{n}", "x.tar", "", 0, 0, [], 1, 1, 1, 15.0, [], "", 0.0, split, component)


def test_a_component_in_two_splits_is_refused():
    with pytest.raises(ValueError, match="component v is in 2 splits"):
        split_statistics([row("train", "v"), row("eval", "v")])


def test_a_component_larger_than_the_share_is_said(store):
    rows = [row("train", "big", n) for n in range(9)] + [row("eval", "small")]
    assert split_statistics(rows)["train"]["largest_component"] == 0.9
    said = outputs.describe_splits(published_manifest(folder(store)))
    largest = max(
        about["largest_component"]
        for about in split_statistics([replace(row(r["split"], r["component"])) for r in index(store)]).values()
    )
    assert ("one component" in said) == (largest > 0.33)


def test_a_split_does_not_go_with_a_clips_own_pictures():
    with pytest.raises(ValueError, match="cannot be combined"):
        list(Pack(split="eval=0.1", allow_same_clip=True).run(None, *[[]] * 11, shard=0, lookup=None))
