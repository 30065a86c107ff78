"""95 % confidence intervals: of a counted fraction, of a mean of few values, and of any statistic of clustered samples."""

import math
from collections.abc import Iterator

import numpy as np

Z = 1.959964  # standard deviations either side: 95 %
TAILS = (2.5, 97.5)  # percentiles


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of the fraction hits / n (Wilson 1927); (0, 1) if n is 0."""
    if not n:
        return 0.0, 1.0
    p = hits / n
    middle, spread = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def student(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of independent values and its 95 % interval by Student's t, for values too few for a bootstrap.

    The interval is (nan, nan) for a single value.
    """
    # importing it takes 150 ms, which commands without this interval save
    from scipy.special import stdtrit

    n, mean = len(values), float(np.mean(values))
    half = float(stdtrit(n - 1, TAILS[1] / 100) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return mean, mean - half, mean + half


def cluster_bootstrap(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each cluster is drawn, (clusters,) int64, for each resample with replacement (Efron 1979).

    The samples of a cluster, such as the pairs of a clip or the metrics of a case, are not independent: weight them all by its
    count. Equal seeds give equal resamples.
    """
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, clusters, clusters), minlength=clusters)


def percentile_interval(statistic: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic over resamples, without those that are not finite; nan for none."""
    known = statistic[np.isfinite(statistic)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, TAILS)
    return float(low), float(high)
