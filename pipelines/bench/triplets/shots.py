"""Shot scores: detected cuts, clips inside one shot, and correct source frame numbers."""

from collections.abc import Iterable

import numpy as np

from pipelines.bench.triplets.predictions import Clip, Prediction, Sample
from pipelines.bench.triplets.statistics import Score, f_score, share
from pipelines.films.truth import Film, Truth

TRIM = 2  # frames at either end of a clip that may be beyond a cut
OFFSETS = (-2, -1, 0, 1, 2)  # tested frame offsets of a clip


def boundaries(clips: Iterable[Clip]) -> dict[int, bool]:
    """Return the predicted shot boundaries: first frame -> whether it is predicted as a hard cut.

    The end of a shot is a boundary too if the next shot is too short for a clip. Its kind is unknown, so it only counts if it is
    right.
    """
    known = {clip.shot for clip in clips}
    ends = {clip.shot_end: False for clip in clips if clip.shot + 1 not in known}
    return ends | {clip.shot_start: clip.transition_in == "cut" for clip in clips if clip.transition_in != "start"}


def cut_scores(truth: Truth, prediction: Prediction) -> list[Score]:
    """Return precision, recall and F1 of hard cuts at 0, 1 and 2 frames, and recall of gradual transitions (point in them)."""
    scores = []
    for tolerance in (0, 1, 2):
        found = right = predicted = cuts = 0
        for film in truth.films:
            mine = boundaries([c for c in prediction.clips.values() if c.file == film.file])
            matched = match(sorted(film.cuts), sorted(mine), tolerance)
            soft = {f for t in film.transitions for f in range(t.start - tolerance, t.end + tolerance + 1)}
            cuts, found = cuts + len(film.cuts), found + len(matched)
            hard = [f for f, is_cut in mine.items() if is_cut and (f in matched.values() or f not in soft)]
            predicted, right = predicted + len(hard), right + len(set(hard) & set(matched.values()))
        precision = share(f"cuts, precision at {tolerance}", right, predicted)
        recall = share(f"cuts, recall at {tolerance}", found, cuts)
        scores += [precision, recall, f_score(f"cuts, F1 at {tolerance}", precision, recall, 1.0)]
    gradual = [(f, t) for f in truth.films for t in f.transitions]
    seen = sum(_noticed(f, t.start, t.end, prediction) for f, t in gradual)
    return [*scores, share("gradual transitions, recall", seen, len(gradual))]


def match(cuts: list[int], found: list[int], tolerance: int) -> dict[int, int]:
    """Match true cuts with detected ones, one to one, nearest first."""
    pairs = sorted((abs(c - f), c, f) for c in cuts for f in found if abs(c - f) <= tolerance)
    out: dict[int, int] = {}
    for _, cut, frame in pairs:
        if cut not in out and frame not in out.values():
            out[cut] = frame
    return out


def _noticed(film: Film, start: int, end: int, prediction: Prediction) -> bool:
    mine = boundaries([c for c in prediction.clips.values() if c.file == film.file])
    return any(start - 2 <= frame <= end + 2 for frame in mine)


def is_pure(film: Film, frames: tuple[int, ...]) -> bool:
    """Return whether a clip, without its outermost frames, is free of cuts and transitions."""
    first, last = frames[0] + TRIM, frames[-1] + 1 - TRIM
    return not any(first < cut < last for cut in film.cuts) and not any(
        max(first, t.start) < min(last, t.end) for t in film.transitions
    )


def purity_score(truth: Truth, prediction: Prediction) -> Score:
    clips = [c for c in prediction.clips.values() if c.kept and c.file in truth.by_file]
    return share("clips of one shot", sum(is_pure(truth.by_file[c.file], c.frames) for c in clips), len(clips))


def offset(film: Film, sample: Sample) -> int | None:
    """Return the offset of a clip's frames from the stated source frames; None if the truth has no thumbnails.

    This is the member of OFFSETS at which its thumbnails are nearest to the film's; 0 if no other is clearly nearer.
    """
    if film.thumbs is None or not len(sample.thumbs):
        return None
    frames, shown = np.array(sample.frames), sample.thumbs.astype(np.float32)
    errors = []
    for shift in OFFSETS:
        at = frames + shift
        inside = (at >= 0) & (at < len(film.thumbs))
        if not inside.any():
            return None
        errors.append(float(np.abs(shown[inside] - film.thumbs[at[inside]]).mean()))
    best = int(np.argmin(errors))
    return OFFSETS[best] if errors[best] < 0.8 * errors[OFFSETS.index(0)] else 0


def frame_score(truth: Truth, prediction: Prediction) -> Score:
    """Return the fraction of samples whose frames are the stated source frames."""
    files = {clip.id: clip.file for clip in prediction.clips.values()}
    films = [(truth.by_file[files[s.clip]], s) for s in prediction.samples if files[s.clip] in truth.by_file]
    known = [found for film, sample in films if (found := offset(film, sample)) is not None]
    return share("frames as stated", sum(found == 0 for found in known), len(known), "no thumbnails in the truth")
