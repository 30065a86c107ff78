"""`a2data import`: sets of four formats become work folders on which the other commands work."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_shards

from a2data.dataset import writer
from a2data.dataset.triplet import from_sample
from a2data.media import coco_rle, images, video
from a2data.media.coco_rle import Rle
from a2data.records import Reference, Source
from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.cli.main import main
from pipelines.corpus import sets

HEIGHT, WIDTH, FRAMES, SIDE = 96, 128, 12, 40
PROMPT = "A red ball rolls over a grey floor."


def ball(seed: int) -> np.ndarray:
    """A round cut-out with a texture of its own, RGBA."""
    rough = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    texture = cv2.resize(rough, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.dstack([texture, np.where(x**2 + y**2 < (SIDE / 2) ** 2, 255, 0).astype(np.uint8)])


def film(path: Path, seed: int) -> Path:
    """A ball that rolls to the right over a floor, 2 px a frame from (10, 30)."""
    floor = cv2.resize(np.random.default_rng(seed + 50).integers(90, 150, (6, 8)).astype(np.uint8), (WIDTH, HEIGHT))
    frames = np.repeat(np.repeat(floor[None, ..., None], 3, 3), FRAMES, 0)
    drawn = ball(seed)
    for n, frame in enumerate(frames):
        place = frame[30 : 30 + SIDE, 10 + 2 * n : 10 + 2 * n + SIDE]
        place[drawn[..., 3] > 0] = drawn[..., :3][drawn[..., 3] > 0]
    path.write_bytes(video.encode(frames, 15.0, crf=8))
    return path


def run(*words: object) -> int:
    return main([*map(str, words), "--in-process", "--quiet"])


def triplets(work: Path) -> dict[str, object]:
    folder = Folder(work / "shards")
    return {
        row.clip_id: from_sample(
            writer.read_sample(folder, row.clip_id, row.shard, row.offset, row.bytes) | {"__key__": row.clip_id}
        )
        for row in writer.rows(folder)
    }


def references(work: Path) -> list[Reference]:
    store = Store(work)
    return [row for shard in store.shards("retrieve") for row in store.read("retrieve", shard, Reference)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A clip whose reference is cut from it, one with another ball, and one without a prompt; imported to `work`."""
    root = tmp_path_factory.mktemp("plain")
    for name, drawn in (("copied", 1), ("other", 7)):
        film(root / f"{name}.mp4", {"copied": 1, "other": 2}[name])
        (root / f"{name}.txt").write_text(PROMPT)
        (root / name).mkdir()
        (root / name / "1-red ball.png").write_bytes(images.to_png(ball(drawn)))
    film(root / "silent.mp4", 3)
    assert run("import", root, "--from", "folder", "--work", root / "work", "--license", "CC0-1.0") == 0
    return root


def test_a_folder_becomes_triplets_with_their_phrases(plain):
    made = triplets(plain / "work")
    assert {triplet.prompt for triplet in made.values()} == {PROMPT}
    assert len(made) == 2
    for triplet in made.values():
        (given,) = triplet.facts.references
        assert (given.role, given.phrase, triplet.prompt[given.start : given.end]) == ("object", "red ball", "red ball")
        assert triplet.facts.license == given.origin.license == "CC0-1.0"
        assert (triplet.facts.frames, triplet.facts.width, triplet.facts.height) == (FRAMES, WIDTH, HEIGHT)


def test_a_reference_that_is_cut_from_its_clip_is_found_there_and_has_a_high_copy_risk(plain):
    by_risk = sorted(references(plain / "work"), key=lambda row: row.copy_risk)
    assert by_risk[0].copy_risk < 0.3
    assert by_risk[1].copy_risk > 0.6
    (copied,) = (t for t in triplets(plain / "work").values() if t.facts.references[0].copy_risk > 0.6)
    x0, y0, *_ = copied.facts.references[0].target.box
    frame = copied.facts.references[0].target.frame
    assert (x0, y0) == (pytest.approx(10 + 2 * frame, abs=2), pytest.approx(30, abs=2))


def test_audit_names_the_copy_and_nothing_else(plain, capsys):
    assert main(["audit", str(plain / "work" / "shards"), "--face-model", "", "--json", str(plain / "found")]) == 0
    found = [json.loads(line) for line in (plain / "found").read_text().splitlines()]
    assert {each["fault"] for each in found} == {"copy of its target", "caption repeated"}
    assert "2 samples, 2 references" in capsys.readouterr().out


def test_an_entry_that_cannot_be_imported_is_named(plain):
    (bad,) = (each for each in sets.read_folder(str(plain)) if isinstance(each, sets.BadEntry))
    assert (Path(bad.key).name, bad.reason) == ("silent.mp4", "silent.txt with its prompt does not exist")


def test_explain_status_export_and_forget_work_on_an_imported_set(plain, tmp_path, capsys):
    assert run("import", plain, "--from", "folder", "--work", tmp_path / "work") == 0
    clip_id = sorted(triplets(tmp_path / "work"))[0]
    assert main(["explain", str(tmp_path / "work"), clip_id]) == 0
    assert "'red ball'" in capsys.readouterr().out
    assert run("export", tmp_path / "work" / "shards", "--to", "refalign", "--out", tmp_path / "out", "--check") == 0
    assert "check refalign: 2 rows, skipped = 0" in capsys.readouterr().out
    assert run("forget", tmp_path / "work", "--source", clip_id.split("-")[0], "--allow-shrink") == 0
    assert clip_id not in triplets(tmp_path / "work")
    assert len(triplets(tmp_path / "work")) == 1
    store = Store(tmp_path / "work")
    left = "".join(str(store.values("imported", shard, "clip_id")) for shard in store.shards("imported"))
    assert clip_id not in left
    capsys.readouterr()
    run("import", plain, "--from", "folder", "--work", tmp_path / "work", "--allow-shrink")
    assert "was deleted by `a2data forget`" in capsys.readouterr().err
    assert clip_id not in triplets(tmp_path / "work")


def test_a_second_import_does_nothing_again(plain, capsys):
    before = {path: path.stat().st_mtime_ns for path in (plain / "work" / "detect").glob("*.parquet")}
    assert run("import", plain, "--from", "folder", "--work", plain / "work", "--license", "CC0-1.0") == 0
    assert {path: path.stat().st_mtime_ns for path in (plain / "work" / "detect").glob("*.parquet")} == before


def test_an_imported_set_takes_neither_videos_nor_a_profile(plain, capsys):
    assert run("run", plain / "other.mp4", "--work", plain / "work") == 2
    assert "is an imported set: add entries to the set" in capsys.readouterr().err
    assert main(["plan", str(plain / "work"), "--profile", "small"]) == 2
    assert "does not take a profile" in capsys.readouterr().err


def test_a_work_folder_of_a_run_is_not_taken(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"profile": "builtin"}')
    assert run("import", tmp_path, "--from", "folder", "--work", tmp_path) == 2
    assert "belongs to `a2data run`" in capsys.readouterr().err


def test_phantom_data_names_a_box_in_a_frame_by_a_fraction(tmp_path):
    for seed, vid in enumerate(("vid_a", "vid_b")):
        film(tmp_path / f"{vid}.mp4", seed)
    seen = {"frame_idx": 0.5, "bbox": [22, 30, 62, 70]}
    pair = {"the ball": {"obj_from_tgt_video": [seen | {"vid": "vid_a"}], "refer_result": [seen | {"vid": "vid_b"}]}}
    rows = [
        {"vid": "vid_a", "video_caption": "Slowly the ball rolls away.", "cross_pair": json.dumps(pair)},
        {"vid": "../vid_b", "video_caption": "", "cross_pair": json.dumps(pair)},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    entry, bad = sets.read_phantom(str(tmp_path / "pairs.parquet"), str(tmp_path))
    assert bad.key == "../vid_b"
    assert "cannot be used as a file name" in bad.reason
    (subject,) = entry.subjects
    assert subject.references == [sets.Region(str(tmp_path / "vid_b.mp4"), 6, (22, 30, 62, 70))]
    assert subject.target == subject.references[0]._replace(path=str(tmp_path / "vid_a.mp4"))


def test_opens2v_keeps_masks_crops_and_cross_frame_pairs(tmp_path):
    entries, cross = {}, []
    for seed, key in enumerate(("a_part1", "b_part1")):
        film(tmp_path / f"{key}.mp4", seed)
        mask = np.zeros((HEIGHT - 16, WIDTH), bool)  # of the picture without its upper 16 lines
        mask[14:54, 14:54] = ball(seed)[..., 3] > 0
        rle = coco_rle.encode(mask)
        entries[key] = {
            "metadata": {
                "path": f"{key}.mp4", "crop": [0, WIDTH, 16, HEIGHT], "face_cut": [1, 11], "face_cap_qwen": PROMPT,
            },
            "annotation": {
                "ann_frame_data": {"ann_frame_idx": 2},
                "mask_map": {"1": {"class_name": "ball"}},
                "mask_annotation": {"2": {"1": {"size": list(rle.size), "counts": rle.counts}}},
            },
        }  # fmt: skip
    # a second frame with an outline of the first clip is another entry
    again = json.loads(json.dumps(entries["a_part1"]))
    again["annotation"]["ann_frame_data"]["ann_frame_idx"] = 3
    again["annotation"]["mask_annotation"]["3"] = again["annotation"]["mask_annotation"].pop("2")
    entries["a_part2"] = again
    (tmp_path / "pairs").mkdir()
    cross.append({"cur_id": "v/a_part1", "aft_id": "v/b_part1", "cur_class_name": "ball", "aft_class_name": "ball"})
    (tmp_path / "pairs" / "a.json").write_text(json.dumps(cross))
    (tmp_path / "set.json").write_text(json.dumps(entries))
    words = ("--videos", tmp_path, "--pairs", tmp_path / "pairs", "--work", tmp_path / "work")
    assert run("import", tmp_path / "set.json", "--from", "opens2v", *words) == 0
    ((_, triplet),) = triplets(tmp_path / "work").items()
    assert (triplet.facts.frames, triplet.facts.height, triplet.facts.crop) == (10, HEIGHT - 16, (0, 16, WIDTH, HEIGHT))
    (given,) = triplet.facts.references
    assert given.origin.clip_id != triplet.facts.clip_id
    assert given.target.mask == Rle(
        (HEIGHT - 16, WIDTH), entries["a_part1"]["annotation"]["mask_annotation"]["2"]["1"]["counts"]
    )
    shown = images.from_png(triplet.cut_outs["ref0"])
    inside = shown[..., 3] > 0
    assert np.abs(shown[..., :3][inside].astype(int) - ball(1)[..., :3][inside]).mean() < 12


@pytest.mark.slow
def test_shards_are_imported_with_their_prompts_and_roles(tmp_path):
    tiny_shards.make(tmp_path / "shards", count=2, tars=1)
    assert run("import", tmp_path / "shards", "--from", "shards", "--work", tmp_path / "work") == 0
    mine = triplets(tmp_path / "work").values()
    assert sorted(t.prompt for t in mine) == sorted(tiny_shards.triplet(n).prompt for n in (0, 1))
    assert {tuple(g.role for g in t.facts.references) for t in mine} == {("object", "background")}
    store = Store(tmp_path / "work")
    sources = [row for shard in store.shards("manifest") for row in store.read("manifest", shard, Source)]
    assert {Path(row.path).suffix for row in sources} == {".mp4", ".png"}
