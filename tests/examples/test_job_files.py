"""The job files under examples/ are jobs, and one of them becomes videos."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jaxtyping")
from PIL import Image

from pipelines.sample import checks
from pipelines.sample import job as jobs
from pipelines.sample.job import Job

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.jsonl"))


@pytest.fixture
def given(tmp_path):
    """A copy of a file of jobs, with pictures and sound where its lines look for them."""

    def copy(path: Path) -> str:
        for line in path.read_text().splitlines():
            for text in json.loads(line)["ref"]:
                file = tmp_path / text.partition("=")[2]
                file.parent.mkdir(exist_ok=True)
                Image.fromarray(np.full((270, 480, 3), 90, np.uint8)).save(file)
        made = tmp_path / path.name
        made.write_text(path.read_text())
        song(tmp_path / "song.wav")
        return str(made)

    return copy


def song(path: Path) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8000 * 25))


def seconds(job: Job) -> float:
    """What is seen of a job's video: without the frames that its references take."""
    return (job.frames - 4 * len(job.ref)) / job.fps


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} == {"music-video", "product-film"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_line_is_a_job_once_its_pictures_are_there(path, given):
    found = jobs.read(given(path), {}, "videos")

    assert len(found) > 3
    assert checks.validate(found)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_one_cast_appears_in_several_shots(path, given):
    shots = [dict.fromkeys(file for _, file in job.references()) for _, job in jobs.read(given(path), {}, "videos")]
    files = {file for shot in shots for file in shot}
    assert all(sum(file in shot for shot in shots) > 1 for file in files if "drum.png" not in file)


def test_the_song_runs_on_from_shot_to_shot(given):
    (path,) = [path for path in EXAMPLES if path.stem == "music-video"]
    shots = [job for _, job in jobs.read(given(path), {}, "videos")]
    for shot, following in pairwise(shots):
        assert following.audio_start_s == pytest.approx(shot.audio_start_s + seconds(shot))
