"""The command `a2data sample`: its flags and the jobs that they describe."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from a2data.store.tables import Store
from pipelines.cli import session
from pipelines.cli.flags import add_settings, given
from pipelines.run.lock import exclusive_lock
from pipelines.sample import acceleration, checks, cutouts, output
from pipelines.sample import job as jobs
from pipelines.sample.acceleration import Acceleration
from pipelines.sample.checkpoint import Checkpoint, default_dtype, placed
from pipelines.sample.checks import check_tokens
from pipelines.sample.job import NOT_SETTINGS, Job
from pipelines.sample.record import SampleRequest, record
from pipelines.sample.stage import STATE, Sample, queue, sample_to_file

DTYPES = ("bfloat16", "float16", "float32")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data sample`."""
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="description of the video")
    what.add_argument(
        "--jobs", metavar="FILE", help="JSON Lines file with one video per line, an object of these flags"
    )
    command.add_argument(
        "--ref",
        action="append",
        default=[],
        metavar="ROLE=FILE",
        help="reference picture with its role: human, object or background; repeatable",
    )
    command.add_argument(
        "--next-prompt",
        action="append",
        default=[],
        metavar="PROMPT",
        help="prompt for the next window of a long video; repeat the flag for more windows (requires --window)",
    )
    command.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="checkpoint: A2, Wan2.1-I2V for diffusers, or an export"
    )
    command.add_argument("--out", required=True, help="mp4 to write; with --jobs a folder. Finished videos are skipped")
    command.add_argument(
        "--sweep", metavar="SETTING=V,V,…", help="values of a setting: one video for each, and a contact sheet of all"
    )
    add_settings(command.add_argument_group("settings"), Job, leave_out=NOT_SETTINGS)
    add_settings(command.add_argument_group("speed and memory"), Acceleration, leave_out=("cache_ratios",))
    execution = command.add_argument_group("execution")
    execution.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if available)")
    execution.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the weights (default: bfloat16 on a GPU, float32 on CPU)"
    )
    session.add_flags(execution)  # type: ignore[arg-type]
    command.set_defaults(do=sample)


def sample(args: argparse.Namespace) -> int:
    """Validate all jobs and sample those that are not done. Prints failed jobs; returns 1 if there are any."""
    checkpoint = Checkpoint.open(args.checkpoint)
    wanted, how = _jobs(args, checkpoint.defaults), Acceleration(**given(args, Acceleration))
    files = checks.validated(wanted, checkpoint.conditioning)
    cutouts.check(wanted)
    device, dtype = _device(args)
    acceleration.check(how, device, checkpoint, [job for _, job in wanted], bool(args.ray))
    check_tokens(checkpoint, wanted)
    how = acceleration.with_ratios(how, checkpoint)
    tasks = [SampleRequest(job, record(job, files, checkpoint, dtype, how)) for _, job in wanted]
    todo = [
        task for task in tasks if how.calibrate or not output.done(task.job.out, task.record["key"], task.job.preview)
    ]
    todo = jobs.by_shape(todo, lambda task: task.job)
    todo = [task._replace(job=job) for task, job in zip(todo, cutouts.made([t.job for t in todo]), strict=True)]
    is_main = not how.ranks() or os.environ.get("RANK") == "0"
    by_runner = (args.jobs or args.ray) and not how.ranks()
    failed = (_by_runner if by_runner else _here)(args, todo, (checkpoint, device, dtype, how)) if todo else {}
    if not is_main:
        return 1 if failed else 0
    for out, why in failed.items():
        print(f"a2data: {out}: {why}", file=sys.stderr)
    if args.sweep:
        _leave_sheet(args, [task.job for task in tasks if task.job.out not in failed])
    there = len(tasks) - len(todo)
    print(f"{len(todo) - len(failed)} sampled, {there} done before, {len(failed)} failed")
    return 1 if failed else 0


Loaded = tuple[Checkpoint, str, str, Acceleration]  # what a Sampler is made of


def _here(args: argparse.Namespace, todo: Sequence[SampleRequest], loaded: Loaded) -> dict[str, str]:
    """Sample the requests one after another in this process. Returns {out: error} of the failed ones."""
    from pipelines.run.progress import step_counter
    from pipelines.sample import sampler

    failed = {}
    with step_counter("loading the checkpoint", args.quiet or os.environ.get("RANK", "0") != "0") as count:
        loaded_sampler = sampler.Sampler(*loaded)
        for task in todo:
            count(Path(task.job.out).name, jobs.num_forward_passes(task.job))
            try:
                sample_to_file(loaded_sampler, task, count)
            except Exception as error:
                failed[task.job.out] = f"{type(error).__name__}: {error}"
    return failed


def _by_runner(args: argparse.Namespace, todo: Sequence[SampleRequest], loaded: Loaded) -> dict[str, str]:
    """Sample the requests by the runner's workers, local or on Ray. Returns {out: error} of those without a video."""
    checkpoint, device, dtype, how = loaded
    folder = args.out if args.jobs else todo[0].job.out.rpartition("/")[0]
    store = Store(f"{folder.rstrip('/')}/{STATE}")
    stage = Sample(str(checkpoint.root), device, dtype, json.dumps(asdict(how)))
    with exclusive_lock(store):
        shards = queue(store, todo)
        names = {shard: Path(todo[shard].job.out).name for shard in shards}
        summary = session.work(args, [stage], store, shards, names)
        made = {shard for shard in shards if store.is_up_to_date(stage, (shard,))}
    why = {shard: why for (_, (shard, *_)), why in summary.failed_jobs.items()}
    return {todo[n].job.out: why.get(n, "not sampled, because the run ended before") for n in shards if n not in made}


def _jobs(args: argparse.Namespace, defaults: dict[str, Any]) -> list[tuple[str, Job]]:
    """Return the requested jobs, each with its location in the job file ("" for the command line).

    defaults: settings of the checkpoint, which flags and lines of the job file override.
    """
    settings = defaults | given(args, Job, leave_out=NOT_SETTINGS)
    if args.jobs:
        for flag in ("ref", "next-prompt", "sweep"):
            if getattr(args, flag.replace("-", "_")):
                raise ValueError(f"--{flag} requires --prompt; in a job file, set it on each line")
        if args.out.endswith(".mp4"):
            raise ValueError(f"--out {args.out}: with --jobs it must be a folder; each line names its mp4")
        return jobs.read(args.jobs, settings, args.out)
    job = jobs.located(
        settings | {"out": args.out, "prompt": args.prompt, "ref": args.ref, "next_prompt": args.next_prompt},
        str(Path.cwd()),
    )
    return [("", each) for each in (jobs.swept(job, args.sweep) if args.sweep else [job])]


def _device(args: argparse.Namespace) -> tuple[str, str]:
    """Return the device and dtype to sample with. Raises ValueError if the GPU does not exist."""
    if not args.ray:
        return placed(args.device, args.dtype)
    from pipelines.run import on_ray

    device = on_ray.device(args.ray, args.device)
    return device, args.dtype or default_dtype(device)


def _leave_sheet(args: argparse.Namespace, made: Sequence[Job]) -> None:
    """Write the contact sheet of a sweep, such as out-flow-shift.png, with a row for each finished video."""
    from a2data.media.pictures import read_picture

    if not made:
        return
    flag = args.sweep.partition("=")[0].strip().lstrip("-").replace("_", "-")
    values = [getattr(job, flag.replace("-", "_")) for job in made]
    rows = {
        f"{flag} {v:g}" if isinstance(v, float) else f"{flag} {v}": job.out for v, job in zip(values, made, strict=True)
    }
    picture = output.sheet_of(rows, [read_picture(file) for _, file in made[0].references()])
    out = f"{args.out.removesuffix('.mp4')}-{flag}.png"
    output.leave_sheet(out, picture)
    print(f"contact sheet: {out}")
