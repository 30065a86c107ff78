"""`a2data calibrate`: the cosine from which two are the same, from the corpus itself, at a stated rate of false accepts.

Nobody has to label anything. Two tracks that share a frame are two: negatives for certain. Two of videos whose manifest names
different sources are most likely two: weak negatives, which are counted apart and only used where the others do not suffice. One
track that goes on from clip to clip of a shot is one: positives, taken far apart in time. Places have positives (one shot) and
weak negatives only.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from a2data.media.images import Box
from a2data.records import EmbeddedElement
from a2data.store.schema import from_table
from a2data.store.tables import Store
from pipelines.run.recipe import FILE
from pipelines.statistics import wilson
from stages.retrieve.clusters import cannot_link_pairs
from stages.retrieve.corpus import Corpus, assemble
from stages.retrieve.join import STEP

TABLES = ("detect", "faces", "parse", "background", "ground")
KINDS = ("face", "object", "background")
FAR_S = 2.0  # seconds between two sightings of one track that make a positive: another pose, another light
# a track goes on in the next clip within so much time, with boxes that overlap so much
GOES_ON_S, GOES_ON_IOU = (0.5, 0.5)
MOST_WEAK = 300_000  # weak negatives that are drawn
RESAMPLES = 200  # of the bootstrap


class Pairs(NamedTuple):
    """Pairs of elements of one kind and one embedder: similarity of each, and the clip of its first element."""

    similarity: np.ndarray
    clip: np.ndarray  # numbers: the bootstrap draws clips, for pairs of one clip are not independent


@dataclass(frozen=True)
class CalibratedThreshold:
    """A threshold and what it rests on. Intervals are of 95 %."""

    threshold: float  # the upper end of its interval, at which the rate is kept; where there is none, that of these pairs alone
    threshold_here: float  # at which just these negatives keep to the rate; others would exceed it every other time
    threshold_low: float  # bootstrap over clips; nan where all pairs are of one clip
    threshold_high: float
    negatives: int  # that share a frame
    weak_negatives: int  # of different sources; 0 where they were not needed
    positives: int
    false_accept: float  # share of the negatives at the threshold or above
    false_accept_high: float  # upper end of Wilson's interval
    true_accept: float  # share of the positives; nan without any
    true_accept_low: float  # lower end of Wilson's interval


def write(store: Store, found: dict[tuple[str, str], CalibratedThreshold], rate: float) -> None:
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for (embedder, kind), finding in found.items():
        values[embedder][kind] = finding.threshold
    evidence = {f"{embedder} {kind}": asdict(finding) for (embedder, kind), finding in found.items()}
    about = {"false_accept": rate, "thresholds": values, "evidence": evidence}
    store.put(json.dumps(about, indent=1, sort_keys=True).encode() + b"\n", FILE)


def table(found: dict[tuple[str, str], CalibratedThreshold], rate: float) -> Iterator[str]:
    """The findings as lines of text."""
    if found:
        yield f"thresholds at a false-accept rate of {rate:g}, with intervals of 95 %"
    for (embedder, kind), f in found.items():
        weak = f" and {f.weak_negatives} weak (different sources)" if f.weak_negatives else ""
        yield (
            f"{embedder} {kind}: {f.threshold:.4f}, here {f.threshold_here:.4f} [{f.threshold_low:.4f}, {f.threshold_high:.4f}]; "
            f"{f.negatives} negatives that share a frame{weak}, false accepts {f.false_accept:.4f} (up to "
            f"{f.false_accept_high:.4f}); {f.positives} positives, true accepts "
            + (f"{f.true_accept:.3f} (at least {f.true_accept_low:.3f})" if f.positives else "not known")
        )


def calibrate(store: Store, rate: float) -> tuple[dict[tuple[str, str], CalibratedThreshold], list[str]]:
    """(embedder, kind) -> what was found, and a sentence for each that has too few pairs.

    Raises ValueError for a work folder without elements.
    """
    looks = [store.whole(name, EmbeddedElement) for name in TABLES]
    if not sum(len(t) for t in looks):
        raise ValueError(f"{store.root} holds no elements yet: `a2data run` first")
    corpus = assemble(tuple(looks))
    shots = {shot.clip_id: shot for shot in from_table(_Shot, store.whole("segment", _Shot))}
    boxes = {b.element_id: b.seen_boxes for name in TABLES for b in from_table(_Boxes, store.whole(name, _Boxes))}
    sources = {s.video_id: s.source for s in from_table(_From, store.whole("manifest", _From))}
    found, refused = {}, []
    for kind in KINDS:
        by_embedder = defaultdict(list)
        for row in corpus.with_embedding(kind).tolist():
            by_embedder[corpus.embedder[row].as_py()].append(row)
        for embedder, rows in sorted(by_embedder.items()):
            x = corpus.vectors_of(np.array(rows))
            clip = np.unique([corpus.traits[row].clip_id for row in rows], return_inverse=True)[1]

            def pairs(ij: Sequence[tuple[int, int]], x: np.ndarray = x, clip: np.ndarray = clip) -> Pairs:
                i, j = np.array(ij, np.int64).reshape(-1, 2).T
                return Pairs(np.einsum("nd,nd->n", x[i], x[j]), clip[i])

            video = [shots[corpus.traits[row].clip_id].video_id for row in rows]
            weak = different_sources([sources.get(v, "") for v in video], [corpus.traits[r].label for r in rows])
            strong, positive = sharing_a_frame(corpus, rows), one_track(corpus, rows, shots, boxes)
            finding = judge(pairs(strong), pairs(weak), pairs(positive), rate)
            if isinstance(finding, CalibratedThreshold):
                found[embedder, kind] = finding
            else:
                refused.append(f"{embedder} {kind}: {finding}")
    return found, refused


def judge(strong: Pairs, weak: Pairs, positive: Pairs, rate: float) -> CalibratedThreshold | str:
    """The threshold at that rate of false accepts, or a sentence that says why there is none."""
    least = int(np.ceil(1 / rate))
    used = strong
    if len(strong.similarity) < least:
        used = Pairs(*(np.concatenate(both) for both in zip(strong, weak, strict=True)))
    n = len(used.similarity)
    if n < least:
        attainable = f", or ask for --false-accept {_round_up(1 / n):g}" if n > 2 else ""
        return (
            f"a rate of {rate:g} needs {least} pairs that are certainly different, and there are {len(strong.similarity)} that "
            f"share a frame and {len(weak.similarity)} of different sources: run more footage{attainable}"
        )
    here = threshold_at_far(used.similarity, rate)
    if here > 1:
        return f"{int(rate * n) + 1} pairs that are certainly different are the same to the model: it cannot tell them apart"
    low, high = bootstrap(used, rate)
    threshold = here if np.isnan(high) else min(1.0, max(here, high))
    false, true = int((used.similarity >= threshold).sum()), int((positive.similarity >= threshold).sum())
    m = len(positive.similarity)
    return CalibratedThreshold(
        threshold=threshold,
        threshold_here=here,
        threshold_low=low,
        threshold_high=high,
        negatives=len(strong.similarity),
        weak_negatives=n - len(strong.similarity),
        positives=m,
        false_accept=false / n,
        false_accept_high=wilson(false, n)[1],
        true_accept=true / m if m else float("nan"),
        true_accept_low=wilson(true, m)[0],
    )


def _round_up(rate: float) -> float:
    """To one digit, upwards: 0.0123 becomes 0.02."""
    digit = 10.0 ** np.floor(np.log10(rate))
    return float(np.ceil(rate / digit - 1e-9) * digit)


def threshold_at_far(negatives: np.ndarray, rate: float) -> float:
    """The lowest threshold, a whole number of STEPs, that at most that share of the negatives reaches."""
    allowed = int(rate * len(negatives) + 1e-9)
    worst = np.partition(negatives, -allowed - 1)[-allowed - 1]
    return _above(float(worst))


def _above(value: float) -> float:
    """The first whole number of STEPs that a value does not reach."""
    return round((np.floor(value / STEP + 1e-6) + 1) * STEP, 5)


def bootstrap(negatives: Pairs, rate: float) -> tuple[float, float]:
    """The middle 95 % of the thresholds that as many clips, drawn with replacement, would have given; nan from one clip."""
    _, clip = np.unique(negatives.clip, return_inverse=True)
    count = int(clip.max()) + 1
    if count < 2:
        return float("nan"), float("nan")
    order = np.argsort(-negatives.similarity, kind="stable")
    clip, ranked = clip[order], negatives.similarity[order]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[clip].cumsum()
        worst = ranked[np.searchsorted(times, int(rate * times[-1] + 1e-9), side="right").clip(max=len(ranked) - 1)]
        found.append(_above(float(worst)))
    low, high = np.percentile(found, [2.5, 97.5])
    return round(float(low), 5), round(float(high), 5)


# -- pairs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shot:  # columns of the tables that are read here
    clip_id: str
    video_id: str
    shot: int
    width: int
    height: int
    crop: Box
    source_pts_s: list[float]


@dataclass(frozen=True)
class _Boxes:
    element_id: str
    seen_boxes: list[Box]


@dataclass(frozen=True)
class _From:
    video_id: str
    source: str


def sharing_a_frame(corpus: Corpus, rows: list[int]) -> list[tuple[int, int]]:
    """Pairs i < j of those rows, counted from 0, of one label that were seen in one frame."""
    traits = [corpus.traits[row] for row in rows]
    apart = cannot_link_pairs([t.clip_id for t in traits], [corpus.seen(row) for row in rows])
    return [(i, j) for i, js in enumerate(apart) for j in sorted(js) if i < j and traits[i].label == traits[j].label]


def different_sources(sources: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs i < j of one label whose sources are both stated and are not the same: all of them, or MOST_WEAK that are drawn."""
    n = len(sources)
    every: Any = combinations(range(n), 2)
    if n * (n - 1) // 2 > MOST_WEAK:
        drawn = np.sort(np.random.default_rng(0).integers(0, n, (MOST_WEAK, 2)), axis=1)
        every = np.unique(drawn, axis=0).tolist()
    return [
        (i, j) for i, j in every if sources[i] and sources[j] and sources[i] != sources[j] and labels[i] == labels[j]
    ]


def one_track(
    corpus: Corpus, rows: list[int], shots: dict[str, _Shot], boxes: dict[str, list[Box]]
) -> list[tuple[int, int]]:
    """Pairs i < j of one track in clips of one shot, at least FAR_S apart from one another."""
    by_shot: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        shot = shots[corpus.traits[row].clip_id]
        by_shot[shot.video_id, shot.shot].append(i)
    found = []
    for members in by_shot.values():
        members.sort(key=lambda i: (_span_s(corpus, rows[i], shots)[0], i))
        head = {i: i for i in members}
        for i in members:
            following = [j for j in members if _goes_on(corpus, rows[i], rows[j], shots, boxes)]
            if len(following) == 1:  # two candidates: who of them it is nobody knows
                head[following[0]] = head[i]
        for i, j in combinations(members, 2):
            gap_s = _span_s(corpus, rows[j], shots)[0] - _span_s(corpus, rows[i], shots)[1]
            if head[i] == head[j] and gap_s >= FAR_S:
                found.append((min(i, j), max(i, j)))
    return sorted(found)


def _span_s(corpus: Corpus, row: int, shots: dict[str, _Shot]) -> tuple[float, float]:
    """When, in the source, an element was first and last seen."""
    trait = corpus.traits[row]
    times_s, seen = shots[trait.clip_id].source_pts_s, trait.seen_frames or [trait.frame]
    return times_s[seen[0]], times_s[seen[-1]]


def _goes_on(corpus: Corpus, a: int, b: int, shots: dict[str, _Shot], boxes: dict[str, list[Box]]) -> bool:
    """Whether the track of b, in a later clip of the shot, begins where and when that of a ends."""
    from stages.pack.facts import in_source

    one, other = corpus.traits[a], corpus.traits[b]
    gap_s = _span_s(corpus, b, shots)[0] - _span_s(corpus, a, shots)[1]
    if one.clip_id == other.clip_id or not 0 <= gap_s <= GOES_ON_S or one.label != other.label:
        return False
    if one.kind == "background":
        return True
    last, first = boxes[one.element_id][-1:], boxes[other.element_id][:1]
    if not last or not first:
        return False
    return _iou(in_source(last[0], shots[one.clip_id]), in_source(first[0], shots[other.clip_id])) >= GOES_ON_IOU  # type: ignore[arg-type]


def _iou(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
