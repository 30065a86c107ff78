"""What is forgotten is gone as if it had never been there, and stays away."""

import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2data import video
from a2data.records import Clip, Match, Reference, Source
from a2data.store import Store
from a2data.work import UNIT
from pipelines import cli
from pipelines.forget import Wanted, of_source, read
from pipelines.settings import Recipe
from pipelines.triplets import triplets

CREW = ["--here", "--quiet"]
QUICK = [
    *("--set", "segment.shot_model=", "--set", "score.text_model=", "--set", "select.max_text=inf"),
    *("--set", "pack.require=background", "--videos-per-shard", "2", "--set", "retrieve.min_background=0.5"),
    *("--set", "retrieve.margin=0", "--set", "retrieve.max_similarity=1"),
]


def film(path: Path, place_seed: int, seed: int) -> Path:
    """A second and a half of a checked square that slides over a place, which is lit from another side in each film."""
    rng = np.random.default_rng(place_seed)
    place = cv2.resize(rng.integers(40, 220, (12, 16, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    light = np.roll(np.linspace(0.4, 1.0, 320), 97 * seed)[None, :, None]
    square = np.random.default_rng(100 + seed).integers(0, 255, (60, 60, 3), np.uint8)
    frames = np.stack([(place * light).astype(np.uint8)] * 24)
    for n, frame in enumerate(frames):
        frame[80:140, 20 + 6 * n : 80 + 6 * n] = square
    path.write_bytes(video.encode(frames, 15.0))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """Four films of two places in two shards, paired and packed. Not to be changed."""
    folder = tmp_path_factory.mktemp("forget")
    (folder / "films").mkdir()
    for n in range(4):
        film(folder / "films" / f"{n}.mp4", n % 2, n)
    assert cli.main(["run", str(folder / "films"), "--work", str(folder / "work"), *CREW, *QUICK]) == 0
    assert cli.main(["run", "--work", str(folder / "work"), *CREW]) == 0
    return folder


@pytest.fixture
def folder(done, tmp_path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(done / "work", tmp_path / "work")
    assert cli.main(["run", "--work", str(tmp_path / "work"), *CREW]) == 0
    return tmp_path


def tars(folder: Path) -> dict[str, str]:
    files = [*(folder / "work/shards").glob("*.tar"), folder / "work/shards/index.parquet"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def parts(folder: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """The key and the digest of every part."""
    store = Store(folder / "work")
    names = ["manifest", *(stage.name() for stage in triplets())]
    footers = {(name, n): store.footer(name, n) for name in names for n in store.shards(name)}
    return {where: (f.key, f.digest) for where, f in footers.items() if f}


def sources(folder: Path) -> dict[int, list[Source]]:
    store = Store(folder / "work")
    return {n: list(store.read("manifest", n, Source)) for n in store.shards("manifest")}


def never_there(folder: Path, elsewhere: Path, manifest: dict[int, list[Source]]) -> Path:
    """The same recipe over another manifest, from nothing."""
    store = Store(elsewhere / "work")
    for shard, rows in manifest.items():
        store.write("manifest", shard, Source, rows)
    Recipe.of(Store(folder / "work")).save(store)
    assert cli.main(["run", "--work", store.root, *CREW]) == 0
    return elsewhere


def test_the_films_are_paired_at_all(done):
    rows = [r for n in (0, 1) for r in Store(done / "work").read("retrieve", n, Reference)]
    assert len({r.clip_id for r in rows}) == 4
    assert len({r.component for r in rows}) == 2


def test_a_forgotten_source_leaves_what_a_run_without_it_would_have_made(folder, tmp_path, capsys):
    gone = sources(folder)[1][0]
    assert cli.main(["forget", str(folder / "work"), "--source", gone.path, *CREW]) == 0
    assert "segment             1 rows removed" in capsys.readouterr().out
    left = {n: [s for s in rows if s.video_id != gone.video_id] for n, rows in sources(folder).items()}
    assert sources(folder) == left
    other = never_there(folder, tmp_path / "other", left)
    assert parts(folder) == parts(other)
    assert tars(folder) == tars(other)
    assert all(gone.video_id.encode() not in p.read_bytes() for p in (folder / "work/shards").iterdir())


def test_only_shards_that_it_was_in_or_lent_to_are_written_again(folder):
    gone, before = sources(folder)[1][0], parts(folder)
    rows = [r for n in (0, 1) for r in Store(folder / "work").read("retrieve", n, Reference)]
    assert cli.main(["forget", str(folder / "work"), "--source", gone.video_id[:8], *CREW]) == 0
    after = parts(folder)
    per_unit = {stage.name() for stage in triplets() if stage.per in UNIT}
    assert all(after["manifest" if n == "manifest" else n, 0] == before[n, 0] for n in {"manifest", *per_unit})
    borrowed = any(r.source_clip_id.startswith(gone.video_id) and r.source_shard == 1 for r in rows)
    assert borrowed
    assert after["segment", 1] != before["segment", 1]


def test_what_was_forgotten_does_not_come_back(folder, done, capsys):
    gone = sources(folder)[0][0]
    assert cli.main(["forget", str(folder / "work"), "--source", gone.video_id, *CREW]) == 0
    before = parts(folder)
    copy = folder / "another name.mp4"
    shutil.copy(gone.path, copy)
    capsys.readouterr()
    assert cli.main(["run", str(done / "films"), str(copy), "--work", str(folder / "work"), *CREW]) == 0
    assert parts(folder) == before
    assert f"not taken in: {copy} was forgotten" in capsys.readouterr().err
    (line,) = read(Store(folder / "work"))
    assert (line["what"], line["name"], line["videos"]) == ("source", gone.video_id, [gone.video_id])


def test_an_identity_is_forgotten_with_every_shot_that_shows_it(folder, tmp_path):
    store = Store(folder / "work")
    rows = [r for n in (0, 1) for r in store.read("retrieve", n, Reference) if r.kind == "background"]
    identity = rows[0].identity
    shown = {r.clip_id for r in rows if r.identity == identity}
    assert len(shown) == 2
    assert cli.main(["forget", store.root, "--identity", str(identity), *CREW]) == 0
    left = {c.clip_id for n in (0, 1) for c in store.read("segment", n, Clip)}
    assert left == {r.clip_id for r in rows} - shown
    assert not shown & {m.clip_id for n in (0, 1) for m in store.read("match", n, Match)}
    refused = {s.video_id for shard in sources(folder).values() for s in shard if s.refused}
    assert refused == {clip.rpartition("-")[0] for clip in shown}
    other = never_there(folder, tmp_path / "other", sources(folder))  # from the films again: it is not brought back
    assert parts(folder) == parts(other)
    assert tars(folder) == tars(other)


def test_a_part_that_was_stale_does_not_pass_for_fresh_afterwards(folder):
    recipe = Recipe.of(store := Store(folder / "work"))
    recipe.settings.setdefault("select", {})["max_motion"] = 0.1
    recipe.save(store)
    gone = sources(folder)[1][0]
    stages = recipe.apply(triplets(), store)
    (select,) = (stage for stage in stages if stage.name() == "select")
    assert not store.fresh(select, (1,))
    from pipelines.forget import forget

    forget(store, of_source(store, gone.video_id), stages)
    assert not store.fresh(select, (1,))


@pytest.mark.parametrize("name", ["nobody", "", "/no/such.mp4"])
def test_a_source_that_there_is_not_is_refused(folder, name):
    with pytest.raises(ValueError, match="no video of"):
        of_source(Store(folder / "work"), name or "/nowhere")


def test_an_identity_that_there_is_not_is_a_sentence(folder, capsys):
    assert cli.main(["forget", str(folder / "work"), "--identity", "5", *CREW]) == 2
    assert "nobody in" in capsys.readouterr().err
    assert not (folder / "work/forgotten.jsonl").exists()


def test_ids_are_of_what_is_forgotten_or_only_begin_alike():
    wanted = Wanted("source", "ab", frozenset({"ab", "ab-dup-1"}), {}, frozenset({"cd-00000007"}))
    gone = ["ab", "ab-00000000", "ab-00000000/face/0", "ab-dup-1", "cd-00000007/human@3"]
    assert all(wanted.gone(key) for key in gone)
    assert not any(wanted.gone(key) for key in ("abc", "abc-00000000", "cd", "cd-00000008", "a"))


def test_adding_a_video_pairs_anew_without_another_embedding(folder):
    before = {p: p.stat().st_mtime_ns for p in (folder / "work").glob("*/*.parquet")}
    new = film(folder / "new.mp4", 0, 9)
    assert cli.main(["run", str(new), "--work", str(folder / "work"), *CREW]) == 0
    touched = {p.parent.name for p, time in before.items() if p.stat().st_mtime_ns != time}
    assert "retrieve" in touched
    assert touched <= {"retrieve", "pack", "shards"}
    assert json.loads((folder / "work/shards/manifest.json").read_text())["samples"] == 5
