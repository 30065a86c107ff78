"""Videos that are sampled in another way than one at once from references: stories, videos that go on, SkyReels-V2."""

import json

import numpy as np
import pytest
from tiny_sampling import SMALL, frames_of, one

pytest.importorskip("diffusers")
from a2data.media import video
from pipelines.cli.main import main


def test_a_long_video_is_sampled_by_windows_that_tell_a_story(studio, capsys):
    words = ["--frames", "25", "--window", "13", "--history", "4"]
    assert one(*words) == 0
    plain = frames_of(studio / "a.mp4")
    assert one(*words, "--next-prompt", "a red room") == 0
    story = frames_of(studio / "a.mp4")

    assert plain.shape == story.shape == (25 - 4, 32, 48, 3)
    assert not np.array_equal(plain, story)
    assert json.loads((studio / "a.json").read_text())["next_prompt"] == ["a red room"]
    assert capsys.readouterr().out.count("1 sampled") == 2


@pytest.mark.parametrize("window", ["0", "13"])
def test_a_given_video_continues_with_its_own_frames_untouched(studio, window):
    given = np.random.default_rng(0).integers(0, 256, (14, 32, 48, 3), np.uint8)
    (studio / "given.mp4").write_bytes(video.encode(given, 15, crf=1))
    assert one("--init-video", "given.mp4", "--frames", "17", "--window", window, "--history", "4") == 0
    made = frames_of(studio / "a.mp4")
    assert len(made) == 14 + (17 - 4 + 3)
    shown = frames_of(studio / "given.mp4").astype(int)
    assert np.abs(made[:14] - shown).mean() < 12  # but for being coded again
    assert json.loads((studio / "a.json").read_text())["init_video"]["file"] == "given.mp4"


@pytest.fixture(scope="module")
def skyreels(tmp_path_factory):
    from tiny_skyreels_v2 import write

    return write(tmp_path_factory.mktemp("skyreels"))


def test_a_checkpoint_of_skyreels_v2_samples_text_alone(studio, skyreels, capsys):
    words = ["sample", "--prompt", "a", "--checkpoint", str(skyreels), "--out", "s.mp4", *SMALL]
    assert main([*words, "--preview"]) == 0
    assert len(frames_of(studio / "s.mp4")) == 9
    assert json.loads((studio / "s.json").read_text())["references"] == []

    assert main([*words, "--ref", "human=woman.png", "--frames", "17", "--causal-block-size", "2"]) == 2
    said = capsys.readouterr().err
    assert "take a single prompt and no references: remove --ref" in said
    assert "would leave frames that do not fill a block as noise" in said
    assert main([*words, "--cache", "taylorseer"]) == 2
    assert "remove the acceleration flags" in capsys.readouterr().err


def test_a_checkpoint_of_skyreels_v2_begins_with_a_picture_or_continues_with_a_video(studio, skyreels, capsys):
    words = ["sample", "--prompt", "a", "--checkpoint", str(skyreels), *SMALL, "--history", "5"]
    first, longer = ["--image", "cup.png", "--out", "first.mp4"], ["--init-video", "first.mp4", "--out", "longer.mp4"]
    assert main([*words, *first]) == 0
    assert len(frames_of(studio / "first.mp4")) == 9
    assert json.loads((studio / "first.json").read_text())["image"]["file"] == "cup.png"
    assert main([*words, *longer]) == 0
    assert len(frames_of(studio / "longer.mp4")) == 9 + 9 + 3

    assert main([*words, *first, "--init-video", "first.mp4"]) == 2
    assert "--init-video already has one" in capsys.readouterr().err
    assert main([*words, *first, "--causal-block-size", "3"]) == 2
    assert "blocks of 3: a first frame does not fill a block" in capsys.readouterr().err
    assert one("--image", "cup.png") == 2
    assert "--image is for SkyReels-V2 checkpoints" in capsys.readouterr().err
