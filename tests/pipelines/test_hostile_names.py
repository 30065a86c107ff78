"""No name from a shard, an index or a list becomes a path outside the folder that a command works in."""

import json
import tarfile
from pathlib import Path

import hostile_shards
import pytest

from a2data.dataset import reader as tars
from a2data.dataset import writer
from a2data.store.folder import Folder
from pipelines import encode
from pipelines.bench.a2 import cases, from_triplets
from pipelines.bench.triplets import predictions
from pipelines.cli.main import main
from pipelines.films import truth
from stages.encode import tensors

NAMES = range(len(hostile_shards.names(Path("/"))))


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder beside the working folder, with one file in it; nothing may be added or read there."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.tar").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("number", NAMES)
def test_bench_make_rejects_a_hostile_clip_and_writes_nothing_elsewhere(tmp_path, outside, capsys, monkeypatch, number):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    name = hostile_shards.names(outside)[number]
    home = hostile_shards.make(tmp_path / "shards", clip_id=name)
    before = hostile_shards.tree(tmp_path)
    assert main(["bench", "make", str(tmp_path / "bench"), "--triplets", str(home)]) == 2
    assert "cannot be used as a file name" in capsys.readouterr().err
    assert hostile_shards.tree(tmp_path) == before


@pytest.mark.parametrize("name", ["/../../outside/ref", "a/b", "a\0"], ids=ascii)
def test_a_hostile_reference_is_not_written(tmp_path, outside, name):
    home = hostile_shards.make(tmp_path / "shards")
    facts, parts = next(from_triplets._samples(home, ""))
    given = facts.references[0].__class__(**vars(facts.references[0]) | {"name": name})
    parts[f"{name}.png"] = parts["ref0.png"]
    before = hostile_shards.tree(tmp_path)
    with pytest.raises(ValueError, match="cannot be used as a file name"):
        from_triplets._case(
            facts.__class__(**vars(facts) | {"references": [given]}), parts, tmp_path / "shards", str(home)
        )
    assert hostile_shards.tree(tmp_path) == before


READERS = {
    "loader": lambda home: tars.read_index([str(home)]),
    "encode": lambda home: encode.read_index(Folder(home)),
    "triplet-bench": lambda home: list(predictions.tar_samples(home)),
    "a sample": lambda home: writer.read_sample(Folder(home), hostile_shards.KEY, "../outside/secret.tar", 0, 6),
    "a tar": lambda home: list(tensors.read_tar(Folder(home), "../outside/secret.tar")),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_opens_a_tar_outside_the_folder_of_the_index(tmp_path, outside, reader):
    home = hostile_shards.make(tmp_path / "shards", shard="../outside/secret.tar")
    with pytest.raises(
        ValueError, match=r"'../outside/secret.tar' (cannot be used as a file name|is not a path inside)"
    ):
        READERS[reader](home)


@pytest.mark.parametrize(
    "changed", [{"offset": -1}, {"offset": 1 << 60}, {"bytes": 1 << 60}, {"bytes": -1}, {"bytes": 0}], ids=str
)
def test_a_sample_outside_its_tar_is_rejected_before_it_is_read(tmp_path, changed):
    home = hostile_shards.make(tmp_path / "shards", index=changed)
    with pytest.raises(ValueError, match="bytes, but the index has the sample"):
        list(predictions.tar_samples(home))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE], ids=repr)
def test_a_member_that_is_not_a_file_is_reported_and_leads_nowhere(tmp_path, outside, kind):
    member = tarfile.TarInfo(f"{hostile_shards.KEY}.png")
    member.type, member.linkname = kind, str(outside / "secret.tar")
    home = hostile_shards.make(tmp_path / "shards", member=member)
    before = hostile_shards.tree(tmp_path)
    with pytest.raises(ValueError, match="which is not a file"):
        list(tensors.read_tar(Folder(home), hostile_shards.SHARD))
    (row,) = writer.rows(Folder(home))
    read = writer.read_sample(Folder(home), row.clip_id, row.shard, row.offset, row.bytes)
    assert not any(read[name] for name in read if name.startswith("png"))
    assert hostile_shards.tree(tmp_path) == before


def test_an_absolute_member_of_a_tar_is_another_sample(tmp_path, outside):
    member = tarfile.TarInfo(str(outside / "absolute.png"))
    home = hostile_shards.make(tmp_path / "shards", member=member)
    (row,) = writer.rows(Folder(home))
    with pytest.raises(ValueError, match="damaged header"):
        writer.read_sample(Folder(home), row.clip_id, row.shard, row.offset, row.bytes)
    assert sorted(path.name for path in outside.iterdir()) == ["secret.tar"]


@pytest.mark.parametrize("path", ["../outside/secret.tar", "/etc/hostname", "a/../../outside/secret.tar"])
def test_a_list_of_cases_names_no_file_outside_its_folder(tmp_path, outside, path):
    (tmp_path / "list").mkdir()
    element = {"role": "human", "path": path}
    lines = {
        "cases.jsonl": {"id": "a", "prompt": "", "elements": [element]},
        "truth.jsonl": {"id": "a", "prompt": "", "elements": [], "truth": {"path": path}},
        "opens2v.json": {"a": {"prompt": "", "img_paths": [path]}},
    }
    for name, line in lines.items():
        (tmp_path / "list" / name).write_text(json.dumps(line))
        with pytest.raises(ValueError, match="is not a path inside its folder"):
            cases.read(tmp_path / "list" / name)


def test_a_plate_of_a_labelled_film_lies_beside_its_truth(tmp_path, outside):
    from pipelines.bench.triplets.pictures import plates_of

    with pytest.raises(ValueError, match="is not a path inside its folder"):
        plates_of([truth.Shot(0, 9, plate="../outside/secret.tar")], tmp_path)


@pytest.mark.parametrize("extension", ["json", "mp4", "ref0.png"])
def test_a_sample_without_a_member_is_reported_by_bench_make(tmp_path, extension):
    home = hostile_shards.make(tmp_path / "shards", lacking=extension)
    with pytest.raises(ValueError, match=rf"(lacks the member|has no) \.?{extension}"):
        from_triplets.draw(home, "", 1, 0, tmp_path)
