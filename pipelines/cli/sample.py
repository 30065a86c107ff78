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
from pipelines.cli.flags import add_settings, given_values
from pipelines.run.lock import exclusive_lock
from pipelines.sample import acceleration, checks, cutouts, output
from pipelines.sample import job as jobs
from pipelines.sample.acceleration import Acceleration
from pipelines.sample.checkpoint import Checkpoint, default_dtype, resolve_device
from pipelines.sample.checks import check_tokens
from pipelines.sample.job import NOT_SETTINGS, Job
from pipelines.sample.record import SampleRequest, record
from pipelines.sample.stage import STATE, Sample, queue, sample_to_file

DTYPES = ("bfloat16", "float16", "float32")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the flags of `a2data sample`."""
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="description of the video")
    source.add_argument(
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
    add_settings(command.add_argument_group("settings"), Job, exclude=NOT_SETTINGS)
    add_settings(command.add_argument_group("speed and memory"), Acceleration, exclude=("cache_ratios",))
    execution = command.add_argument_group("execution")
    execution.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if available)")
    execution.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the weights (default: bfloat16 on a GPU, float32 on CPU)"
    )
    session.add_flags(execution)  # type: ignore[arg-type]
    command.set_defaults(func=sample)


def sample(args: argparse.Namespace) -> int:
    """Validate all jobs and sample those that are not done. Prints failed jobs; returns 1 if there are any."""
    checkpoint = Checkpoint.open(args.checkpoint)
    requested, accel = _jobs(args, checkpoint.defaults), Acceleration(**given_values(args, Acceleration))
    files = checks.validate(requested, checkpoint.conditioning)
    cutouts.check(requested)
    device, dtype = _device(args)
    acceleration.check(accel, device, checkpoint, [job for _, job in requested], bool(args.ray))
    check_tokens(checkpoint, requested)
    accel = acceleration.with_ratios(accel, checkpoint)
    requests = [SampleRequest(job, record(job, files, checkpoint, dtype, accel)) for _, job in requested]
    todo = [
        request
        for request in requests
        if accel.calibrate or not output.is_done(request.job.out, request.record["key"], request.job.preview)
    ]
    todo = jobs.sort_by_shape(todo, lambda task: task.job)
    todo = [
        request._replace(job=job)
        for request, job in zip(todo, cutouts.with_cutouts([t.job for t in todo]), strict=True)
    ]
    is_main = not accel.is_parallel() or os.environ.get("RANK") == "0"
    by_runner = (args.jobs or args.ray) and not accel.is_parallel()
    failed = (
        (_sample_by_runner if by_runner else _sample_in_process)(args, todo, (checkpoint, device, dtype, accel))
        if todo
        else {}
    )
    if not is_main:
        return 1 if failed else 0
    for out, error in failed.items():
        print(f"a2data: {out}: {error}", file=sys.stderr)
    if args.sweep:
        _write_sheet(args, [request.job for request in requests if request.job.out not in failed])
    num_done = len(requests) - len(todo)
    print(f"{len(todo) - len(failed)} sampled, {num_done} done before, {len(failed)} failed")
    return 1 if failed else 0


SamplerArgs = tuple[Checkpoint, str, str, Acceleration]  # what a Sampler is made of


def _sample_in_process(
    args: argparse.Namespace, todo: Sequence[SampleRequest], sampler_args: SamplerArgs
) -> dict[str, str]:
    """Sample the requests one after another in this process. Returns {out: error} of the failed ones."""
    from pipelines.run.progress import step_counter
    from pipelines.sample import sampler

    failed = {}
    with step_counter("loading the checkpoint", args.quiet or os.environ.get("RANK", "0") != "0") as count:
        model = sampler.Sampler(*sampler_args)
        for request in todo:
            count(Path(request.job.out).name, jobs.num_forward_passes(request.job))
            try:
                sample_to_file(model, request, count)
            except Exception as error:
                failed[request.job.out] = f"{type(error).__name__}: {error}"
    return failed


def _sample_by_runner(
    args: argparse.Namespace, todo: Sequence[SampleRequest], sampler_args: SamplerArgs
) -> dict[str, str]:
    """Sample the requests by the runner's workers, local or on Ray. Returns {out: error} of those without a video."""
    checkpoint, device, dtype, accel = sampler_args
    folder = args.out if args.jobs else todo[0].job.out.rpartition("/")[0]
    store = Store(f"{folder.rstrip('/')}/{STATE}")
    stage = Sample(str(checkpoint.root), device, dtype, json.dumps(asdict(accel)))
    with exclusive_lock(store):
        shards = queue(store, todo)
        names = {shard: Path(todo[shard].job.out).name for shard in shards}
        summary = session.run_stages(args, [stage], store, shards, names)
        finished = {shard for shard in shards if store.is_up_to_date(stage, (shard,))}
    errors = {shard: errors for (_, (shard, *_)), errors in summary.failed_jobs.items()}
    return {
        todo[n].job.out: errors.get(n, "not sampled, because the run ended before") for n in shards if n not in finished
    }


def _jobs(args: argparse.Namespace, defaults: dict[str, Any]) -> list[tuple[str, Job]]:
    """Return the requested jobs, each with its location in the job file ("" for the command line).

    defaults: settings of the checkpoint, which flags and lines of the job file override.
    """
    settings = defaults | given_values(args, Job, exclude=NOT_SETTINGS)
    if args.jobs:
        for flag in ("ref", "next-prompt", "sweep"):
            if getattr(args, flag.replace("-", "_")):
                raise ValueError(f"--{flag} requires --prompt; in a job file, set it on each line")
        if args.out.endswith(".mp4"):
            raise ValueError(f"--out {args.out}: with --jobs it must be a folder; each line names its mp4")
        return jobs.read(args.jobs, settings, args.out)
    job = jobs.resolve_paths(
        settings | {"out": args.out, "prompt": args.prompt, "ref": args.ref, "next_prompt": args.next_prompt},
        str(Path.cwd()),
    )
    return [("", each) for each in (jobs.sweep(job, args.sweep) if args.sweep else [job])]


def _device(args: argparse.Namespace) -> tuple[str, str]:
    """Return the device and dtype to sample with. Raises ValueError if the GPU does not exist."""
    if not args.ray:
        return resolve_device(args.device, args.dtype)
    from pipelines.run import on_ray

    device = on_ray.device(args.ray, args.device)
    return device, args.dtype or default_dtype(device)


def _write_sheet(args: argparse.Namespace, finished: Sequence[Job]) -> None:
    """Write the contact sheet of a sweep, such as out-flow-shift.png, with a row for each finished video."""
    from a2data.media.pictures import read_picture

    if not finished:
        return
    flag = args.sweep.partition("=")[0].strip().lstrip("-").replace("_", "-")
    values = [getattr(job, flag.replace("-", "_")) for job in finished]
    rows = {
        f"{flag} {v:g}" if isinstance(v, float) else f"{flag} {v}": job.out
        for v, job in zip(values, finished, strict=True)
    }
    picture = output.sweep_sheet(rows, [read_picture(file) for _, file in finished[0].references()])
    out = f"{args.out.removesuffix('.mp4')}-{flag}.png"
    output.write_sheet(out, picture)
    print(f"contact sheet: {out}")
