"""`a2data sample`: elements and a prompt in, a video out, with A2 or Wan; one video, a sweep of a setting, or a file of jobs."""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model_zoo import a2_folder
from pipelines.sampling import deliver, jobs
from pipelines.sampling.jobs import MOST_TOKENS, Job

DTYPES = ("bfloat16", "float16", "float32")


class Task(NamedTuple):
    """A job and what will be said of its video."""

    job: Job
    record: dict[str, Any]


def add_flags(command: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data sample` its flags."""
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="what is to be seen")
    what.add_argument(
        "--jobs", metavar="FILE", help="many videos: a file with a JSON object of these flags on each line"
    )
    command.add_argument(
        "--ref", action="append", default=[], metavar="ROLE=FILE", help="a picture of a human, object or background"
    )
    command.add_argument(
        "--then", action="append", default=[], metavar="PROMPT", help="what is to be seen in the next window (--window)"
    )
    command.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="A2, Wan2.1-I2V for diffusers, or an export"
    )
    command.add_argument("--out", required=True, help="the mp4; with --jobs the folder of all. What is done stays")
    command.add_argument("--sweep", metavar="SETTING=V,V,…", help="a video for each value, and a contact sheet of all")
    jobs.add_flags(command.add_argument_group("settings"))  # type: ignore[arg-type]
    crew = command.add_argument_group("where")
    crew.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    crew.add_argument("--dtype", choices=DTYPES, help="of the weights (default: bfloat16 on a GPU, float32 on CPU)")
    crew.add_argument("--ray", metavar="ADDRESS", help="spread the jobs: a Ray cluster's address, or auto")
    crew.add_argument("--quiet", action="store_true", help="no progress")
    command.set_defaults(do=sample)


def sample(args: argparse.Namespace) -> int:
    """Check everything, sample what is not done yet. Returns 1 where a job failed, having named it."""
    wanted = _jobs(args)
    try:
        files = jobs.validated(wanted)
        root = a2_folder.check(args.checkpoint)
        device, dtype = _device(args)
        _check_tokens(root, wanted)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"sampling needs {error.name}: pip install 'a2data[train]'") from error
    checkpoint = {"name": root.resolve().name, "digest": a2_folder.digest(root)}
    tasks = [Task(job, record(job, files, checkpoint, dtype)) for _, job in wanted]
    todo = [task for task in tasks if not deliver.done(task.job.out, task.record["key"], task.job.preview)]
    todo = jobs.by_shape(todo, lambda task: task.job)
    watch = watcher(len(todo), args.quiet)
    try:
        failed = _crew(args, str(root.resolve()), device, dtype)(todo, watch) if todo else {}
    finally:
        watch.end()
    for out, why in failed.items():
        print(f"a2data: {out}: {why}", file=sys.stderr)
    if args.sweep:
        _leave_sheet(args, [task.job for task in tasks if task.job.out not in failed])
    there = len(tasks) - len(todo)
    print(f"{len(todo) - len(failed)} sampled, {there} done before, {len(failed)} failed")
    return 1 if failed else 0


def _jobs(args: argparse.Namespace) -> list[tuple[str, Job]]:
    """What is asked for, each job with the words that say where it stands ("" for the command line)."""
    given = {f.name: value for f in jobs.SETTINGS if (value := getattr(args, f.name)) is not None}
    if args.jobs:
        for flag in ("ref", "then", "sweep"):
            if getattr(args, flag):
                raise ValueError(f"--{flag} goes with --prompt; in a file of jobs every line has its own")
        if args.out.endswith(".mp4"):
            raise ValueError(f"--out {args.out}: with --jobs it is a folder, and each line names its mp4")
        return jobs.read(args.jobs, given, args.out)
    job = jobs.located(
        given | {"out": args.out, "prompt": args.prompt, "ref": args.ref, "then": args.then}, str(Path.cwd())
    )
    return [("", each) for each in (jobs.swept(job, args.sweep) if args.sweep else [job])]


def _device(args: argparse.Namespace) -> tuple[str, str]:
    """The device and dtype to sample with. Raises ValueError for a GPU that is not there."""
    import torch

    if args.ray:
        from pipelines.sampling import on_ray

        device = on_ray.device(args.ray, args.device)
    else:
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise ValueError(f"--device {device}: write cpu, cuda or cuda:N")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if kind == "cuda" and int(number or 0) >= count:
            raise ValueError(
                f"--device {device}: torch finds {count or 'no'} GPUs here; leave it out to sample without"
            )
    return device, args.dtype or ("bfloat16" if device.startswith("cuda") else "float32")


def _check_tokens(root: Path, wanted: Sequence[tuple[str, Job]]) -> None:
    """Raises ValueError for prompts whose end the network would not read."""
    from model_zoo import torchvision_shim

    torchvision_shim.install()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    texts = dict.fromkeys((where, name, text) for where, job in wanted for name, text in jobs.texts(job))
    counts = {text: len(tokenizer(text).input_ids) for text in {text for _, _, text in texts}}
    wrong = [
        f"{where}the {name} has {counts[text]} tokens; the network reads {MOST_TOKENS}: make it shorter"
        for where, name, text in texts
        if counts[text] > MOST_TOKENS
    ]
    if wrong:
        raise ValueError("\n".join(wrong))


def record(job: Job, files: dict[str, str], checkpoint: dict[str, str], dtype: str) -> dict[str, Any]:
    """How a video is made, for its file and for the JSON beside it. `key` names all that its pixels and sound depend on.

    Two runs with the same key differ by the device and the versions of the libraries at most.
    """
    from model_zoo.a2_references import ROLES

    settings = {
        f.name: getattr(job, f.name) for f in jobs.SETTINGS if f.name not in ("audio", "preview", "negative_prompt")
    }
    inorder = sorted(job.references(), key=lambda ref: ROLES.index(ref[0]))
    told: dict[str, Any] = {
        "prompt": job.prompt,
        "then": list(job.then),
        "negative_prompt": job.negative_prompt,
        "references": [{"role": role, "sha256": files[file]} for role, file in inorder],
        "audio": {"sha256": files[job.audio]} if job.audio else None,
        "settings": settings | {"dtype": dtype},
        "checkpoint": checkpoint["digest"],
    }
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    for shown, (_, file) in zip(told["references"], inorder, strict=True):
        shown["file"] = Path(file).name
    if job.audio:
        told["audio"]["file"] = Path(job.audio).name
    versions = {name: version(name) for name in ("a2data", "diffusers", "torch", "transformers")}
    return {"key": key, **told, "checkpoint": checkpoint, "versions": versions}


class Sampler:
    """A loaded checkpoint."""

    def __init__(self, checkpoint: str, device: str, dtype: str):
        from model_zoo import torchvision_shim

        torchvision_shim.install()
        import torch

        from model_zoo import a2

        a2.quiet()
        try:
            self.pipeline = a2.load(checkpoint, device, getattr(torch, dtype))
        except Exception as error:  # of safetensors, transformers, diffusers, each with classes of its own
            raise ValueError(f"{checkpoint} does not load: {type(error).__name__}: {error}") from error
        self.pipeline.set_progress_bar_config(disable=True)

    def sample(self, task: Task, on_step: Callable[[], None] = lambda: None) -> None:
        """Sample a job's video and write it. The result depends on nothing that was sampled before."""
        import torch

        from model_zoo import a2, a2_long, a2_references
        from model_zoo.a2_references import Reference, read_picture

        job = task.job
        given = [Reference(role, read_picture(file)) for role, file in job.references()]
        prepared = a2_references.prepare(given, job.height, job.width)
        self.pipeline.scheduler = a2.scheduler(job.scheduler, job.flow_shift)

        def after(_pipeline: Any, _step: int, _time: Any, tensors: dict) -> dict:
            on_step()
            return tensors

        same: dict[str, Any] = {
            "negative_prompt": job.negative_prompt,
            "num_frames": job.frames,
            "num_inference_steps": job.steps,
            "guidance_scale": job.guidance,
            "generator": torch.Generator().manual_seed(job.seed),  # on CPU: the same noise on every device
        }
        if job.is_long():
            parts = {"window": job.window, "history": job.history, "block": job.block, "lag": job.lag}
            prompts = [job.prompt, *job.then]
            made = a2_long.sample(self.pipeline, prepared, prompts, **same, **parts, on_step=on_step)
        else:
            made = self.pipeline(
                prepared,
                job.prompt,
                **same,
                reference_guidance=job.reference_guidance,
                output_type="np",
                callback_on_step_end=after,
            ).frames[0]
        if not np.isfinite(made).all():
            raise ValueError("the network gave values that are no numbers; try --dtype float32")
        frames = (made * 255).round().astype(np.uint8)
        rows = [("references", list(prepared.frames)), (" ".join(job.prompt.split())[:160], deliver.stills(frames))]
        sheet = deliver.sheet(rows) if job.preview else None
        deliver.write(job.out, frames, task.record, (job.audio, job.audio_start_s), sheet)


def _crew(args: argparse.Namespace, checkpoint: str, device: str, dtype: str) -> Any:
    """A function (tasks, watch) -> {out: why it failed}."""
    if args.ray:
        from pipelines.sampling import on_ray

        return lambda todo, watch: on_ray.spread(todo, watch, (checkpoint, device, dtype))
    return lambda todo, watch: here(todo, watch, Sampler(checkpoint, device, dtype))


def here(todo: Sequence[Task], watch: Any, sampler: Any) -> dict[str, str]:
    """Sample one after another in this process."""
    failed = {}
    for task in todo:
        watch.begin(task.job)
        try:
            sampler.sample(task, watch.step)
        except Exception as error:
            failed[task.job.out] = f"{type(error).__name__}: {error}"
        watch.made(task.job, failed.get(task.job.out, ""))
    return failed


def _leave_sheet(args: argparse.Namespace, made: Sequence[Job]) -> None:
    """The contact sheet of a sweep, out-flow-shift.png: a row for each video that there is."""
    from model_zoo.a2_references import read_picture

    if not made:
        return
    flag = args.sweep.partition("=")[0].strip().lstrip("-").replace("_", "-")
    values = [getattr(job, flag.replace("-", "_")) for job in made]
    rows = {
        f"{flag} {v:g}" if isinstance(v, float) else f"{flag} {v}": job.out for v, job in zip(values, made, strict=True)
    }
    picture = deliver.sheet_of(rows, [read_picture(file) for _, file in made[0].references()])
    out = f"{args.out.removesuffix('.mp4')}-{flag}.png"
    deliver.leave_sheet(out, picture)
    print(f"contact sheet: {out}")


# -- what a person sees meanwhile --------------------------------------------------------------------------------------


def watcher(count: int, quiet: bool) -> Any:
    """Told when a job begins, when a step is done, when a video is made or has failed, and at the end."""
    if quiet or not count:
        return Nothing()
    return Bars(count) if sys.stderr.isatty() else Lines(count)


class Nothing:
    """Says nothing."""

    def begin(self, job: Job) -> None: ...
    def step(self) -> None: ...
    def made(self, job: Job, failure: str) -> None: ...
    def end(self) -> None: ...


class Lines(Nothing):
    """A line for each video: for logs."""

    def __init__(self, count: int):
        self.count, self.ended, self.began = count, 0, time.monotonic()

    def made(self, job: Job, failure: str) -> None:
        self.ended += 1
        took = f"[{time.monotonic() - self.began:7.1f} s] {self.ended} of {self.count}"
        print(f"{took}: {job.out}{': failed' if failure else ''}", file=sys.stderr, flush=True)


class Bars(Nothing):
    """A bar for the videos and one for the steps of the one in hand."""

    def __init__(self, count: int, console: Any = None):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description:<32}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            speed_estimate_period=3600,
        )
        self.all = self.progress.add_task("videos", total=count)
        self.one = self.progress.add_task("the checkpoint loads", total=None)
        self.progress.start()

    def begin(self, job: Job) -> None:
        self.progress.reset(self.one, total=jobs.passes(job), description=Path(job.out).name[-32:])

    def step(self) -> None:
        self.progress.advance(self.one)

    def made(self, job: Job, failure: str) -> None:
        self.progress.advance(self.all)

    def end(self) -> None:
        self.progress.stop()
