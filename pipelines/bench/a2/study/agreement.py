"""Inter-rater agreement, and correlation of metrics with ratings."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

MIN_PAIRS = 3  # pairs; the rank correlation of two is 1 or -1 whatever they are


def krippendorff(units: Sequence[Sequence[float]], level: str = "ordinal") -> float | None:
    """Krippendorff's alpha (Krippendorff 2011): 1 for raters who always agree, 0 for chance, below 0 for worse than it.

    units: the ratings of each item, in any order and number; items with one rating are ignored. level: "ordinal" (only the order
    of ratings counts), "interval" (distances count) or "nominal". Returns None if no item was rated twice, or if all ratings are
    the same.
    """
    paired = [list(unit) for unit in units if len(unit) > 1]
    values = sorted({value for unit in paired for value in unit})
    coincidences = np.zeros((len(values), len(values)))
    for unit in paired:
        counts = np.array([Counter(unit)[value] for value in values], float)
        coincidences += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    totals = coincidences.sum(1)
    differences = _squared_differences(np.array(values, float), totals, level)
    expected = (np.outer(totals, totals) * differences).sum()
    if not expected:
        return None
    return float(1 - (totals.sum() - 1) * (coincidences * differences).sum() / expected)


def _squared_differences(values: np.ndarray, totals: np.ndarray, level: str) -> np.ndarray:
    """Return (v, v): the squared difference of each pair of values."""
    if level == "interval":
        return (values[:, None] - values[None]) ** 2
    if level == "nominal":
        return (values[:, None] != values[None]).astype(float)
    if level != "ordinal":
        raise ValueError(f"unknown level {level!r}: choose ordinal, interval or nominal")
    ranks = np.cumsum(totals) - totals / 2  # the ratings below a value, and half of those at it
    return (ranks[:, None] - ranks[None]) ** 2


def correlation(a: Sequence[float], b: Sequence[float]) -> dict[str, float] | None:
    """Return Spearman's rho and Kendall's tau-b of two paired lists, with ties.

    Returns None with fewer than three pairs, or if one of the lists is constant.
    """
    if len(a) < MIN_PAIRS or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    from scipy import stats

    return {"spearman": float(stats.spearmanr(a, b).statistic), "kendall": float(stats.kendalltau(a, b).statistic)}
