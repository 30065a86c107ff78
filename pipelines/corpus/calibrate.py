"""`a2data calibrate`: estimate identity thresholds on cosine similarity from the corpus at a given false accept rate.

Labels are not needed. Tracks that share a frame are different: certain negatives. Elements of videos with different sources in
the manifest are most likely different: weak negatives, which are counted separately and only used if the others do not suffice. A
track that continues from clip to clip of a shot is one element: positives, taken far apart in time. Backgrounds have only
positives (one shot) and weak negatives. Pairs marked wrong in `a2data ui` replace the negatives of
their kind, and pairs marked right its positives.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from a2data.media.images import Box, iou
from a2data.records import EmbeddedElement
from a2data.stage import Stage
from a2data.store.schema import from_table
from a2data.store.tables import Store
from pipelines import marks as marking
from pipelines.marks import Mark, Marks
from pipelines.run.recipe import FILE, element_tables
from pipelines.statistics import cluster_bootstrap, percentile_interval, wilson
from stages.retrieve.clusters import cannot_link_pairs
from stages.retrieve.corpus import Corpus, assemble
from stages.retrieve.join import STEP

KINDS = ("face", "object", "background")
MIN_POSITIVE_GAP_S = 2.0  # least seconds between two observations of a positive pair, so that pose and light differ
# longest gap in seconds and least IoU of boxes for a track that continues in the next clip
MAX_TRACK_GAP_S, MIN_TRACK_IOU = (0.5, 0.5)
MAX_WEAK_NEGATIVES = 300_000  # number of weak negatives that are sampled
RESAMPLES = 200  # bootstrap resamples


class Pairs(NamedTuple):
    """Pairs of elements of one kind and one embedder: similarity of each, and the clip of its first element."""

    similarity: np.ndarray
    clip: np.ndarray  # clip numbers; the bootstrap resamples clips, since pairs of one clip are not independent


@dataclass(frozen=True)
class CalibratedThreshold:
    """A threshold and its evidence, with 95 % intervals."""

    threshold: float  # upper end of its interval, which keeps the rate; without an interval, threshold_here
    threshold_here: float  # threshold that keeps the rate on these negatives; others would exceed it half of the time
    threshold_low: float  # bootstrap over clips; NaN if all pairs are of one clip
    threshold_high: float
    negatives: int  # pairs that share a frame, or were marked as different
    weak_negatives: int  # pairs of different sources; 0 if not needed
    positives: int
    false_accept: float  # fraction of the negatives at or above the threshold
    false_accept_high: float  # upper end of Wilson's interval
    true_accept: float  # fraction of the positives at or above the threshold; NaN without positives
    true_accept_low: float  # lower end of Wilson's interval
    marked: bool = False  # whether the negatives are marks


def write(store: Store, thresholds: dict[tuple[str, str], CalibratedThreshold], rate: float) -> None:
    threshold_of: dict[str, dict[str, float]] = defaultdict(dict)
    for (embedder, kind), calibrated in thresholds.items():
        threshold_of[embedder][kind] = calibrated.threshold
    evidence = {f"{embedder} {kind}": asdict(calibrated) for (embedder, kind), calibrated in thresholds.items()}
    content = {"false_accept": rate, "thresholds": threshold_of, "evidence": evidence}
    store.put(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n", FILE)


def format_table(thresholds: dict[tuple[str, str], CalibratedThreshold], rate: float) -> Iterator[str]:
    """Yield the results as lines of text."""
    if thresholds:
        yield f"thresholds at a false accept rate of {rate:g}, with 95 % intervals"
    for (embedder, kind), f in thresholds.items():
        origin = "were marked" if f.marked else "share a frame"
        weak = f" and {f.weak_negatives} weak (different sources)" if f.weak_negatives else ""
        yield (
            f"{embedder} {kind}: {f.threshold:.4f}, here {f.threshold_here:.4f} [{f.threshold_low:.4f}, {f.threshold_high:.4f}]; "
            f"{f.negatives} negatives that {origin}{weak}, false accepts {f.false_accept:.4f} (up to "
            f"{f.false_accept_high:.4f}); {f.positives} positives, true accepts "
            + (f"{f.true_accept:.3f} (at least {f.true_accept_low:.3f})" if f.positives else "not known")
        )


def calibrate(
    store: Store, rate: float, stages: Sequence[Stage], marks: Marks | None = None
) -> tuple[dict[tuple[str, str], CalibratedThreshold], list[str]]:
    """Return (embedder, kind) -> calibrated threshold, and a message for each that has too few pairs.

    stages: the recipe. marks: replace the negatives and positives of their kinds. Raises ValueError for a work folder without
    elements.
    """
    tables = element_tables(stages)
    embedding_tables = [store.read_all(name, EmbeddedElement) for name in tables]
    if not sum(len(t) for t in embedding_tables):
        raise ValueError(f"{store.root} does not contain elements yet: run `a2data run` first")
    corpus = assemble(tuple(embedding_tables))
    shots = {shot.clip_id: shot for shot in from_table(_ShotColumns, store.read_all("segment", _ShotColumns))}
    boxes = {
        b.element_id: b.seen_boxes
        for name in tables
        for b in from_table(_BoxColumns, store.read_all(name, _BoxColumns))
    }
    sources = {s.video_id: s.source for s in from_table(_SourceColumns, store.read_all("manifest", _SourceColumns))}
    thresholds, messages = {}, []
    names = corpus.text("element_id", range(len(corpus.frame))) if marks else []
    current_marks = marking.current(marks or {}, dict(zip(names, corpus.frame.tolist(), strict=False)))
    if num_stale := len(marks or {}) - len(current_marks):
        messages.append(f"{num_stale} marks: their elements are gone or were detected again, mark them again")
    for kind in KINDS:
        by_embedder = defaultdict(list)
        with_embedding = corpus.with_embedding(kind)
        for row, embedder in zip(with_embedding.tolist(), corpus.text("embedder", with_embedding), strict=True):
            by_embedder[embedder].append(row)
        for embedder, rows in sorted(by_embedder.items()):
            vectors = corpus.vectors_of(np.array(rows))
            clip = np.unique([corpus.elements[row].clip_id for row in rows], return_inverse=True)[1]

            def pairs(
                indices: Sequence[tuple[int, int]], vectors: np.ndarray = vectors, clip: np.ndarray = clip
            ) -> Pairs:
                i, j = np.array(indices, np.int64).reshape(-1, 2).T
                return Pairs(np.einsum("nd,nd->n", vectors[i], vectors[j]), clip[i])

            video = [shots[corpus.elements[row].clip_id].video_id for row in rows]
            source_pairs = different_source_pairs(
                [sources.get(v, "") for v in video], [corpus.elements[r].label for r in rows]
            )
            frame_pairs, track_pairs = same_frame_pairs(corpus, rows), same_track_pairs(corpus, rows, shots, boxes)
            marked_same, marked_different = marked_pairs(corpus, rows, kind, current_marks)
            negatives = (
                (pairs(marked_different), pairs([])) if marked_different else (pairs(frame_pairs), pairs(source_pairs))
            )
            result = estimate_threshold(
                *negatives, pairs(marked_same or track_pairs), rate, marked=bool(marked_different)
            )
            if isinstance(result, CalibratedThreshold):
                thresholds[embedder, kind] = result
            else:
                messages.append(f"{embedder} {kind}: {result}")
    return thresholds, messages


def estimate_threshold(
    strong: Pairs, weak: Pairs, positive: Pairs, rate: float, marked: bool = False
) -> CalibratedThreshold | str:
    """Return the threshold at that false accept rate, or a message why it cannot be estimated.

    marked: the negatives are marks.
    """
    min_negatives = int(np.ceil(1 / rate))
    negatives = strong
    if len(strong.similarity) < min_negatives:
        negatives = Pairs(*(np.concatenate(columns) for columns in zip(strong, weak, strict=True)))
    num_negatives = len(negatives.similarity)
    if num_negatives < min_negatives:
        hint = f", or use --target-far {_round_up(1 / num_negatives):g}" if num_negatives > 2 else ""
        counts = f"{len(strong.similarity)} share a frame and {len(weak.similarity)} are of different sources"
        available = f"{counts}: add more footage"
        if marked:
            available = f"{num_negatives} are marked as wrong: mark more"
        return f"a rate of {rate:g} needs {min_negatives} pairs of different elements, but only {available}{hint}"
    estimate = threshold_at_far(negatives.similarity, rate)
    if estimate > 1:
        num_maximal = int(rate * num_negatives) + 1
        return f"{num_maximal} pairs of different elements have the maximal similarity: the model cannot separate them"
    low, high = threshold_interval(negatives, rate)
    threshold = estimate if np.isnan(high) else min(1.0, max(estimate, high))
    false, true = int((negatives.similarity >= threshold).sum()), int((positive.similarity >= threshold).sum())
    num_positives = len(positive.similarity)
    return CalibratedThreshold(
        threshold=threshold,
        threshold_here=estimate,
        threshold_low=low,
        threshold_high=high,
        negatives=len(strong.similarity),
        weak_negatives=num_negatives - len(strong.similarity),
        positives=num_positives,
        false_accept=false / num_negatives,
        false_accept_high=wilson(false, num_negatives)[1],
        true_accept=true / num_positives if num_positives else float("nan"),
        true_accept_low=wilson(true, num_positives)[0],
        marked=marked,
    )


def _round_up(rate: float) -> float:
    """Round up to one significant digit: 0.0123 becomes 0.02."""
    digit = 10.0 ** np.floor(np.log10(rate))
    return float(np.ceil(rate / digit - 1e-9) * digit)


def threshold_at_far(negatives: np.ndarray, rate: float) -> float:
    """Return the lowest threshold, a multiple of STEP, that at most the fraction `rate` of the negatives reaches."""
    allowed = int(rate * len(negatives) + 1e-9)
    worst = np.partition(negatives, -allowed - 1)[-allowed - 1]
    return _next_step_above(float(worst))


def _next_step_above(value: float) -> float:
    """Return the smallest multiple of STEP above a value."""
    return round((np.floor(value / STEP + 1e-6) + 1) * STEP, 5)


def threshold_interval(negatives: Pairs, rate: float) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the threshold, resampling clips with replacement; NaN for a single clip."""
    _, clip = np.unique(negatives.clip, return_inverse=True)
    count = int(clip.max()) + 1
    if count < 2:
        return float("nan"), float("nan")
    order = np.argsort(-negatives.similarity, kind="stable")
    clip, ranked = clip[order], negatives.similarity[order]
    thresholds = []
    for resample in cluster_bootstrap(count, RESAMPLES, seed=0):
        cumulative_counts = resample[clip].cumsum()
        allowed = int(rate * cumulative_counts[-1] + 1e-9)
        worst = ranked[np.searchsorted(cumulative_counts, allowed, side="right").clip(max=len(ranked) - 1)]
        thresholds.append(_next_step_above(float(worst)))
    low, high = percentile_interval(np.array(thresholds))
    return round(low, 5), round(high, 5)


# -- pairs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ShotColumns:  # columns of the tables that are read here
    clip_id: str
    video_id: str
    shot: int
    width: int
    height: int
    crop: Box
    source_pts_s: list[float]


@dataclass(frozen=True)
class _BoxColumns:
    element_id: str
    seen_boxes: list[Box]


@dataclass(frozen=True)
class _SourceColumns:
    video_id: str
    source: str


def marked_pairs(
    corpus: Corpus, rows: list[int], kind: str, marks: Sequence[Mark]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the pairs i < j, as positions in `rows`, that are marked as the same, and those marked as different.

    A mark of two people counts for their faces, too, unless the faces have a mark of their own.
    """
    position_of = {name: n for n, name in enumerate(corpus.text("element_id", rows))}
    humans = corpus.human_of[rows]
    with_human = np.flatnonzero(humans >= 0)
    owner = dict(zip(corpus.text("element_id", humans[with_human]), with_human.tolist(), strict=True))
    same_of: dict[tuple[int, int], bool] = {}
    for positions in (
        (owner, position_of) if kind == "face" else (position_of,)
    ):  # the faces' own marks last, so that they win
        for mark in marks:
            i, j = sorted(positions.get(name, -1) for name in mark.elements)
            if 0 <= i < j:
                same_of[i, j] = mark.same
    return sorted(ij for ij, same in same_of.items() if same), sorted(ij for ij, same in same_of.items() if not same)


def same_frame_pairs(corpus: Corpus, rows: list[int]) -> list[tuple[int, int]]:
    """Return pairs i < j, as positions in `rows`, of elements with one label that were seen in one frame."""
    elements = [corpus.elements[row] for row in rows]
    cannot_link = cannot_link_pairs([t.clip_id for t in elements], [corpus.frames_seen(row) for row in rows])
    return [
        (i, j)
        for i, js in enumerate(cannot_link)
        for j in sorted(js)
        if i < j and elements[i].label == elements[j].label
    ]


def different_source_pairs(sources: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs i < j of one label with stated and different sources, from a sample of at most MAX_WEAK_NEGATIVES pairs."""
    n = len(sources)
    pairs: Any = combinations(range(n), 2)
    if n * (n - 1) // 2 > MAX_WEAK_NEGATIVES:
        sampled = np.sort(np.random.default_rng(0).integers(0, n, (MAX_WEAK_NEGATIVES, 2)), axis=1)
        pairs = np.unique(sampled, axis=0).tolist()
    return [
        (i, j) for i, j in pairs if sources[i] and sources[j] and sources[i] != sources[j] and labels[i] == labels[j]
    ]


def same_track_pairs(
    corpus: Corpus, rows: list[int], shots: dict[str, _ShotColumns], boxes: dict[str, list[Box]]
) -> list[tuple[int, int]]:
    """Return pairs i < j of one track in clips of one shot, at least MIN_POSITIVE_GAP_S apart."""
    by_shot: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        shot = shots[corpus.elements[row].clip_id]
        by_shot[shot.video_id, shot.shot].append(i)
    pairs = []
    for members in by_shot.values():
        members.sort(key=lambda i: (_span_s(corpus, rows[i], shots)[0], i))
        track_of = {i: i for i in members}
        for i in members:
            continuations = [j for j in members if _continues_track(corpus, rows[i], rows[j], shots, boxes)]
            if len(continuations) == 1:  # ambiguous with several candidates
                track_of[continuations[0]] = track_of[i]
        for i, j in combinations(members, 2):
            gap_s = _span_s(corpus, rows[j], shots)[0] - _span_s(corpus, rows[i], shots)[1]
            if track_of[i] == track_of[j] and gap_s >= MIN_POSITIVE_GAP_S:
                pairs.append((min(i, j), max(i, j)))
    return sorted(pairs)


def _span_s(corpus: Corpus, row: int, shots: dict[str, _ShotColumns]) -> tuple[float, float]:
    """Return the times in the source when an element was first and last seen."""
    element = corpus.elements[row]
    times_s, seen = shots[element.clip_id].source_pts_s, element.seen_frames or [element.frame]
    return times_s[seen[0]], times_s[seen[-1]]


def _continues_track(
    corpus: Corpus, a: int, b: int, shots: dict[str, _ShotColumns], boxes: dict[str, list[Box]]
) -> bool:
    """Return whether the track of b, in a later clip of the shot, begins where and when that of a ends."""
    from stages.pack.facts import in_source

    one, other = corpus.elements[a], corpus.elements[b]
    gap_s = _span_s(corpus, b, shots)[0] - _span_s(corpus, a, shots)[1]
    if one.clip_id == other.clip_id or not 0 <= gap_s <= MAX_TRACK_GAP_S or one.label != other.label:
        return False
    if one.kind == "background":
        return True
    last, first = boxes[one.element_id][-1:], boxes[other.element_id][:1]
    if not last or not first:
        return False
    return iou(in_source(last[0], shots[one.clip_id]), in_source(first[0], shots[other.clip_id])) >= MIN_TRACK_IOU  # type: ignore[arg-type]
