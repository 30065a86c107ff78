"""Stages of `a2data bench run`: one that samples, and one for each group of metrics that share a model.

If a model is not installed, its metrics are skipped with the reason, and the job does not fail. The absence is part of the resume
key, so re-running the command after installing the model computes them.
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from a2data import heartbeat
from a2data.stage import Stage
from model_zoo import cards
from pipelines.bench.a2 import metrics as metric_builders
from pipelines.bench.a2 import profiles
from pipelines.bench.a2.profiles import Measure, MetricGroup, build_group
from pipelines.bench.a2.records import CaseRow, Sampled, Scored, read_fps
from pipelines.sample import checks, output
from pipelines.sample import job as jobs
from pipelines.sample.checkpoint import Checkpoint
from pipelines.sample.record import record as sample_record


@dataclass(frozen=True)
class Sample(Stage):
    """Samples the video of each case from its reference images and prompt."""

    reads = {"cases": CaseRow}
    writes = Sampled
    accounts_for = "clip_id"
    gpus = 1
    unit_timeout_s = 86400.0  # one video of a large network without a GPU
    uncached_fields = ("checkpoint",)  # its digest is in the key

    checkpoint: str = ""
    """folder of A2, Wan2.1-I2V for diffusers, or an export of `a2data train`"""
    dtype: str = "float32"
    """dtype of the weights"""
    settings: str = "{}"
    """settings of `a2data sample`, as a JSON object"""

    def models(self) -> dict[str, str]:
        return {"checkpoint": Checkpoint.with_references(self.checkpoint).digest}

    def load(self) -> Any:
        from pipelines.sample import sampler

        return sampler.Sampler(Checkpoint.with_references(self.checkpoint), cards.device(), self.dtype)

    def run(self, model: Any, cases: list[CaseRow]) -> Iterator[Sampled]:
        for case in cases:
            data = self._sample(model, case)
            yield Sampled(case.clip_id, read_fps(data), data)

    def _sample(self, model: Any, case: CaseRow) -> bytes:
        """Return the mp4 of a case, sampled from its pictures in memory."""
        from a2data.media.pictures import read_picture
        from model_zoo.a2.references import Reference

        # names for the video's record; the pictures are not read from files
        names = [f"{number}{reference.suffix}" for number, reference in enumerate(case.shown)]
        refs = [f"{reference.role}={name}" for reference, name in zip(case.shown, names, strict=True)]
        values = json.loads(self.settings) | {"prompt": case.prompt, "ref": refs, "out": f"{case.clip_id}.mp4"}
        job = jobs.resolve_paths(values, "/")
        sha256_of = {f"/{name}": reference.sha256 for reference, name in zip(case.shown, names, strict=True)}
        files = checks.validate([("", job)], model.checkpoint.conditioning, sha256_of)
        references = [
            Reference(
                reference.role, read_picture(io.BytesIO(reference.image), f"picture {name} of the case {case.clip_id}")
            )
            for reference, name in zip(case.shown, names, strict=True)
        ]
        frames = model(job, references, heartbeat.step)
        record = sample_record(job, files, model.checkpoint, self.dtype)
        return output.to_mp4(frames, record, (job.audio, job.audio_start_s))


class Metrics(Stage):
    """Base of the metric stages: they read cases and videos, and their fields are model cards."""

    reads = {"cases": CaseRow, "sample": Sampled}
    writes = Scored

    def cards(self) -> dict[str, str]:
        return asdict(self)  # type: ignore[call-overload]

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return min(1.0, sum(cards.gpus(name) for name in self.cards().values() if name))

    def models(self) -> dict[str, str]:
        return profiles.revisions(self.cards().values())

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        """Return the base names of the metrics, and the function that builds them from the cards and a device."""
        raise NotImplementedError(f"{type(self).__name__}.metric_names_and_builder")

    def names(self) -> list[str]:
        """Return the names of the metrics with these cards. Raises KeyError for an unknown card."""
        return [profiles.metric_name(metric, self.cards()) for metric in self.metric_names_and_builder()[0]]

    def load(self) -> MetricGroup:
        metrics, builder = self.metric_names_and_builder()
        return build_group(metrics, self.cards(), builder)

    def run(self, model: MetricGroup, cases: list[CaseRow], sampled: list[Sampled]) -> Iterator[Scored]:
        for case, video in zip(cases, sampled, strict=bool(sampled)):  # no rows for a missing video
            for metric, result in profiles.measure_all([model], case, video).items():
                number = 0.0 if result.value is None else result.value
                counts = (result.value is not None and not result.skipped, result.seen, result.of, result.skipped)
                yield Scored(case.clip_id, metric, number, *counts)


@dataclass(frozen=True)
class Identity(Metrics):
    """Measures whether the people are those of the references."""

    faces: str = "buffalo_l"
    """card of role faces"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("id_consistency",), metric_builders.identity


@dataclass(frozen=True)
class CopyPaste(Metrics):
    """Measures whether a face is closer to the reference than to the ground truth."""

    faces: str = "buffalo_l"
    """card of role faces"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("copy_paste",), metric_builders.copy_paste


@dataclass(frozen=True)
class SubjectConsistency(Metrics):
    """Measures whether the objects and the background are those of the references."""

    ground: str = "grounding-dino-tiny"
    """card of role ground or detect"""
    masks: str = "sam2.1-hiera-large"
    """card of role masks; "" uses the masks of `ground`"""
    pictures: str = "clip-vit-l14"
    """card of role copy or embed"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("object_consistency", "background_consistency"), metric_builders.subject_consistency


@dataclass(frozen=True)
class Quality(Metrics):
    """Measures image quality."""

    quality: str = "musiq-spaq"
    """card of role quality that returns image_quality"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("image_quality",), metric_builders.quality


@dataclass(frozen=True)
class Aesthetic(Metrics):
    """Measures aesthetic quality."""

    aesthetic: str = "laion-aesthetic-v1"
    """card of role quality that returns aesthetic"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("aesthetic_quality",), metric_builders.aesthetic


@dataclass(frozen=True)
class MotionSmoothness(Metrics):
    """Measures how well every second frame is interpolated from its neighbours."""

    interpolate: str = "amt-s"
    """card of role interpolate"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("motion_smoothness",), metric_builders.motion_smoothness


@dataclass(frozen=True)
class DynamicDegree(Metrics):
    """Measures whether anything moves, and how well every second frame is interpolated by optical flow."""

    flow: str = "raft-large"
    """card of role flow"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("dynamic_degree", "motion_smoothness.by-flow"), metric_builders.dynamic_degree


@dataclass(frozen=True)
class TextAlignment(Metrics):
    """Measures how well the video matches the prompt."""

    words: str = "viclip"
    """card of role text-video"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Measure]]:
        return ("text_similarity",), metric_builders.text_similarity


METRICS: tuple[type[Metrics], ...] = (
    Identity,
    CopyPaste,
    SubjectConsistency,
    Quality,
    Aesthetic,
    MotionSmoothness,
    DynamicDegree,
    TextAlignment,
)


def metric_stages(models: dict[str, str], only: list[str] | None = None) -> list[Metrics]:
    """Return the metric stages with these cards, {kind: card}: all, or the named ones. Raises ValueError for an unknown name."""
    by_name = {stage.name(): stage for stage in METRICS}
    unknown = [name for name in only or [] if name not in by_name]
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}; choose from {', '.join(by_name)}")
    selected = [by_name[name] for name in by_name if not only or name in only]
    return [stage(**{f.name: models[f.name] for f in fields(stage)}) for stage in selected]  # type: ignore[arg-type]
