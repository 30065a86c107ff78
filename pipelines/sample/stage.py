"""Sampling as a stage of the common runner: one shard for each video that is due, see docs/sampling.md.

The stage writes each video next to its record, which is what a later run skips finished videos by, whether the video came from a
job file or from a prompt. The tables therefore live for one run.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from a2data import heartbeat
from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.sample import output
from pipelines.sample.acceleration import Acceleration, write_ratios
from pipelines.sample.checkpoint import Checkpoint
from pipelines.sample.job import Job
from pipelines.sample.record import SampleRequest

STATE = ".a2data"  # folder beside the videos with the tables of the current or last run


@dataclass(frozen=True)
class Requested:
    """A video to sample."""

    out: str  # path or URL of the mp4
    job: str  # fields of its Job, JSON
    record: str  # its record, JSON


@dataclass(frozen=True)
class Written:
    """A video that was written."""

    out: str
    frames: int


@dataclass(frozen=True)
class Sample(Stage):
    """Samples the requested videos and writes them."""

    reads = {"requests": Requested}
    writes = Written
    per = "shard"
    unit_timeout_s = 21600.0  # without a step; one of a large network takes hours without a GPU

    checkpoint: str
    device: str = "cpu"
    """cpu or cuda"""
    dtype: str = "float32"
    """dtype of the weights"""
    acceleration: str = "{}"
    """fields of Acceleration, JSON"""

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return float(self.device.startswith("cuda"))

    def load(self) -> Any:
        from pipelines.sample import sampler

        fields = json.loads(self.acceleration)
        accel = Acceleration(**fields | {"cache_ratios": tuple(fields.get("cache_ratios", ()))})
        return sampler.Sampler(Checkpoint.open(self.checkpoint), self.device, self.dtype, accel)

    def run(self, model: Any, requests: list[Requested], shard: int) -> Iterator[Written]:
        for row in requests:
            fields = json.loads(row.job)
            job = Job(**fields | {name: tuple(fields[name]) for name in ("ref", "next_prompt")})
            yield Written(row.out, sample_to_file(model, SampleRequest(job, json.loads(row.record)), heartbeat.step))


def queue(store: Store, requests: Sequence[SampleRequest]) -> list[int]:
    """Replace the tables of the last run by a shard for each request, in this order. Returns the shards."""
    for table in ("requests", Sample.name()):
        for name in store.names(table):
            store.remove(table, name)
    for shard, (job, record) in enumerate(requests):
        store.write("requests", shard, Requested, [Requested(job.out, json.dumps(asdict(job)), json.dumps(record))])
    return list(range(len(requests)))


def sample_to_file(sampler: Any, request: SampleRequest, on_step: Callable[[], None] = lambda: None) -> int:
    """Sample a video and write it, its record and, if wanted, its contact sheet. Returns the number of frames.

    With --calibrate also writes the measured ratios to the checkpoint folder.
    """
    job, record = request
    if sampler.accel.calibrate:
        frames, ratios = sampler.calibrate(job, on_step)
        write_ratios(sampler.checkpoint.root, ratios, record)
    else:
        frames = sampler(job, on_step=on_step)
    if sampler.is_main():
        sheet = output.sheet(_preview(job, frames, sampler.checkpoint.conditioning)) if job.preview else None
        output.write(job.out, frames, record, (job.audio, job.audio_start_s), sheet)
    return len(frames)


def _preview(job: Job, frames: Any, conditioning: str) -> list[tuple[str, Sequence[Any]]]:
    """Return the rows of a video's contact sheet: the references as the network sees them, then frames."""
    from model_zoo.a2.references import prepare
    from pipelines.sample.sampler import read_references

    references = read_references(job)
    rows = (
        [("references", list(prepare(references, job.height, job.width, conditioning or "a2").frames))]
        if references
        else []
    )
    return [*rows, (" ".join(job.prompt.split())[:160], output.stills(frames))]
