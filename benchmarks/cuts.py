"""Accuracy on cuts, dissolves, fades and wipes: our detector against the two detectors that it combines.

    [A2DATA_CORPUS=<folder>] python -m benchmarks.cuts [--half tuning] [film …]

Renders the films of benchmarks.transitions (and reads three of the corpus, if available) and prints a line for each film
and detector: precision, recall and F1 of hard cuts at a tolerance of 0, 1 and 2 frames, false reports, and the fraction
of gradual transitions that no clip touches. A report matches a cut if both its ends are within the tolerance; each cut is matched
once, nearest first. A report that touches a gradual transition (or the 2 frames next to it) is ignored. Clips are those that
`segment` would cut: between the reports, less its margins, from 1 s. The detectors were tuned on the films of "tuning";
the default is "held-out".

Adaptive is PySceneDetect's AdaptiveDetector with its defaults. TransNetV2 uses the authors' threshold of 0.5 for both outputs: a
run of "one hot" is a cut, a run of "many hot" that is longer than 3 frames a gradual transition, with the margins of a dissolve.
"""

import argparse
import json
import os
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from a2data.media import video
from benchmarks.transitions import FPS, HALVES, KINDS, Film, render
from model_zoo import cards
from model_zoo.shots import detector as shots
from model_zoo.shots import transnet as transnet_module
from stages.segment.stage import Segment

CORPUS = Path(os.environ.get("A2DATA_CORPUS", Path(__file__).parents[2] / "shared" / "corpus"))
TOLERANCES = (0, 1, 2)  # frames
DETECTORS = ("Adaptive", "TransNetV2", "a2data")


class Count(NamedTuple):
    """Counts of a detector's results on a film, which add up over films."""

    right: tuple[int, ...]  # at each tolerance
    reported: int
    cuts: int
    clean: int  # gradual transitions without a frame in any clip
    gradual: int

    def plus(self, other: "Count") -> "Count":
        right = tuple(a + b for a, b in zip(self.right, other.right, strict=True))
        return Count(right, *(a + b for a, b in zip(self[1:], other[1:], strict=True)))

    def f1(self, tolerance: int) -> float:
        """Return F1 of hard cuts; 1 if there are none and none is reported."""
        return 2 * self.right[tolerance] / (self.reported + self.cuts) if self.reported + self.cuts else 1.0


def matched(reports: list[tuple[int, int]], cuts: list[int], tolerance: int) -> int:
    """Return how many cuts have their own report within the tolerance, matched nearest first."""
    pairs = [(max(abs(s - cut), abs(e - cut)), cut, (s, e)) for s, e in reports for cut in cuts]
    left, free = set(cuts), set(reports)
    for distance, cut, report in sorted(pairs):
        if distance <= tolerance and cut in left and report in free:
            left.remove(cut)
            free.remove(report)
    return len(cuts) - len(left)


def clips(reports: Iterable[tuple[int, int, str]], count: int, fps: float = FPS) -> list[tuple[int, int]]:
    """Return the frame range, end exclusive, that Segment keeps of each shot. reports: start, end and kind."""
    stage, found, start = Segment(), [], 0
    for s, e, kind in [*reports, (count, count, "end")]:
        last = s - stage.margin("fade" if kind == "cut" and s < e else kind)
        if last - start >= stage.min_clip_s * fps:
            found.append((start, last))
        start = e + stage.margin(kind)
    return found


def score(film: Film, transitions: list[shots.Transition]) -> Count:
    # a cut out of black counts at the end of the black
    reports = [(t.end if t.kind == "cut" else t.start, t.end) for t in transitions]
    inside = {r for r in reports for _, s, e in film.gradual if r[0] < e + 3 and r[1] >= s - 2}
    outside = [r for r in reports if r not in inside]
    kept = clips([(t.start, t.end, t.kind) for t in transitions], len(film.frames))
    clean = sum(all(b <= s or a >= e for a, b in kept) for _, s, e in film.gradual)
    right = tuple(matched(outside, film.cuts, tolerance) for tolerance in TOLERANCES)
    return Count(right, len(outside), len(film.cuts), clean, len(film.gradual))


def tiny(frames: np.ndarray) -> np.ndarray:
    """Downscale frames to the detectors' input, (t, 27, 48, 3) uint8."""
    size = (transnet_module.WIDTH, transnet_module.HEIGHT)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def adaptive(frames: np.ndarray) -> list[shots.Transition]:
    detector = AdaptiveDetector()
    found = [detector.process_frame(FrameTimecode(n, Fraction(FPS)), f[..., ::-1]) for n, f in enumerate(frames)]
    numbers = sorted(timecode.frame_num for some in found for timecode in some)
    return [shots.Transition("cut", n, n) for n in numbers]


def scores_of(network: transnet_module.Network, frames: np.ndarray) -> np.ndarray:
    """Return "one hot" and "many hot" of each frame, (t, 2)."""
    windows = transnet_module.Windows(network)
    scores = [pair for frame in frames for pair in windows.add(frame)]
    return np.array(scores + windows.finish())


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def transnet(scores: np.ndarray) -> list[shots.Transition]:
    gradual = [(s, e) for s, e in runs(scores[:, 1] >= 0.5) if e - s > 3]
    cuts = [(e, e) for s, e in runs(scores[:, 0] >= 0.5) if not any(a <= e and s <= b for a, b in gradual)]
    return [shots.Transition("cut" if s == e else "dissolve", s, e) for s, e in sorted([*gradual, *cuts]) if s > 0]


def replay(scores: np.ndarray) -> transnet_module.Network:
    """Return a network that replays recorded scores, so that two detectors share one forward pass."""
    first = [-transnet_module.SIDE]

    def predict(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        numbers = first[0] + np.arange(len(windows))[:, None] * transnet_module.STRIDE + np.arange(windows.shape[1])
        first[0] += len(windows) * transnet_module.STRIDE
        known = scores[np.clip(numbers, 0, len(scores) - 1)]
        return known[..., 0], known[..., 1]

    return transnet_module.Network(predict)


def ours(frames: np.ndarray, scores: np.ndarray) -> list[shots.Transition]:
    detector = shots.ShotDetector(replay(scores))
    return [t for frame in frames for t in detector.add(frame)] + detector.finish()


def measure(film: Film, network: transnet_module.Network) -> dict[str, Count]:
    """Return each detector's counts on a film."""
    frames = tiny(film.frames)
    scores = scores_of(network, frames)
    found = {"Adaptive": adaptive(frames), "TransNetV2": transnet(scores), "a2data": ours(frames, scores)}
    return {name: score(film, transitions) for name, transitions in found.items()}


def line(name: str, detector: str, count: Count) -> str:
    cells = [f"{name:24} {detector:10}"]
    for tolerance, right in zip(TOLERANCES, count.right, strict=True):
        precision = f"{right / count.reported:.2f}" if count.reported else "   -"
        recall = f"{right / count.cuts:.2f}" if count.cuts else "   -"
        cells.append(f"{precision} {recall} {count.f1(tolerance):.2f}")
    gradual = f"{count.clean}/{count.gradual} = {count.clean / count.gradual:.2f}" if count.gradual else "-"
    return "  ".join([*cells, f"{count.reported - count.right[-1]:3}", gradual])


def footage() -> list[Film]:
    """Return the films of the corpus with known transitions."""
    if not (CORPUS / "MANIFEST.json").exists():
        return []
    films = []
    files = {Path(f["file"]).name: f for f in json.loads((CORPUS / "MANIFEST.json").read_text())["files"]}
    for name in ("derived_asl_hardcuts.mp4", "psd_testvideo.mp4", "psd_fades.mp4"):
        truth = files[name]["shots"]
        gradual = [(t["type"], t["start"], t["end"]) for t in truth.get("gradual", [])]
        # for psd_fades the truth is the expected output of PySceneDetect's ThresholdDetector: the middles of black
        gradual += [
            ("fade", n, n + 1) for n in truth.get("upstream_golden", {}).get("ThresholdDetector", []) if not gradual
        ]
        small = [
            f.picture.reformat(256, 144, format="rgb24").to_ndarray() for f in video.read(str(CORPUS / "video" / name))
        ]
        films.append(Film(name, np.stack(small), truth["hard_cuts"], gradual))
    return films


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "films",
        nargs="*",
        help=f"kinds of rendered films: {', '.join(KINDS)} (default: all, and the films of the corpus)",
    )
    parser.add_argument("--half", choices=HALVES, default="held-out")
    args = parser.parse_args()
    corpus = CORPUS if (CORPUS / "MANIFEST.json").exists() else None
    network = cards.load("transnetv2", cards.device())
    total = {name: Count((0,) * len(TOLERANCES), 0, 0, 0, 0) for name in DETECTORS}
    titles = "  ".join(f"P    R    F1@{tolerance}" for tolerance in TOLERANCES)
    print(f"{args.half} films{'' if corpus else ', without footage'}")
    print(f"{'film':24} {'detector':10}  {titles}  false  gradual in no clip")
    rendered = (render(kind, args.half, corpus) for kind in args.films or KINDS)
    for film in chain(rendered, [] if args.films else footage()):
        for name, count in measure(film, network).items():
            total[name] = total[name].plus(count)
            print(line(film.name, name, count), flush=True)
    for name, count in total.items():
        print(line("all", name, count))


if __name__ == "__main__":
    main()
