"""Shot scores: detected cuts, clips inside one shot, and correct source frame numbers."""

from collections.abc import Iterable

import numpy as np

from pipelines.bench.triplets.predictions import Clip, Prediction, Sample
from pipelines.bench.triplets.statistics import Score, f_score, proportion
from pipelines.films.truth import Film, Truth

TRIM = 2  # frames at either end of a clip that may be beyond a cut
OFFSETS = (-2, -1, 0, 1, 2)  # tested frame offsets of a clip


def boundaries(clips: Iterable[Clip]) -> dict[int, bool]:
    """Return the predicted shot boundaries: first frame -> whether it is predicted as a hard cut.

    The end of a shot is a boundary too if the next shot is too short for a clip. Its kind is unknown, so it only counts if it is
    right.
    """
    shots = {clip.shot for clip in clips}
    ends = {clip.shot_end: False for clip in clips if clip.shot + 1 not in shots}
    return ends | {clip.shot_start: clip.transition_in == "cut" for clip in clips if clip.transition_in != "start"}


def cut_scores(truth: Truth, prediction: Prediction) -> list[Score]:
    """Return precision, recall and F1 of hard cuts at 0, 1 and 2 frames, and the recall of gradual transitions."""
    scores = []
    for tolerance in (0, 1, 2):
        num_recalled = num_correct = num_predicted = num_cuts = 0
        for film in truth.films:
            predicted_kinds = boundaries([c for c in prediction.clips.values() if c.file == film.file])
            matches = match(sorted(film.cuts), sorted(predicted_kinds), tolerance)
            gradual_frames = {f for t in film.transitions for f in range(t.start - tolerance, t.end + tolerance + 1)}
            num_cuts, num_recalled = num_cuts + len(film.cuts), num_recalled + len(matches)
            hard_cuts = [
                f
                for f, is_cut in predicted_kinds.items()
                if is_cut and (f in matches.values() or f not in gradual_frames)
            ]
            num_predicted, num_correct = (
                num_predicted + len(hard_cuts),
                num_correct + len(set(hard_cuts) & set(matches.values())),
            )
        precision = proportion(f"cuts, precision at {tolerance}", num_correct, num_predicted)
        recall = proportion(f"cuts, recall at {tolerance}", num_recalled, num_cuts)
        scores += [precision, recall, f_score(f"cuts, F1 at {tolerance}", precision, recall, 1.0)]
    gradual = [(f, t) for f in truth.films for t in f.transitions]
    num_detected = sum(_is_detected(f, t.start, t.end, prediction) for f, t in gradual)
    return [*scores, proportion("gradual transitions, recall", num_detected, len(gradual))]


def match(cuts: list[int], detected: list[int], tolerance: int) -> dict[int, int]:
    """Match true cuts with detected ones, one to one, nearest first."""
    pairs = sorted((abs(c - f), c, f) for c in cuts for f in detected if abs(c - f) <= tolerance)
    matches: dict[int, int] = {}
    for _, cut, frame in pairs:
        if cut not in matches and frame not in matches.values():
            matches[cut] = frame
    return matches


def _is_detected(film: Film, start: int, end: int, prediction: Prediction) -> bool:
    predicted = boundaries([c for c in prediction.clips.values() if c.file == film.file])
    return any(start - 2 <= frame <= end + 2 for frame in predicted)


def is_pure(film: Film, frames: tuple[int, ...]) -> bool:
    """Return whether a clip, without its outermost frames, is free of cuts and transitions."""
    first, last = frames[0] + TRIM, frames[-1] + 1 - TRIM
    return not any(first < cut < last for cut in film.cuts) and not any(
        max(first, t.start) < min(last, t.end) for t in film.transitions
    )


def purity_score(truth: Truth, prediction: Prediction) -> Score:
    clips = [c for c in prediction.clips.values() if c.kept and c.file in truth.by_file]
    return proportion("clips of one shot", sum(is_pure(truth.by_file[c.file], c.frames) for c in clips), len(clips))


def offset(film: Film, sample: Sample) -> int | None:
    """Return the offset of a clip's frames from the stated source frames; None if the truth has no thumbnails.

    This is the member of OFFSETS at which its thumbnails are nearest to the film's; 0 if no other is clearly nearer.
    """
    if film.thumbs is None or not len(sample.thumbs):
        return None
    frames, thumbs = np.array(sample.frames), sample.thumbs.astype(np.float32)
    errors = []
    for shift in OFFSETS:
        indices = frames + shift
        is_valid = (indices >= 0) & (indices < len(film.thumbs))
        if not is_valid.any():
            return None
        errors.append(float(np.abs(thumbs[is_valid] - film.thumbs[indices[is_valid]]).mean()))
    best = int(np.argmin(errors))
    return OFFSETS[best] if errors[best] < 0.8 * errors[OFFSETS.index(0)] else 0


def frame_score(truth: Truth, prediction: Prediction) -> Score:
    """Return the fraction of samples whose frames are the stated source frames."""
    files = {clip.id: clip.file for clip in prediction.clips.values()}
    samples = [(truth.by_file[files[s.clip]], s) for s in prediction.samples if files[s.clip] in truth.by_file]
    offsets = [shift for film, sample in samples if (shift := offset(film, sample)) is not None]
    return proportion(
        "frames as stated", sum(shift == 0 for shift in offsets), len(offsets), "no thumbnails in the truth"
    )
