import hashlib
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.dataset import writer
from a2data.records import Packed
from a2data.store.folder import Folder
from a2data.store.schema import from_table

SAMPLES = [(f"clip-{n}", {"mp4": bytes([n]) * 700 * n, "json": b"{}", "ref0.png": b"p" * n}) for n in range(1, 6)]


def packed(placed, roles=("human",)):
    return Packed(*placed, 81, 480, 832, 15.0, list(roles), "CC0", 0.1)


def write(out, samples=SAMPLES, shard=3, **options):
    return list(writer.write(iter(samples), Folder(out), shard, **options))


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_every_member_is_read_back_by_tarfile(tmp_path):
    name = write(tmp_path)[0].shard
    with tarfile.open(tmp_path / name) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}
        headers = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar}
    assert found == {f"{key}.{ext}": data for key, members in SAMPLES for ext, data in members.items()}
    assert headers == {(0, 0, 0, "", "", 0o644)}
    assert list(found) == sorted(found, key=lambda name: name.split(".", 1))


def test_a_sample_lies_where_its_row_says(tmp_path):
    for placed, (key, members) in zip(write(tmp_path, max_bytes=4000), SAMPLES, strict=True):
        piece = (tmp_path / placed.shard).read_bytes()[placed.offset : placed.offset + placed.bytes]
        (tmp_path / "piece.tar").write_bytes(piece + bytes(1024))
        with tarfile.open(tmp_path / "piece.tar") as tar:
            assert [m.name for m in tar] == [f"{key}.{ext}" for ext in placed.members]
            assert [tar.extractfile(m).read() for m in tar] == [members[ext] for ext in placed.members]


def test_the_order_of_members_and_a_rerun_do_not_change_a_byte(tmp_path):
    write(tmp_path / "a")
    once = contents(tmp_path / "a")
    write(tmp_path / "a")
    write(tmp_path / "b", [(key, dict(reversed(members.items()))) for key, members in SAMPLES])
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == once


@settings(max_examples=25, deadline=None)
@given(st.integers(2_000, 20_000))
def test_tars_are_split_by_size_and_lose_nothing(tmp_path_factory, max_bytes):
    out = tmp_path_factory.mktemp("tars")
    placed = write(out, max_bytes=max_bytes)
    assert [p.key for p in placed] == [key for key, _ in SAMPLES]
    assert [p.shard for p in placed] == sorted(p.shard for p in placed)
    for name in {p.shard for p in placed}:
        inside = [p for p in placed if p.shard == name]
        assert len(inside) == 1 or sum(p.bytes for p in inside) <= max_bytes


def test_a_tar_is_named_by_its_shard_its_number_and_its_sha256(tmp_path):
    placed = write(tmp_path, max_bytes=2000, split="train")
    for number, name in enumerate(dict.fromkeys(p.shard for p in placed)):
        sha256 = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert name == f"train-00003-{number:03d}-{sha256[:12]}.tar"
        assert {p.shard_sha256 for p in placed if p.shard == name} == {sha256}


def test_a_rerun_replaces_no_tar_with_other_bytes_and_finishing_removes_what_is_left_over(tmp_path):
    every = [packed(p) for p in [*write(tmp_path, max_bytes=2000), *write(tmp_path, shard=4)]]
    writer.finish(Folder(tmp_path), every, {})
    before = contents(tmp_path)
    left_over = write(tmp_path, SAMPLES[:2], max_bytes=2000)
    few = [packed(p) for p in write(tmp_path, SAMPLES[:1], max_bytes=2000)]
    assert before.items() <= contents(tmp_path).items()
    assert left_over[1].shard in contents(tmp_path)

    writer.finish(Folder(tmp_path), few, {})
    assert list(contents(tmp_path)) == [few[0].shard, "index.parquet", "manifest.json"]


def test_finishing_removes_no_tar_that_was_not_written_here(tmp_path):
    (tmp_path / "00003-000.tar").write_bytes(b"of another program")
    (tmp_path / "00003-000-0123456789ab.tar").write_bytes(b"of another program")
    writer.finish(Folder(tmp_path), [packed(p) for p in write(tmp_path)], {})
    writer.finish(Folder(tmp_path), [], {})

    assert set(contents(tmp_path)) == {"00003-000.tar", "00003-000-0123456789ab.tar", "index.parquet", "manifest.json"}


def test_a_run_that_breaks_leaves_the_old_tar_and_no_scratch(tmp_path):
    write(tmp_path)
    before = contents(tmp_path)

    def broken():
        yield SAMPLES[0]
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(writer.write(broken(), Folder(tmp_path), 3))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [(["b", "a"], "ascending"), (["a", "a"], "ascending"), (["a.b"], "first dot"), ([""], "ascending")],
)
def test_keys_that_a_reader_would_mix_up_are_refused(tmp_path, keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        write(tmp_path, [(key, {"json": b""}) for key in keys])


def test_the_index_and_the_manifest_say_what_the_tars_hold(tmp_path):
    rows = [packed(p, ["human", "background"]) for p in write(tmp_path, max_bytes=4000)]
    manifest = writer.finish(Folder(tmp_path), rows[::-1], {"recipe": "triplets"})
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert from_table(Packed, pq.read_table(tmp_path / "index.parquet")) == rows
    assert manifest["samples"] == sum(s["samples"] for s in manifest["shards"]) == len(SAMPLES)
    assert manifest["roles"] == {"background": 5, "human": 5}
    for entry in manifest["shards"]:
        data = (tmp_path / entry["name"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_finishing_twice_in_another_order_gives_the_same_bytes(tmp_path):
    rows = [packed(p) for p in write(tmp_path, max_bytes=4000)]
    writer.finish(Folder(tmp_path), rows, {"models": {"b": 1, "a": 2}})
    once = contents(tmp_path)
    writer.finish(Folder(tmp_path), rows[::-1], {"models": {"a": 2, "b": 1}})
    assert contents(tmp_path) == once


def test_a_missing_tar_is_named(tmp_path):
    rows = [packed(p) for p in write(tmp_path)]
    (tmp_path / rows[0].shard).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{rows[0].shard} missing in"):
        writer.finish(Folder(tmp_path), rows, {})


def test_shards_go_to_any_url(tmp_path):
    out = Folder(f"memory://{tmp_path}/shards")
    rows = [packed(p) for p in writer.write(iter(SAMPLES), out, 3, 4000)]
    manifest = writer.finish(out, rows, {})
    write(tmp_path / "local", max_bytes=4000)

    here = {name: data for name, data in contents(tmp_path / "local").items() if name.endswith(".tar")}
    assert {name: out.get(name) for name in out.names() if name.endswith(".tar")} == here
    assert manifest["samples"] == len(SAMPLES)


def test_an_index_of_before_there_were_splits_is_read(pack, tmp_path):
    packed = pack(tmp_path, 3)
    table = pq.read_table(tmp_path / "index.parquet")
    pq.write_table(table.drop_columns(["split", "component"]), tmp_path / "index.parquet")
    assert writer.rows(Folder(tmp_path)) == packed


def test_an_index_that_lacks_what_it_must_say_is_named(pack, tmp_path):
    with pytest.raises(ValueError, match=r"index\.parquet is missing"):
        writer.rows(Folder(tmp_path))
    pack(tmp_path, 3)
    table = pq.read_table(tmp_path / "index.parquet")
    pq.write_table(table.drop_columns(["offset"]), tmp_path / "index.parquet")
    with pytest.raises(
        ValueError, match=r"index\.parquet cannot be read.*lacks the column 'offset'.*repack the data set"
    ):
        writer.rows(Folder(tmp_path))
