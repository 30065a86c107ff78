"""Triplet validity: checks, fraction of valid triplets, first failing checks, cost of each stage (docs/triplet-bench.md)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.bench.triplets import match_truth, pairs, phrases, pictures, shots
from pipelines.bench.triplets.match_truth import GroundTruthMatcher, Key
from pipelines.bench.triplets.predictions import Prediction, Sample
from pipelines.bench.triplets.statistics import Score, f_beta, proportion
from pipelines.films.truth import KINDS, Truth

# Checks in order -> the stage that a failure is attributed to.
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
    triplets: list[TripletResult]
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
    matcher = GroundTruthMatcher(truth, prediction)
    all_pairs = pairs.make_pairs(matcher)
    plates = pictures.plates_of([u.shot for u in truth.units], folder) if folder else {}
    by_sample: dict[str, list[pairs.Pair]] = {}
    for pair in all_pairs:
        by_sample.setdefault(pair.sample.clip, []).append(pair)
    judge = Judge(matcher, plates)
    results = [judge.judge(s, by_sample.get(s.clip, [])) for s in prediction.samples]
    phrase_counts = sum((phrases.count_phrases(matcher, s) for s in prediction.samples), phrases.PhraseCounts())
    lost = find_lost(matcher)
    precision, recall = rates(truth, results)
    twice_idtp, boxes = match_truth.idf1_terms(matcher)
    scores = [
        *shots.cut_scores(truth, prediction),
        shots.purity_score(truth, prediction),
        shots.frame_score(truth, prediction),
        *pairs.entity_scores(matcher),
        Score("tracks, IDF1", twice_idtp / boxes if boxes else None, twice_idtp, boxes, note="no boxes in the truth"),
        *pairs.pairing_scores(matcher, all_pairs),
        *pairs.embedding_scores(matcher),
        *pairs.cluster_scores(matcher, all_pairs),
        *pictures.picture_scores(judge.clean, judge.places),
        *phrases.phrase_scores(phrase_counts),
        proportion("triplets, precision", sum(not v.failed for v in results), len(results)),
        proportion("triplets, recall", len(valid_units(results) & {*truth.achievable}), len(truth.achievable)),
        Score("TripletF0.5", f_beta(precision, recall, 0.5)),
    ]
    histogram = Counter(v.failed[0][0] for v in results if v.failed) + Counter(f"lost in {s}" for s in lost.values())
    gains = substitution(truth, results, lost)
    return Result(truth.tier, scores, results, lost, dict(histogram), gains, precision, recall)


@dataclass
class Judge:
    """Checks of single triplets, and the picture scores measured along the way."""

    matcher: GroundTruthMatcher
    plates: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        self.clean: list[pictures.Cleanliness] = []
        self.places: list[pictures.BackgroundQuality] = []

    def judge(self, sample: Sample, sample_pairs: list[pairs.Pair]) -> TripletResult:
        unit = self.matcher.unit_of.get(sample.clip)
        failed = [
            *self._check_clip(sample),
            *(f for pair in sample_pairs for f in self._check_pair(pair)),
            *self._check_phrases(sample),
        ]
        order = list(CHECKS)
        failed.sort(key=lambda f: order.index(f[0]))
        return TripletResult(sample, unit.key if unit else None, tuple(failed))

    def _check_clip(self, sample: Sample) -> list[tuple[str, str]]:
        film = self.matcher.truth.by_file.get(self.matcher.prediction.clips[sample.clip].file)
        if film is None:
            raise ValueError(f"the truth does not have the film {self.matcher.prediction.clips[sample.clip].file}")
        failed, frame_offset = [], shots.offset(film, sample)
        if frame_offset:
            failed.append(("frame offset", f"frames are {frame_offset:+d} from those stated"))
        if sample.clip not in self.matcher.unit_of or not shots.is_pure(film, sample.frames):
            failed.append(("impure clip", f"{film.file}, frames {sample.frames[0]} to {sample.frames[-1]}"))
        return failed

    def _check_pair(self, pair: pairs.Pair) -> list[tuple[str, str]]:
        ref = pair.ref
        description = f"{ref.role} {ref.element} by {ref.source_element}"
        is_background = ref.role == "background"
        if not pair.is_annotated:
            return [("no such subject", description)]
        checks = [
            ("same clip", pair.is_cross_clip),
            ("near copy", pair.is_cross_take),
            ("wrong place" if is_background else "wrong identity", pair.same_subject),
            ("background leak" if is_background else "dirty reference", self._is_clean(pair)),
        ]
        identities = f"{pair.target_match.id or '?'} by {pair.source_match.id or '?'}"
        return [
            (name, description if is_background else f"{description}: {identities}")
            for name, passed in checks
            if not passed
        ]

    def _is_clean(self, pair: pairs.Pair) -> bool:
        """Return whether the reference is clean; True if the truth has no pixels."""
        if pair.ref.role == "background":
            background = pictures.background_quality(self.matcher, pair.ref, self.plates)
            self.places += [background] if background else []
            return background is None or background.clean
        cutout = pictures.cleanliness(self.matcher, pair.ref, pair.source_match)
        self.clean += [cutout] if cutout else []
        return cutout is None or cutout.clean

    def _check_phrases(self, sample: Sample) -> list[tuple[str, str]]:
        unit = self.matcher.unit_of.get(sample.clip)
        failed = []
        for slot in phrases.labelled_slots(unit, sample) if unit else sample.slots:
            entity = self.matcher.of_element(slot.element).entity if slot.element else None
            if slot.element and not (unit and phrases.is_correct(unit, sample, slot, entity)):
                failed.append(("wrong phrase", f"{slot.phrase!r} for {entity.id if entity else 'no entity'}"))
            elif entity and phrases.count_claims(slot.phrase, entity).false:
                failed.append(("false words", f"{slot.phrase!r} for {entity.id}"))
        for ref in sample.references:
            if ref.phrase and sample.prompt[ref.start : ref.end] != ref.phrase:
                failed.append(("wrong phrase", f"{ref.phrase!r} is not at {ref.start} to {ref.end}"))
        return failed


def valid_units(results: list[TripletResult], ignored_checks: frozenset[str] = frozenset()) -> set[Key]:
    return {result.unit for result in results if result.unit and result.checks <= ignored_checks}


def rates(
    truth: Truth,
    results: list[TripletResult],
    ignored_checks: frozenset[str] = frozenset(),
    recovered: frozenset[Key] = frozenset(),
) -> tuple[float, float]:
    """Return precision and recall of triplets, without `ignored_checks` and with the lost shots in `recovered` counted as found.

    Precision: fraction of the emitted triplets that are valid. Recall: fraction of the achievable shots with a valid triplet.
    """
    achievable = {*truth.achievable}
    emitted = len(results) + len(recovered)
    valid = sum(result.checks <= ignored_checks for result in results) + len(recovered)
    reached = len((valid_units(results, ignored_checks) | recovered) & achievable)
    return valid / emitted if emitted else 0.0, reached / len(achievable) if achievable else 0.0


def substitution(truth: Truth, results: list[TripletResult], lost: dict[Key, str]) -> dict[str, float]:
    """Return the largest gain in TripletF0.5 if a stage were perfect: its checks pass, and the shots it lost are valid."""
    baseline = f_beta(*rates(truth, results), 0.5)
    gains = {}
    for stage in STAGES:
        ignored_checks = frozenset(check for check, cause in CHECKS.items() if cause == stage)
        recovered = frozenset(key for key, cause in lost.items() if cause == stage)
        gains[stage] = f_beta(*rates(truth, results, ignored_checks, recovered), 0.5) - baseline
    return gains


def find_lost(matcher: GroundTruthMatcher) -> dict[Key, str]:
    """Return the achievable shots without a triplet, each with the stage that lost it."""
    emitted = {unit.key for s in matcher.prediction.samples if (unit := matcher.unit_of.get(s.clip))}
    clips = match_truth.clips_of(matcher)
    elements: dict[str, list[str]] = {}
    for element in matcher.prediction.elements.values():
        if element.kind in KINDS:
            elements.setdefault(element.clip, []).append(element.id)
    lost = {}
    for key in matcher.truth.achievable:
        if key in emitted:
            continue
        kept = [clip for clip in clips.get(key, []) if clip.kept]
        required_ids = {e.id for e in matcher.truth.expected[key]}
        shot_elements = [
            e for clip in kept for e in elements.get(clip.id, []) if matcher.of_element(e).id in required_ids
        ]
        passed = [
            bool(clips.get(key)),
            bool(kept),
            bool(shot_elements),
            any(e in matcher.prediction.matched for e in shot_elements),
        ]
        lost[key] = LOST[passed.index(False)] if False in passed else "retrieve"
    return lost
