"""The demo films: four short videos with recurring people and objects, and ground truth for every shot.

`python -m pipelines.films.demo OUT` writes, in half a minute and without network or weights, the videos, `manifest.csv` (path,
license, source, label), `plates/<video>-<shot>.png` (the background of the first frame of each shot, without people) and
`truth.json`:

    {"identities": {id: {"kind", "label", "outfits"}},
     "videos": [{"file", "fps", "frames", "width", "height", "first_pts_s",
                 "cuts": [first frame of each shot that a hard cut begins],
                 "transitions": [{"kind": "dissolve" or "fade", "start", "end"}],
                 "shots": [{"start", "end", "place", "light", "camera": "static", "pan" or "zoom", "plate",
                            "entities": [{"id", "kind": "human" or "object", "label", "outfit",
                                          "frames": {frame: {"box", "mask", "visible"}}}]}]}]}

Frames count from 0 in the video and ends are exclusive; a gradual transition belongs to neither of its shots. Every tenth frame
of a shot, from its first, has the box (x0, y0, x1, y1 in pixels, x1 and y1 exclusive) and the mask
(`a2data.media.images.to_rle`, in hex) of the visible part of each entity, and the fraction of it that nearer entities do not
hide (tables and the edge of the picture do not count).
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2data.media.images import to_png, to_rle
from a2data.media.video import encode
from pipelines.films import people as demo_people
from pipelines.films.demo_script import MOVIES, OBJECTS, Movie, Shot
from pipelines.films.renderer import blend, draw, plate, with_start_time

ANNOTATION_STRIDE = 10  # frames between ground-truth annotations


def render(out: Path, seed: int = 0, size: tuple[int, int] = (640, 360), movies: tuple[Movie, ...] = MOVIES) -> Path:
    """Write films and their truth into `out`, and return the path of the manifest. Same arguments: same bytes.

    seed: shifts the phases of small movements and the grain of the picture. size: width and height in px, 16:9 and even; faces
    are at least 85 px high at the default. Raises ValueError for another size.
    """
    if size[0] * 9 != size[1] * 16 or size[0] % 32 or size[0] < 32:
        raise ValueError(f"size {size[0]} x {size[1]} px: take a multiple of 32 x 18, as the script is framed for 16:9")
    (out / "plates").mkdir(parents=True, exist_ok=True)
    videos = [_write(movie, out, seed + 100 * n, size) for n, movie in enumerate(movies)]
    (out / "truth.json").write_text(json.dumps({"identities": identities(), "videos": videos}, indent=1) + "\n")
    rows = [(movie.file, "CC0-1.0", "a2data demo films", Path(movie.file).stem) for movie in movies]
    with open(out / "manifest.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "license", "source", "label"), *rows])
    return out / "manifest.csv"


def identities() -> dict[str, dict[str, Any]]:
    """Return the people and objects that appear: id -> kind, label and outfits."""
    people = {
        name: {"kind": "human", "label": "woman", "outfits": [outfit for outfit, _ in person.coats]}
        for name, person in demo_people.PEOPLE.items()
    }
    return people | {name: {"kind": "object", "label": label, "outfits": []} for name, label in OBJECTS.items()}


def _write(movie: Movie, out: Path, seed: int, size: tuple[int, int]) -> dict[str, Any]:
    """Write one video to `out` and return its ground truth."""
    shots: list[dict[str, Any]] = []
    data = encode(frames(movie, seed, size, shots), movie.fps, crf=22)
    (out / movie.file).write_bytes(with_start_time(data, movie.first_pts_s) if movie.first_pts_s else data)
    for number, (truth, shot) in enumerate(zip(shots, movie.shots, strict=True)):
        truth["plate"] = f"plates/{Path(movie.file).stem}-{number}.png"
        (out / truth["plate"]).write_bytes(to_png(plate(shot, 0.0, size)))
    shot_pairs = list(zip(movie.shots, shots, shots[1:], strict=False))
    return {
        "file": movie.file,
        "fps": movie.fps,
        "frames": shots[-1]["end"],
        "width": size[0],
        "height": size[1],
        "first_pts_s": movie.first_pts_s,
        "cuts": [b["start"] for shot, _, b in shot_pairs if shot.transition == "cut"],
        "transitions": [
            {"kind": s.transition, "start": a["end"], "end": b["start"]}
            for s, a, b in shot_pairs
            if s.transition != "cut"
        ],
        "shots": shots,
    }


def frames(movie: Movie, seed: int, size: tuple[int, int], shots: list[dict[str, Any]]) -> Iterator[np.ndarray]:
    """Yield the frames of a movie, (h, w, 3) uint8; the ground truth of each shot is appended to `shots` at its end."""
    frame_number = 0
    transition_frames = round(movie.transition_s * movie.fps)
    for index, shot in enumerate(movie.shots):
        length = round(shot.seconds * movie.fps)
        truth = _shot_truth(shot, frame_number, length)
        for step in range(length):
            picture, masks = draw(shot, step / length, seed + index, size)
            if step % ANNOTATION_STRIDE == 0 or step == length - 1:
                _add_sights(truth, frame_number, masks)
            yield picture
            frame_number += 1
        shots.append(truth)
        if shot.transition != "cut":
            next_shot = movie.shots[index + 1]
            next_length = round(next_shot.seconds * movie.fps)
            for step in range(transition_frames):  # both shots keep moving during the transition
                old, _ = draw(shot, (length + step) / length, seed + index, size)
                new, _ = draw(next_shot, (step - transition_frames) / next_length, seed + index + 1, size)
                yield blend(old, new, (step + 1) / (transition_frames + 1), shot.transition)
                frame_number += 1


def _shot_truth(shot: Shot, first: int, length: int) -> dict[str, Any]:
    known = identities()
    entities = [
        {"id": a.id, "kind": known[a.id]["kind"], "label": known[a.id]["label"], "outfit": a.outfit_name, "frames": {}}
        for a in shot.actors
    ]
    setting = {"place": shot.place, "light": shot.light, "camera": shot.camera}
    return {"start": first, "end": first + length, **setting, "entities": entities}


def _add_sights(truth: dict[str, Any], frame: int, masks: list[tuple[np.ndarray, float]]) -> None:
    """Record the visible part of each entity in a frame. Hidden entities are not recorded."""
    for entity, (mask, visible) in zip(truth["entities"], masks, strict=True):
        if mask.any():
            ys, xs = np.nonzero(mask)
            box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
            entity["frames"][str(frame)] = {"box": box, "mask": to_rle(mask).hex(), "visible": round(visible, 4)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pipelines.films.demo OUT")
    print(render(Path(sys.argv[1])))
