"""What is forgotten is gone as if it had never been there, and stays away."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import toy_pairs
from toy_folder import restored
from toy_pairs import fill, make, stages

from a2data.dataset.writer import finish
from a2data.records import Clip, Match, Packed, Reference, Source
from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.cli import main as cli
from pipelines.corpus.forget import DeletionRequest, forget, request_for_identity, request_for_source
from pipelines.run.recipe import Recipe
from pipelines.sources.forgotten import read, without_forgotten

PEOPLE = {"aa11": "anna bert", "bb22": "anna", "cc33": "bert", "dd44": "anna carl", "ee55": "carl", "ff66": "dora"}
KNOWN = PEOPLE | {"gg77": "dora"}  # who is where, of videos to come too
EVERYTHING = ("manifest", *(stage.name() for stage in stages(Store("/nowhere"), {})))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Six videos in three shards, paired and packed. Not to be changed."""
    home = tmp_path_factory.mktemp("whole") / "w"
    store = Store(home)
    fill(store, PEOPLE)
    make(store, stages(store, KNOWN))
    publish(store)
    return home.rename(home.with_name("whole"))


@pytest.fixture
def store(whole) -> Store:
    """The same, to be changed, where it was made: its path is among the settings of pack."""
    return Store(restored(whole))


def parts(store: Store) -> dict[tuple[str, int], tuple[str, str]]:
    """Key and digest of every part."""
    footers = {(name, n): store.footer(name, n) for name in EVERYTHING for n in store.shards(name)}
    return {where: (footer.key, footer.digest) for where, footer in footers.items() if footer}


def publish(store: Store) -> None:
    """Index and manifest, as a run leaves them; tars that they replace go."""
    finish(
        Folder(store.path("shards")), [row for n in store.shards("pack") for row in store.read("pack", n, Packed)], {}
    )


def tars(store: Store) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(store.path("shards")).glob("*.tar")}


def manifest(store: Store) -> dict[int, list[Source]]:
    return {n: list(store.read("manifest", n, Source)) for n in store.shards("manifest")}


def never_there(folder: Path, rows: dict[int, list[Source]]) -> Store:
    """A run over another manifest, from nothing. The settings of pack name a folder of their own, so its keys differ."""
    store = Store(folder / "work")
    for shard, sources in rows.items():
        store.write("manifest", shard, Source, sources)
    make(store, stages(store, KNOWN))
    publish(store)
    return store


def but_pack(found):
    return {(name, n): f if name not in ("curate", "pack") else f[1] for (name, n), f in found.items()}


def references(store: Store) -> list[Reference]:
    return [row for n in store.shards("retrieve") for row in store.read("retrieve", n, Reference)]


def test_a_forgotten_source_leaves_what_a_run_without_it_would_have_made(store, tmp_path):
    removed = forget(store, request_for_source(store, "/films/dd44.mp4"), stages(store, KNOWN))
    assert (removed["manifest"], removed["segment"], removed["faces"], removed["match"]) == (1, 2, 2, 2)
    # retrieve and curate over all shards, and pack of those that changed
    assert make(store, stages(store, KNOWN)) <= 4 + 4 + 2
    publish(store)
    other = never_there(tmp_path / "other", manifest(store))
    assert but_pack(parts(store)) == but_pack(parts(other))
    assert tars(store) == tars(other)
    assert all(b"dd44-0" not in path.read_bytes() for path in Path(store.path("shards")).iterdir())


def test_only_the_shards_whose_references_change_are_packed_again(store):
    def written():
        return {p.name: p.stat().st_mtime_ns for p in Path(store.path("shards")).glob("*.tar")}

    before, paired = written(), {n: store.footer("retrieve", n).digest for n in (0, 1, 2)}
    forget(store, request_for_source(store, "ff66"), stages(store, KNOWN))
    make(store, stages(store, KNOWN))
    same = {f"{n:05d}" for n in (0, 1) if store.footer("retrieve", n).digest == paired[n]}
    assert "00000" in same
    assert {name[:5] for name, time in written().items() if before.get(name) == time} >= same
    assert {name[:5] for name, time in written().items() if before.get(name) != time}.isdisjoint(same)


def test_nothing_else_is_computed_again(store):
    forget(store, request_for_source(store, "cc33"), stages(store, KNOWN))
    todo = [stage for stage in stages(store, KNOWN) if stage.name() not in ("retrieve", "curate", "pack")]
    assert make(store, todo) == 0


def test_an_identity_is_forgotten_with_every_shot_that_shows_it_and_is_not_brought_back(store, tmp_path):
    anna = next(r.identity for r in references(store) if r.clip_id == "bb22-00000000")
    wanted = request_for_identity(store, anna, stages(store, KNOWN))
    assert wanted.spans == {"aa11": [(0, 75)], "bb22": [(0, 75)], "dd44": [(0, 75)]}
    forget(store, wanted, stages(store, KNOWN))
    make(store, stages(store, KNOWN))
    publish(store)
    left = {c.clip_id for n in store.shards("segment") for c in store.read("segment", n, Clip)}
    assert left == {"aa11-00000075", "cc33-00000000", "dd44-00000075", "ee55-00000000", "ff66-00000000"}
    assert {m.clip_id for n in store.shards("match") for m in store.read("match", n, Match)} == left
    assert anna not in {r.identity for r in references(store)}
    other = never_there(tmp_path / "other", manifest(store))  # from the films again, by the manifest's refusals
    assert but_pack(parts(store)) == but_pack(parts(other))
    assert tars(store) == tars(other)


def test_what_was_forgotten_is_not_taken_in_again_under_any_name(store, capsys):
    forget(store, request_for_source(store, "aa"), stages(store, KNOWN))
    again = [replace(toy_pairs.source("aa11", "anna"), path="/elsewhere.mp4"), toy_pairs.source("new0", "anna")]
    copy = replace(again[0], video_id="aa11-dup-12345678")
    assert [s.video_id for s in without_forgotten(store, [*again, copy])] == ["new0"]
    assert "skipped /elsewhere.mp4: it was deleted" in capsys.readouterr().err
    (line,) = read(store)
    assert (line["what"], line["name"], line["videos"]) == ("source", "aa", ["aa11"])


def test_a_killed_command_is_resumed_by_the_same_command(store):
    wanted = request_for_source(store, "bb22")
    forget(store, wanted, [])  # as far as the manifest
    assert "bb22" not in {s.video_id for rows in manifest(store).values() for s in rows}
    assert request_for_source(store, "bb22").videos == {"bb22"}
    make(store, stages(store, KNOWN))
    assert "bb22" not in {r.clip_id[:4] for r in references(store)}


def test_a_part_that_was_stale_does_not_pass_for_fresh_afterwards(store):
    other = [replace(s, most=0.5) if s.name() == "select" else s for s in stages(store, KNOWN)]
    (select,) = (s for s in other if s.name() == "select")
    forget(store, request_for_source(store, "dd44"), other)
    assert not store.is_up_to_date(select, (1,))
    assert store.is_up_to_date(next(s for s in other if s.name() == "segment"), (1,))


def test_the_command_deletes_pairs_again_and_reports_the_deletion(store, capsys):
    Recipe(settings={"retrieve": {"min_face": 0.8}}).save(store)
    assert cli.main(["forget", store.root, "--source", "ee55", "--in-process", "--quiet"]) == 0
    assert re.search(r"faces +1 rows removed", capsys.readouterr().out)
    assert "ee55" not in {r.source_clip_id[:4] for r in references(store)}
    assert b"ee55" not in Path(store.path("shards/index.parquet")).read_bytes()


def test_what_there_is_not_is_a_sentence_and_nothing_is_refused(store, capsys):
    Recipe(settings={"retrieve": {"min_face": 0.8}}).save(store)
    for what in (["--source", "nobody"], ["--identity", "5"], ["--source", ""]):
        assert cli.main(["forget", store.root, *what, "--in-process", "--quiet"]) in (1, 2)
    err = capsys.readouterr().err
    assert "has the path or id prefix 'nobody'" in err
    assert "identity 5 does not exist" in err
    assert read(store) == []


def test_ids_are_of_what_is_forgotten_or_only_begin_alike():
    wanted = DeletionRequest("source", "ab", frozenset({"ab", "ab-dup-1"}), {}, frozenset({"cd-00000007"}))
    gone = ["ab", "ab-00000000", "ab-00000000/face/0", "ab-dup-1", "cd-00000007/human@3"]
    assert all(wanted.covers(key) for key in gone)
    assert not any(wanted.covers(key) for key in ("abc", "abc-00000000", "cd", "cd-00000008", "a"))


def test_adding_a_video_pairs_again_without_another_embedding(store):
    before = {n: f for n, f in parts(store).items() if n[0] not in ("retrieve", "curate", "pack")}
    assert "ff66" not in {r.clip_id[:4] for r in references(store)}
    store.write("manifest", 3, Source, [toy_pairs.source("gg77", "dora")])
    jobs = make(store, stages(store, KNOWN))
    assert {n: f for n, f in parts(store).items() if n in before} == before
    assert jobs <= 11 + 3 * 4  # eleven stages over the new shard; retrieve, curate and pack over all
    assert {r.source_clip_id[:4] for r in references(store) if r.clip_id.startswith("ff66")} == {"gg77"}
