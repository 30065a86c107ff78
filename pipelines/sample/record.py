"""Sample requests: the record of a job's inputs and settings, its key, and sampling in this process."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model_zoo.a2 import checkpoint as a2_folder
from pipelines.sample import job as jobs
from pipelines.sample.acceleration import NO_ACCELERATION, Acceleration
from pipelines.sample.checkpoint import placed
from pipelines.sample.checks import check_tokens
from pipelines.sample.job import Job
from pipelines.sample.sampler import SampleRequest


def prepared(checkpoint: str, device: str | None, job: Job, files: dict[str, str]) -> SampleRequest:
    """Return the request of a validated job; files: {path: sha256} of its inputs. Raises ValueError if a prompt is too long."""
    root = a2_folder.check(checkpoint)
    check_tokens(root, [("", job)])
    known = {"name": root.resolve().name, "digest": a2_folder.digest(root)}
    return SampleRequest(job, record(job, files, known, placed(device)[1]))


def record(
    job: Job, files: dict[str, str], checkpoint: dict[str, str], dtype: str, how: Acceleration = NO_ACCELERATION
) -> dict[str, Any]:
    """Return the record of a video, for its metadata and its JSON file. `key` hashes everything that its content depends on.

    Two runs with the same key can differ only through the device and the library versions.
    """
    from model_zoo.a2.references import ROLES

    settings = {
        f.name: getattr(job, f.name) for f in jobs.SETTINGS if f.name not in (*jobs.FILES, "preview", "negative_prompt")
    }
    inorder = sorted(job.references(), key=lambda ref: ROLES.index(ref[0]))
    told: dict[str, Any] = {
        "prompt": job.prompt,
        "next_prompt": list(job.next_prompt),
        "negative_prompt": job.negative_prompt,
        "references": [{"role": role, "sha256": files[file]} for role, file in inorder],
        "audio": {"sha256": files[job.audio]} if job.audio else None,
        "init_video": {"sha256": files[job.init_video]} if job.init_video else None,
        "settings": settings | {"dtype": dtype} | how.drift(),
        "checkpoint": checkpoint["digest"],
    }
    # omitted rather than null if not set, so that the keys of existing videos do not change
    if job.image:
        told["image"] = {"sha256": files[job.image]}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    for shown, (_, file) in zip(told["references"], inorder, strict=True):
        shown["file"] = Path(file).name
    for name in jobs.FILES:
        if told.get(name):
            told[name]["file"] = Path(getattr(job, name)).name
    versions = {name: version(name) for name in ("a2data", "diffusers", "torch", "transformers")}
    return {"key": key, **told, "checkpoint": checkpoint, "versions": versions}


def here(todo: Sequence[SampleRequest], watch: Any, sampler: Any) -> dict[str, str]:
    """Sample the requests one after another in this process. Returns {out: error} of the failed ones."""
    failed = {}
    for task in todo:
        watch.begin(task.job)
        try:
            sampler.sample(task, watch.step)
        except Exception as error:
            failed[task.job.out] = f"{type(error).__name__}: {error}"
        watch.made(task.job, failed.get(task.job.out, ""))
    return failed
