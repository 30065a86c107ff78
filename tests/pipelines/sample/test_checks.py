"""What is wrong with a command of `a2data sample` is said in a sentence each, before anything loads."""

import pytest
from tiny_sampling import many, one

pytest.importorskip("diffusers")
from pipelines.cli.main import main


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--height", "30"), "divisible by 16"),
        (("--ref", "cup.png"), "--ref cup.png: write ROLE=FILE"),
        (("--prompt", "a!" * 300), "the prompt has 600 tokens; the network reads 512"),
        (("--checkpoint", "."), "is not an A2 checkpoint: it lacks transformer/, vae/"),
        (("--device", "cuda"), "--device cuda: torch finds no GPUs here"),
        (("--device", "tpu"), "write cpu, cuda or cuda:N"),
        (("--sweep", "shift=1,2"), "write SETTING=VALUE,VALUE"),
        (("--audio", "woman.png"), "not a container in a supported format (asf,"),
        (("--init-video", "gone.mp4"), "gone.mp4: No such file"),
        (("--init-video", "woman.png"), "not a container in a supported format (asf,"),
        (("--group-offload",), "--group-offload moves weights between memory and a GPU"),
        (("--lora", "a.pth"), "--lora a.pth: it must be a .safetensors file"),
        (
            ("--scheduler", "fastwan", "--steps", "8"),
            "--scheduler fastwan has 3 steps and one window, without guidance",
        ),
        (("--attention-backend", "sage"), "--attention-backend sage needs a GPU"),
        (("--attention-backend", "mine"), "--attention-backend mine: diffusers has flash"),
        (
            ("--cache", "first-block"),
            "--cache first-block skips the blocks after the first, but the transformer has only 1 block",
        ),
        (("--cfg-parallel", "2"), "is not the number of processes, 1: torchrun --nproc-per-node 2"),
        (("--cache-interval", "1"), "--cache-interval at least 2"),
        (("--matting-model", "builtin-parse"), "--matting-model builtin-parse has the role parse"),
        (("--matting-model", "scissors"), "--matting-model scissors: "),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(studio, unloaded, monkeypatch, capsys, words, sentence):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert one(*words) == 2

    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("a2data: ")
    assert sentence in said
    assert not (studio / "a.mp4").exists()


def test_a_file_of_jobs_is_checked_as_a_whole(studio, unloaded, capsys):
    assert many({"out": "a.mp4"}, {"out": "b.mp4", "frames": 12}, {"out": "c.mp4", "ref": ["object=gone.png"]}) == 2

    second, third = capsys.readouterr().err.removeprefix("a2data: ").splitlines()
    assert second.startswith("jobs.jsonl line 2: 12 frames")
    assert third.startswith("jobs.jsonl line 3: ")
    assert not (studio / "made").exists()


@pytest.mark.parametrize("flags", [("--ref", "human=woman.png"), ("--sweep", "seed=1,2"), ("--out", "a.mp4")])
def test_flags_of_one_video_do_not_go_with_a_file_of_jobs(studio, unloaded, capsys, flags):
    assert many({"out": "a.mp4"}, more=flags) == 2
    assert flags[0] in capsys.readouterr().err


def test_neither_prompt_nor_jobs_is_refused(studio, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sample", "--checkpoint", "a2", "--out", "a.mp4"])
    assert "--prompt --jobs" in capsys.readouterr().err


def test_weights_that_do_not_load_are_a_sentence(studio, checkpoint, capsys):
    import shutil

    (studio / "a2").unlink()
    shutil.copytree(checkpoint, studio / "a2")
    (weights,) = (studio / "a2" / "vae").glob("*.safetensors")
    weights.write_bytes(b"half")
    assert one() == 2
    assert "a2 cannot be loaded: " in capsys.readouterr().err
