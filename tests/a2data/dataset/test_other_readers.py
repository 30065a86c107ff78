"""What other projects' readers make of the shards. A reader that is not installed is named and skipped."""

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_shards

from a2data.dataset import card, croissant, energon, writer
from a2data.dataset import triplet as samples
from a2data.store.folder import Folder
from stages.pack.facts import to_row

COUNT = 8
MEMBERS = {"mp4", "json", "bg.png", "cutouts.zip", *(f"ref{n}.png" for n in range(8))}


def roles(number: int) -> tuple[str, ...]:
    """The first samples have no background and the last ones do, so that a reader cannot guess from the first."""
    return ("object",) if number < 6 else ("object", "background")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    triplets = [tiny_shards.triplet(number, roles(number)) for number in range(COUNT)]
    facts = {t.facts.clip_id: t.facts for t in triplets}
    rows = []
    for tar in range(2):
        mine = triplets[tar * COUNT // 2 : (tar + 1) * COUNT // 2]
        made = ((t.facts.clip_id, samples.to_members(t)) for t in mine)
        rows += [to_row(placed, facts[placed.key]) for placed in writer.write(made, Folder(folder), tar)]
    writer.finish(Folder(folder), rows, {})
    return folder


def tars(shards: Path) -> list[str]:
    return [str(path) for path in sorted(shards.glob("*.tar"))]


def texts(shards: Path) -> list[bytes]:
    """The JSON of every sample, read with nothing but tarfile."""
    found = []
    for path in tars(shards):
        with tarfile.open(path) as tar:
            found += [tar.extractfile(m).read() for m in tar if m.name.endswith(".json")]
    return found


def prompts(shards: Path) -> list[str]:
    return [json.loads(text)["prompt"] for text in texts(shards)]


def background(number: int) -> tuple[int, ...]:
    """Size of the picture bg.png: one pixel where there is none."""
    return (32, 48) if "background" in roles(number) else (1, 1)


def test_webdataset_decodes_every_member(shards):
    webdataset = pytest.importorskip("webdataset")
    rows = list(webdataset.WebDataset(tars(shards), shardshuffle=False).decode("rgb8"))
    assert [row["json"]["prompt"] for row in rows] == prompts(shards)
    assert {name for row in rows for name in row if not name.startswith("__")} == MEMBERS
    assert [row["bg.png"].shape[:2] for row in rows] == [background(n) for n in range(COUNT)]
    assert all(row["ref0.png"].shape == (32, 48, 3) and row["ref7.png"].shape == (1, 1, 3) for row in rows)


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_makes_a_column_of_each_member(shards, streaming, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(
        "webdataset", data_files={"train": tars(shards)}, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    assert data.features.keys() - {"__key__", "__url__"} == MEMBERS
    rows = list(data.cast_column("mp4", datasets.Video(decode=False)))
    assert [row["json"]["prompt"] for row in rows] == prompts(shards)
    assert [row["bg.png"].size[::-1] for row in rows] == [background(n) for n in range(COUNT)]


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_takes_the_types_from_the_card_where_the_first_samples_do_not_show_them(
    shards, streaming, tmp_path, monkeypatch
):
    """It guesses types from five samples. Here only the last has an `unpaired` phrase."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder, rows = tmp_path / "late", []
    triplets = [tiny_shards.triplet(number, ("object",)) for number in range(COUNT)]
    place = triplets[0].facts.references[0].target
    late = samples.Unpaired("e", "object", "square", 0, 0, place)
    triplets[-1] = replace(triplets[-1], facts=replace(triplets[-1].facts, unpaired=[late]))
    made = ((t.facts.clip_id, samples.to_members(t)) for t in triplets)
    for placed, t in zip(writer.write(made, Folder(folder), 0), triplets, strict=True):
        rows.append(to_row(placed, t.facts))
    card.write(Folder(folder), writer.finish(Folder(folder), rows, {}), rows[0].members)

    data = datasets.load_dataset(str(folder), split="train", streaming=streaming, cache_dir=str(tmp_path))
    told = [row["json"]["unpaired"] for row in data.select_columns(["json"])]

    assert [len(unpaired) for unpaired in told] == [0] * (COUNT - 1) + [1]
    assert told[-1][0]["phrase"] == "square"


# in a process of its own: Ray keeps threads, and a cluster is one per process
RAY = """
import json, sys, ray
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
rows = ray.data.read_webdataset(sys.argv[1:]).take_all()
print(json.dumps([[row["json"]["prompt"], sorted(row), list(row["bg.png"].shape[:2])] for row in rows]))
"""


@pytest.mark.slow
def test_ray_data_reads_every_sample(shards):
    pytest.importorskip("ray")
    command = [sys.executable, "-c", RAY, *tars(shards)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = sorted(json.loads(done.stdout.splitlines()[-1]))
    assert [row[0] for row in rows] == sorted(prompts(shards))
    assert all(set(row[1]) >= MEMBERS for row in rows)
    assert sorted(tuple(row[2]) for row in rows) == sorted(background(n) for n in range(COUNT))


def test_duckdb_reads_the_index_and_the_json(shards, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"select count(*), sum(frames) from '{shards}/index.parquet'").fetchall()
    assert found == [(COUNT, COUNT * tiny_shards.FRAMES)]
    lines = tmp_path / "samples.jsonl"
    lines.write_bytes(b"".join(text + b"\n" for text in texts(shards)))
    query = f'select prompt, len("references"), "references"[1].origin.mask.size from \'{lines}\''
    assert duckdb.sql(query).fetchall() == [(p, len(roles(n)), [0, 0]) for n, p in enumerate(prompts(shards))]


def test_polars_reads_the_index_and_the_json(shards):
    polars = pytest.importorskip("polars")
    index = polars.read_parquet(shards / "index.parquet")
    assert index["roles"].to_list() == [list(roles(n)) for n in range(COUNT)]
    data = io.BytesIO(b"".join(text + b"\n" for text in texts(shards)))
    assert polars.read_ndjson(data)["prompt"].to_list() == prompts(shards)


# in a process of its own: Energon forks, and replaces handlers of signals
ENERGON = """
import json, sys
import megatron.energon as energon
from megatron.energon.flavors.base_dataset import Sample
from megatron.energon.task_encoder.cooking import basic_sample_keys
from megatron.energon.edataclass import edataclass

@edataclass
class Triplet(Sample):
    text: str
    names: list

@energon.stateless
def cook(sample):
    names = [name for name in sample if not name.startswith("__")]
    return Triplet(**basic_sample_keys(sample), text=sample["json"]["prompt"], names=names)

class Encoder(energon.DefaultTaskEncoder):
    cookers = [energon.Cooker(cook)]

of_one = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
how = dict(worker_config=of_one, batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None)
data = energon.get_train_dataset(sys.argv[1], task_encoder=Encoder(), repeat=False, **how)
print(json.dumps([[s.text, sorted(s.names)] for s in energon.get_loader(data)]))
"""


@pytest.mark.slow
def test_energon_reads_what_pack_writes_for_it(shards):
    pytest.importorskip("megatron.energon")
    energon.write(Folder(shards), writer.rows(Folder(shards)))
    done = subprocess.run([sys.executable, "-c", ENERGON, str(shards)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    found = sorted(json.loads(done.stdout.splitlines()[-1]))
    assert [text for text, _ in found] == sorted(prompts(shards))
    assert all(set(names) == MEMBERS for _, names in found)


def test_the_offsets_for_energon_lead_to_the_first_header_of_each_sample(shards):
    energon.write(Folder(shards), writer.rows(Folder(shards)))
    for path in tars(shards):
        starts, seen = [], set()
        with tarfile.open(path) as tar:
            for member in tar:
                if (key := member.name.partition(".")[0]) not in seen:
                    starts.append(member.offset)
                    seen.add(key)
        data = Path(f"{path}.idx").read_bytes()
        offsets = [int.from_bytes(data[n : n + 8], "little") for n in range(0, len(data), 8)]
        assert offsets[:-1] == starts
        assert Path(path).read_bytes()[offsets[-1] :].count(0) == Path(path).stat().st_size - offsets[-1]


def test_mlcroissant_validates_the_description_and_reads_the_index_by_it(shards):
    mlcroissant = pytest.importorskip("mlcroissant")
    croissant.write(Folder(shards), writer.manifest(Folder(shards)))
    data = mlcroissant.Dataset(jsonld=str(shards / "croissant.json"))
    assert not data.metadata.ctx.issues.errors
    rows = list(data.records("index"))
    assert [row["index/clip_id"].decode() for row in rows] == [r.clip_id for r in writer.rows(Folder(shards))]
    assert [[role.decode() for role in row["index/roles"]] for row in rows] == [list(roles(n)) for n in range(COUNT)]


def as_members(sample: tuple[str, str]) -> dict[str, bytes]:
    """Members of a sample, by the tar and its key, for litdata to write."""
    with tarfile.open(sample[0]) as tar:
        return {m.name.partition(".")[2]: tar.extractfile(m).read() for m in tar if m.name.startswith(sample[1])}


@pytest.mark.slow
def test_litdata_converts_the_shards_and_reads_them_back(shards, tmp_path):
    """litdata reads its own chunks, not tars: the samples are converted by its `optimize`."""
    litdata = pytest.importorskip("litdata")
    rows = writer.rows(Folder(shards))
    inputs = [(str(shards / row.shard), row.clip_id) for row in rows]
    litdata.optimize(as_members, inputs, output_dir=str(tmp_path / "chunks"), chunk_bytes="1MB", num_workers=1)
    found = list(litdata.StreamingDataset(str(tmp_path / "chunks"), shuffle=False))
    assert [json.loads(row["json"])["prompt"] for row in found] == prompts(shards)
    assert all(set(row) == MEMBERS for row in found)


def test_this_projects_loader_reads_every_sample(shards):
    from a2data.dataset.loader import Bucket, Loader

    loader = Loader(shards, seed=0, global_batch_size=COUNT, buckets=[Bucket(5, 32, 48)], view="raw")
    batch = sorted(next(iter(loader)), key=lambda sample: sample.key)
    assert [sample.facts.caption.prompt for sample in batch] == prompts(shards)
    assert [len(sample.references) for sample in batch] == [len(roles(n)) for n in range(COUNT)]
    assert all(np.shape(sample.references[0].picture) == (32, 48, 3) for sample in batch)
