"""What a person sees while it works: bars on a terminal, lines in a log."""

import io
import os

import pytest

pytest.importorskip("jaxtyping")
from pipelines.sample import job as jobs
from pipelines.sample import watch


def test_the_bars_count_videos_and_steps():
    from rich.console import Console

    bars = watch.Bars(2, Console(file=io.StringIO(), force_terminal=True, width=120))
    job = jobs.located({"out": "a.mp4", "prompt": "a", "ref": ["human=woman.png"], "steps": 3}, ".")
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
    job = jobs.located({"out": "a.mp4", "prompt": "a", "ref": ["human=woman.png"]}, ".")
    lines.made(job, "")
    lines.made(job, "broken")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith(f"1 of 2: {os.path.abspath('a.mp4')}")
    assert second.endswith(": failed")
