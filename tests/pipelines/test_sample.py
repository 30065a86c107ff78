"""`a2data sample` as a user types it, on tiny random networks of the real classes."""

import io
import json
import os

import av
import numpy as np
import pytest
from PIL import Image
from tiny_song import song

pytest.importorskip("diffusers")
from a2data import images, video
from pipelines import sample
from pipelines.cli import main
from pipelines.sampling import watch

SMALL = ["--height", "32", "--width", "48", "--frames", "13", "--steps", "2", "--device", "cpu", "--quiet"]
SMALL += ["--cut-out", "none"]  # the pictures are noise


@pytest.fixture
def folder(checkpoint, tmp_path, monkeypatch):
    """A working folder with pictures and a checkpoint in it."""
    import tiny_a2

    for seed, name in enumerate(("woman", "cup", "room")):
        tiny_a2.picture(tmp_path / f"{name}.png", seed)
    (tmp_path / "a2").symlink_to(checkpoint)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unloaded(monkeypatch):
    def load(*_):
        raise AssertionError("a checkpoint was loaded")

    monkeypatch.setattr(sample, "Sampler", load)


def one(*more: str) -> int:
    words = ["--prompt", "a woman drinks", "--ref", "human=woman.png", "--checkpoint", "a2", "--out", "a.mp4"]
    return main(["sample", *words, *SMALL, *more])


def many(*rows: dict, more: tuple[str, ...] = ()) -> int:
    each = {"prompt": "a woman drinks", "ref": ["human=woman.png"]}
    with open("jobs.jsonl", "w") as file:
        file.writelines(json.dumps(each | row) + "\n" for row in rows)
    return main(["sample", "--jobs", "jobs.jsonl", "--checkpoint", "a2", "--out", "made", *SMALL, *more])


# -- one video ---------------------------------------------------------------------------------------------------------


def test_a_prompt_and_references_give_a_video_that_says_how_it_was_made(folder, capsys):
    assert one("--ref", "background=room.png", "--preview", "--fps", "8", "--seed", "5") == 0

    assert capsys.readouterr().out == "1 sampled, 0 done before, 0 failed\n"
    data = (folder / "a.mp4").read_bytes()
    assert video.decode(data).shape == (13 - 2 * 4, 32, 48, 3)
    with av.open(io.BytesIO(data), "r") as file:
        comment = json.loads(file.metadata["comment"])
        assert file.streams.video[0].average_rate == 8
    said = json.loads((folder / "a.json").read_text())
    assert comment.items() <= said.items()
    assert said["prompt"] == "a woman drinks"
    assert [(ref["role"], ref["file"]) for ref in said["references"]] == [
        ("human", "woman.png"),
        ("background", "room.png"),
    ]
    assert said["settings"] | {"seed": 5, "steps": 2, "dtype": "float32", "fps": 8.0} == said["settings"]
    assert said["checkpoint"]["name"] == "tiny-a2"
    assert set(said["versions"]) == {"a2data", "diffusers", "torch", "transformers"}
    assert images.from_png((folder / "a.png").read_bytes()).shape[2] == 3
    assert sorted(p.name for p in folder.glob("a.*")) == ["a.json", "a.mp4", "a.png"]


def test_the_same_command_again_samples_nothing_and_another_seed_does(folder, capsys):
    assert [one(), one(), one("--seed", "1")] == [0, 0, 0]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in said] == ["1 sampled", "0 sampled", "1 sampled"]


def test_the_video_is_the_pipelines_own_with_that_seed(folder, checkpoint):
    import torch

    from model_zoo import a2, a2_references
    from model_zoo.a2_references import Reference, read_picture

    assert one("--guidance", "3", "--flow-shift", "5", "--scheduler", "euler") == 0

    pipe = a2.load(checkpoint, dtype=torch.float32, schedule=a2.scheduler("euler", 5.0))
    prepared = a2_references.prepare([Reference("human", read_picture("woman.png"))], 32, 48)
    negative = json.loads((folder / "a.json").read_text())["negative_prompt"]
    made = pipe(
        *(prepared, "a woman drinks"), num_frames=13, negative_prompt=negative, num_inference_steps=2, guidance_scale=3.0,
        generator=torch.Generator().manual_seed(42),
    ).frames[0]  # fmt: skip
    frames = (made * 255).round().astype(np.uint8)
    assert np.array_equal(video.decode((folder / "a.mp4").read_bytes()), video.decode(video.encode(frames, 15.0)))


def test_sound_lies_under_the_video(folder):
    song(folder / "song.wav")
    assert one("--audio", "song.wav", "--audio-start-s", "1") == 0
    with av.open("a.mp4") as file:
        assert [stream.type for stream in file.streams] == ["video", "audio"]


def test_pictures_are_taken_as_they_are_shown(folder):
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
        frames.append(video.decode((folder / f"{name}.mp4").read_bytes()))
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_a_sweep_gives_a_video_and_a_row_of_the_sheet_for_each_value(folder, capsys):
    assert one("--sweep", "flow-shift=1,8") == 0

    assert "contact sheet: a-flow-shift.png" in capsys.readouterr().out
    videos = [video.decode((folder / f"a-flow-shift-{n}.mp4").read_bytes()) for n in (1, 8)]
    assert not np.array_equal(*videos)
    sheet = images.from_png((folder / "a-flow-shift.png").read_bytes())
    assert len(sheet) == 3 * (160 + 4 + 20)  # references, and a row each


def test_a_long_video_is_sampled_by_windows_that_tell_a_story(folder, capsys):
    words = ["--frames", "25", "--window", "13", "--history", "4"]
    assert one(*words) == 0
    plain = video.decode((folder / "a.mp4").read_bytes())
    assert one(*words, "--then", "a red room") == 0
    story = video.decode((folder / "a.mp4").read_bytes())

    assert plain.shape == story.shape == (25 - 4, 32, 48, 3)
    assert not np.array_equal(plain, story)
    assert json.loads((folder / "a.json").read_text())["then"] == ["a red room"]
    assert capsys.readouterr().out.count("1 sampled") == 2


# -- a file of jobs ----------------------------------------------------------------------------------------------------


def frames_of(folder, name):
    return video.decode((folder / "made" / name).read_bytes())


def test_a_jobs_video_does_not_depend_on_the_jobs_before_it(folder):
    rows = [{"out": "a.mp4", "seed": 1}, {"out": "b.mp4", "frames": 9}, {"out": "c.mp4", "seed": 2, "flow-shift": 3}]
    assert many(*rows) == 0
    first = {name: (folder / "made" / name).read_bytes() for name in ("a.mp4", "b.mp4", "c.mp4")}
    for path in (folder / "made").iterdir():
        path.unlink()

    assert many(*rows[::-1]) == 0
    assert {name: (folder / "made" / name).read_bytes() for name in first} == first
    assert len(frames_of(folder, "b.mp4")) == 5


def test_only_what_is_not_done_is_sampled(folder, capsys):
    rows = [{"out": f"{n}.mp4", "seed": n} for n in range(3)]
    assert many(*rows) == 0
    written = (folder / "made" / "0.mp4").stat().st_mtime_ns
    (folder / "made" / "1.json").unlink()
    (folder / "made" / "2.mp4").write_bytes(b"half")

    assert many(*rows) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 sampled, 1 done before, 0 failed"
    assert (folder / "made" / "0.mp4").stat().st_mtime_ns == written


def test_a_changed_picture_or_checkpoint_makes_a_video_stale(folder, checkpoint, capsys):
    import shutil

    import tiny_a2

    assert many({"out": "a.mp4"}) == 0
    tiny_a2.picture(folder / "woman.png", seed=9)
    assert many({"out": "a.mp4"}) == 0
    (folder / "a2").unlink()
    shutil.copytree(checkpoint, folder / "a2")
    with (folder / "a2" / "vae" / "config.json").open("a") as file:
        file.write(" ")
    assert many({"out": "a.mp4"}) == 0
    assert capsys.readouterr().out.count("1 sampled") == 3


def test_a_job_that_fails_is_named_and_the_rest_goes_on(folder, capsys):
    song(folder / "song.wav", 1.0)
    rows = [{"out": "a.mp4", "audio": "song.wav", "audio-start-s": 60}, {"out": "b.mp4"}]
    assert many(*rows) == 1

    said = capsys.readouterr()
    assert said.out == "1 sampled, 0 done before, 1 failed\n"
    assert "made/a.mp4: ValueError:" in said.err
    assert "has no sound at 60 s" in said.err
    assert sorted(p.name for p in (folder / "made").iterdir()) == ["b.json", "b.mp4"]


# -- faster ------------------------------------------------------------------------------------------------------------


def made_with(folder, *flags: str) -> np.ndarray:
    assert one("--out", f"with{'-'.join(flags)}.mp4", "--steps", "6", *flags) == 0
    return video.decode((folder / f"with{'-'.join(flags)}.mp4").read_bytes())


def test_a_cache_changes_the_video_and_is_in_its_record_and_key(folder):
    flags = ("--cache", "taylorseer", "--cache-interval", "2")
    exact, cached = made_with(folder), made_with(folder, *flags)
    assert not np.array_equal(exact, cached)
    exact, cached = (json.loads((folder / f"{name}.json").read_text()) for name in ("with", f"with{'-'.join(flags)}"))
    assert cached["settings"]["cache"] == "taylorseer"
    assert "cache" not in exact["settings"]
    assert cached["key"] != exact["key"]


def test_exact_flags_give_the_same_video(folder):
    exact = made_with(folder).astype(int)
    assert np.abs(exact - made_with(folder, "--attention", "native")).max() <= 1
    assert np.abs(exact - made_with(folder, "--tiled-vae")).max() <= 1  # smaller than a tile


# -- cut-outs ----------------------------------------------------------------------------------------------------------


def test_a_thing_on_a_plain_table_is_cut_out_and_left_beside_the_video(folder):
    photo = np.full((120, 200, 3), (90, 110, 130), np.uint8)
    photo[40:80, 80:120] = (220, 30, 30)
    Image.fromarray(photo).save(folder / "photo.png")
    white = np.full((40, 40, 3), 255, np.uint8)
    white[10:30, 10:30] = 0
    Image.fromarray(white).save(folder / "woman.png")
    more = ["--ref", "object=photo.png", "--ref", "background=room.png", "--frames", "17"]
    assert one(*more, "--cut-out", "builtin-detect") == 0

    (cut,) = folder.glob("a-cut-*.png")
    alone = images.from_png(cut.read_bytes())
    assert (alone[45:75, 85:115] == (220, 30, 30)).all()
    assert (alone[:30] == 255).all()
    said = json.loads((folder / "a.json").read_text())
    assert [ref["file"] for ref in said["references"]] == ["woman.png", "photo.png", "room.png"]
    assert said["settings"]["cut_out"] == "builtin-detect"


def test_a_picture_in_which_nobody_is_found_is_named_before_anything_loads(folder, unloaded, capsys):
    Image.fromarray(np.full((60, 60, 3), 90, np.uint8)).save(folder / "woman.png")
    assert one("--cut-out", "builtin-detect") == 2
    said = capsys.readouterr().err
    assert "woman.png: no human is found in it, by builtin-detect. Bring it on white" in said


# -- a video goes on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["0", "17"])
def test_a_given_video_goes_on_with_its_own_frames_untouched(folder, window):
    given = np.random.default_rng(0).integers(0, 256, (14, 32, 48, 3), np.uint8)
    (folder / "given.mp4").write_bytes(video.encode(given, 15, crf=1))
    assert one("--extend", "given.mp4", "--frames", "25", "--window", window, "--history", "4") == 0
    made = video.decode((folder / "a.mp4").read_bytes())
    assert len(made) == 14 + (25 - 4 + 3)
    shown = video.decode((folder / "given.mp4").read_bytes()).astype(int)
    assert np.abs(made[:14] - shown).mean() < 12  # but for being coded again
    assert json.loads((folder / "a.json").read_text())["extend"]["file"] == "given.mp4"


# -- SkyReels-V2 -------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_skyreels_v2_samples_text_alone(folder, capsys):
    from tests.model_zoo.test_skyreels_v2 import write

    write(folder / "skyreels")
    words = ["sample", "--prompt", "a", "--checkpoint", "skyreels", "--out", "s.mp4", *SMALL]
    assert main([*words, "--preview"]) == 0
    assert len(video.decode((folder / "s.mp4").read_bytes())) == 13
    assert json.loads((folder / "s.json").read_text())["references"] == []

    assert main([*words, "--ref", "human=woman.png", "--frames", "17", "--block", "2"]) == 2
    said = capsys.readouterr().err
    assert "SkyReels-V2 samples one text: leave out --ref" in said
    assert "would leave what does not fill a block as noise" in said
    assert main([*words, "--cache", "taylorseer"]) == 2
    assert "leave out the flags for faster" in capsys.readouterr().err


# -- what is wrong is said before anything loads -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--height", "30"), "divisible by 16"),
        (("--ref", "cup.png"), "--ref cup.png: write ROLE=FILE"),
        (("--prompt", "a!" * 300), "the prompt has 600 tokens; the network reads 512"),
        (("--checkpoint", "."), "is no checkpoint of A2: it lacks transformer/, vae/"),
        (("--device", "cuda"), "--device cuda: torch finds no GPUs here"),
        (("--device", "tpu"), "write cpu, cuda or cuda:N"),
        (("--sweep", "shift=1,2"), "write SETTING=VALUE,VALUE"),
        (("--audio", "woman.png"), "has no sound in it"),
        (("--extend", "gone.mp4"), "gone.mp4: No such file"),
        (("--extend", "woman.png"), "frames a second, and what follows 15"),
        (("--offload",), "--offload moves weights between memory and a GPU"),
        (("--weights", "fp8"), "--weights fp8 needs a GPU"),
        (("--attention", "sage"), "--attention sage needs a GPU"),
        (("--attention", "mine"), "--attention mine: diffusers has flash"),
        (("--cache", "first-block"), "--cache first-block: the transformer has 1 block"),
        (("--cfg-parallel", "2"), "is not the number of processes, 1: torchrun --nproc-per-node 2"),
        (("--cache-interval", "1"), "--cache-interval 2 at least"),
        (("--cut-out", "builtin-parse"), "--cut-out builtin-parse has the role parse"),
        (("--cut-out", "scissors"), "--cut-out scissors: "),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(folder, unloaded, monkeypatch, capsys, words, sentence):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert one(*words) == 2

    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("a2data: ")
    assert sentence in said
    assert not (folder / "a.mp4").exists()


def test_a_file_of_jobs_is_checked_as_a_whole(folder, unloaded, capsys):
    assert many({"out": "a.mp4"}, {"out": "b.mp4", "frames": 12}, {"out": "c.mp4", "ref": ["object=gone.png"]}) == 2

    second, third = capsys.readouterr().err.removeprefix("a2data: ").splitlines()
    assert second.startswith("jobs.jsonl line 2: 12 frames")
    assert third.startswith("jobs.jsonl line 3: ")
    assert not (folder / "made").exists()


@pytest.mark.parametrize("flags", [("--ref", "human=woman.png"), ("--sweep", "seed=1,2"), ("--out", "a.mp4")])
def test_flags_of_one_video_do_not_go_with_a_file_of_jobs(folder, unloaded, capsys, flags):
    assert many({"out": "a.mp4"}, more=flags) == 2
    assert flags[0] in capsys.readouterr().err


def test_neither_prompt_nor_jobs_is_refused(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sample", "--checkpoint", "a2", "--out", "a.mp4"])
    assert "--prompt --jobs" in capsys.readouterr().err


def test_weights_that_do_not_load_are_a_sentence(folder, checkpoint, capsys):
    import shutil

    (folder / "a2").unlink()
    shutil.copytree(checkpoint, folder / "a2")
    (weights,) = (folder / "a2" / "vae").glob("*.safetensors")
    weights.write_bytes(b"half")
    assert one() == 2
    assert "a2 does not load: " in capsys.readouterr().err


# -- progress ----------------------------------------------------------------------------------------------------------


def test_the_bars_count_videos_and_steps(folder):
    from rich.console import Console

    bars = watch.Bars(2, Console(file=io.StringIO(), force_terminal=True, width=120))
    job = sample.jobs.located({"out": "a.mp4", "prompt": "a", "ref": ["human=woman.png"], "steps": 3}, ".")
    bars.begin(job)
    for _ in range(3):
        bars.step()
    bars.made(job, "")
    bars.end()
    shown = bars.progress.console.file.getvalue()
    assert "a.mp4" in shown
    assert "3/3" in shown
    assert "1/2" in shown


def test_without_a_terminal_there_is_a_line_for_each_video(capsys):
    lines = watch.Lines(2)
    job = sample.jobs.located({"out": "a.mp4", "prompt": "a", "ref": ["human=woman.png"]}, ".")
    lines.made(job, "")
    lines.made(job, "broken")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(f"1 of 2: {os.path.abspath('a.mp4')}")
    assert second.endswith(": failed")
