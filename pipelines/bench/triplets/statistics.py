"""Statistics: proportions with confidence intervals, and areas under curves. Pure numpy."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipelines.statistics import wilson


@dataclass(frozen=True)
class Score:
    """A score from 0 to 1, 1 is perfect; None if there was nothing to measure."""

    name: str
    value: float | None
    right: float = 0.0
    of: float = 0.0
    low: float | None = None  # 95 % confidence interval of a proportion
    high: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured" + (f" ({self.note})" if self.note else "")
        counts = f"  {self.right:g} of {self.of:g}, {self.low:.3f} to {self.high:.3f}" if self.low is not None else ""
        return f"{self.name}: {self.value:.3f}{counts}"


def proportion(name: str, num_correct: float, total: float, note: str = "nothing to measure it on") -> Score:
    """Return the proportion num_correct / total, with Wilson's interval (Wilson 1927)."""
    if not total:
        return Score(name, None, note=note)
    num_correct, total = float(num_correct), float(total)  # numpy numbers are not JSON serialisable
    return Score(name, num_correct / total, num_correct, total, *wilson(num_correct, total))


def mean(name: str, values: Iterable[float], note: str = "nothing to measure it on") -> Score:
    """Return the mean of values from 0 to 1."""
    known = list(values)
    return Score(name, float(np.mean(known)), of=len(known)) if known else Score(name, None, note=note)


def f_beta(precision: float, recall: float, beta: float) -> float:
    """Return the weighted harmonic mean (van Rijsbergen 1979); 0 if both are 0."""
    denominator = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / denominator if denominator else 0.0


def f_score(name: str, precision: Score, recall: Score, beta: float) -> Score:
    if precision.value is None and recall.value is None:
        return Score(name, None, note=precision.note)
    return Score(name, f_beta(precision.value or 0.0, recall.value or 0.0, beta))


def average_precision(similarity: np.ndarray, same: np.ndarray) -> float:
    """Return the area under the precision-recall curve; ties count together.

    similarity: (n,) float. same: (n,) bool, with at least one True.
    """
    _, num_correct, num_accepted = _sweep(similarity, same)
    recall = num_correct / same.sum()
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * (num_correct / num_accepted)))


def roc_auc(similarity: np.ndarray, same: np.ndarray) -> float:
    """Return the probability that a positive pair is more similar than a negative one; ties count half (Hanley & McNeil 1982)."""
    negatives = np.sort(similarity[~same])
    below = np.searchsorted(negatives, similarity[same], "left") + np.searchsorted(negatives, similarity[same], "right")
    return float(below.mean() / (2 * len(negatives)))


def accept_rate(similarity: np.ndarray, same: np.ndarray, false_accepts: float) -> float:
    """Return TAR at FAR: the largest true accept rate at a threshold with at most this false accept rate."""
    _, num_correct, num_accepted = _sweep(similarity, same)
    allowed = (num_accepted - num_correct) <= false_accepts * (~same).sum() + 1e-9
    return float(num_correct[allowed].max(initial=0) / same.sum())


def _sweep(similarity: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all thresholds, highest first, with the number of positive pairs and of all pairs that pass each."""
    order = np.argsort(-similarity, kind="stable")
    thresholds, is_positive = similarity[order], same[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(thresholds) != 0, True))
    return thresholds[last_of_tie], np.cumsum(is_positive)[last_of_tie], last_of_tie + 1


def b_cubed(clusters: list, classes: list) -> tuple[float, float]:
    """Return B-cubed precision and recall of a clustering (Bagga & Baldwin 1998). Both lists label the same items in order."""
    if not clusters:
        return 0.0, 0.0
    a, b = (np.unique(np.array([str(x) for x in xs]), return_inverse=True)[1] for xs in (clusters, classes))
    same_cluster, same_class = a[:, None] == a[None], b[:, None] == b[None]
    both = (same_cluster & same_class).sum(1)
    return float((both / same_cluster.sum(1)).mean()), float((both / same_class.sum(1)).mean())
