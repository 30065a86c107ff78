"""A corpus of two videos and three clips, drawn and written by hand, with one of everything that can happen to a clip.

Video A (shard 0) has two clips, a red and a grey one; video B (shard 1) has one, a green one. The red clip is paired with the
green one; the grey one was rejected. File C cannot be read.
"""

from typing import Any

import numpy as np

from a2data.media import images, video
from a2data.records import (
    Caption,
    ClipVideo,
    Element,
    Kept,
    Match,
    Packed,
    Reference,
    Reject,
    Rule,
    Score,
    Source,
    Video,
)
from a2data.store.tables import Store

A, B, C = "a" * 16, "b" * 16, "c" * 16
RED, GREY, GREEN = f"{A}-00000000", f"{A}-00000080", f"{B}-00000000"
COLOURS = {RED: (200, 30, 30), GREY: (90, 90, 90), GREEN: (30, 160, 60)}
HOSTILE = '<script>alert("x")</script>'
PROMPT = f"A man in a red coat walks {HOSTILE}."
SIZE = 48, 64
FRAMES = 6


def write(store: Store) -> None:
    """All tables of the corpus."""
    put(
        store, "manifest", 0, Source, [source(A, f"/films/{HOSTILE}.mp4"), source(C, "/films/broken.mp4")], num_inputs=2
    )
    put(store, "manifest", 1, Source, [source(B, "/films/b.mp4")], num_inputs=1)
    put(
        store,
        "ingest",
        0,
        Video,
        [about(A)],
        num_inputs=2,
        seconds=0.5,
        failed={C: f"InvalidDataError: no video: {HOSTILE}"},
    )
    put(store, "ingest", 1, Video, [about(B)], num_inputs=1, seconds=0.25)
    put(
        store,
        "segment",
        0,
        ClipVideo,
        [film(RED), film(GREY)],
        num_inputs=1,
        seconds=2.0,
        skipped=[C],
        models={"transnetv2": "1"},
    )
    put(store, "segment", 1, ClipVideo, [film(GREEN)], num_inputs=1, seconds=1.0, models={"transnetv2": "1"})
    put(store, "score", 0, Score, [Score(RED, "motion", 0.1), Score(GREY, "motion", 0.0)], num_inputs=2)
    put(store, "score", 1, Score, [Score(GREEN, "motion", 0.1)], num_inputs=1)
    still = Reject(GREY, "motion", "motion = 0, allowed 0.0015 to 0.2: FAIL")
    put(store, "select", 0, Kept, [Kept(RED, A)], num_inputs=2, rejected=[still])
    put(store, "select", 1, Kept, [Kept(GREEN, B)], num_inputs=1)
    blurred = [Reject(f"{RED}/human/{n}", "blurred", "quality 0.1, wanted 0.3") for n in (1, 2)]
    found = [element(RED, "human", "person"), element(RED, "upper", "coat"), element(RED, "object", "cup")]
    models = {"yolo:/weights/<b>.onnx": "0123", "my-own": "7"}
    put(
        store, "detect", 0, Element, found, num_inputs=1, rejected=blurred, models=models, settings={"confidence": 0.35}
    )
    others = [element(GREEN, "human", "person"), element(GREEN, "upper", "coat")]
    put(store, "detect", 1, Element, others, num_inputs=1, models=models, settings={"confidence": 0.5})
    put(store, "caption", 0, Caption, [Caption(RED, PROMPT, [], "", "", "", "", "", 0, 0, "", [])], num_inputs=1)
    put(
        store,
        "match",
        0,
        Match,
        [match("man in a red coat", "human"), match("red coat", "upper"), match("walks", "object")],
    )
    put(store, "retrieve", 0, Reference, [reference("human", 0.9, 0.2), reference("upper", 0.7, 0.4)], num_inputs=3)
    put(
        store,
        "retrieve",
        1,
        Reference,
        [],
        num_inputs=1,
        rejected=[Reject(f"{GREEN}/human/0", "no other clip shows it")],
    )
    put(
        store,
        "pack",
        0,
        Packed,
        [Packed(RED, "train-00000.tar", "", 512, 9000, ["json", "mp4"], FRAMES, *SIZE, 15.0, [], "", 0.4)],
    )


def put(store: Store, stage: str, shard: int, record: type, rows: list[Any], **footer: Any) -> None:
    """A part with these rows, and with these fields in its footer."""
    with store.create(stage, record, shard) as part:
        part.add(rows)
        part.footer.num_inputs = len(rows)
        for name, value in footer.items():
            setattr(part.footer, name, value)
        part.commit()


def source(video_id: str, path: str) -> Source:
    return Source(video_id, path, "CC0-1.0", "drawn", "", 1000, "")


def about(video_id: str) -> Video:
    return Video(video_id, f"/films/{HOSTILE}.mp4", "CC0-1.0", "drawn", "", *SIZE[::-1], 0, 30.0, 60.0, "h264", 0)


def film(clip_id: str) -> ClipVideo:
    """A clip of one colour, which starts 1 s into its source."""
    frames = np.full((FRAMES, *SIZE, 3), COLOURS[clip_id], np.uint8)
    start, times_s = int(clip_id[-8:]), [1 + n / 15 for n in range(FRAMES)]
    box = (0.0, 0.0, 64.0, 48.0)
    each = [0.0] * FRAMES
    span = (clip_id[:16], start // 80, start, start + 12, "cut" if start else "start", 15.0, *SIZE[::-1])
    seen = (list(range(start, start + 12, 2)), times_s, box, 0.0, each, each, each, b"")
    return ClipVideo(clip_id, *span, *seen, video.encode(frames, 15.0))


def element(clip_id: str, kind: str, label: str) -> Element:
    """A disc of the clip's colour in a square of 32 pixels."""
    frame = np.full((*SIZE, 3), COLOURS[clip_id], np.uint8)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = (rows - 24) ** 2 + (columns - 32) ** 2 < 15**2
    box = (16.0, 8.0, 48.0, 40.0)
    png = images.to_png(images.cut_out(frame, mask, box))
    where = (clip_id, f"{clip_id}/{kind}/0", kind, label, "", 2, box, 0.9)
    return Element(*where, images.to_rle(mask), png, images.sha16(png), [], "", 0.8, [1, 2], [box, box], ["colour=red"])


def match(phrase: str, kind: str) -> Match:
    start = PROMPT.index(phrase)
    return Match(RED, f"{RED}/{kind}/0", phrase, start, start + len(phrase), 0.3, 0.05)


def reference(kind: str, similarity: float, copy_risk: float) -> Reference:
    rules = [Rule("similarity", similarity, 0.6, 1.0)]
    target, source = f"{RED}/{kind}/0", f"{GREEN}/{kind}/0"
    return Reference(RED, target, kind, 5, 1, GREEN, source, "", similarity, copy_risk, rules)
