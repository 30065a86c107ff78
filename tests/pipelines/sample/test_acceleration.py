"""Flags that make sampling faster, as a user types them: what they change is in the record and the key."""

import json
import shutil

import numpy as np
import pytest
from tiny_sampling import frames_of, one

pytest.importorskip("diffusers")


def made_with(studio, *flags: str) -> np.ndarray:
    """The frames of with.mp4 and then of its flags."""
    out = f"with{'-'.join(flags)}.mp4"
    assert one("--out", out, "--steps", "5", *flags) == 0
    return frames_of(studio / out)


def test_a_cache_changes_the_video_and_is_in_its_record_and_key(studio):
    flags = ("--cache", "taylorseer", "--cache-interval", "2")
    exact, cached = made_with(studio), made_with(studio, *flags)
    assert not np.array_equal(exact, cached)
    exact, cached = (json.loads((studio / f"{name}.json").read_text()) for name in ("with", f"with{'-'.join(flags)}"))
    assert cached["settings"]["cache"] == "taylorseer"
    assert "cache" not in exact["settings"]
    assert cached["key"] != exact["key"]


def test_exact_flags_give_the_same_video(studio):
    exact = made_with(studio).astype(int)  # but for rounding, which coding makes more of
    assert np.abs(exact - made_with(studio, "--attention-backend", "native")).mean() < 0.5
    assert np.abs(exact - made_with(studio, "--vae-tiling")).mean() < 0.5  # smaller than a tile


@pytest.fixture
def own(studio, checkpoint):
    """A checkpoint of the test's own, as a calibration writes into its folder."""
    (studio / "a2").unlink()
    shutil.copytree(checkpoint, studio / "a2")
    return studio


def test_a_calibration_samples_exactly_and_lets_the_cache_mag_be_used(own, capsys):
    assert one("--cache", "mag") == 2
    assert "a2 has no mag_ratios.json; sample one video with --calibrate" in capsys.readouterr().err

    exact, measured = made_with(own), made_with(own, "--calibrate")
    assert np.array_equal(exact, measured)
    said = json.loads((own / "a2" / "mag_ratios.json").read_text())
    assert len(said["ratios"]) == 5
    assert said["ratios"][0] == 1
    plain, calibrated = (json.loads((own / name).read_text()) for name in ("with.json", "with--calibrate.json"))
    assert calibrated["key"] == plain["key"]
    assert said["checkpoint"] == plain["checkpoint"]["digest"]

    cached = made_with(own, "--cache", "mag", "--cache-threshold", "9")
    assert not np.array_equal(exact, cached)
    record = json.loads((own / "with--cache-mag---cache-threshold-9.json").read_text())
    assert record["settings"]["cache_ratios"] == said["ratios"]
    assert made_with(own, "--cache", "mag", "--cache-threshold", "9", "--steps", "3").shape == exact.shape


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "mag_ratios.json cannot be read"),
        ('{"ratios": [1, 1]}', "mag_ratios.json was measured on other weights; measure again with --calibrate"),
    ],
)
def test_ratios_that_are_not_of_this_checkpoint_are_refused(own, unloaded, capsys, text, sentence):
    (own / "a2" / "mag_ratios.json").write_text(text)
    assert one("--cache", "mag") == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--calibrate", "--cache", "taylorseer"), "--calibrate samples exactly, in one process"),
        (("--calibrate", "--sweep", "seed=1,2"), "--calibrate takes one video with one window"),
        (
            ("--cache", "mag", "--frames", "25", "--window", "13", "--history", "4", "--ar-step", "1"),
            "--cache mag counts the steps of a window",
        ),
    ],
)
def test_what_does_not_go_with_a_calibration_or_its_cache_is_a_sentence(studio, unloaded, capsys, words, sentence):
    assert one(*words) == 2
    assert sentence in capsys.readouterr().err
