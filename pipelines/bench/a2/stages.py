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
from pipelines.bench.a2 import metrics as experts
from pipelines.bench.a2 import profiles
from pipelines.bench.a2.profiles import Ask, Expert, built
from pipelines.bench.a2.records import CaseRow, Sampled, Scored, rate_fps
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

    def run(self, model: Any, asked: list[CaseRow]) -> Iterator[Sampled]:
        for case in asked:
            data = self._made(model, case)
            yield Sampled(case.clip_id, rate_fps(data), data)

    def _made(self, model: Any, case: CaseRow) -> bytes:
        """Return the mp4 of a case, sampled from its pictures in memory."""
        from a2data.media.pictures import read_picture
        from model_zoo.a2.references import Reference

        # names for the video's record; the pictures are not read from files
        names = [f"{number}{shown.suffix}" for number, shown in enumerate(case.shown)]
        refs = [f"{shown.role}={name}" for shown, name in zip(case.shown, names, strict=True)]
        values = json.loads(self.settings) | {"prompt": case.prompt, "ref": refs, "out": f"{case.clip_id}.mp4"}
        job = jobs.resolve_paths(values, "/")
        known = {f"/{name}": shown.sha256 for shown, name in zip(case.shown, names, strict=True)}
        files = checks.validate([("", job)], model.checkpoint.conditioning, known)
        given = [
            Reference(shown.role, read_picture(io.BytesIO(shown.image), f"picture {name} of the case {case.clip_id}"))
            for shown, name in zip(case.shown, names, strict=True)
        ]
        frames = model(job, given, heartbeat.step)
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

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        """Return the base names of the metrics, and the function that builds them from the cards and a device."""
        raise NotImplementedError(f"{type(self).__name__}.metric_names_and_builder")

    def names(self) -> list[str]:
        """Return the names of the metrics with these cards. Raises KeyError for an unknown card."""
        return [profiles.named(metric, self.cards()) for metric in self.metric_names_and_builder()[0]]

    def load(self) -> Expert:
        metrics, builder = self.metric_names_and_builder()
        return built(metrics, self.cards(), builder)

    def run(self, model: Expert, asked: list[CaseRow], sampled: list[Sampled]) -> Iterator[Scored]:
        for case, made in zip(asked, sampled, strict=bool(sampled)):  # no rows for a missing video
            for metric, found in profiles.row([model], case, made).items():
                number = 0.0 if found.value is None else found.value
                facts = (found.value is not None and not found.skipped, found.seen, found.of, found.skipped)
                yield Scored(case.clip_id, metric, number, *facts)


@dataclass(frozen=True)
class Identity(Metrics):
    """Measures whether the people are those of the references."""

    faces: str = "buffalo_l"
    """card of role faces"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("id_consistency",), experts.identity


@dataclass(frozen=True)
class CopyPaste(Metrics):
    """Measures whether a face is closer to the reference than to the ground truth."""

    faces: str = "buffalo_l"
    """card of role faces"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("copy_paste",), experts.copied


@dataclass(frozen=True)
class SubjectConsistency(Metrics):
    """Measures whether the objects and the background are those of the references."""

    ground: str = "grounding-dino-tiny"
    """card of role ground or detect"""
    masks: str = "sam2.1-hiera-large"
    """card of role masks; "" uses the masks of `ground`"""
    pictures: str = "clip-vit-l14"
    """card of role copy or embed"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("object_consistency", "background_consistency"), experts.grounded


@dataclass(frozen=True)
class Quality(Metrics):
    """Measures image quality."""

    quality: str = "musiq-spaq"
    """card of role quality that returns image_quality"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("image_quality",), experts.quality


@dataclass(frozen=True)
class Aesthetic(Metrics):
    """Measures aesthetic quality."""

    aesthetic: str = "laion-aesthetic-v1"
    """card of role quality that returns aesthetic"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("aesthetic_quality",), experts.aesthetic


@dataclass(frozen=True)
class MotionSmoothness(Metrics):
    """Measures how well every second frame is interpolated from its neighbours."""

    interpolate: str = "amt-s"
    """card of role interpolate"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("motion_smoothness",), experts.smooth


@dataclass(frozen=True)
class DynamicDegree(Metrics):
    """Measures whether anything moves, and how well every second frame is interpolated by optical flow."""

    flow: str = "raft-large"
    """card of role flow"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("dynamic_degree", "motion_smoothness.by-flow"), experts.dynamic


@dataclass(frozen=True)
class TextAlignment(Metrics):
    """Measures how well the video matches the prompt."""

    words: str = "viclip"
    """card of role text-video"""

    def metric_names_and_builder(self) -> tuple[tuple[str, ...], Callable[..., Ask]]:
        return ("text_similarity",), experts.words


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


def metrics(models: dict[str, str], only: list[str] | None = None) -> list[Metrics]:
    """Return the metric stages with these cards, {kind: card}: all, or the named ones. Raises ValueError for an unknown name."""
    known = {stage.name(): stage for stage in METRICS}
    strange = [name for name in only or [] if name not in known]
    if strange:
        raise ValueError(f"unknown metric {strange[0]!r}; choose from {', '.join(known)}")
    chosen = [known[name] for name in known if not only or name in only]
    return [stage(**{f.name: models[f.name] for f in fields(stage)}) for stage in chosen]  # type: ignore[arg-type]
