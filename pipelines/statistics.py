"""Confidence interval of a counted fraction."""

import math

Z = 1.959964  # standard deviations either side: 95 %


def wilson(hits: float, n: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of the fraction hits / n (Wilson 1927); (0, 1) if n is 0."""
    if not n:
        return 0.0, 1.0
    p = hits / n
    middle, spread = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
