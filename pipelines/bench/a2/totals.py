"""Score of a system: eight metrics over its videos, their confidence intervals, and two totals. Pure numpy.

The paper (Fei et al. 2025, arXiv 2504.02436, Table 1) prints a comprehensive score, but not the weights of the metrics. Both
totals here are ours: `paper-fit` was fitted to the four printed rows and reproduces their four totals to the third digit;
`normalised` is bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipelines.statistics import cluster_bootstrap, percentile_interval

RESAMPLES = 2000
VARIANTS = ("lenient", "strict")


class Metric(NamedTuple):
    """One of the eight metrics."""

    dimension: str
    title: str
    maximum: float  # maximum value; the minimum is 0


METRICS: dict[str, Metric] = {
    "id_consistency": Metric("composition", "ID consistency", 1.0),
    "object_consistency": Metric("composition", "Object consistency", 1.0),
    "background_consistency": Metric("composition", "Background consistency", 1.0),
    "image_quality": Metric("visual", "Image quality", 1.0),
    "aesthetic_quality": Metric("visual", "Aesthetic quality", 1.0),
    "motion_smoothness": Metric("visual", "Motion smoothness", 1.0),
    "dynamic_degree": Metric("visual", "Dynamic degree", 1.0),
    "text_similarity": Metric("prompt", "Image-text similarity", 100.0),  # 100 times a cosine, as the paper prints it
}
DIMENSIONS: dict[str, tuple[str, ...]] = {
    name: tuple(m for m, metric in METRICS.items() if metric.dimension == name)
    for name in ("composition", "visual", "prompt")
}

# Weights of the dimensions (each is the mean of its metrics), and the value at which a metric counts as 1.
WEIGHTS = {
    "paper-fit": {"composition": 0.58, "visual": 0.50, "prompt": 0.21},  # fitted by us; they do not sum to 1
    "normalised": {"composition": 1 / 3, "visual": 1 / 2, "prompt": 1 / 6},
}
FULL = {
    "paper-fit": {"text_similarity": 100.0},
    "normalised": {"id_consistency": 0.5, "text_similarity": 30.0},
}

# Table 1 of the paper, as printed: the eight metrics in the order above, and the comprehensive score.
PUBLISHED: dict[str, tuple[tuple[float, ...], float]] = {
    "Pika 2.1": ((0.388, 0.788, 0.733, 0.548, 0.628, 0.917, 0.918, 29.128), 0.807),
    "Vidu 2.1": ((0.455, 0.796, 0.727, 0.565, 0.616, 0.960, 0.878, 28.926), 0.821),
    "Keling 1.6": ((0.497, 0.790, 0.700, 0.587, 0.609, 0.879, 1.000, 27.504), 0.826),
    "SkyReels-A2": ((0.398, 0.809, 0.677, 0.683, 0.579, 0.891, 1.000, 28.188), 0.818),
}


@dataclass(frozen=True)
class Measured:
    """Result of one metric for one video. A missing video is Measured(None, 0, 0)."""

    value: float | None = None  # mean over the frames in which the subject was found; None if it was not found
    seen: int = 1  # frames in which it was found
    of: int = 1  # frames that were searched
    skipped: str = ""  # reason if not measured: no model, or not applicable to the case; the value is then missing

    def as_number(self, variant: str) -> float:
        """Return a number. lenient: the mean over frames with a detection, nan without; strict: missing detections count as 0."""
        if self.skipped:
            return float("nan")
        if variant == "lenient":
            return float("nan") if self.value is None else self.value
        return (self.value or 0.0) * self.seen / max(1, self.of)


@dataclass(frozen=True)
class Figure:
    """A mean over cases with its 95 % interval, or the reason why it has none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0  # cases
    note: str = ""


Table = Mapping[str, Mapping[str, Measured]]  # case -> metric -> result


def published(name: str) -> dict[str, float]:
    """Return a row of the paper's Table 1, metric -> value. Raises KeyError for an unknown system."""
    return dict(zip(METRICS, PUBLISHED[name][0], strict=True))


def comprehensive(values: Mapping[str, Any], version: str = "paper-fit") -> Any:
    """Return the total of all eight metrics, floats or arrays. Raises KeyError if one is missing.

    `paper-fit`: 0.58 composition + 0.50 visual + 0.21 prompt / 100, from 0 to 1.29. `normalised`: 0 to 1; an ID consistency
    of 0.5 and a similarity of 30 count as 1, since cosines of real matches rarely exceed them.
    """
    full = FULL[version]
    scaled = {name: np.asarray(values[name], float) / full.get(name, 1.0) for name in METRICS}
    if version == "normalised":
        scaled = {name: np.clip(value, 0.0, 1.0) for name, value in scaled.items()}
    total: Any = sum(
        WEIGHTS[version][d] * np.mean([scaled[m] for m in names], axis=0) for d, names in DIMENSIONS.items()
    )
    return float(total) if np.ndim(total) == 0 else total


def summary(table: Table, variant: str, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Figure]:
    """Return {metric, dimension or total: figure over the cases}. Metrics beyond the eight are included, but not in totals.

    Cases are resampled with replacement, all metrics of a case together (percentile bootstrap, Efron 1979), from `seed`, so the
    interval is deterministic. A dimension or total with an unmeasured metric has no value; its note gives the metric, and the
    bounds of the total for any value of it.
    """
    names = [*METRICS, *sorted({m for row in table.values() for m in row} - set(METRICS))]
    not_measured = Measured(skipped="not measured")
    rows = [[row.get(name, not_measured).as_number(variant) for name in names] for row in table.values()]
    numbers = np.array(rows, float).reshape(len(table), len(names))
    resampled = _resampled(numbers, seed, resamples)
    is_known = ~np.isnan(numbers)
    means = [float(numbers[is_known[:, k], k].mean()) if is_known[:, k].any() else None for k in range(len(names))]
    figures = {}
    for k, name in enumerate(names):
        if means[k] is None:
            figures[name] = Figure(None, note=reason(table, name))
        else:
            figures[name] = Figure(means[k], *_interval(resampled[:, k]), int(is_known[:, k].sum()))
    mean_of = dict(zip(names, means, strict=True))
    samples_of = {name: resampled[:, k] for k, name in enumerate(names)}
    return figures | _dimensions(mean_of, samples_of, figures) | _totals(mean_of, samples_of, figures)


def reason(table: Table, name: str) -> str:
    """Return why a metric has no number: the most frequent reason among the cases."""
    reasons = [row[name].skipped for row in table.values() if name in row and row[name].skipped]
    if reasons:
        return "skipped: " + max(dict.fromkeys(reasons), key=reasons.count)
    return "nothing was found in any video" if any(name in row for row in table.values()) else "skipped: not measured"


def detection(table: Table) -> dict[str, tuple[int, int]]:
    """Return {metric: (frames in which the subject was found, frames searched)} for metrics that detect something."""
    rates: dict[str, tuple[int, int]] = {}
    for row in table.values():
        for name, m in row.items():
            if not m.skipped and m.of > 1:
                seen, of = rates.get(name, (0, 0))
                rates[name] = (seen + m.seen, of + m.of)
    return rates


def _resampled(numbers: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return (resamples, metrics) means of cases drawn with replacement from (cases, metrics), nan where a case has none."""
    cases = len(numbers)
    if not cases:
        return np.full((resamples, numbers.shape[1]), np.nan)
    counts = np.stack([*cluster_bootstrap(cases, resamples, seed)]).astype(float)
    total = counts @ np.isfinite(numbers)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, counts @ np.nan_to_num(numbers) / total, np.nan)


def _interval(samples: np.ndarray) -> tuple[float | None, float | None]:
    low, high = percentile_interval(samples)
    return (None, None) if np.isnan(low) else (low, high)


def _dimensions(
    mean_of: Mapping[str, float | None], samples_of: Mapping[str, np.ndarray], figures: Mapping[str, Figure]
) -> dict:
    out = {}
    for name, parts in DIMENSIONS.items():
        missing = [m for m in parts if mean_of[m] is None]
        if missing:
            out[name] = Figure(None, note=f"no figure without {', '.join(missing)}")
        else:
            scale = [METRICS[m].maximum for m in parts]
            value = float(np.mean([(mean_of[m] or 0.0) / s for m, s in zip(parts, scale, strict=True)]))
            resampled = np.mean([samples_of[m] / s for m, s in zip(parts, scale, strict=True)], axis=0)
            out[name] = Figure(value, *_interval(resampled), min(figures[m].n for m in parts))
    return out


def _totals(
    mean_of: Mapping[str, float | None], samples_of: Mapping[str, np.ndarray], figures: Mapping[str, Figure]
) -> dict:
    missing = [m for m in METRICS if mean_of[m] is None]
    out = {}
    for version in WEIGHTS:
        if not missing:
            value = comprehensive(mean_of, version)
            cases = min(figures[m].n for m in METRICS)
            out[version] = Figure(value, *_interval(comprehensive(samples_of, version)), cases)
            continue
        worst = comprehensive({m: 0.0 if v is None else v for m, v in mean_of.items() if m in METRICS}, version)
        best = comprehensive(
            {m: METRICS[m].maximum if v is None else v for m, v in mean_of.items() if m in METRICS}, version
        )
        bounds = f"between {worst:.3f} and {best:.3f} whatever they are"
        out[version] = Figure(None, note=f"no total without {', '.join(missing)}; {bounds}")
    return out
