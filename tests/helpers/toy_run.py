"""The right answer about the toy films as a real run leaves it: tables, and shards that the stage pack writes.

The films are drawn from their truth, with black bars that the clips do not have; the clips are at half the size.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from toy_truth import HEIGHT, WIDTH

from a2data.dataset.triplet import NO_SOUND
from a2data.dataset.writer import finish
from a2data.media import images, video
from a2data.records import Caption, ClipVideo, Element, Kept, Match, Reference, Sound, Subject, Video
from a2data.store.tables import Store
from pipelines.bench.triplets import self_test
from pipelines.films.truth import Truth
from pipelines.run import schedule
from pipelines.run.local import InProcessExecutor
from stages.pack.stage import Pack

TOP, BOTTOM = 6, 82  # rows between the bars
COLOURS = {"ann": (210, 30, 30), "bea": (30, 160, 60), "cup": (240, 220, 40), "box": (120, 80, 40)}
SIZE = (WIDTH // 2, (BOTTOM - TOP) // 2)  # of a clip
CROP = (0.0, float(TOP), float(WIDTH), float(BOTTOM))


def drawn(film) -> np.ndarray:
    """(t, h, w, 3) uint8: a place, those who are there, and a light that flickers so that no two frames are alike."""
    rng = np.random.default_rng(len(film.file) + film.frames)
    frames = np.zeros((film.frames, HEIGHT, WIDTH, 3), np.uint8)
    walls = {name: rng.integers(40, 200, (9, 16, 3), dtype=np.uint8) for name in ("", "hall", "yard", "shed", "pier")}
    for n in range(film.frames):
        shot = film.shot_at(n)
        wall = cv2.resize(walls[shot.place if shot else ""], (WIDTH, HEIGHT))
        frames[n] = np.roll(cv2.convertScaleAbs(wall, alpha=rng.uniform(0.7, 1.2)), n, axis=1)
        for entity in shot.entities if shot else []:
            frames[n][entity.sights[n].pixels(HEIGHT, WIDTH) > 0.5] = COLOURS[entity.id]
    frames[:, :TOP] = frames[:, BOTTOM:] = 0
    return frames


def write(truth: Truth, folder: Path) -> Truth:
    """Tables in folder/work, shards in folder/work/shards; returns the truth with the thumbnails of what was drawn."""
    x0, y0, x1, y1 = map(round, CROP)
    pictures = {film.file: drawn(film) for film in truth.films}
    thumbs = {name: np.stack([images.thumb(p[y0:y1, x0:x1]) for p in frames]) for name, frames in pictures.items()}
    truth = replace(truth, films=[replace(f, thumbs=thumbs[f.file], content=CROP) for f in truth.films])
    right = self_test.oracle(truth)
    store = Store(folder / "work")
    elements = {e.id: element(e, pictures) for e in right.elements.values()}
    places = [r for s in right.samples for r in s.references if r.role == "background"]
    elements |= {r.source_element: place(r, pictures) for r in places}
    elements |= {r.element: replace(place(r, pictures), clip_id=s.clip, element_id=r.element)
                 for s in right.samples for r in s.references
                 if r.role == "background" and r.element not in elements}  # fmt: skip
    put = lambda name, record, rows: store.write(name, 0, record, rows)  # noqa: E731
    put(
        "ingest",
        Video,
        [Video(f.file, f"/films/{f.file}", "CC0", "", "", WIDTH, HEIGHT, 0, 25.0, 3.0, "h264", 0) for f in truth.films],
    )
    put("segment", ClipVideo, [clip(c, pictures[c.file]) for c in right.clips.values()])
    put("listen", Sound, [replace(NO_SOUND, clip_id=c.id) for c in right.clips.values()])
    for name in ("select", "curate"):
        put(name, Kept, [Kept(c.id, c.file) for c in right.clips.values()])
    put("detect", Element, [e for e in elements.values() if e.kind in ("human", "object")])
    put("background", Element, [e for e in elements.values() if e.kind == "background"])
    for name in ("faces", "parse", "ground"):
        put(name, Element, [])
    put("caption", Caption, [caption(s) for s in right.samples])
    put(
        "match",
        Match,
        [Match(s.clip, x.element, x.phrase, x.start, x.end, 1.0, 1.0) for s in right.samples for x in s.slots],
    )
    put("retrieve", Reference, [
        Reference(s.clip, r.element, r.role, r.identity, 0, r.source_clip, r.source_element,
                  elements[r.source_element].image_sha256, 0.9, 0.1, [])
        for s in right.samples for r in s.references
    ])  # fmt: skip
    packer = Pack(out=str(folder / "work" / "shards"))
    summary = schedule.run([packer], store, [0], InProcessExecutor(store))
    assert not summary.failed_jobs, summary.failed_jobs
    from a2data.records import Packed
    from a2data.store.folder import Folder

    finish(Folder(packer.out), list(store.read("pack", 0, Packed)), {"profile": "oracle"})
    return truth


def clip(c, frames) -> ClipVideo:
    x0, y0, x1, y1 = map(round, CROP)
    shown = [cv2.resize(frames[n][y0:y1, x0:x1], SIZE, interpolation=cv2.INTER_AREA) for n in c.frames]
    data = video.encode(shown, 15, crf=12)
    thumbs = np.stack([images.thumb(p) for p in shown]).tobytes()
    facts = (c.id, c.file, c.shot, c.shot_start, c.shot_end, c.transition_in, 15.0, *SIZE, list(c.frames))
    n = len(shown)
    return ClipVideo(*facts, [f / 25 for f in c.frames], CROP, 0.0, [0.5] * n, [1.0] * n, [0.0] * n, thumbs, data)


def in_clip(mask: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = map(round, CROP)
    return cv2.resize(mask[y0:y1, x0:x1].astype(np.uint8), SIZE, interpolation=cv2.INTER_NEAREST) > 0


def scaled(box):
    return tuple(v / 2 for v in (box[0] - CROP[0], box[1] - CROP[1], box[2] - CROP[0], box[3] - CROP[1]))


def element(e, pictures) -> Element:
    mask = in_clip(images.from_rle(e.best.mask))
    frame, box = _half(pictures[e.best.file][e.best.frame]), images.bounds(mask)
    png = images.to_png(images.cut_out(frame, mask, box))
    first = int(e.clip.rpartition("-")[2])
    return Element(
        e.clip, e.id, e.kind, e.kind, "", e.best.frame - first, box, 0.9, images.to_rle(mask), png, images.sha16(png),
        list(e.embedding), "toy", 0.9, [f - first for f in e.frames], [scaled(b) for b in e.boxes], [],
    )  # fmt: skip


def place(r, pictures) -> Element:
    mask = in_clip(images.from_rle(r.origin.mask))
    box = (0.0, 0.0, float(SIZE[0]), float(SIZE[1]))
    png = images.to_png(images.cut_out(_half(pictures[r.origin.file][r.origin.frame]), mask, box))
    at = r.origin.frame - int(r.source_clip.rpartition("-")[2])
    return Element(
        r.source_clip, r.source_element, "background", "background", "", at, box, 0.9, images.to_rle(mask), png,
        images.sha16(png), [], "toy", 0.9, [at], [box], [],
    )  # fmt: skip


def _half(frame: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = map(round, CROP)
    return cv2.resize(frame[y0:y1, x0:x1], SIZE, interpolation=cv2.INTER_AREA)


def caption(s) -> Caption:
    subjects = [
        Subject("Human", "Woman", "", "", "", "", n == 0, x.phrase, x.start, x.end) for n, x in enumerate(s.slots)
    ]
    start = s.prompt.index(s.environment)
    return Caption(s.clip, s.prompt, subjects, "", "", "", "", s.environment, start, start + len(s.environment), "", [])
