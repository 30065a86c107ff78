"""`a2data sample`: elements and a prompt in, a video out, with A2 or Wan; one video, a sweep of a setting, or a file of jobs."""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model_zoo.a2 import checkpoint as a2_folder
from pipelines.sample import acceleration, checks, cutouts, output
from pipelines.sample import job as jobs
from pipelines.sample.acceleration import EXACT, Faster
from pipelines.sample.job import MOST_TOKENS, Job
from pipelines.sample.sampler import Sampler, Task
from pipelines.sample.watch import watcher

DTYPES = ("bfloat16", "float16", "float32")


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
    acceleration.add_flags(command.add_argument_group("faster, or in less memory"))  # type: ignore[arg-type]
    crew = command.add_argument_group("where")
    crew.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    crew.add_argument("--dtype", choices=DTYPES, help="of the weights (default: bfloat16 on a GPU, float32 on CPU)")
    crew.add_argument("--ray", metavar="ADDRESS", help="spread the jobs: a Ray cluster's address, or auto")
    crew.add_argument("--quiet", action="store_true", help="no progress")
    command.set_defaults(do=sample)


def sample(args: argparse.Namespace) -> int:
    """Check everything, sample what is not done yet. Returns 1 where a job failed, having named it."""
    wanted, how = _jobs(args), acceleration.of(args)
    root, parts = _checkpoint(args.checkpoint)
    files = checks.validated(wanted, referenced="image_encoder" in parts)
    cutouts.check(wanted)
    device, dtype = _device(args)
    acceleration.check(how, device, dtype, root, [job for _, job in wanted], bool(args.ray))
    _check_tokens(root, wanted)
    checkpoint = {"name": root.resolve().name, "digest": a2_folder.digest(root, parts)}
    how = acceleration.with_ratios(how, root, checkpoint["digest"])
    tasks = [Task(job, record(job, files, checkpoint, dtype, how)) for _, job in wanted]
    todo = [
        task for task in tasks if how.calibrate or not output.done(task.job.out, task.record["key"], task.job.preview)
    ]
    todo = jobs.by_shape(todo, lambda task: task.job)
    todo = [task._replace(job=job) for task, job in zip(todo, cutouts.made([t.job for t in todo]), strict=True)]
    speaks = not how.ranks() or os.environ.get("RANK") == "0"
    watch = watcher(len(todo), args.quiet or not speaks)
    try:
        failed = _crew(args, (str(root.resolve()), device, dtype, how))(todo, watch) if todo else {}
    finally:
        watch.end()
    if not speaks:
        return 1 if failed else 0
    for out, why in failed.items():
        print(f"a2data: {out}: {why}", file=sys.stderr)
    if args.sweep:
        _leave_sheet(args, [task.job for task in tasks if task.job.out not in failed])
    there = len(tasks) - len(todo)
    print(f"{len(todo) - len(failed)} sampled, {there} done before, {len(failed)} failed")
    return 1 if failed else 0


def _checkpoint(folder: str) -> tuple[Path, Sequence[str]]:
    """The folder and its parts. Raises FileNotFoundError and ValueError for one that is no checkpoint."""
    from model_zoo.a2 import skyreels_v2

    if skyreels_v2.is_one(folder):
        return skyreels_v2.check(folder), skyreels_v2.PARTS
    return a2_folder.check(folder), a2_folder.PARTS


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
    if not args.ray:
        return placed(args.device, args.dtype)
    from pipelines.run import on_ray

    device = on_ray.device(args.ray, args.device)
    return device, args.dtype or _dtype(device)


def placed(wanted: str | None, dtype: str | None = None) -> tuple[str, str]:
    """The device and dtype to sample with on this machine. Raises ValueError for a GPU that is not there."""
    import torch

    device = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"--device {device}: write cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= count:
        raise ValueError(f"--device {device}: torch finds {count or 'no'} GPUs here; leave it out to sample without")
    return device, dtype or _dtype(device)


def _dtype(device: str) -> str:
    return "bfloat16" if device.startswith("cuda") else "float32"


def prepared(checkpoint: str, device: str | None, job: Job, files: dict[str, str]) -> Task:
    """The task of one job that is valid, and reads these files, {path: sha256}. Raises ValueError for prompts too long."""
    root = a2_folder.check(checkpoint)
    _check_tokens(root, [("", job)])
    known = {"name": root.resolve().name, "digest": a2_folder.digest(root)}
    return Task(job, record(job, files, known, placed(device)[1]))


def _check_tokens(root: Path, wanted: Sequence[tuple[str, Job]]) -> None:
    """Raises ValueError for prompts whose end the network would not read."""
    from model_zoo import torchvision_shim

    torchvision_shim.install()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "tokenizer", local_files_only=True)
    texts = dict.fromkeys((where, name, text) for where, job in wanted for name, text in checks.texts(job))
    counts = {text: len(tokenizer(text).input_ids) for text in {text for _, _, text in texts}}
    wrong = [
        f"{where}the {name} has {counts[text]} tokens; the network reads {MOST_TOKENS}: make it shorter"
        for where, name, text in texts
        if counts[text] > MOST_TOKENS
    ]
    if wrong:
        raise ValueError("\n".join(wrong))


def record(
    job: Job, files: dict[str, str], checkpoint: dict[str, str], dtype: str, how: Faster = EXACT
) -> dict[str, Any]:
    """How a video is made, for its file and for the JSON beside it. `key` names all that its pixels and sound depend on.

    Two runs with the same key differ by the device and the versions of the libraries at most.
    """
    from model_zoo.a2.references import ROLES

    settings = {
        f.name: getattr(job, f.name) for f in jobs.SETTINGS if f.name not in (*jobs.FILES, "preview", "negative_prompt")
    }
    inorder = sorted(job.references(), key=lambda ref: ROLES.index(ref[0]))
    told: dict[str, Any] = {
        "prompt": job.prompt,
        "then": list(job.then),
        "negative_prompt": job.negative_prompt,
        "references": [{"role": role, "sha256": files[file]} for role, file in inorder],
        "audio": {"sha256": files[job.audio]} if job.audio else None,
        "extend": {"sha256": files[job.extend]} if job.extend else None,
        "settings": settings | {"dtype": dtype} | how.drift(),
        "checkpoint": checkpoint["digest"],
    }
    if job.first_frame:  # not null without one: the keys of videos that were made before stay as they are
        told["first_frame"] = {"sha256": files[job.first_frame]}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    for shown, (_, file) in zip(told["references"], inorder, strict=True):
        shown["file"] = Path(file).name
    for name in jobs.FILES:
        if told.get(name):
            told[name]["file"] = Path(getattr(job, name)).name
    versions = {name: version(name) for name in ("a2data", "diffusers", "torch", "transformers")}
    return {"key": key, **told, "checkpoint": checkpoint, "versions": versions}


def _crew(args: argparse.Namespace, checkpoint: tuple[str, str, str, Faster]) -> Any:
    """A function (tasks, watch) -> {out: why it failed}."""
    if args.ray:
        from pipelines.sample import on_ray

        return lambda todo, watch: on_ray.spread(todo, watch, checkpoint)
    return lambda todo, watch: here(todo, watch, Sampler(*checkpoint))


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
    from model_zoo.a2.references import read_picture

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
