"""A small set of packed shards: coloured squares that drift over coloured grounds, each shown by a picture and a place."""

import hashlib
from pathlib import Path

import numpy as np

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.dataset.triplet import Location, Origin, ReferenceMeta, Triplet, TripletMeta
from a2data.media import images, video
from a2data.media.coco_rle import NO_MASK
from a2data.records import Caption, Subject
from a2data.store.folder import Folder
from stages.pack.facts import to_row

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 60, 220),
    "white": (250, 250, 250),
    "grey": (120, 120, 120),
}
HEIGHT, WIDTH, FRAMES = 32, 48, 14


def make(folder: Path, count: int = 8, tars: int = 2, roles: tuple[str, ...] = ("object", "background")) -> Path:
    """Write `count` triplets into `tars` tars, with index and manifest."""
    rows, out = [], Folder(folder)
    for tar in range(tars):
        mine = [triplet(n, roles) for n in range(count) if n * tars // count == tar]
        facts = {t.facts.clip_id: t.facts for t in mine}
        members = ((t.facts.clip_id, samples.to_members(t)) for t in mine)
        rows += [to_row(placed, facts[placed.key]) for placed in writer.write(members, out, tar)]
    writer.finish(out, rows, {})
    return folder


def triplet(number: int, roles: tuple[str, ...] = ("object", "background")) -> Triplet:
    """The square's colour and the ground's follow from the number; so does the prompt."""
    names = list(COLOURS)
    front, back = names[number % 5], names[(number * 2 + 1 + number // 5) % 5]
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), COLOURS[back], np.uint8)
    for n, frame in enumerate(frames):
        frame[8:24, 4 + n + number : 20 + n + number] = COLOURS[front]
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[8:24, 16:32] = COLOURS[front]
    place = np.full((HEIGHT, WIDTH, 3), COLOURS[back], np.uint8)
    key = f"clip{number:02d}-00000000"
    prompt = f"A {front} square drifts over a {back} ground."
    caption = Caption(key, prompt, [SUBJECT], "medium_shot", "", "", "static", "", 0, 0, "", [])
    given = [reference("bg" if role == "background" else f"ref{n}", role, key) for n, role in enumerate(roles)]
    facts = TripletMeta(
        key, f"clip{number:02d}", "films/drawn.mp4", "CC0-1.0", "drawn", "", 0, FRAMES, 15.0, WIDTH, HEIGHT,
        (0.0, 0.0, WIDTH, HEIGHT), list(range(FRAMES)), [n / 15 for n in range(FRAMES)], caption, given, [], [],
    )  # fmt: skip
    shown = {g.name: place if g.role == "background" else picture for g in given}
    cut = {
        name: images.to_png(np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]))
        for name, p in shown.items()
        if name != "bg"
    }
    return Triplet(facts, video.encode(frames, 15.0, crf=1), {name: images.to_png(p) for name, p in shown.items()}, cut)


SUBJECT = Subject("Object", "", "", "drifts", "", "centre", False, "square", 0, 0)


def reference(name: str, role: str, key: str) -> ReferenceMeta:
    other = hashlib.sha256(key.encode()).hexdigest()[:8]
    origin = Origin(
        other, "films/other.mp4", "CC0-1.0", "drawn", f"{other}-0", f"{other}-0/{role}/0", "", role, [], 0, 0, 0.0,
        (0.0, 0.0, 16.0, 16.0), (0.0, 0.0, 16.0, 16.0), WIDTH, HEIGHT, NO_MASK, 1.0, 1.0, "", "0" * 16,
    )  # fmt: skip
    place = Location(0, 0, origin.box, origin.box, NO_MASK)
    return ReferenceMeta(name, role, "", 0, 0, f"{key}/{role}/0", 0, 0.9, 0.1, False, [], origin, place)
