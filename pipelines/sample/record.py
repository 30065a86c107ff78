"""Sample requests: a job with the record of its inputs and settings, and the record's key."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.sample import job as jobs
from pipelines.sample.acceleration import NO_ACCELERATION, Acceleration
from pipelines.sample.checkpoint import Checkpoint, resolve_device
from pipelines.sample.checks import check_tokens
from pipelines.sample.job import Job


class SampleRequest(NamedTuple):
    """A job and the record of its video."""

    job: Job
    record: dict[str, Any]


def make_request(checkpoint: Checkpoint, device: str | None, job: Job, files: dict[str, str]) -> SampleRequest:
    """Return the request of a validated job; files: {path: sha256} of its inputs. Raises ValueError if a prompt is too long."""
    check_tokens(checkpoint, [("", job)])
    return SampleRequest(job, record(job, files, checkpoint, resolve_device(device)[1]))


def record(
    job: Job, files: dict[str, str], checkpoint: Checkpoint, dtype: str, accel: Acceleration = NO_ACCELERATION
) -> dict[str, Any]:
    """Return the record of a video, for its metadata and its JSON file. `key` hashes everything that its content depends on.

    Two runs with the same key can differ only through the device and the library versions.
    """
    from model_zoo.a2.references import ROLES

    settings = {
        f.name: getattr(job, f.name)
        for f in jobs.SETTINGS
        if f.name not in (*jobs.FILE_FIELDS, "preview", "negative_prompt")
    }
    references = sorted(job.references(), key=lambda ref: ROLES.index(ref[0]))
    content: dict[str, Any] = {
        "prompt": job.prompt,
        "next_prompt": list(job.next_prompt),
        "negative_prompt": job.negative_prompt,
        "references": [{"role": role, "sha256": files[file]} for role, file in references],
        "audio": {"sha256": files[job.audio]} if job.audio else None,
        "init_video": {"sha256": files[job.init_video]} if job.init_video else None,
        "settings": settings | {"dtype": dtype} | accel.inexact_settings(),
        "checkpoint": checkpoint.digest,
    }
    # omitted rather than null if not set, so that the keys of existing videos do not change
    if job.image:
        content["image"] = {"sha256": files[job.image]}
    if checkpoint.reference_slots:
        content["reference_slots"] = checkpoint.reference_slots
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    for entry, (_, file) in zip(content["references"], references, strict=True):
        entry["file"] = Path(file).name
    for name in jobs.FILE_FIELDS:
        if content.get(name):
            content[name]["file"] = Path(getattr(job, name)).name
    versions = {name: version(name) for name in ("a2data", "diffusers", "torch", "transformers")}
    checkpoint_entry = {"name": checkpoint.root.name, "digest": checkpoint.digest}
    return {"key": key, **content, "checkpoint": checkpoint_entry, "versions": versions}
