"""Results of a study: mean ratings, inter-rater agreement, and correlation of the automatic metrics with ratings."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.bench.a2.score_file import table_of
from pipelines.bench.a2.study import page as study
from pipelines.bench.a2.study.agreement import correlation, krippendorff
from pipelines.bench.a2.totals import Figure, Measured, Table, summary

FORMAT = "a2-ratings/1"
KINDS = ("person", "model")  # never mixed: a model that fills in the form is reported beside the people
OVERALL = "overall"  # the mean of what was asked of a video


class Rating(NamedTuple):
    """A single answer."""

    kind: str
    rater: str
    system: str
    case: str
    criterion: str
    score: int


def read(
    paths: Iterable[Path], key: Mapping[str, Any], criteria: Mapping[str, study.Criterion] = study.CRITERIA
) -> list[Rating]:
    """Return the answers in exported files, with the system names from the study's key.

    Raises ValueError for a file of another study, an answer that is not in the form, and two files of one rater.
    """
    ratings: list[Rating] = []
    path_of: dict[tuple[str, str], Path] = {}
    for path in paths:
        try:
            rater, answers = _read_one(json.loads(path.read_text()), key, path, criteria)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} lacks {error}: it is not as the study's page exports it") from error
        if rater in path_of:
            raise ValueError(
                f"{path} and {path_of[rater]} are both by {rater[1]!r}: leave one out, or give them two names"
            )
        path_of[rater] = path
        if len({answer[:5] for answer in answers}) < len(answers):
            raise ValueError(f"{path} answers a question twice")
        ratings += answers
    return ratings


def _read_one(
    data: Mapping[str, Any], key: Mapping[str, Any], path: Path, criteria: Mapping[str, study.Criterion]
) -> tuple[tuple[str, str], list[Rating]]:
    if data.get("format") != FORMAT:
        raise ValueError(f"{path} is not a ratings file: export one from the study's page")
    if data["study"] != key["study"]:
        raise ValueError(f"{path} is of the study {data['study']}, the key of {key['study']}")
    rater = (data["rater"].get("kind", "person"), data["rater"]["name"])
    if rater[0] not in KINDS:
        raise ValueError(f"{path}: a rater is a person or a model, not {rater[0]!r}")
    return rater, [_rating(row, rater, key, path, criteria) for row in data["ratings"]]


def _rating(
    row: Mapping[str, Any],
    rater: tuple[str, str],
    key: Mapping[str, Any],
    path: Path,
    criteria: Mapping[str, study.Criterion],
) -> Rating:
    system = key["slots"].get(row["case"], {}).get(row["slot"])
    if system is None:
        raise ValueError(f"{path}: the study shows no video {row['slot']} of {row['case']}")
    criterion = criteria.get(row["criterion"])
    if criterion is None or row["score"] not in criterion.anchors:
        raise ValueError(f"{path}: {row['criterion']} {row['score']!r} is not an answer of the form")
    return Rating(*rater, system, row["case"], row["criterion"], row["score"])


def aggregate(
    ratings: Sequence[Rating], scores: Mapping[str, Mapping[str, Any]], name: str = "", seed: int = 0
) -> dict[str, Any]:
    """Return the results as a JSON object, for people and models separately.

    scores: system -> its score from `a2data bench score`, for the correlations. Means are over cases, each averaged over its
    raters; intervals are a bootstrap over cases, not over raters.
    """
    kinds = {kind: [r for r in ratings if r.kind == kind] for kind in KINDS}
    return {
        "format": "a2-aggregate/1",
        "study": name,
        "seed": seed,
        **{kind: _aggregate_kind(of_kind, scores, seed) for kind, of_kind in kinds.items() if of_kind},
    }


def _aggregate_kind(ratings: Sequence[Rating], scores: Mapping[str, Mapping[str, Any]], seed: int) -> dict[str, Any]:
    means = case_means(ratings)
    systems = list(dict.fromkeys(r.system for r in ratings))
    return {
        "raters": sorted({r.rater for r in ratings}),
        "ratings": len(ratings),
        "means": {system: {k: asdict(f) for k, f in _figures(means[system], seed).items()} for system in systems},
        "alpha": {criterion: _alpha(ratings, criterion) for criterion in study.CRITERIA},
        "correlation": correlations(means, {system: table_of(score) for system, score in scores.items()}),
    }


def case_means(ratings: Iterable[Rating]) -> dict[str, dict[str, dict[str, float]]]:
    """Return system -> case -> criterion -> mean over raters, including OVERALL, the mean of the criteria."""
    scores: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for r in ratings:
        scores[r.system, r.case, r.criterion].append(r.score)
    means: dict[str, dict[str, dict[str, float]]] = {}
    for (system, case, criterion), values in scores.items():
        means.setdefault(system, {}).setdefault(case, {})[criterion] = sum(values) / len(values)
    for cases in means.values():
        for mean_of in cases.values():
            mean_of[OVERALL] = sum(mean_of.values()) / len(mean_of)
    return means


def _figures(cases: Mapping[str, Mapping[str, float]], seed: int) -> dict[str, Figure]:
    table = {
        case: {criterion: Measured(value) for criterion, value in mean_of.items()} for case, mean_of in cases.items()
    }
    # some criteria are called like metrics, of which `summary` has its own ideas
    figures = summary({case: {f"rated {k}": m for k, m in row.items()} for case, row in table.items()}, "lenient", seed)
    empty = Figure(None, note="not rated")
    return {criterion: figures.get(f"rated {criterion}", empty) for criterion in (*study.CRITERIA, OVERALL)}


def _alpha(ratings: Iterable[Rating], criterion: str) -> dict[str, Any]:
    """Return Krippendorff's alpha of one criterion over all videos. Report the ordinal one, since answers are grades."""
    units: dict[tuple[str, str], list[float]] = defaultdict(list)
    for r in ratings:
        if r.criterion == criterion:
            units[r.system, r.case].append(r.score)
    rated = list(units.values())
    videos = sum(len(unit) > 1 for unit in rated)
    return {"ordinal": krippendorff(rated), "interval": krippendorff(rated, "interval"), "videos_rated_twice": videos}


def correlations(
    means: Mapping[str, Mapping[str, Mapping[str, float]]], tables: Mapping[str, Table]
) -> dict[str, dict[str, Any]]:
    """Return metric -> criterion -> Spearman's rho, Kendall's tau-b and the number of videos that have both.

    Uses the strict value of a metric, since raters also see what is missing.
    """
    names = sorted({metric for table in tables.values() for row in table.values() for metric in row})
    out: dict[str, dict[str, Any]] = {}
    for metric in names:
        for criterion in (*study.CRITERIA, OVERALL):
            pairs = list(_pairs(means, tables, metric, criterion))
            coefficients = correlation([a for a, _ in pairs], [b for _, b in pairs])
            if coefficients:
                out.setdefault(metric, {})[criterion] = {**coefficients, "n": len(pairs)}
    return out


def _pairs(means: Mapping, tables: Mapping[str, Table], metric: str, criterion: str) -> Iterable[tuple[float, float]]:
    for system, table in tables.items():
        for case, row in table.items():
            rating = means.get(system, {}).get(case, {}).get(criterion)
            if rating is not None and metric in row and not row[metric].skipped:
                yield row[metric].as_number("strict"), rating


def to_text(results: Mapping[str, Any]) -> str:
    """Return the results as text."""
    lines = []
    for kind in KINDS:
        if kind not in results:
            continue
        part = results[kind]
        lines.append(f"{len(part['raters'])} x {kind}, {part['ratings']} answers")
        for criterion in (*study.CRITERIA, OVERALL):
            cells = [f"{system} {_number(figures[criterion])}" for system, figures in part["means"].items()]
            alpha = part["alpha"].get(criterion, {}).get("ordinal")
            agreement = f"   alpha (ordinal) {alpha:.3f}" if alpha is not None else ""
            lines.append(f"  {criterion:24} " + "   ".join(cells) + agreement)
        for metric, by_criterion in part["correlation"].items():
            if OVERALL in by_criterion:
                coefficients = by_criterion[OVERALL]
                rho, tau, n = (coefficients[name] for name in ("spearman", "kendall", "n"))
                lines.append(f"  {metric}: rho {rho:+.3f}, tau {tau:+.3f} with overall, n {n}")
    return "\n".join(lines) or "no answers"


def _number(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
