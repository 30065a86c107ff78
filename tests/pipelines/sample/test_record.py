"""`a2data sample` as a user types it, on tiny random networks of the real classes: one video, a sweep, a file of jobs."""

import io
import json

import av
import numpy as np
import pytest
from PIL import Image
from tiny_sampling import SMALL, frames_of, many, one
from tiny_song import song

pytest.importorskip("diffusers")
from a2data.media import images, video
from pipelines.cli.main import main

# -- one video ---------------------------------------------------------------------------------------------------------


def test_a_prompt_and_references_give_a_video_that_says_how_it_was_made(studio, capsys):
    assert one("--ref", "background=room.png", "--preview", "--fps", "8", "--seed", "5", "--frames", "13") == 0

    assert capsys.readouterr().out == "1 sampled, 0 done before, 0 failed\n"
    data = (studio / "a.mp4").read_bytes()
    assert video.decode(data).shape == (13 - 2 * 4, 32, 48, 3)
    with av.open(io.BytesIO(data), "r") as file:
        comment = json.loads(file.metadata["comment"])
        assert file.streams.video[0].average_rate == 8
    said = json.loads((studio / "a.json").read_text())
    assert comment.items() <= said.items()
    assert said["prompt"] == "a woman drinks"
    assert [(ref["role"], ref["file"]) for ref in said["references"]] == [
        ("human", "woman.png"),
        ("background", "room.png"),
    ]
    assert said["settings"] | {"seed": 5, "steps": 2, "dtype": "float32", "fps": 8.0} == said["settings"]
    assert said["checkpoint"]["name"] == "tiny-a2"
    assert set(said["versions"]) == {"a2data", "diffusers", "torch", "transformers"}
    assert images.from_png((studio / "a.png").read_bytes()).shape[2] == 3
    assert sorted(p.name for p in studio.glob("a.*")) == ["a.json", "a.mp4", "a.png"]


def test_the_same_command_again_samples_nothing_and_another_seed_does(studio, capsys):
    assert [one(), one(), one("--seed", "1")] == [0, 0, 0]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in said] == ["1 sampled", "0 sampled", "1 sampled"]


def test_the_video_is_the_pipelines_own_with_that_seed(studio, checkpoint):
    import torch

    from a2data.media.pictures import read_picture
    from model_zoo.a2 import pipeline, references
    from model_zoo.a2.references import Reference

    assert one("--guidance-scale", "3", "--flow-shift", "5", "--scheduler", "euler") == 0

    pipe = pipeline.load(checkpoint, dtype=torch.float32, schedule=pipeline.scheduler("euler", 5.0))
    prepared = references.prepare([Reference("human", read_picture("woman.png"))], 32, 48)
    negative = json.loads((studio / "a.json").read_text())["negative_prompt"]
    made = pipe(
        *(prepared, "a woman drinks"), num_frames=9, negative_prompt=negative, num_inference_steps=2, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(42),
    ).frames[0]  # fmt: skip
    frames = (made * 255).round().astype(np.uint8)
    assert np.array_equal(frames_of(studio / "a.mp4"), video.decode(video.encode(frames, 15.0)))


def test_sound_lies_under_the_video(studio):
    song(studio / "song.wav")
    assert one("--audio", "song.wav", "--audio-start-s", "1") == 0
    with av.open("a.mp4") as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]


def test_pictures_are_taken_as_they_are_shown(studio):
    """A picture that its EXIF turns is the turned picture; one with alpha is itself on white; CMYK and grey are RGB."""
    upright = Image.open("woman.png")
    exif = Image.Exif()
    exif[0x0112] = 8  # to be shown turned by 90 degrees
    upright.rotate(-90, expand=True).save("turned.png", exif=exif)
    upright.convert("RGBA").save("clear.png")
    frames = []
    for name in ("woman.png", "turned.png", "clear.png"):
        words = ["--prompt", "a", "--ref", f"human={name}", "--checkpoint", "a2", "--out", f"{name}.mp4"]
        assert main(["sample", *words, *SMALL]) == 0
        frames.append(video.decode((studio / f"{name}.mp4").read_bytes()))
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_a_sweep_gives_a_video_and_a_row_of_the_sheet_for_each_value(studio, capsys):
    assert one("--sweep", "flow-shift=1,8") == 0

    assert "contact sheet: a-flow-shift.png" in capsys.readouterr().out
    videos = [video.decode((studio / f"a-flow-shift-{n}.mp4").read_bytes()) for n in (1, 8)]
    assert not np.array_equal(*videos)
    sheet = images.from_png((studio / "a-flow-shift.png").read_bytes())
    assert len(sheet) == 3 * (160 + 4 + 20)  # references, and a row each


# -- a file of jobs ----------------------------------------------------------------------------------------------------


def test_a_jobs_video_does_not_depend_on_the_jobs_before_it(studio):
    rows = [{"out": "a.mp4", "seed": 1}, {"out": "b.mp4", "frames": 13}, {"out": "c.mp4", "seed": 2, "flow-shift": 3}]
    assert many(*rows) == 0
    first = {name: (studio / "made" / name).read_bytes() for name in ("a.mp4", "b.mp4", "c.mp4")}
    for path in (studio / "made").glob("*.*4"):
        path.unlink()

    assert many(*rows[::-1]) == 0
    assert {name: (studio / "made" / name).read_bytes() for name in first} == first
    assert len(frames_of(studio / "made" / "b.mp4")) == 9


def test_only_what_is_not_done_is_sampled(studio, capsys):
    rows = [{"out": f"{n}.mp4", "seed": n} for n in range(3)]
    assert many(*rows) == 0
    written = (studio / "made" / "0.mp4").stat().st_mtime_ns
    (studio / "made" / "1.json").unlink()
    (studio / "made" / "2.mp4").write_bytes(b"half")

    assert many(*rows) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 sampled, 1 done before, 0 failed"
    assert (studio / "made" / "0.mp4").stat().st_mtime_ns == written


def test_a_changed_picture_or_checkpoint_makes_a_video_stale(studio, checkpoint, capsys):
    import shutil

    import tiny_a2

    assert many({"out": "a.mp4"}) == 0
    tiny_a2.picture(studio / "woman.png", seed=9)
    assert many({"out": "a.mp4"}) == 0
    (studio / "a2").unlink()
    shutil.copytree(checkpoint, studio / "a2")
    with (studio / "a2" / "vae" / "config.json").open("a") as file:
        file.write(" ")
    assert many({"out": "a.mp4"}) == 0
    assert capsys.readouterr().out.count("1 sampled") == 3


def test_a_job_that_fails_is_named_and_the_rest_continues(studio, capsys):
    song(studio / "song.wav", 1.0)
    rows = [{"out": "a.mp4", "audio": "song.wav", "audio-start-s": 60}, {"out": "b.mp4"}]
    assert many(*rows) == 1

    said = capsys.readouterr()
    assert said.out == "1 sampled, 0 done before, 1 failed\n"
    assert "made/a.mp4: ValueError:" in said.err
    assert "has no sound at 60 s" in said.err
    assert sorted(p.name for p in (studio / "made").glob("?.*")) == ["b.json", "b.mp4"]
