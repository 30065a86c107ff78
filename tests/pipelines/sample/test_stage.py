"""A file of jobs on the common runner: in a child process, resumed after a kill, and on a real Ray cluster of one node."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_sampling import frames_of, many

pytest.importorskip("diffusers")
from a2data.store.tables import Store
from pipelines.cli.main import main
from pipelines.sample import stage
from pipelines.sample.job import resolve_paths
from pipelines.sample.record import SampleRequest


def requests(*seeds: int) -> list[SampleRequest]:
    made = [
        resolve_paths({"out": f"{seed}.mp4", "prompt": "a", "ref": ["human=a.png"], "seed": seed}, "/")
        for seed in seeds
    ]
    return [SampleRequest(job, {"key": str(job.seed)}) for job in made]


class Wrote:
    """In place of `sample_to_file`: keeps the requests, counts one step each, and fails for the seed 5."""

    def __init__(self):
        self.requests = []

    def __call__(self, model, request, on_step):
        on_step()
        self.requests.append(request)
        if request.job.seed == 5:
            raise ValueError("no")
        return 9


def test_the_stage_is_given_each_request_as_it_was_queued(tmp_path, monkeypatch):
    wrote, store, wanted = Wrote(), Store(tmp_path), requests(3, 1, 2)
    monkeypatch.setattr(stage, "sample_to_file", wrote)
    sample = stage.Sample("a2")
    rows = []
    for shard in stage.queue(store, wanted):
        rows += sample.run(None, list(store.read("requests", shard, stage.Requested)), shard)
    assert wrote.requests == wanted
    assert [row.out for row in rows] == [request.job.out for request in wanted]


def test_a_queue_replaces_the_one_of_the_last_run(tmp_path):
    store = Store(tmp_path)
    stage.queue(store, requests(1, 2, 3))
    store.put(b"it failed", "sample", "00002.broken")
    assert stage.queue(store, requests(4)) == [0]
    assert store.shards("requests") == [0]
    assert store.names("sample") == []


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("cuda", 1), ("cuda:1", 1)])
def test_a_worker_requests_a_gpu_if_it_samples_on_one(device, gpus):
    assert stage.Sample("a2", device).gpus == gpus


def test_a_checkpoint_that_does_not_load_is_named_for_every_video(studio, monkeypatch, capsys):
    from pipelines.sample import sampler

    def load(*_):
        raise ValueError("the weights are damaged")

    monkeypatch.setattr(sampler, "Sampler", load)
    assert many({"out": "a.mp4"}, {"out": "b.mp4", "seed": 1}) == 1
    said = capsys.readouterr()
    assert "made/a.mp4: loading a model failed: ValueError: the weights are damaged" in said.err
    assert "made/b.mp4: not sampled" in said.err
    assert said.out == "0 sampled, 0 done before, 2 failed\n"


def test_a_deleted_video_is_made_again_to_the_byte(studio, capsys):
    rows = [{"out": "a.mp4"}, {"out": "b.mp4", "seed": 1, "preview": True}]
    assert many(*rows) == 0
    first = (studio / "made" / "b.mp4").read_bytes()
    (studio / "made" / "b.mp4").unlink()
    assert many(*rows) == 0
    assert (studio / "made" / "b.mp4").read_bytes() == first
    (studio / "made" / "b.png").unlink()
    assert many(*rows) == 0
    assert (studio / "made" / "b.png").exists()
    assert capsys.readouterr().out.count("1 sampled, 1 done before") == 2


def test_a_video_of_a_prompt_is_done_for_a_file_of_jobs_too(studio, capsys):
    from tiny_sampling import one

    assert one("--out", "made/a.mp4") == 0
    assert many({"out": "a.mp4"}) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 sampled, 1 done before, 0 failed"
    assert not (studio / "made" / stage.STATE).exists()


def test_two_runs_into_one_folder_are_refused(studio, capsys):
    from pipelines.run.lock import exclusive_lock

    with exclusive_lock(Store(studio / "made" / stage.STATE)):
        assert many({"out": "a.mp4"}) == 2
    assert "is in use by process" in capsys.readouterr().err


# -- other processes ---------------------------------------------------------------------------------------------------


def command(studio: Path, *more: str) -> list[str]:
    rows = [{"out": f"{n}.mp4", "seed": n, "prompt": "a", "ref": ["human=woman.png"]} for n in range(3)]
    (studio / "jobs.jsonl").write_text("".join(json.dumps(row | {"steps": 40}) + "\n" for row in rows))
    size = ["--height", "32", "--width", "48", "--frames", "9", "--guidance-scale", "1", "--matting-model", "none"]
    return ["sample", "--jobs", "jobs.jsonl", "--checkpoint", "a2", "--out", "made", "--device", "cpu", *size, *more]


@pytest.mark.slow
def test_a_killed_run_is_resumed_with_the_same_videos(studio, capsys):
    words = command(studio, "--quiet")
    assert main([*words, "--out", "whole"]) == 0
    running = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *words], start_new_session=True)
    try:
        began = time.monotonic()
        while not (studio / "made" / "0.json").exists() and time.monotonic() - began < 240:
            time.sleep(0.05)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    written = (studio / "made" / "0.mp4").stat().st_mtime_ns
    assert not (studio / "made" / "2.json").exists()
    assert main(words) == 0
    assert " sampled, 0 done" not in capsys.readouterr().out.splitlines()[-1]
    assert (studio / "made" / "0.mp4").stat().st_mtime_ns == written
    for n in range(3):
        assert (studio / "made" / f"{n}.mp4").read_bytes() == (studio / "whole" / f"{n}.mp4").read_bytes()


@pytest.mark.slow
def test_ray_samples_the_same_videos(studio, capsys):
    ray = pytest.importorskip("ray")
    words = command(studio, "--quiet", "--steps", "2")
    (studio / "jobs.jsonl").write_text((studio / "jobs.jsonl").read_text().replace('"steps": 40', '"steps": 2'))
    assert main([*words, "--out", "whole", "--in-process"]) == 0
    paths = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
             runtime_env={"env_vars": {"PYTHONPATH": paths}})  # fmt: skip
    try:
        assert main([*words, "--ray", "auto"]) == 0
    finally:
        ray.shutdown()
    for n in range(3):
        assert (frames_of(studio / "made" / f"{n}.mp4") == frames_of(studio / "whole" / f"{n}.mp4")).all()
    assert capsys.readouterr().out.splitlines()[-1] == "3 sampled, 0 done before, 0 failed"


def test_the_settings_of_the_checkpoint_are_the_defaults_of_flags_and_job_files(studio, monkeypatch):
    from pipelines.cli import sample as command

    (studio / "a2" / "sampling.json").write_text(json.dumps({"height": 32, "width": 48, "frames": 13, "fps": 24}))
    seen = []
    monkeypatch.setattr(
        command, "_sample_in_process", lambda args, todo, loaded: seen.extend(request.job for request in todo) or {}
    )
    prompt = [
        "--prompt",
        "a woman drinks",
        "--ref",
        "human=woman.png",
        "--checkpoint",
        "a2",
        "--out",
        "b.mp4",
        "--quiet",
    ]
    try:
        main(["sample", *prompt, "--frames", "9", "--device", "cpu", "--matting-model", "none"])
    finally:
        (studio / "a2" / "sampling.json").unlink()
    (job,) = seen
    assert (job.height, job.width, job.frames, job.fps, job.steps) == (32, 48, 9, 24.0, 50)
