"""The command `a2data export`: every target read back, the same bytes again, resumed, and without its sources."""

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numbered_film as film
import numpy as np
import pyarrow.parquet as pq
import pytest

from a2data.media import images, sound, video
from a2data.store.folder import Folder
from pipelines.cli.main import main
from pipelines.export import h3
from pipelines.export.stage import Export

CLIPS = ("clip00-00000000", "clip01-00000000", "clip02-00000000")
SHORT = "clip03-00000000"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Two tars of a film: three clips of 81 frames and one of 30, of which only the first film has sound."""
    root = tmp_path_factory.mktemp("corpus")
    loud, silent = film.write(root / "loud.mp4"), film.write(root / "silent.mp4", sound_from_s=None)
    tars = [
        [film.clip(loud, 0, 0), film.clip(loud, 1, 10)],
        [film.clip(silent, 2, 20), film.clip(silent, 3, 0, frames=30)],
    ]
    film.shards(root / "shards", tars)
    return root


def export(corpus, target, out, *more) -> int:
    return main(["export", str(corpus / "shards"), "--to", target, "--out", str(out), "--in-process", "--quiet", *more])


def digests(out: Path) -> dict[str, str]:
    """Path -> sha256 of every file of an export but its tables."""
    files = [path for path in out.rglob("*") if path.is_file() and ".a2data" not in path.parts]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def numbers(path: Path) -> list[int]:
    return [film.number_of(picture) for picture in video.decode(path.read_bytes())]


def sounds(path: Path) -> bool:
    with video.open_bytes(path.read_bytes()) as container:
        return bool(container.streams.audio)


def test_h3_is_what_musubi_tuner_and_diffsynth_read(corpus, tmp_path, capsys):
    assert export(corpus, "h3", tmp_path, "--check") == 0
    said = capsys.readouterr().out
    assert "check h3: 3 rows, skipped = 0" in said
    assert f"{SHORT} left out: 47 frames at 24 fps" in said
    (dataset,) = tomllib.loads((tmp_path / "musubi.toml").read_text())["datasets"]
    assert dataset["target_frames"] == [124]
    assert dataset["frame_extraction"] == "head"
    lines = [json.loads(line) for line in Path(dataset["video_jsonl_file"]).read_text().splitlines()]
    rows = json.loads((tmp_path / "diffsynth.json").read_text())
    for line, row, first in zip(lines, rows, (0, 10, 20), strict=True):
        assert set(line) == {"video_path", "caption", "references"}
        assert row["video"] == row["input_audio"] == line["video_path"]
        assert numbers(tmp_path / row["video"]) == [first + k * 30 // 24 for k in range(126)]
        assert [each["type"] for each in line["references"]] == ["image"] * 3
        assert [each["path"] for each in line["references"]] == [each["image"] for each in row["references"]]
        assert all((tmp_path / each["path"]).is_file() for each in line["references"])
        assert "<Subject 1> is A red square, shown in <Picture 1> and <Picture 2>." in line["caption"]
    assert [sounds(tmp_path / line["video_path"]) for line in lines] == [True, True, False]


def test_clips_below_the_released_range_are_written_on_request_and_the_flag_they_need_is_named(
    corpus, tmp_path, capsys
):
    assert export(corpus, "h3", tmp_path, "--min-frames", "39", "--check") == 0
    said = capsys.readouterr().out
    assert "musubi-39.jsonl: musubi-tuner takes 39 frames only with --allow_experimental_duration" in said
    assert "check h3: 4 rows, skipped = 0" in said
    sets = tomllib.loads((tmp_path / "musubi.toml").read_text())["datasets"]
    assert [each["target_frames"] for each in sets] == [[39], [124]]


def test_videox_fun_gets_absolute_pictures_and_no_more_than_four(corpus, tmp_path, capsys):
    assert export(corpus, "videox-vace", tmp_path, "--check") == 0
    assert "check videox-vace: 4 rows, skipped = 0" in capsys.readouterr().out
    rows = json.loads((tmp_path / "metadata.json").read_text())
    assert {row["control_file_path"] for row in rows} == {None}
    assert all(Path(path).is_absolute() and Path(path).is_file() for row in rows for path in row["object_file_path"])
    assert {(row["width"], row["height"], row["type"]) for row in rows} == {(96, 64, "video")}
    assert numbers(tmp_path / rows[0]["file_path"]) == [k * 30 // 16 for k in range(83)]


def test_refalign_gets_a_folder_of_pictures_in_order(corpus, tmp_path, capsys):
    assert export(corpus, "refalign", tmp_path, "--check") == 0
    assert "check refalign: 4 rows, skipped = 0" in capsys.readouterr().out
    for row in json.loads((tmp_path / "metadata.json").read_text()):
        names = sorted(path.name for path in (tmp_path / row["subject_image"]).iterdir())
        assert names == ["1-human.png", "2-object.png", "3-background.png"]


def test_diffsynth_gets_one_picture_and_the_others_are_reported(corpus, tmp_path, capsys):
    assert export(corpus, "diffsynth", tmp_path, "--check") == 0
    said = capsys.readouterr().out
    assert "check diffsynth: 4 rows, skipped = 0" in said
    assert f"{CLIPS[0]}: 2 of 3 references dropped: at most 1" in said
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert all(row["vace_reference_image"].endswith("/1-human.png") for row in rows)


def test_ltx_gets_no_pictures_and_says_so(corpus, tmp_path, capsys):
    assert export(corpus, "ltx", tmp_path, "--check") == 0
    said = capsys.readouterr().out
    assert "ltx-trainer reads no pictures as references" in said
    assert "check ltx: 4 rows, skipped = 0" in said
    assert not (tmp_path / "references").exists()
    assert (tmp_path / "buckets.txt").read_text() == "96x64x41;96x64x129\n"


def test_ai_toolkit_gets_folders_with_equal_names(corpus, tmp_path, capsys):
    assert export(corpus, "ai-toolkit", tmp_path, "--check") == 0
    assert "check ai-toolkit: 3 rows, skipped = 0" in capsys.readouterr().out
    for folder, suffix in (("videos", ".txt"), ("control_1", ".png"), ("control_2", ".png"), ("control_3", ".png")):
        assert sorted(path.stem for path in (tmp_path / folder).glob(f"*{suffix}")) == sorted(CLIPS)
    assert "do_audio: true" in (tmp_path / "dataset.yaml").read_text()


def test_hf_holds_pictures_and_videos_in_parquet(corpus, tmp_path, capsys):
    assert export(corpus, "hf", tmp_path, "--check") == 0
    assert "check hf: 4 rows, skipped = 0" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "data" / "train-00000-of-00001.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["references"] == {"feature": {"_type": "Image"}, "_type": "List"}
    for row in table.to_pylist():
        assert row["roles"] == ["human", "object", "background"]
        assert [images.from_png(each["bytes"]).shape[2] for each in row["references"]] == [3, 3, 3]
        assert len(video.decode(row["video"]["bytes"])) == row["frames"]


def test_hf_is_read_by_datasets(corpus, tmp_path):
    datasets = pytest.importorskip("datasets")
    assert export(corpus, "hf", tmp_path) == 0
    files = str(tmp_path / "data" / "*.parquet")
    read = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert read.cast_column("video", datasets.Video(decode=False))[0]["references"][0].size == (48, 32)


def test_an_interrupted_export_is_resumed_without_writing_finished_tars_again(corpus, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    export(corpus, "refalign", whole)
    true_write = Export.write

    def write(self, draft, target, folder):
        if draft.key == CLIPS[2]:
            raise KeyboardInterrupt
        return true_write(self, draft, target, folder)

    monkeypatch.setattr(Export, "write", write)
    assert export(corpus, "refalign", out) == 130
    monkeypatch.setattr(Export, "write", true_write)
    finished = out / "videos" / f"{CLIPS[0]}.mp4"
    before = finished.stat().st_mtime_ns
    assert export(corpus, "refalign", out) == 0
    assert finished.stat().st_mtime_ns == before
    assert digests(out) == digests(whole)


def test_a_deleted_file_is_written_again_with_the_same_bytes(corpus, tmp_path):
    export(corpus, "h3", tmp_path)
    whole = digests(tmp_path)
    (tmp_path / "videos" / f"{CLIPS[1]}.mp4").unlink()
    export(corpus, "h3", tmp_path)
    assert digests(tmp_path) == whole


def test_without_its_source_a_clip_has_the_sound_of_the_shard(tmp_path):
    path = film.write(tmp_path / "gone.mp4")
    triplet = film.clip(path, 0, 0)
    with sound.reading(str(path), None, 48_000) as track:
        loud = replace(triplet, video=sound.with_sound(triplet.video, track.cut(0.0, 5.4).samples, 48_000))
    film.shards(tmp_path / "shards", [[loud]])
    path.unlink()
    assert export(tmp_path, "h3", tmp_path / "out", "--check") == 0
    heard = sound.of_clip((tmp_path / "out" / "videos" / f"{CLIPS[0]}.mp4").read_bytes(), 32_000, 1.5, 1.0).samples
    wave = np.sin(2 * np.pi * film.TONE_HZ * (1.5 + np.arange(32_000) / 32_000))
    assert np.corrcoef(heard[0], wave)[0, 1] > 0.99


def test_without_its_source_a_clip_is_made_from_the_shard_and_the_loss_is_reported(tmp_path, capsys):
    path = film.write(tmp_path / "gone.mp4")
    film.shards(tmp_path / "shards", [[film.clip(path, 0, 0)]])
    path.unlink()
    assert export(tmp_path, "h3", tmp_path / "out", "--check") == 0
    said = capsys.readouterr().out
    assert f"{CLIPS[0]}: made from the 15 fps clip of the shard: FileNotFoundError" in said
    assert "check h3: 1 rows, skipped = 0" in said
    mp4 = tmp_path / "out" / "videos" / f"{CLIPS[0]}.mp4"
    assert numbers(mp4) == [2 * (k * 15 // 24) for k in range(126)]
    assert list(json.loads((tmp_path / "out" / "export.json").read_text())["losses"]) == [CLIPS[0]]


def test_a_check_names_the_row_that_the_trainer_would_skip(corpus, tmp_path, capsys):
    export(corpus, "h3", tmp_path)
    (tmp_path / "diffsynth.json").write_text((tmp_path / "diffsynth.json").read_text().replace("2-object", "9-object"))
    found = h3.check(Folder(tmp_path))
    assert [problem.row for problem in found.skipped] == [f"diffsynth.json row {n}" for n in (1, 2, 3)]
    assert found.skipped[0].reason == f"references/{CLIPS[0]}/9-object.png does not exist"


@pytest.mark.parametrize(("style", "size"), [("cutout", (32, 48)), ("in-place", (32, 48)), ("crop", (18, 18))])
def test_references_are_drawn_in_the_style_that_was_asked_for(corpus, tmp_path, style, size):
    """The crop is the box 0 0 16 16 of frame 0 of the film with a margin of a tenth, inside the picture."""
    tars = [[film.clip(corpus / "loud.mp4", 0, 0)]]
    for given in tars[0][0].facts.references:
        object.__setattr__(given.origin, "path", str(corpus / "loud.mp4"))
    film.shards(tmp_path / "shards", tars)
    assert export(tmp_path, "refalign", tmp_path / "out", "--references", style) == 0
    (folder,) = (tmp_path / "out" / "references").iterdir()
    drawn = images.from_png((folder / "1-human.png").read_bytes())
    assert drawn.shape[:2] == size
    if style == "crop":
        assert np.abs(drawn.astype(int) - film.numbered(0)[:18, :18]).mean() < 10


def test_a_folder_of_another_target_is_refused(corpus, tmp_path, capsys):
    export(corpus, "refalign", tmp_path)
    assert export(corpus, "h3", tmp_path) == 2
    assert "belongs to an export to refalign" in capsys.readouterr().err


def test_a_role_that_leads_out_of_the_folder_fails_its_sample_only(tmp_path, capsys):
    path = film.write(tmp_path / "film.mp4", frames=60, sound_from_s=None)
    good, bad = film.clip(path, 0, 0, frames=20), film.clip(path, 1, 0, frames=20)
    object.__setattr__(bad.facts.references[0], "role", "../../human")
    film.shards(tmp_path / "shards", [[good, bad]])
    assert export(tmp_path, "refalign", tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "1 samples" in said.out
    assert f"a2data: {CLIPS[1]}: ValueError" in said.err
    assert len(json.loads((tmp_path / "out" / "metadata.json").read_text())) == 1
