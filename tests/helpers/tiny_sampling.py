"""`a2data sample` as tests type it: small, quick, and without cut-outs, as their pictures are noise."""

import json

import numpy as np

from a2data.media import video
from pipelines.cli.main import main

SMALL = [
    "--height",
    "32",
    "--width",
    "48",
    "--frames",
    "9",
    "--steps",
    "2",
    "--guidance-scale",
    "1",
    "--device",
    "cpu",
    "--quiet",
]
SMALL += ["--matting-model", "none"]


def one(*more: str) -> int:
    """One video, a.mp4; returns the exit code."""
    words = ["--prompt", "a woman drinks", "--ref", "human=woman.png", "--checkpoint", "a2", "--out", "a.mp4"]
    return main(["sample", *words, *SMALL, *more])


def many(*rows: dict, more: tuple[str, ...] = ()) -> int:
    """A file of jobs, whose videos go to made/, sampled in this process."""
    each = {"prompt": "a woman drinks", "ref": ["human=woman.png"]}
    with open("jobs.jsonl", "w") as file:
        file.writelines(json.dumps(each | row) + "\n" for row in rows)
    return main(
        ["sample", "--jobs", "jobs.jsonl", "--checkpoint", "a2", "--out", "made", "--in-process", *SMALL, *more]
    )


def frames_of(path) -> np.ndarray:
    return video.decode(path.read_bytes())
