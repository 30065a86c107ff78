"""Damage is found, named by path, moved aside and mended by the next run; nothing damaged is served or packed."""

import json
import random
import shutil

import pyarrow.parquet as pq
import pytest
from toy_folder import a2data, manifest, restored, run, tars

from a2data.store.parquet import DamagedError
from a2data.store.tables import Store
from pipelines.cli import main as cli

pytestmark = pytest.mark.usefixtures("toy_stages")
QUERIES = ("status", "plan", "failures")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, filled):
    """A finished work folder with its shards inside. Not to be changed."""
    home = tmp_path_factory.mktemp("whole") / "w"
    filled(home)
    assert run(home) == 0
    return home.rename(home.with_name("whole"))


@pytest.fixture
def finished(whole):
    """The same, to be changed."""
    return restored(whole)


def parts(work):
    return sorted(path for path in work.glob("*/*.parquet") if path.parent.name not in ("manifest", "shards"))


def first_parts(work):
    """One part of each stage."""
    return list({path.parent.name: path for path in reversed(parts(work))}.values())


def truncate(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def end_of_values(path, column=0) -> int:
    """An offset inside the last bytes of the values of a column."""
    about = pq.read_metadata(path).row_group(0).column(column)
    begin = about.dictionary_page_offset if about.has_dictionary_page else about.data_page_offset
    return begin + about.total_compressed_size - 1


def forget_results(work, *stages):
    for stage in stages:
        for path in (work / stage).glob("*.parquet"):
            path.unlink()


def rows(store, stage, shard):
    with store.open_part(stage, shard) as part:
        return [part.group(number).to_pylist() for number in range(part.groups)]


# -- parts -------------------------------------------------------------------------------------------------------------


def test_a_truncated_part_stops_no_query_is_named_and_moved_aside_and_is_made_again(finished, capsys, caplog):
    before = tars(finished / "shards")
    for part in first_parts(finished):
        truncate(part)
        for query in QUERIES:
            assert cli.main([query, str(finished)]) == 0, (query, part)
        assert f"{part} is damaged" in caplog.text
        assert f"the part was damaged and moved to {part}.damaged" in capsys.readouterr().out  # of failures
        assert run(finished) == 0
        assert tars(finished / "shards") == before
        assert part.exists()
    assert cli.main(["failures", str(finished)]) == 0
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["segment", "faces", "detect", "match", "retrieve"])
def test_a_damaged_page_is_made_again_in_the_run_that_reads_it(finished, stage):
    before = tars(finished / "shards")
    (part,) = (path for path in first_parts(finished) if path.parent.name == stage)
    flip(part, end_of_values(part))
    forget_results(finished, "pack", *(["retrieve"] if stage != "retrieve" else []))
    assert run(finished) == 0
    assert tars(finished / "shards") == before
    assert part.with_name(f"{part.name}.damaged").exists()
    assert part.exists()


def test_pixels_that_were_overwritten_are_not_packed(finished, capsys):
    before = tars(finished / "shards")
    part = finished / "segment" / "00000.parquet"
    mp4 = pq.read_table(part)["video"][0].as_py()
    flip(part, part.read_bytes().index(mp4) + len(mp4) // 2)
    forget_results(finished, "pack")
    assert run(finished) == 0
    assert tars(finished / "shards") == before
    assert cli.main(["verify", str(finished / "shards"), "--decode"]) == 0


def test_a_command_of_one_stage_says_which_part_is_damaged_and_where_it_went(finished, capsys):
    part = finished / "retrieve" / "00000.parquet"
    flip(part, end_of_values(part))
    forget_results(finished, "pack")
    assert a2data("pack", finished) == 1
    assert f"{part}.damaged" in capsys.readouterr().err


def test_a_list_of_sources_that_is_damaged_with_its_copy_is_an_error_until_the_same_videos_are_listed_again(
    finished, capsys
):
    part = finished / "manifest" / "00000.parquet"
    truncate(part)
    part.with_suffix(".copy").unlink()
    for command in (["run", "--work", finished], ["retry", finished], ["pack", finished]):
        assert a2data(*command) == 2
        assert f"{part}.damaged, the list of the sources of shard 0" in capsys.readouterr().err
    store = Store(finished)
    from a2data.records import Source

    store.write("manifest", 0, Source, [])
    assert store.damaged("manifest") == {}


def test_a_second_damage_does_not_overwrite_what_was_moved_aside_before(tmp_path):
    store = Store(tmp_path)
    for content in (b"first", b"second", b"third"):
        store.put(content, "detect", "00003.parquet")
        assert store.footer("detect", 3) is None
    assert [store.get("detect", f"00003.parquet.damaged{n}") for n in ("", ".1", ".2")] == [
        b"first",
        b"second",
        b"third",
    ]


def test_a_folder_in_an_object_store_moves_a_damaged_part_aside(tmp_path):
    store = Store("memory://test-verify-aside")
    store.put(b"PAR1 and then nothing", "detect", "00000.parquet")
    assert store.footer("detect", 0) is None
    assert list(store.damaged("detect")) == [0]


@pytest.mark.parametrize("seed", range(40))
def test_no_damaged_part_gives_other_rows(whole, tmp_path, seed):
    """A cut, or one changed byte, anywhere: the same rows, or an error that names the part."""
    rng = random.Random(seed)
    source = rng.choice(parts(whole))
    stage, shard, store = source.parent.name, int(source.stem), Store(tmp_path)
    target = tmp_path / stage / source.name
    target.parent.mkdir()
    shutil.copy(source, target)
    before = rows(store, stage, shard)
    truncate(target, rng.random()) if seed % 4 == 0 else flip(target, rng.randrange(target.stat().st_size))
    try:
        after = rows(store, stage, shard)
    except DamagedError as error:
        named = str(error)
    else:
        assert after == before
        return
    assert named.startswith(str(target))
    assert target.with_name(f"{target.name}.damaged").exists()


# -- shards ------------------------------------------------------------------------------------------------------------


def test_verify_finds_nothing_wrong_with_what_a_run_left_and_status_says_when(finished, capsys):
    assert cli.main(["verify", str(finished / "shards"), "--work", str(finished), "--decode", "2"]) == 0
    assert ", 2 samples decoded: no damage" in capsys.readouterr().out
    assert cli.main(["status", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "shards last verified 20" in said
    assert "work folder last verified 20" in said


def cut_tar(tar):
    truncate(tar, 0.9)


def alter_tar(tar):
    flip(tar, tar.stat().st_size // 2)


def remove_tar(tar):
    tar.unlink()


@pytest.mark.parametrize(("damage", "flags"), [(cut_tar, ()), (remove_tar, ()), (alter_tar, ("--verify",))])
def test_a_damaged_tar_is_named_by_verify_and_packed_again_by_the_next_run(finished, capsys, damage, flags):
    shards = finished / "shards"
    before, about = tars(shards), manifest(shards)
    tar = shards / about["shards"][0]["name"]
    damage(tar)
    assert cli.main(["verify", str(shards)]) == 1
    assert str(tar) in capsys.readouterr().out
    assert run(finished, None, *flags) == 0
    assert tars(shards) == before
    assert cli.main(["verify", str(shards)]) == 0


def test_verify_names_a_damaged_index_and_the_next_run_writes_it_again(finished, capsys):
    index = finished / "shards" / "index.parquet"
    flip(index, index.stat().st_size // 2)
    assert cli.main(["verify", str(finished / "shards")]) == 1
    assert str(index) in capsys.readouterr().out
    assert run(finished) == 0
    assert cli.main(["verify", str(finished / "shards")]) == 0


def test_verify_leaves_a_tar_alone_that_the_manifest_does_not_list(finished, capsys):
    stranger = finished / "shards" / "stranger.tar"
    stranger.write_bytes(b"something")
    assert cli.main(["verify", str(finished / "shards")]) == 0
    assert f"{stranger} is not in the manifest; skipped" in capsys.readouterr().out
    assert stranger.read_bytes() == b"something"


def test_verify_decodes_and_names_the_sample_that_cannot_be_decoded(finished, capsys):
    """A tar that is whole by its manifest, and holds a sample that is not."""
    import hashlib

    shards = finished / "shards"
    about = manifest(shards)
    tar = shards / about["shards"][0]["name"]
    flip(tar, tar.read_bytes().index(b"\x89PNG") + 1)
    about["shards"][0]["sha256"] = hashlib.sha256(tar.read_bytes()).hexdigest()
    (shards / "manifest.json").write_text(json.dumps(about))
    assert cli.main(["verify", str(shards)]) == 0
    assert cli.main(["verify", str(shards), "--decode", "all"]) == 1
    assert "png cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("entries", [[{"name": "x.tar"}], [{"name": "x.tar", "bytes": "7"}], ["x.tar"], 7, None])
def test_verify_names_damaged_entries_of_a_manifest_and_the_next_run_writes_it_again(finished, capsys, entries):
    shards = finished / "shards"
    about = manifest(shards)
    (shards / "manifest.json").write_text(json.dumps({**about, "shards": entries, "index": 3}))

    assert cli.main(["verify", str(shards)]) == 1
    assert "manifest.json is damaged" in capsys.readouterr().out
    assert run(finished) == 0
    assert manifest(shards)["shards"] == about["shards"]
    assert manifest(shards)["index"] == about["index"]
