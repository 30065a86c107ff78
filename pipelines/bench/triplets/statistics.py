"""Figures: shares with their intervals, and areas under curves. Pure numpy."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipelines.statistics import wilson


@dataclass(frozen=True)
class Score:
    """A figure from 0 to 1, of which 1 is perfect; None where nothing was there to be measured."""

    name: str
    value: float | None
    right: float = 0.0
    of: float = 0.0
    low: float | None = None  # 95 % interval, where it is a share of independent things
    high: float | None = None
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not measured" + (f" ({self.note})" if self.note else "")
        counts = f"  {self.right:g} of {self.of:g}, {self.low:.3f} to {self.high:.3f}" if self.low is not None else ""
        return f"{self.name}: {self.value:.3f}{counts}"


def share(name: str, right: float, of: float, note: str = "nothing to measure it on") -> Score:
    """So many of so many, with Wilson's interval (Wilson 1927)."""
    if not of:
        return Score(name, None, note=note)
    right, of = float(right), float(of)  # they may be numpy's, which JSON does not know
    return Score(name, right / of, right, of, *wilson(right, of))


def mean(name: str, values: Iterable[float], note: str = "nothing to measure it on") -> Score:
    """The mean of figures from 0 to 1."""
    known = list(values)
    return Score(name, float(np.mean(known)), of=len(known)) if known else Score(name, None, note=note)


def f_beta(precision: float, recall: float, beta: float) -> float:
    """The weighted harmonic mean of van Rijsbergen 1979; 0 where both are 0."""
    bottom = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / bottom if bottom else 0.0


def f_score(name: str, precision: Score, recall: Score, beta: float) -> Score:
    if precision.value is None and recall.value is None:
        return Score(name, None, note=precision.note)
    return Score(name, f_beta(precision.value or 0.0, recall.value or 0.0, beta))


def average_precision(similarity: np.ndarray, same: np.ndarray) -> float:
    """Area under precision over recall, ties taken together. similarity: (n,) float; same: (n,) bool, at least one True."""
    _, right, taken = _sweep(similarity, same)
    recall = right / same.sum()
    return float(np.sum(np.diff(np.concatenate([[0.0], recall])) * (right / taken)))


def roc_auc(similarity: np.ndarray, same: np.ndarray) -> float:
    """The chance that a pair of the same is more alike than one of others; a tie counts half (Hanley & McNeil 1982)."""
    order = np.sort(similarity[~same])
    below = np.searchsorted(order, similarity[same], "left") + np.searchsorted(order, similarity[same], "right")
    return float(below.mean() / (2 * len(order)))


def accept_rate(similarity: np.ndarray, same: np.ndarray, false_accepts: float) -> float:
    """TAR at FAR: the largest share of pairs of the same above a threshold that at most this share of the others passes."""
    _, right, taken = _sweep(similarity, same)
    allowed = (taken - right) <= false_accepts * (~same).sum() + 1e-9
    return float(right[allowed].max(initial=0) / same.sum())


def _sweep(similarity: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each threshold, from the highest: it, how many of the same pass it, how many pass it at all."""
    order = np.argsort(-similarity, kind="stable")
    ranked, hit = similarity[order], same[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    return ranked[last], np.cumsum(hit)[last], last + 1


def b_cubed(clusters: list, classes: list) -> tuple[float, float]:
    """Precision and recall of a clustering (Bagga & Baldwin 1998); both lists are of the same things, in one order."""
    if not clusters:
        return 0.0, 0.0
    a, b = (np.unique(np.array([str(x) for x in xs]), return_inverse=True)[1] for xs in (clusters, classes))
    one, two = a[:, None] == a[None], b[:, None] == b[None]
    both = (one & two).sum(1)
    return float((both / one.sum(1)).mean()), float((both / two.sum(1)).mean())
