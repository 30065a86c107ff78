"""Triplet validity: checks, fraction of valid triplets, first failing checks, cost of each stage (docs/triplet-bench.md)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.bench.triplets import match_truth, pairs, phrases, pictures, shots
from pipelines.bench.triplets.match_truth import GroundTruthMatcher, Key
from pipelines.bench.triplets.predictions import Prediction, Sample
from pipelines.bench.triplets.statistics import Score, f_beta, share
from pipelines.films.truth import KINDS, Truth

# Checks in the order in which they are made -> the stage that a failure is attributed to.
CHECKS = {
    "frame offset": "segment",
    "impure clip": "segment",
    "no such subject": "detect",
    "same clip": "retrieve",
    "near copy": "retrieve",
    "wrong identity": "retrieve",
    "wrong place": "retrieve",
    "dirty reference": "detect",
    "background leak": "background",
    "wrong phrase": "match",
    "false words": "caption",
}
LOST = ("segment", "select", "detect", "match", "retrieve")  # the stage at which a shot without a triplet was lost
STAGES = ("segment", "select", "detect", "background", "caption", "match", "retrieve")


class TripletResult(NamedTuple):
    """One triplet."""

    sample: Sample
    unit: Key | None
    failed: tuple[tuple[str, str], ...]  # check, details; in the order of CHECKS

    @property
    def checks(self) -> set[str]:
        return {check for check, _ in self.failed}


@dataclass(frozen=True)
class Result:
    """A scored prediction."""

    tier: str
    scores: list[Score]
    verdicts: list[TripletResult]
    lost: dict[Key, str]  # achievable shot without a triplet -> the stage that lost it
    histogram: dict[str, int]  # first failing check, or "lost in <stage>" -> triplets or shots
    substitution: dict[str, float]  # stage -> gain in TripletF0.5 if the stage were perfect
    precision: float
    recall: float

    @property
    def headline(self) -> float:
        """TripletF0.5."""
        return f_beta(self.precision, self.recall, 0.5)

    def value(self, name: str) -> float | None:
        return next(s.value for s in self.scores if s.name == name)

    @property
    def worst(self) -> list[tuple[str, int]]:
        """The three most frequent entries of the histogram."""
        return sorted(self.histogram.items(), key=lambda item: (-item[1], item[0]))[:3]


def score(truth: Truth, prediction: Prediction, folder: Path | None = None) -> Result:
    """Score a prediction. folder: of the truth, with the plates; without it, backgrounds are compared with their frame alone."""
    ground = GroundTruthMatcher(truth, prediction)
    all_pairs = pairs.make_pairs(ground)
    plates = pictures.plates_of([u.shot for u in truth.units], folder) if folder else {}
    by_sample: dict[str, list[pairs.Pair]] = {}
    for pair in all_pairs:
        by_sample.setdefault(pair.sample.clip, []).append(pair)
    judge = Judge(ground, plates)
    verdicts = [judge.verdict(s, by_sample.get(s.clip, [])) for s in prediction.samples]
    total = sum((phrases.count_words(ground, s) for s in prediction.samples), phrases.Words())
    lost = find_lost(ground)
    precision, recall = rates(truth, verdicts)
    twice_idtp, boxes = match_truth.idf1_terms(ground)
    figures = [
        *shots.cut_scores(truth, prediction),
        shots.purity_score(truth, prediction),
        shots.frame_score(truth, prediction),
        *pairs.entity_scores(ground),
        Score("tracks, IDF1", twice_idtp / boxes if boxes else None, twice_idtp, boxes, note="no boxes in the truth"),
        *pairs.pairing_scores(ground, all_pairs),
        *pairs.embedding_scores(ground),
        *pairs.cluster_scores(ground, all_pairs),
        *pictures.picture_scores(judge.clean, judge.places),
        *phrases.word_scores(total),
        share("triplets, precision", sum(not v.failed for v in verdicts), len(verdicts)),
        share("triplets, recall", len(valid_units(verdicts) & {*truth.achievable}), len(truth.achievable)),
        Score("TripletF0.5", f_beta(precision, recall, 0.5)),
    ]
    histogram = Counter(v.failed[0][0] for v in verdicts if v.failed) + Counter(f"lost in {s}" for s in lost.values())
    gains = substitution(truth, verdicts, lost)
    return Result(truth.tier, figures, verdicts, lost, dict(histogram), gains, precision, recall)


@dataclass
class Judge:
    """Checks of single triplets, and the picture scores measured along the way."""

    ground: GroundTruthMatcher
    plates: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        self.clean: list[pictures.Cleanliness] = []
        self.places: list[pictures.PlaceFigures] = []

    def verdict(self, sample: Sample, sample_pairs: list[pairs.Pair]) -> TripletResult:
        unit = self.ground.unit_of.get(sample.clip)
        failed = [*self._clip(sample), *(f for pair in sample_pairs for f in self._pair(pair)), *self._words(sample)]
        order = list(CHECKS)
        failed.sort(key=lambda f: order.index(f[0]))
        return TripletResult(sample, unit.key if unit else None, tuple(failed))

    def _clip(self, sample: Sample) -> list[tuple[str, str]]:
        film = self.ground.truth.by_file.get(self.ground.prediction.clips[sample.clip].file)
        if film is None:
            raise ValueError(f"the truth does not have the film {self.ground.prediction.clips[sample.clip].file}")
        out, frame_offset = [], shots.offset(film, sample)
        if frame_offset:
            out.append(("frame offset", f"frames are {frame_offset:+d} from those stated"))
        if sample.clip not in self.ground.unit_of or not shots.is_pure(film, sample.frames):
            out.append(("impure clip", f"{film.file}, frames {sample.frames[0]} to {sample.frames[-1]}"))
        return out

    def _pair(self, pair: pairs.Pair) -> list[tuple[str, str]]:
        ref = pair.ref
        description = f"{ref.role} {ref.element} by {ref.source_element}"
        is_background = ref.role == "background"
        if not pair.known:
            return [("no such subject", description)]
        checks = [
            ("same clip", pair.other_clip),
            ("near copy", pair.other_take),
            ("wrong place" if is_background else "wrong identity", pair.same_subject),
            ("background leak" if is_background else "dirty reference", self._is_clean(pair)),
        ]
        identities = f"{pair.target.id or '?'} by {pair.found.id or '?'}"
        return [
            (name, description if is_background else f"{description}: {identities}")
            for name, passed in checks
            if not passed
        ]

    def _is_clean(self, pair: pairs.Pair) -> bool:
        """Return whether the reference is clean; True if the truth has no pixels."""
        if pair.ref.role == "background":
            place = pictures.place_figures(self.ground, pair.ref, self.plates)
            self.places += [place] if place else []
            return place is None or place.clean
        clean = pictures.cleanliness(self.ground, pair.ref, pair.found)
        self.clean += [clean] if clean else []
        return clean is None or clean.clean

    def _words(self, sample: Sample) -> list[tuple[str, str]]:
        unit = self.ground.unit_of.get(sample.clip)
        out = []
        for slot in phrases.slots_to_judge(unit, sample) if unit else sample.slots:
            entity = self.ground.of_element(slot.element).entity if slot.element else None
            if slot.element and not (unit and phrases.is_right(unit, sample, slot, entity)):
                out.append(("wrong phrase", f"{slot.phrase!r} for {entity.id if entity else 'no entity'}"))
            elif entity and phrases.read(slot.phrase, entity).false:
                out.append(("false words", f"{slot.phrase!r} for {entity.id}"))
        for ref in sample.references:
            if ref.phrase and sample.prompt[ref.start : ref.end] != ref.phrase:
                out.append(("wrong phrase", f"{ref.phrase!r} is not at {ref.start} to {ref.end}"))
        return out


def valid_units(verdicts: list[TripletResult], forgiven: frozenset[str] = frozenset()) -> set[Key]:
    return {v.unit for v in verdicts if v.unit and v.checks <= forgiven}


def rates(
    truth: Truth,
    verdicts: list[TripletResult],
    forgiven: frozenset[str] = frozenset(),
    found: frozenset[Key] = frozenset(),
) -> tuple[float, float]:
    """Return precision and recall of triplets, with some checks forgiven and some lost shots counted as found.

    Precision: fraction of the emitted triplets that are valid. Recall: fraction of the achievable shots with a valid triplet.
    """
    achievable = {*truth.achievable}
    emitted = len(verdicts) + len(found)
    valid = sum(v.checks <= forgiven for v in verdicts) + len(found)
    reached = len((valid_units(verdicts, forgiven) | found) & achievable)
    return valid / emitted if emitted else 0.0, reached / len(achievable) if achievable else 0.0


def substitution(truth: Truth, verdicts: list[TripletResult], lost: dict[Key, str]) -> dict[str, float]:
    """Return the largest gain in TripletF0.5 if a stage were perfect: its checks pass, and the shots it lost are valid."""
    now = f_beta(*rates(truth, verdicts), 0.5)
    out = {}
    for stage in STAGES:
        forgiven = frozenset(check for check, at in CHECKS.items() if at == stage)
        found = frozenset(key for key, at in lost.items() if at == stage)
        out[stage] = f_beta(*rates(truth, verdicts, forgiven, found), 0.5) - now
    return out


def find_lost(ground: GroundTruthMatcher) -> dict[Key, str]:
    """Return the achievable shots without a triplet, each with the stage that lost it."""
    emitted = {unit.key for s in ground.prediction.samples if (unit := ground.unit_of.get(s.clip))}
    clips = match_truth.clips_of(ground)
    elements: dict[str, list[str]] = {}
    for element in ground.prediction.elements.values():
        if element.kind in KINDS:
            elements.setdefault(element.clip, []).append(element.id)
    out = {}
    for key in ground.truth.achievable:
        if key in emitted:
            continue
        kept = [clip for clip in clips.get(key, []) if clip.kept]
        wanted = {e.id for e in ground.truth.expected[key]}
        mine = [e for clip in kept for e in elements.get(clip.id, []) if ground.of_element(e).id in wanted]
        reached = [bool(clips.get(key)), bool(kept), bool(mine), any(e in ground.prediction.matched for e in mine)]
        out[key] = LOST[reached.index(False)] if False in reached else "retrieve"
    return out
