"""Accuracy on the demo films: cuts, masks, and whether each reference shows the right person or object.

    python -m benchmarks.demo_truth [WORK FILMS]      (default: demo/work demo/films, as `make demo` leaves them)

Reads the tables of a finished run and the truth.json of pipelines.films.demo, and prints a line per figure. A person or object
is found if the mask of an element in its best frame has an IoU of at least 0.5 with its visible part.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from a2data.media.images import from_rle
from a2data.records import Clip, Element, Kept, Reference, Video
from a2data.store.tables import Store

FOUND_IOU = 0.5  # lowest IoU of an element with a found entity
MATCH_IOU = 0.1  # lowest IoU for an element to be attributed to an entity, in the mean IoU and for identities
VISIBLE = 0.5  # lowest median visible fraction of an entity that should be found
KINDS = ("human", "object")
# minimum for --check: slightly below the figures in docs/figures.md
FLOORS = {
    "cuts exact": 1.0,
    "cuts without false ones": 1.0,
    "humans recall": 0.94,
    "humans precision": 0.94,
    "objects recall": 0.75,
    "objects precision": 0.9,
    "human references precision": 1.0,
    "human references recall": 0.88,
    "object references precision": 1.0,
    "object references recall": 0.6,
}


@dataclass(frozen=True)
class Found:
    """An element and the entity of its kind with the largest overlap; "" if there is none."""

    element: Element
    entity: str
    iou: float


def shot_of(video: dict[str, Any], source_frame: int) -> dict[str, Any] | None:
    """Return the truth of the shot of a frame; None inside a transition."""
    return next((shot for shot in video["shots"] if shot["start"] <= source_frame < shot["end"]), None)


def mask_at(entity: dict[str, Any], source_frame: int) -> np.ndarray | None:
    """Return the visible mask of an entity in a frame, (h, w) bool: the nearest annotated mask, moved by linear interpolation.

    None if the entity is not visible in an annotated frame within 10 frames.
    """
    known = sorted(map(int, entity["frames"]))
    nearest = min(known, key=lambda frame: (abs(frame - source_frame), frame), default=None)
    if nearest is None or abs(nearest - source_frame) > 10:
        return None
    boxes = np.array([entity["frames"][str(frame)]["box"] for frame in known], float)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    x, y = (np.interp(source_frame, known, middles[:, axis]) for axis in (0, 1))
    there = middles[known.index(nearest)]
    mask = from_rle(bytes.fromhex(entity["frames"][str(nearest)]["mask"]))
    move = np.array([[1, 0, x - there[0]], [0, 1, y - there[1]]])
    return cv2.warpAffine(mask.astype(np.uint8), move, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def in_clip(mask: np.ndarray, clip: Clip) -> np.ndarray:
    """Convert a mask from the source's picture to the clip's frame, (h, w) bool."""
    x0, y0, x1, y1 = (round(v) for v in clip.crop)
    part = mask[y0:y1, x0:x1].astype(np.uint8)
    return cv2.resize(part, (clip.width, clip.height), interpolation=cv2.INTER_NEAREST) > 0


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two masks, 0 to 1."""
    return float((a & b).sum() / max(1, (a | b).sum()))


def find(element: Element, clip: Clip, video: dict[str, Any]) -> Found:
    """Return the entity that an element shows, by its mask in its best frame."""
    frame = clip.source_frames[element.frame]
    shot = shot_of(video, frame)
    best = Found(element, "", 0.0)
    mask = from_rle(element.mask)
    for entity in shot["entities"] if shot else []:
        shown = mask_at(entity, frame) if entity["kind"] == element.kind else None
        if shown is not None and (iou := overlap(in_clip(shown, clip), mask)) >= max(MATCH_IOU, best.iou):
            best = Found(element, entity["id"], iou)
    return best


def visible_in(clip: Clip, video: dict[str, Any], kind: str) -> set[str]:
    """Return the ids of a kind that should be found in a clip: mostly visible in most of its annotated frames."""
    shot = shot_of(video, clip.source_frames[len(clip.source_frames) // 2])
    if shot is None:
        return set()
    first, last = clip.source_frames[0], clip.source_frames[-1]
    times = [t for t in range(shot["start"], shot["end"], 10) if first <= t <= last]
    visible = {
        e["id"]: [e["frames"].get(str(t), {"visible": 0.0})["visible"] for t in times]
        for e in shot["entities"]
        if e["kind"] == kind
    }
    return {name for name, parts in visible.items() if parts and np.median(parts) >= VISIBLE}


def ratio(right: int, of: int) -> str:
    """Format a ratio."""
    return f"{right}/{of} = {right / of:.2f}" if of else "0/0"


def cut_lines(clips: Iterable[Clip], videos: dict[str, dict[str, Any]]) -> list[str]:
    """Report how many hard cuts are frame-exact, and how many shots begin without a cut or transition."""
    starts = {video_id: {0} for video_id in videos}
    for clip in clips:
        starts[clip.video_id].add(clip.shot_start)
    exact = false = total = 0
    for video_id, video in videos.items():
        total += len(video["cuts"])
        exact += len(starts[video_id] & set(video["cuts"]))
        soft = {f for t in video["transitions"] for f in range(t["start"], t["end"] + 3)}
        false += len(starts[video_id] - set(video["cuts"]) - soft - {0})
    return [f"cuts: {ratio(exact, total)} exact, {false} false"]


def found_lines(found: Sequence[Found], wanted: dict[str, dict[str, set[str]]]) -> list[str]:
    """Report recall, precision and mean IoU of people and objects. wanted: kind -> clip_id -> ids that should be found."""
    lines = []
    for kind in KINDS:
        mine = [f for f in found if f.element.kind == kind]
        good = {(f.element.clip_id, f.entity) for f in mine if f.iou >= FOUND_IOU}
        expected = {(clip_id, name) for clip_id, names in wanted[kind].items() for name in names}
        ious = [f.iou for f in mine if f.entity]
        lines.append(
            f"{kind}s: recall {ratio(len(good & expected), len(expected))}, precision {ratio(len(good), len(mine))}, "
            f"mean IoU {np.mean(ious) if ious else 0:.3f}, least {min(ious, default=0):.2f}"
        )
    return lines


def reference_lines(
    references: Sequence[Reference], who: dict[str, str], wanted: dict[str, dict[str, set[str]]]
) -> list[str]:
    """Report precision and recall of references. who: element_id -> entity, "" for none; wanted: as in found_lines.

    An entity is eligible if it should be found in this clip and in another one.
    """
    lines = []
    for kind, kinds in (("human", ("human", "face")), ("object", ("object",))):
        mine = [r for r in references if r.kind in kinds]
        right = [r for r in mine if who.get(r.element_id) and who[r.element_id] == who.get(r.source_element_id)]
        by_clip = wanted[kind]
        eligible = {
            (clip, name)
            for clip, names in by_clip.items()
            for name in names
            if any(name in others for other, others in by_clip.items() if other != clip)
        }
        got = {(r.clip_id, who[r.element_id]) for r in right} & eligible
        lines.append(
            f"{kind} references: precision {ratio(len(right), len(mine))}, recall {ratio(len(got), len(eligible))}"
        )
    return lines


def measure(work: Path, films: Path) -> list[str]:
    """Return the lines of a finished run."""
    store = Store(work)

    def rows(stage: str, record: type) -> list[Any]:
        return [row for shard in store.shards(stage) for row in store.read(stage, shard, record)]

    by_file = {video["file"]: video for video in json.loads((films / "truth.json").read_text())["videos"]}
    videos = {v.video_id: by_file[Path(v.path).name] for v in rows("ingest", Video)}
    clips = {clip.clip_id: clip for clip in rows("segment", Clip)}
    kept = {row.clip_id for row in rows("select", Kept)}
    elements = [e for stage in ("detect", "faces") for e in rows(stage, Element)]
    found = [find(e, clips[e.clip_id], videos[clips[e.clip_id].video_id]) for e in elements if e.kind in KINDS]
    who = {f.element.element_id: f.entity for f in found}
    who |= {e.element_id: who.get(e.parent_id, "") for e in elements if e.parent_id}
    wanted = {
        kind: {i: visible_in(clip, videos[clip.video_id], kind) for i, clip in sorted(clips.items()) if i in kept}
        for kind in KINDS
    }
    return [
        *cut_lines(clips.values(), videos),
        f"clips: {len(clips)}, kept {len(kept)}",
        *found_lines(found, wanted),
        *reference_lines(rows("retrieve", Reference), who, wanted),
    ]


def shortfalls(lines: Sequence[str]) -> list[str]:
    """Return the figures that are below their floor, a line each."""
    figures = {}
    for line in lines:
        name, _, rest = line.partition(": ")
        for what, right, of in re.findall(r"(\w+) (\d+)/(\d+) = ", f"exact {rest}" if name == "cuts" else rest):
            figures[f"{name} {what}"] = int(right) / int(of) if int(of) else 0.0
        if false := re.search(r"(\d+) false", rest):
            figures[f"{name} without false ones"] = 1.0 if false[1] == "0" else 0.0
    return [
        f"{name}: {figures.get(name, 0.0):.3f}, at least {floor} expected"
        for name, floor in FLOORS.items()
        if figures.get(name, 0.0) < floor
    ]


def main() -> None:
    check = "--check" in sys.argv
    words = [word for word in sys.argv[1:] if word != "--check"]
    if len(words) not in (0, 2):
        sys.exit("usage: python -m benchmarks.demo_truth [--check] [WORK FILMS]")
    work, films = map(Path, words or ("demo/work", "demo/films"))
    if not (films / "truth.json").exists():
        sys.exit(f"no truth.json in {films}: render the films with `python -m pipelines.films.demo {films}`")
    lines = measure(work, films)
    print("\n".join(lines))
    if check and (below := shortfalls(lines)):
        sys.exit("\n".join(below))


if __name__ == "__main__":
    main()
