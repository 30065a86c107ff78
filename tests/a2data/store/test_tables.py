"""Parts: whole or not at all, and fresh or not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace

import pyarrow.parquet as pq
import pytest

from a2data.job import run_job
from a2data.records import Clip, Kept, Reject, Score, Source
from a2data.stage import Stage
from a2data.store.lookup import Lookup
from a2data.store.schema import from_table, to_table
from a2data.store.tables import Store


@dataclass(frozen=True)
class Measure(Stage):
    reads = {"cut": Kept}
    writes = Score

    metric: str = "length"

    def run(self, model, clips):
        for clip in clips:
            if clip.clip_id == "v-00000001":
                yield Reject(clip.clip_id, "odd")
            else:
                yield Score(clip.clip_id, self.metric, 1.0)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path):
    store = Store(tmp_path if request.param == "folder" else f"memory://{tmp_path}")
    store.write("cut", 0, Kept, [Kept(f"v-{n:08d}", "v") for n in range(3)])
    return store


def test_a_part_comes_back_as_it_was_written(store):
    run_job([Measure()], [None], store, (0,))

    assert list(store.read("measure", 0, Score)) == [
        Score("v-00000000", "length", 1.0),
        Score("v-00000002", "length", 1.0),
    ]
    footer = store.footer("measure", 0)
    assert (footer.num_inputs, footer.rows, footer.failed) == (3, 2, {})
    assert footer.rejected == [Reject("v-00000001", "odd")]
    assert footer.settings == {"metric": "length"}


def test_what_is_not_there_has_no_footer_and_no_rows(store):
    assert store.footer("measure", 7) is None
    assert store.get("nothing", "here") is None
    assert store.shards("measure") == []


def test_a_missing_input_is_named_with_the_command_that_makes_it(store):
    with pytest.raises(
        FileNotFoundError, match="measure reads the table 'cut', whose part for shard 5 is missing: run `a2data cut"
    ):
        run_job([Measure()], [None], store, (5,))


def test_a_part_that_is_not_committed_leaves_nothing(store):
    with contextlib.suppress(KeyError), store.create("measure", Score, 0) as part:
        part.add([Score("c", "m", 1.0)])
        raise KeyError

    assert store.footer("measure", 0) is None
    if store.local:
        assert os.listdir(store.path("measure")) == []


def test_fresh_means_same_settings_version_and_inputs(store):
    stage = Measure()
    run_job([stage], [None], store, (0,))
    assert store.is_up_to_date(stage, (0,))
    assert not store.is_up_to_date(replace(stage, metric="other"), (0,))

    store.write("cut", 0, Kept, [Kept("v-00000009", "v")])
    assert not store.is_up_to_date(stage, (0,))

    class Newer(Measure):
        version = 2

        @classmethod
        def name(cls):
            return "measure"

    run_job([stage], [None], store, (0,))
    assert not store.is_up_to_date(Newer(), (0,))


def test_the_digest_is_of_the_rows_not_of_the_time(store):
    run_job([Measure()], [None], store, (0,))
    first = store.footer("measure", 0)
    run_job([Measure()], [None], store, (0,))

    assert store.footer("measure", 0).digest == first.digest
    run_job([Measure(metric="other")], [None], store, (0,))
    assert store.footer("measure", 0).digest != first.digest


def test_rows_with_pixels_stand_in_small_row_groups(tmp_path):
    @dataclass(frozen=True)
    class Blob:
        clip_id: str
        video: bytes

    store = Store(tmp_path)
    store.write("blobs", 0, Blob, [Blob(f"c{n}", bytes(400_000)) for n in range(10)])
    with store.create("many", Blob, 0) as part:
        for n in range(10):
            part.add([Blob(f"c{n}", bytes(400_000))])
        part.commit()

    assert pq.ParquetFile(store.part("many", 0)).num_row_groups == 4
    assert [clip for clip, _ in store.groups("many", 0, Blob, "clip_id", ["c3", "c8"])] == ["c3", "c8"]


def test_a_table_may_be_read_as_fewer_columns(store):
    @dataclass(frozen=True)
    class Name:
        clip_id: str

    assert [row.clip_id for row in store.read("cut", 0, Name)] == ["v-00000000", "v-00000001", "v-00000002"]
    assert "clip_id" in Clip.__annotations__


def test_a_killed_writer_leaves_no_part_and_its_scratch_is_swept(tmp_path):
    script = f"""
        import os, signal
        from a2data.records import Score
        from a2data.store.tables import Store
        with Store({str(tmp_path)!r}).create("measure", Score, 0) as part:
            part.add([Score("c", "m", 1.0)])
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=os.getcwd())
    store = Store(tmp_path)

    assert killed.returncode == -signal.SIGKILL
    assert store.footer("measure", 0) is None
    assert os.listdir(tmp_path / "measure") != []
    store.remove_stale_temp_files("measure", store.names("measure"))
    assert os.listdir(tmp_path / "measure") == []


def test_a_table_of_an_earlier_version_is_read_with_the_defaults_of_what_it_lacks(tmp_path):
    store = Store(tmp_path)
    rows = [Source(f"v{n}", f"{n}.mp4", "", "", "", 1, "", 7) for n in range(3)]
    store.write("manifest", 0, Source, rows)
    old = pq.read_table(store.part("manifest", 0)).drop_columns(["refused", "modified_ns"])
    pq.write_table(old, store.part("manifest", 0))
    expected = [replace(row, modified_ns=0) for row in rows]
    assert list(store.read("manifest", 0, Source)) == expected
    assert from_table(Source, store.table("manifest", 0, Source)) == expected
    assert Lookup(store, {"manifest": Source})("manifest", 0, "video_id", ["v1"])["v1"] == expected[1]
    pq.write_table(old.drop_columns(["label"]), store.part("manifest", 0))
    with pytest.raises(ValueError, match="lacks the column 'label': it was written by another version"):
        store.table("manifest", 0, Source)


def test_the_footer_of_an_earlier_or_later_version_is_read_and_its_part_stays_in_place(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "measure").mkdir()
    notes = {
        "key": "k",
        "units": 7,
        "left_out": ["v-3"],
        "rejected": [["v-4", "too dark", ""]],
        "of_a_later_version": 1,
    }
    table = to_table(Score, [Score("c", "m", 1.0)]).replace_schema_metadata({"a2data": json.dumps(notes)})
    pq.write_table(table, tmp_path / "measure" / "00000.parquet")
    footer = store.footer("measure", 0)
    assert (footer.key, footer.num_inputs, footer.skipped) == ("k", 7, ["v-3"])
    assert footer.rejected == [Reject("v-4", "too dark", "")]
    assert os.listdir(tmp_path / "measure") == ["00000.parquet"]


def test_a_table_over_all_shards_says_which_each_row_is_of(tmp_path):
    store = Store(tmp_path)
    for shard in (0, 3):
        store.write("manifest", shard, Source, [Source(f"v{shard}", "", "", "", "", 1, "")])
    found = store.read_all("manifest", Source)
    assert found.select(["video_id", "shard"]).to_pydict() == {"video_id": ["v0", "v3"], "shard": [0, 3]}
    assert len(store.read_all("nothing", Source)) == 0
