"""Packed triplets -> shards of preference pairs: a clip against its distortions, and results against each other."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from a2data import heartbeat
from a2data.dataset import pair as pairs
from a2data.dataset import writer
from a2data.dataset.batch_plan import rng
from a2data.dataset.pair import Pair
from a2data.dataset.triplet import Triplet, to_members
from a2data.media import video
from a2data.media.pictures import crop_resize
from a2data.records import Failure, Packed, Reject, Rule
from a2data.stage import Stage
from a2data.store.folder import Folder
from model_zoo import cards
from pipelines.prefer.compare import TextVideo, measure_differences
from pipelines.prefer.copying import copy_paste_score, paste_references
from pipelines.prefer.distort import DISTORTIONS, GRADES
from stages.encode.settings import SPLITS, Encoding
from stages.encode.stage import parse_tar_name
from stages.encode.tensors import choose, read_tar
from stages.pack.facts import to_row

REGENERATION_LEVELS = {1: 0.4, 2: 0.7, 3: 1.0}  # noise level from which a clip is regenerated
MIN_COPY_GAPS = {1: 0.0, 2: 0.2, 3: 0.5}  # lowest difference of the copy-paste score
CRF = 16  # of both videos, so that compression does not tell them apart
KINDS = (*DISTORTIONS, "regenerated", "copy-paste", "same")
TAR_PREFIX = {"train": "train", "held-out": "eval"}  # split -> prefix of its tars


class Models(NamedTuple):
    regenerator: Any  # WanA2Pipeline
    text_video: TextVideo | None


class CandidatePair(NamedTuple):
    """Two videos, (t, h, w, 3) uint8, the better one first."""

    kind: str
    grade: int
    chosen: np.ndarray
    rejected: np.ndarray
    measurements: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Prefer(Stage):
    """Packed triplets -> shards of pairs in `out`, and the position of each pair in them. A rerun writes the same bytes."""

    reads = {"pack": Packed}
    writes = Packed
    row_noun = "pairs"
    per = "shard"
    unit_timeout_s = 21600.0
    uncached_fields = ("shards", "out", "checkpoint", "checkpoint_revision", "results_revision", "device")

    shards: str
    out: str
    checkpoint_revision: str = ""
    results_revision: str = ""
    device: str = "cpu"
    """cpu or cuda"""
    kinds: str = "reversed|frozen|frame-rate|jitter|local|copy-paste"
    """kinds of pairs, separated by |; also regenerated (needs --checkpoint), and same: a tie, for the reward model"""
    grades: str = "1|2|3"
    """strengths of the distortions: 1 light, 2 middle, 3 heavy"""
    checkpoint: str = ""
    """checkpoint folder that regenerates clips from noise at the levels 0.4, 0.7 and 1"""
    steps: int = 20
    """denoising steps of regenerated clips"""
    results: str = ""
    """two folders with <clip_id>.mp4 each, DIR|DIR, sampled with the same prompts and references: the video that copies the
    references less is preferred"""
    min_copy_gap: float = 0.1
    """lowest difference in copy-paste score between two results"""
    frames: int = 81
    """frames of each video, 4 n + 1; shorter clips are rejected"""
    seed: int = 0
    """seed of random choices"""
    text_video_model: str = ""
    """card of a model that compares videos with the prompt, such as viclip; "": not compared"""
    min_motion: float = 0.004
    """lowest mean difference of the two videos frame by frame, 0 to 1"""
    min_content: float = 0.6
    """lowest common part of their colour histograms, 0 to 1"""
    max_luma: float = 0.1
    """highest difference in their mean luma, 0 to 1"""
    max_sharpness: float = 1.0
    """highest log2 of the ratio of their sharpness"""
    max_text: float = 0.05
    """highest difference in their similarity to the prompt"""

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds.split("|") if kind not in KINDS]:
            raise ValueError(f"unknown kind {unknown[0]!r} of pairs: choose {', '.join(KINDS)}")
        if not {*self.grades.split("|")} <= {str(grade) for grade in GRADES}:
            raise ValueError(f"grades are {self.grades!r}: write 1, 2 and 3 separated by |")
        if "regenerated" in self.kinds.split("|") and not self.checkpoint:
            raise ValueError("the kind regenerated needs a checkpoint: give its folder with --checkpoint")
        if self.frames < 5 or self.frames % 4 != 1:
            raise ValueError(f"frames is {self.frames}: the VAE takes 4 n + 1")
        if self.results.count("|") != bool(self.results):
            raise ValueError(f"results is {self.results!r}: give two folders, DIR|DIR")

    @property
    def gpus(self) -> float:  # type: ignore[override]
        return float(self.device.startswith("cuda"))

    def models(self) -> dict[str, str]:
        revisions = {"checkpoint": self.checkpoint_revision, "results": self.results_revision}
        if self.text_video_model:
            revisions[self.text_video_model] = cards.revision(self.text_video_model)
        return {name: revision for name, revision in revisions.items() if revision}

    def load(self) -> Models:
        regenerator = None
        if self.checkpoint:
            import torch

            from model_zoo.a2 import pipeline

            dtype = torch.bfloat16 if self.device.startswith("cuda") else torch.float32
            regenerator = pipeline.load(self.checkpoint, self.device, dtype)
        return Models(regenerator, cards.load(self.text_video_model, self.device) if self.text_video_model else None)

    def run(self, models: Models, packed: list[Packed], shard: int) -> Iterator[Packed | Reject | Failure]:
        for name in sorted({row.shard for row in packed}):
            number, _ = parse_tar_name(name)
            for split in SPLITS:
                rows = {row.clip_id: row for row in packed if row.shard == name and row.split == split}
                if rows:
                    yield from self.write_tar(models, name, number, rows, TAR_PREFIX[split])

    def write_tar(
        self, models: Models, name: str, number: int, rows: dict[str, Packed], prefix: str
    ) -> Iterator[Packed | Reject | Failure]:
        """Write the pairs of some triplets of a packed tar and yield their rows. rows: {clip_id: row}."""
        skipped: list[Reject | Failure] = []
        facts: dict[str, Triplet] = {}

        def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
            for triplet in read_tar(Folder(self.shards), name):
                clip = triplet.facts.clip_id
                for made in self.attempt(models, triplet) if clip in rows else ():
                    if isinstance(made, Reject | Failure):
                        skipped.append(made)
                    else:
                        facts[made.facts.clip_id] = replace(made, video=b"", rejected=b"")
                        yield made.facts.clip_id, to_members(made)

        for member in writer.write(samples(), Folder(self.out), number, 1 << 30, prefix):
            pair = facts[member.key]
            # a clip's own component: without splits by `pack`, clips are held out by their id, as in `encode`
            yield to_row(member, pair.facts, prefix, pair.pair.clip_id)  # type: ignore[union-attr]
        yield from skipped

    def attempt(self, models: Models, triplet: Triplet) -> Sequence[Triplet | Reject | Failure]:
        """Return the pairs of a triplet in the order of their keys, and what was left out: a bad one must not fail its tar."""
        clip = triplet.facts.clip_id
        try:
            frames = video.decode(triplet.video)
            if len(frames) < self.frames:
                return [Reject(clip, "too short", f"it has {len(frames)} frames; {self.frames} are needed")]
            pairs_made: list[Triplet | Reject] = []
            for candidate in self.candidates(models, triplet, frames):
                pairs_made.append(
                    candidate if isinstance(candidate, Reject) else self.to_sample(models, triplet, candidate)
                )
                heartbeat.step()
            return sorted(pairs_made, key=lambda each: each.key if isinstance(each, Reject) else each.facts.clip_id)
        except Exception as error:
            return [Failure(clip, f"{type(error).__name__}: {error}")]

    def candidates(self, models: Models, triplet: Triplet, frames: np.ndarray) -> Iterator[CandidatePair | Reject]:
        clip, kinds = triplet.facts.clip_id, self.kinds.split("|")
        first = frames[: self.frames]
        for grade in map(int, self.grades.split("|")):
            for kind in (kind for kind in DISTORTIONS if kind in kinds):
                generator = rng(self.seed, grade, clip, kind)
                yield CandidatePair(kind, grade, first, DISTORTIONS[kind](first, grade, generator), {})
            if "copy-paste" in kinds and (worse := paste_references(first, triplet, grade)) is not None:
                yield CandidatePair("copy-paste", grade, first, worse, {})
            if "regenerated" in kinds:
                yield self.regenerate(models.regenerator, triplet, first, grade)
        if "same" in kinds and len(frames) > self.frames:
            yield CandidatePair("same", 1, first, frames[1 : self.frames + 1], {})
        if self.results:
            yield self.compare_results(triplet, first)

    def regenerate(self, pipe: Any, triplet: Triplet, frames: np.ndarray, grade: int) -> CandidatePair:
        from model_zoo.a2.references import prepare
        from model_zoo.a2.regenerate import regenerate

        height, width = (side // 16 * 16 for side in frames.shape[1:3])
        fitted = np.stack([crop_resize(frame, height, width) for frame in frames])
        references = prepare(choose(triplet, Encoding()), height, width)
        seed = int(rng(self.seed, grade, triplet.facts.clip_id, "regenerated").integers(1 << 31))
        worse = regenerate(pipe, fitted, references, triplet.prompt, REGENERATION_LEVELS[grade], self.steps, seed=seed)
        return CandidatePair("regenerated", grade, fitted, worse, {})

    def compare_results(self, triplet: Triplet, truth: np.ndarray) -> CandidatePair | Reject:
        """Return the pair of two sampled videos, of which the one with the lower copy-paste score is preferred."""
        from model_zoo.a2.references import prepare

        key = f"{triplet.facts.clip_id}-results"
        results = [Folder(folder).get(f"{triplet.facts.clip_id}.mp4") for folder in self.results.split("|")]
        if None in results:
            return Reject(key, "no result", f"{self.results} does not have {triplet.facts.clip_id}.mp4 twice")
        videos = [video.decode(data) for data in results if data]
        if videos[0].shape != videos[1].shape:
            return Reject(key, "other size", f"the results are {videos[0].shape} and {videos[1].shape}")
        height, width = videos[0].shape[1:3]
        real = np.stack([crop_resize(frame, height, width) for frame in truth])
        references = prepare(choose(triplet, Encoding()), height, width).frames
        scores = [copy_paste_score(each, real, references) for each in videos]
        gap = Rule("copy gap", abs(scores[0] - scores[1]), self.min_copy_gap, math.inf)
        if not gap.passed:
            return Reject(key, "copy gap", str(gap))
        grade = max(grade for grade, low in MIN_COPY_GAPS.items() if gap.value >= low)
        (low, chosen), (high, rejected) = sorted(zip(scores, videos, strict=True), key=lambda each: each[0])
        return CandidatePair("results", grade, chosen, rejected, {"copy_chosen": low, "copy_rejected": high})

    def to_sample(self, models: Models, triplet: Triplet, candidate: CandidatePair) -> Triplet | Reject:
        """Return the pair as a sample, or its rejection if more than its motion differs."""
        key = f"{triplet.facts.clip_id}-{candidate.kind}-{candidate.grade}"
        differences = measure_differences(candidate.chosen, candidate.rejected, triplet.prompt, models.text_video)
        for rule in self.rules(candidate.kind, differences):
            if not rule.passed:
                return Reject(key, rule.name, str(rule))
        facts, (t, height, width, _) = triplet.facts, candidate.chosen.shape
        chosen, rejected = (video.encode(each, facts.fps, CRF) for each in (candidate.chosen, candidate.rejected))
        facts = replace(
            facts, clip_id=key, caption=replace(facts.caption, clip_id=key), frames=t, height=height, width=width,
            source_frames=facts.source_frames[:t], source_pts_s=facts.source_pts_s[:t],
        )  # fmt: skip
        tie, hashes = candidate.kind == "same", (pairs.sha256(chosen), pairs.sha256(rejected))
        pair = Pair(
            triplet.facts.clip_id, candidate.kind, candidate.grade, tie, "rule", *hashes,
            {name: round(value, 6) for name, value in (candidate.measurements | differences).items()},
        )  # fmt: skip
        return replace(triplet, facts=facts, video=chosen, rejected=rejected, pair=pair)

    def rules(self, kind: str, differences: dict[str, float]) -> list[Rule]:
        """Return the rules of a kind. What copies a picture of the subject may have other content; a tie may be still."""
        rules = [
            Rule("sharpness", differences["sharpness"], 0.0, self.max_sharpness),
            Rule("luma", differences["luma"], 0.0, self.max_luma),
        ]
        if kind != "same":
            rules.append(Rule("motion", differences["motion"], self.min_motion, math.inf))
        if kind not in ("copy-paste", "results"):
            rules.append(Rule("content", differences["content"], self.min_content, 1.0 + 1e-9))
            if "text" in differences:
                rules.append(Rule("text", differences["text"], 0.0, self.max_text))
        return rules


def revision_of(folder: str) -> str:
    """Return 16 hex digits of the names and bytes of a folder's videos."""
    videos = Folder(folder)
    names = sorted(name for name in videos.names() if name.endswith(".mp4"))
    if not names:
        raise ValueError(f"{folder} has no videos: results are named <clip_id>.mp4")
    return hashlib.sha256("".join(f"{name} {videos.sha256(name)}\n" for name in names).encode()).hexdigest()[:16]
