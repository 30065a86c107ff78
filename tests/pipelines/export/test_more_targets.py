"""The targets FastVideo, OpenS2V, Energon and Lance, as their readers see them."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numbered_film as film
import numpy as np
import pytest

from a2data.media import coco_rle, images, video
from a2data.store.folder import Folder
from pipelines.cli.main import main
from pipelines.export import energon, fastvideo, opens2v

KEYS = ("clip00-00000000", "clip01-00000000")


def mask(x: int) -> coco_rle.Rle:
    """The mask of a square of 16 px at (x, 8)."""
    drawn = np.zeros((film.HEIGHT, film.WIDTH), bool)
    drawn[8:24, x : x + 16] = True
    return coco_rle.encode(drawn)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two clips of one film, each of which is the reference of the other: outlined in frame 3 at the target, 5 at the source."""
    root = tmp_path_factory.mktemp("corpus")
    path = film.write(root / "film.mp4", sound_from_s=None)
    made = []
    for number, other in ((0, 1), (1, 0)):
        triplet = film.clip(path, number, 10 * number, frames=40)
        given = []
        for each in triplet.facts.references:
            box = (8.0, 8.0, 24.0, 24.0)
            target = replace(each.target, frame=3, box=box, mask=mask(8))
            origin = replace(
                each.origin, clip_id=KEYS[other], element_id=f"of {other}/{each.role}", frame=5, mask=mask(40)
            )
            given.append(replace(each, target=target, origin=origin, element_id=f"of {number}/{each.role}"))
        made.append(replace(triplet, facts=replace(triplet.facts, references=given)))
    film.shards(root / "shards", [made])
    return root


def export(corpus, target, out, *more) -> int:
    return main(["export", str(corpus / "shards"), "--to", target, "--out", str(out), "--in-process", "--quiet", *more])


def test_fastvideo_gets_text_and_video_and_says_that_it_reads_no_references(corpus, tmp_path, capsys):
    assert export(corpus, "fastvideo", tmp_path, "--check") == 0
    said = capsys.readouterr().out
    assert "FastVideo reads no references" in said
    assert "check fastvideo: 2 rows, skipped = 0" in said
    folder, listed = (tmp_path / "merge.txt").read_text().strip().split(",")
    for row, first in zip(json.loads(Path(listed).read_text()), (0, 10), strict=True):
        shown = [film.number_of(each) for each in video.decode(Path(folder, row["path"]).read_bytes())]
        assert math.ceil(row["fps"] * row["duration"]) == row["num_frames"] == len(shown)
        assert shown == [first + k * 30 // 16 for k in range(len(shown))]
        assert row["cap"] == ["A red square drifts over a blue ground."]


def test_fastvideo_never_takes_a_frame_beyond_the_last():
    for fps in (15.0, 16.0, 24.0, 29.97):
        for frames in range(1, 400):
            assert math.ceil(fps * fastvideo.duration_s(frames, fps)) == frames


def test_fastvideo_takes_frames_by_time():
    # worked by hand: at 24 fps every 1.5th frame is taken, of 126 the first 81: 0, 1, 3, ... 120
    assert fastvideo.frames(24.0, fastvideo.duration_s(126, 24.0))[-1] == 120
    assert fastvideo.aspect_fits(480, 832)
    assert not fastvideo.aspect_fits(832, 480)


def test_opens2v_outlines_each_subject_in_its_frame_and_pairs_it_with_another_clip(corpus, tmp_path, capsys):
    assert export(corpus, "opens2v", tmp_path, "--check") == 0
    assert "check opens2v: 4 rows, skipped = 0" in capsys.readouterr().out
    entries = json.loads((tmp_path / "opens2v.json").read_text())
    assert sorted(entries) == [f"{key}_part{frame:04d}" for key in KEYS for frame in (3, 5)]
    for key, entry in entries.items():
        # as OpenS2V's demo_dataloader reads an entry
        frame = entry["annotation"]["ann_frame_data"]["ann_frame_idx"]
        for number, rle in entry["annotation"]["mask_annotation"][str(frame)].items():
            assert entry["annotation"]["mask_map"][number]["class_name"] == "A red square"
            drawn = coco_rle.decode(coco_rle.Rle(tuple(rle["size"]), rle["counts"]))
            assert (np.flatnonzero(drawn.any(0))[0], drawn.sum()) == (8 if frame == 3 else 40, 256)
        assert images.from_png((tmp_path / "background" / f"{key}.png").read_bytes()).shape[2] == 3
        assert len(video.decode((tmp_path / "videos" / entry["metadata"]["path"]).read_bytes())) == 40
    assert json.loads((tmp_path / "cross_frames.json").read_text())[KEYS[0]] == [f"videos/{KEYS[1]}_part0005"]
    (pair, _) = json.loads((tmp_path / "cross_frames" / f"{KEYS[0]}.json").read_text())
    assert (pair["cur_id"], pair["aft_id"]) == (f"videos/{KEYS[0]}_part0003", f"videos/{KEYS[1]}_part0005")


def test_opens2v_takes_no_clock_since_masks_belong_to_the_frames_of_the_shards(corpus, tmp_path, capsys):
    assert export(corpus, "opens2v", tmp_path, "--clock", "wan") == 2
    assert "opens2v holds masks in the frames of the shards" in capsys.readouterr().err


def test_opens2v_names_an_entry_whose_mask_is_damaged(corpus, tmp_path):
    export(corpus, "opens2v", tmp_path)
    path = tmp_path / "opens2v.json"
    entries = json.loads(path.read_text())
    entries[f"{KEYS[0]}_part0003"]["annotation"]["mask_annotation"]["3"]["1"]["counts"] = "7"
    path.write_text(json.dumps(entries))
    (problem,) = opens2v.check(Folder(tmp_path)).skipped
    assert problem.row == f"opens2v.json {KEYS[0]}_part0003"
    assert problem.reason.startswith("mask 1: ")


def test_energon_gets_tars_and_their_offsets(corpus, tmp_path, capsys):
    assert export(corpus, "energon", tmp_path, "--check") == 0
    assert "check energon: 2 rows, skipped = 0" in capsys.readouterr().out
    assert json.loads((tmp_path / ".nv-meta" / "dataset.yaml").read_text())["__class__"] == "CrudeWebdataset"
    first = (tmp_path / "00000-000.tar").read_bytes()
    export(corpus, "energon", tmp_path)
    assert (tmp_path / "00000-000.tar").read_bytes() == first


def test_energon_names_a_tar_whose_index_is_short(corpus, tmp_path):
    export(corpus, "energon", tmp_path)
    (tmp_path / ".nv-meta" / ".info.json").write_text(json.dumps({"shard_counts": {"00000-000.tar": 3}}))
    (problem,) = energon.check(Folder(tmp_path)).skipped
    assert problem.reason == "its index has 2 samples, .info.json says 3"


ENERGON = """
import json, sys
import megatron.energon as energon
from megatron.energon.edataclass import edataclass
from megatron.energon.flavors.base_dataset import Sample
from megatron.energon.task_encoder.cooking import basic_sample_keys

@edataclass
class Triplet(Sample):
    text: str
    sizes: list

@energon.stateless
def cook(sample):
    sizes = [list(sample[name].shape) for name in sorted(sample) if name.startswith("ref")]
    return Triplet(**basic_sample_keys(sample), text=sample["json"]["prompt"], sizes=sizes)

class Encoder(energon.DefaultTaskEncoder):
    cookers = [energon.Cooker(cook)]
    decoder = energon.SampleDecoder(av_decode="torch")

of_one = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)
how = dict(worker_config=of_one, batch_size=None, shuffle_buffer_size=None, max_samples_per_sequence=None)
data = energon.get_train_dataset(sys.argv[1], task_encoder=Encoder(), repeat=False, **how)
print(json.dumps([[s.text, s.sizes] for s in energon.get_loader(data)]))
"""


@pytest.mark.slow
def test_energon_itself_reads_prompts_and_pictures(corpus, tmp_path):
    pytest.importorskip("megatron.energon")
    assert export(corpus, "energon", tmp_path) == 0
    words = [sys.executable, "-c", ENERGON, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.splitlines()[-1])
    assert [text for text, _ in read] == ["A red square drifts over a blue ground."] * 2
    assert all(len(sizes) == 3 and sizes[0] == [3, 32, 48] for _, sizes in read)


def test_lance_reads_videos_as_blobs_and_pictures_as_bytes(corpus, tmp_path, capsys):
    lance = pytest.importorskip("lance")
    assert export(corpus, "lance", tmp_path, "--check") == 0
    assert "check lance: 2 rows, skipped = 0" in capsys.readouterr().out
    data = lance.dataset(str(tmp_path / "train.lance"))
    (blob,) = data.take_blobs("video", indices=[1])
    assert [film.number_of(each) for each in video.decode(blob.readall())] == [10 + 2 * n for n in range(40)]
    (row,) = data.take([0], columns=["clip_id", "references", "roles"]).to_pylist()
    assert (row["clip_id"], row["roles"]) == (KEYS[0], ["human", "object", "background"])
    assert images.from_png(row["references"][0]).shape == (32, 48, 3)
    export(corpus, "lance", tmp_path)
    assert len(lance.dataset(str(tmp_path / "train.lance")).versions()) == 1
