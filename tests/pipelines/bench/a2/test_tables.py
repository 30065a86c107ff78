"""Benchmark stages on the runner: finished work is kept, killed work resumes, failures are reported."""

import json
import os

import numpy as np
import pytest
import tiny_shards
import toy_bench

from a2data.store.tables import Store
from pipelines.bench.a2 import cases, stages
from pipelines.bench.a2 import tables as recipe
from pipelines.bench.a2.cases import Case
from pipelines.bench.a2.profiles import PROFILES, MetricGroup
from pipelines.bench.a2.totals import Measured
from pipelines.cli.main import main
from pipelines.run import local
from pipelines.run.schedule import run

SHARP = stages.metric_stages(PROFILES["builtin"], ["quality"])


@pytest.fixture
def videos(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        frames = rng.integers(0, 256, (3, 32, 32, 3), np.uint8)
        toy_bench.write(tmp_path / f"videos/{name}.mp4", frames)
    (tmp_path / "videos/c.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


def measured(store, wanted, folder):
    """The table of these cases, and the jobs that were done for it."""
    home = recipe.write_cases(store, wanted)
    missing = recipe.import_videos(store, home, folder)
    done = []

    def watch(event, about):
        if event == "made":
            done.extend(about[1].job)

    summary = run(SHARP, store, sorted(home.values()), local.InProcessExecutor(store), watch)
    table, gone = recipe.result_table(store, wanted, home, SHARP)
    return table, [case.id for case in gone], missing, sorted(done), summary


def test_a_video_is_measured_once_and_again_when_it_changed(videos, tmp_path):
    pytest.importorskip("skimage")
    store, wanted = Store(str(tmp_path / "work")), [Case(name, "", ()) for name in "abcd"]
    first, gone, missing, done, _ = measured(store, wanted, videos)
    assert (gone, done) == (["c", "d"], [0, 1, 2, 3])
    assert ["cannot be decoded" in missing["c"], "does not exist" in missing["d"]] == [True, True]
    assert 0 < first["a"]["image_quality.blur-effect"].value < 1
    assert first["c"] == first["d"] == {"image_quality.blur-effect": Measured(None, 0, 0)}
    assert measured(store, wanted, videos)[3] == []
    os.replace(videos / "b.mp4", videos / "a.mp4")
    again, gone, _, done, _ = measured(store, wanted, videos)
    assert (gone, done) == (["b", "c", "d"], [0, 1])
    assert again["a"] == first["b"]


def test_a_case_keeps_its_shard_whatever_comes_before_it(tmp_path):
    store = Store(str(tmp_path / "work"))
    assert recipe.write_cases(store, [Case("b", "", ()), Case("c", "", ())]) == {"b": 0, "c": 1}
    assert recipe.write_cases(store, [Case("a", "", ()), Case("c", "", ()), Case("d", "", ())]) == {
        "a": 2,
        "c": 1,
        "d": 3,
    }


def test_a_metric_that_fails_on_a_video_is_neither_found_nor_missing(videos, tmp_path, monkeypatch):
    def ask(asked, sampled):
        if asked.clip_id == "a":
            raise ValueError("it fell over")
        return {"image_quality.blur-effect": Measured(0.5)}

    monkeypatch.setattr(stages.Metrics, "load", lambda self: MetricGroup(tuple(self.names()), ask))
    table, *_ = measured(Store(str(tmp_path / "work")), [Case("a", "", ()), Case("b", "", ())], videos)
    assert "it fell over" in table["a"]["image_quality.blur-effect"].skipped
    assert table["b"]["image_quality.blur-effect"] == Measured(0.5)


RUN = [
    "--profile",
    "builtin",
    "--metric",
    "quality",
    "--metric",
    "dynamic-degree",
    "--quiet",
    "--height",
    "32",
    "--width",
    "48",
]
RUN += ["--frames", "17", "--steps", "2", "--guidance-scale", "1"]


def figures(folder):
    said = json.loads((folder / "score.json").read_text())
    return {key: said[key] for key in ("lenient", "strict", "table", "missing_videos")}


def test_an_interrupted_run_resumes_to_the_same_result(tmp_path, checkpoint, monkeypatch, capsys):
    """From triplets to the page: once in one go, once stopped while it samples the second case; then the same again."""
    shards = tiny_shards.make(tmp_path / "shards", 4)
    flags = ["--triplets", str(shards), "--count", "2", "--checkpoint", str(checkpoint), *RUN, "--in-process"]
    whole, out = tmp_path / "whole", tmp_path / "broken"
    assert main(["bench", "run", str(whole), *flags]) == 0
    true, seen = stages.Sample.run, []

    def stopped(self, model, asked):
        seen.append(asked[0].clip_id)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return true(self, model, asked)

    with monkeypatch.context() as while_broken:
        while_broken.setattr(stages.Sample, "run", stopped)
        assert main(["bench", "run", str(out), *flags]) == 130
    (part,) = (out / "work/sample").glob("*.parquet")
    begun = part.stat().st_mtime_ns
    assert not (out / "score.json").exists()
    assert main(["bench", "run", str(out), *flags]) == 0
    assert part.stat().st_mtime_ns == begun
    assert figures(out) == figures(whole)

    said = json.loads((out / "score.json").read_text())
    assert (said["cases"], said["missing_videos"], said["name"]) == (2, [], checkpoint.name)
    assert set(said["models"]) == {"image_quality.blur-effect", "dynamic_degree.dis", "motion_smoothness.by-flow.dis"}
    ids = [case.id for case in cases.read(out / "cases")]
    assert sorted(path.stem for path in (out / "videos").glob("*.mp4")) == ids
    assert (out / "board.html").read_text().count("data:image/jpeg") == 2 * 2  # of each case its pictures, and frames
    made = [path for path in (out / "work").rglob("*.parquet") if path.parent.name != "cases"]
    before = {path: path.stat().st_mtime_ns for path in made}
    assert main(["bench", "run", str(out), *flags]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in made}
