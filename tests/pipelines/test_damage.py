"""What is hard about damage: networks that fail once, workers side by side, lists that nothing can make again, old parts."""

import os
import random
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from toy_folder import KNOWN, a2data, restored, run, stages, tars

from a2data.job import run_job
from a2data.records import Element, Score, Source
from a2data.store.lookup import Lookup
from a2data.store.parquet import DamagedError
from a2data.store.tables import Store
from pipelines.cli import main as cli
from pipelines.cli import session
from pipelines.run import verify
from pipelines.run.local import ModelCache, attempt_job

pytestmark = pytest.mark.usefixtures("toy_stages")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, filled):
    """A finished work folder with its shards inside. Not to be changed."""
    home = tmp_path_factory.mktemp("whole") / "w"
    filled(home, KNOWN)
    assert run(home) == 0
    return home.rename(home.with_name("whole"))


@pytest.fixture
def finished(whole):
    """The same, to be changed."""
    return restored(whole)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def flip_last_value(path):
    """Damage the last page of the first column."""
    about = pq.read_metadata(path).row_group(0).column(0)
    flip(path, (about.dictionary_page_offset or about.data_page_offset) + about.total_compressed_size - 1)


def without_checksums(path):
    """Write a part as versions before did."""
    table, notes = pq.read_table(path), pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, table.schema, compression="none") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"a2data": notes[b"a2data"].decode()})


def remove_parts(work, stage):
    for path in (work / stage).glob("*.parquet"):
        path.unlink()


def videos(work) -> set[str]:
    store = Store(work)
    return {name for shard in store.shards("manifest") for name in store.values("manifest", shard, "video_id")}


# -- what is not damage ------------------------------------------------------------------------------------------------


class Busy:
    """A file of an object store that answers once with an error, as S3 does when it is asked too often."""

    def __init__(self, file, errors):
        self.file, self.errors = file, errors

    def __getattr__(self, name):
        return getattr(self.file, name)

    def read(self, *how):
        if self.errors:
            raise OSError(self.errors.pop())
        return self.file.read(*how)


def test_an_error_of_the_network_moves_no_part(tmp_path, monkeypatch):
    import pyarrow as pa

    store = Store(f"memory://busy-{tmp_path.name}")
    store.write("measure", 0, Score, [Score(f"c{n}", "length", n / 3) for n in range(9)])
    errors, real = ["AWS Error SLOW_DOWN during GetObject operation"], store.fs.open_input_file

    class Fs:
        def __getattr__(self, name):
            return getattr(store_fs, name)

        def open_input_file(self, path):
            file = real(path)
            tail_read = file.read_at  # the footer comes; the first page does not

            class File(Busy):
                closed = False
                readable, seekable, writable = (lambda _: True), (lambda _: True), (lambda _: False)

            opened = pa.PythonFile(File(file, errors), mode="r")
            reads.append(tail_read)
            return opened

    store_fs, reads = store.fs, []
    footer = store.footer("measure", 0)
    store.fs = Fs()
    with pytest.raises((DamagedError, OSError), match="SLOW_DOWN"):
        list(store.read("measure", 0, Score))
    assert errors == []
    assert "00000.parquet" in store.names("measure")
    assert store.damaged("measure") == {}
    store.fs = store_fs
    assert store.footer("measure", 0) == footer


def test_a_reader_that_is_late_does_not_move_the_part_that_was_made_again(tmp_path):
    store = Store(tmp_path)
    store.write("measure", 0, Score, [Score(f"c{n}", "length", n / 3) for n in range(9)])
    late = DamagedError(store.part("measure", 0), "a page is not the one that was written")
    assert store.set_aside(late).moved == ""
    assert store.names("measure") == ["00000.copy", "00000.parquet"]


def test_a_job_that_met_a_part_while_it_was_made_again_is_tried_again(finished, monkeypatch):
    remove_parts(finished, "match")
    store, match = Store(finished), next(stage for stage in stages() if stage.name() == "match")
    calls, run_match = [], type(match).run

    def once_damaged(self, *inputs):
        calls.append(1)
        if len(calls) == 1:
            raise DamagedError(store.part("caption", 0), "a page is not the one that was written")
        return run_match(self, *inputs)

    monkeypatch.setattr(type(match), "run", once_damaged)
    assert attempt_job(ModelCache(), (match,), store, (0,), {}) == ("", True)
    assert store.exists("match", 0)
    assert store.exists("caption", 0)


def test_a_reference_whose_part_another_worker_moved_aside_fails_no_clip(finished):
    remove_parts(finished, "pack")
    os.rename(finished / "segment/00000.parquet", finished / "segment/00000.parquet.damaged")
    pack = replace(stages()[-1], out=str(finished / "shards"))
    with pytest.raises(DamagedError, match=r"segment/00000\.parquet is damaged \(the file does not exist\)"):
        run_job([pack], [None], Store(finished), (1,))
    assert run(finished) == 0
    assert Store(finished).footer("pack", 1).failed == {}


def test_a_part_that_is_damaged_each_time_it_is_made_ends_the_command(finished, capsys, monkeypatch):
    """A disk that spoils what is written to it."""
    made = []

    def spoiled(store, *_, **__):
        made.append(1)
        flip_last_value(finished / "match/00000.parquet")
        list(store.read("match", 0, Score))

    monkeypatch.setattr(session, "finish", lambda store, *_, **__: spoiled(store))
    assert a2data("run", "--work", finished) != 0
    assert f"{finished}/match/00000.parquet is damaged" in capsys.readouterr().err
    assert len(made) == 3


# -- lists of sources --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", [flip_last_value, lambda path: path.write_bytes(path.read_bytes()[:-20])])
def test_a_damaged_list_of_sources_comes_back_from_its_copy(finished, caplog, spoil):
    part, known, packed = finished / "manifest/00000.parquet", videos(finished), tars(finished / "shards")
    before = part.read_bytes()
    spoil(part)
    assert run(finished) == 0
    assert f"{part} is damaged" in caplog.text
    assert part.read_bytes() == before
    assert (finished / "manifest/00000.parquet.damaged").exists()
    assert (videos(finished), tars(finished / "shards")) == (known, packed)


def test_a_work_folder_from_before_there_were_copies_gets_them_in_its_next_run(finished):
    for path in (finished / "manifest").glob("*.copy"):
        path.unlink()
    assert run(finished) == 0
    assert sorted(path.name for path in (finished / "manifest").glob("*.copy")) == [
        "00000.copy",
        "00001.copy",
        "00002.copy",
    ]


def test_verify_makes_a_damaged_copy_again(finished):
    copy = finished / "manifest/00000.copy"
    before = copy.read_bytes()
    copy.write_bytes(before[:-9])
    assert cli.main(["verify", str(finished / "shards"), "--work", str(finished)]) == 0
    assert copy.read_bytes() == before


def lose_list(work):
    (work / "manifest/00000.copy").unlink()
    flip_last_value(work / "manifest/00000.parquet")


def test_a_list_that_is_lost_with_its_copy_is_not_replaced_by_other_videos(finished, tmp_path, capsys):
    lose_list(finished)
    (tmp_path / "other.mp4").write_bytes(b"another video")
    for _ in range(2):
        assert a2data("run", tmp_path / "other.mp4", "--work", finished) == 2
        assert "00000.parquet.damaged, the list of the sources of shard 0" in capsys.readouterr().err
    assert Store(finished).shards("manifest") == [1, 2, 3]


def test_a_lost_list_is_restored_to_its_shard_when_its_videos_are_named_again(finished, monkeypatch):
    from pipelines.sources import enrolment

    store, packed = Store(finished), tars(finished / "shards")
    rows = list(store.read("manifest", 0, Source))
    lose_list(finished)
    other = replace(rows[0], video_id="00other", path="/films/00other.mp4")
    found = enrolment.survey([], [], enrolment.Access())._replace(new=[other, *rows])
    monkeypatch.setattr(enrolment, "survey", lambda *_: found)
    with pytest.raises(DamagedError):
        enrolment.enroll(store, ["x"], 2)
    assert enrolment.enroll(store, ["x"], 2) == [0, 1, 2, 3]
    assert [list(store.read("manifest", shard, Source)) for shard in (0, 3)] == [rows, [other]]
    assert store.damaged("manifest") == {}
    store.remove("manifest", "00003.parquet")
    monkeypatch.undo()
    assert run(finished) == 0
    assert tars(finished / "shards") == packed


# -- forget ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["faces", "manifest", "match"])
def test_what_is_forgotten_is_in_no_part_that_was_moved_aside_and_in_no_copy(finished, stage):
    victim = "aa11"
    flip(finished / stage / "00000.parquet", (finished / stage / "00000.parquet").stat().st_size - 30)
    assert a2data("forget", finished, "--source", victim) == 0
    assert list(finished.rglob("*.damaged*")) == []
    for part in (finished / "manifest").glob("*.parquet"):
        assert part.with_suffix(".copy").read_bytes() == part.read_bytes()
    assert victim not in videos(finished)
    assert Store(finished).footer(stage, 0) is not None


# -- parts without checksums -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["ingest", "segment", "faces", "match", "retrieve", "pack"])
def test_no_command_fails_for_an_old_part_and_each_names_it(whole, tmp_path, capsys, caplog, stage):
    """One changed byte, anywhere: read as before, or named."""
    (tmp_path / stage).mkdir()
    path = tmp_path / stage / "00000.parquet"
    shutil.copy(whole / stage / path.name, path)
    without_checksums(path)
    store, data, named = Store(tmp_path), path.read_bytes(), 0
    for seed in range(40):
        path.write_bytes(data)
        flip(path, random.Random(seed).randrange(len(data)))
        caplog.clear()
        try:
            store.footer(stage, 0)
            if path.exists():
                store.check(stage, 0)
            else:
                assert f"{path} is damaged" in caplog.text
                named += 1
        except DamagedError as error:
            named += error.path == str(path)
        for moved in path.parent.glob("*.damaged*"):
            moved.unlink()
    assert named > 2


def test_a_part_without_checksums_is_as_fresh_as_before(finished):
    packed = tars(finished / "shards")
    for path in finished.glob("*/*.parquet"):
        if path.parent.name != "shards":
            without_checksums(path)
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/0*.parquet")}
    assert run(finished) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/0*.parquet")} == before
    assert tars(finished / "shards") == packed


def overwrite_video(work):
    """Zeros in the place of the first clip of an old part."""
    path = work / "segment/00000.parquet"
    without_checksums(path)
    data, mp4 = path.read_bytes(), pq.read_table(path)["video"][0].as_py()
    at = data.index(mp4)
    path.write_bytes(data[:at] + bytes(len(mp4)) + data[at + len(mp4) :])
    return path


def test_overwritten_pixels_of_an_old_part_are_not_packed(finished):
    packed, path = tars(finished / "shards"), overwrite_video(finished)
    remove_parts(finished, "pack")
    assert run(finished) == 0
    assert path.with_name("00000.parquet.damaged").exists()
    assert tars(finished / "shards") == packed


def test_verify_decodes_the_pixels_of_old_parts(finished, capsys):
    path = overwrite_video(finished)
    assert cli.main(["verify", str(finished / "shards"), "--work", str(finished)]) == 1
    assert f"{path} is damaged (the video of aa11-00000000 cannot be decoded" in capsys.readouterr().out
    assert run(finished) == 0
    assert cli.main(["verify", str(finished / "shards"), "--work", str(finished)]) == 0
    assert "without checksums" not in capsys.readouterr().out


def test_a_picture_of_an_old_part_that_is_another_than_its_sha256_says_is_damage(finished):
    path = finished / "faces/00000.parquet"
    without_checksums(path)
    png = pq.read_table(path)["image"][0].as_py()
    flip(path, path.read_bytes().index(png) + len(png) // 2)
    element = pq.read_table(path)["element_id"][0].as_py()
    with pytest.raises(DamagedError, match=f"the picture of {element} does not match its sha256"):
        Lookup(Store(finished), {"faces": Element})("faces", 0, "element_id", [element])
    assert path.with_name("00000.parquet.damaged").exists()


def test_a_unit_that_fails_for_damaged_pixels_of_an_old_part_is_not_to_blame(finished, monkeypatch):
    """Its stage is made again from a part that is made again, and no clip has failed."""
    overwrite_video(finished)
    remove_parts(finished, "select")
    select = next(stage for stage in stages() if stage.name() == "select")
    run_select = type(select).run

    def decoding(self, model, films):
        assert len(films[0].frames)
        yield from run_select(self, model, films)

    monkeypatch.setattr(type(select), "run", decoding)
    assert run(finished) == 0
    assert Store(finished).footer("select", 0).failed == {}


def test_a_manifest_that_is_not_json_is_damage(finished, capsys):
    (finished / "shards/manifest.json").write_bytes(b'{"shards": [')
    assert cli.main(["verify", str(finished / "shards")]) == 1
    assert f"{finished}/shards/manifest.json is damaged" in capsys.readouterr().out
    assert verify.last_verification(Store(finished / "shards")).problems
