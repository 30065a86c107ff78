"""Audit a data set before and after faults were planted in it, and print which of them are named.

    python -m benchmarks.audit_faults demo/shards

Six faults, each in as many samples as there are, one at a time: the reference is cut from the clip that it is for, scaled,
brightened and as JPEG; the same, mirrored; it shows another person; its mask is its box; the caption is of something else; the
picture is blank. Prints planted, named, and what the audit finds in the set as it is.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.dataset.triplet import Triplet
from a2data.media import coco_rle, images, video
from a2data.store.folder import Folder
from model_zoo import cards
from pipelines.corpus.audit import audit
from stages.faces import Faces
from stages.pack.facts import to_row

Fault = Callable[[Triplet, list[Triplet]], "Triplet | None"]


def main(shards: str) -> None:
    source = Folder(shards)
    triplets = [
        samples.from_sample(writer.read_sample(source, r.clip_id, r.shard, r.offset, r.bytes) | {"__key__": r.clip_id})
        for r in writer.rows(source)
    ]
    model, least = cards.load(Faces.model, cards.device()), cards.base_card(Faces.model).match_threshold
    clean = audit(source, model, least)
    print(f"as it is: {clean.samples} samples, {clean.references} references, ", end="")
    print(dict(Counter(each.fault for each in clean.findings)))
    before = {each[:3] for each in clean.findings}
    print(f"{'planted':24} {'samples':>8} {'named':>6}  other new findings")
    for name, (fault, plant) in FAULTS.items():
        changed = [(t, plant(t, triplets)) for t in triplets]
        with tempfile.TemporaryDirectory() as folder:
            pack(Path(folder), [made or t for t, made in changed])
            found = [each for each in audit(Folder(folder), model, least).findings if each[:3] not in before]
        planted = {t.facts.clip_id for t, made in changed if made}
        named = {each.clip_id for each in found if each.fault == fault} & planted
        others = dict(Counter(each.fault for each in found if each.fault != fault or each.clip_id not in planted))
        print(f"{name:24} {len(planted):8} {len(named):6}  {others}")


def pack(folder: Path, triplets: list[Triplet]) -> None:
    out, facts = Folder(folder), {t.facts.clip_id: t.facts for t in triplets}
    placed = writer.write(((t.facts.clip_id, samples.to_members(t)) for t in triplets), out, 0)
    writer.finish(out, [to_row(row, facts[row.key]) for row in placed], {})


def with_picture(triplet: Triplet, rgba: np.ndarray, name: str = "ref0") -> Triplet:
    """Return the triplet with another cut-out, and with it as the picture on white."""
    flat = images.to_png(images.on_white(rgba))
    return replace(
        triplet,
        cut_outs=triplet.cut_outs | {name: images.to_png(rgba)},
        pictures=triplet.pictures | {name: flat},
    )


def own(triplet: Triplet) -> np.ndarray:
    """Return what the clip shows of the first reference, cut out: 0.8 of its size, brighter, as JPEG."""
    given = triplet.facts.references[0]
    frame = video.decode(triplet.video)[given.target.frame]
    mask = coco_rle.decode(given.target.mask)
    cut = images.cut_out(frame, mask, images.bounds(mask))
    small = cv2.resize(cut, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    bright = (255 * (small[..., :3] / 255.0) ** 0.9).astype(np.uint8)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", bright)[1], cv2.IMREAD_COLOR)
    return np.dstack([jpeg, np.where(small[..., 3] > 127, 255, 0).astype(np.uint8)])


def copy(triplet: Triplet, _: list[Triplet]) -> Triplet:
    return with_picture(triplet, own(triplet))


def mirrored(triplet: Triplet, _: list[Triplet]) -> Triplet:
    return with_picture(triplet, np.ascontiguousarray(own(triplet)[:, ::-1]))


def another_person(triplet: Triplet, others: list[Triplet]) -> Triplet | None:
    """Give the first reference the picture of a person of another identity; None if it does not show a person."""
    mine = triplet.facts.references[0]
    if mine.role != "human":
        return None
    for other in others:
        given = other.facts.references[0]
        if given.role == "human" and given.identity != mine.identity:
            return with_picture(triplet, images.from_png(other.cut_outs["ref0"]))
    return None


def boxed(triplet: Triplet, _: list[Triplet]) -> Triplet:
    rgba = images.from_png(triplet.cut_outs["ref0"]).copy()
    rgba[..., 3] = 255
    return with_picture(triplet, rgba)


def other_caption(triplet: Triplet, _: list[Triplet]) -> Triplet:
    facts = triplet.facts
    prompt = f"Waves roll over a beach in the evening light, seen from {facts.clip_id}."
    given = [replace(each, start=0, end=len(each.phrase)) for each in facts.references]
    return replace(triplet, facts=replace(facts, references=given, caption=replace(facts.caption, prompt=prompt)))


def blank(triplet: Triplet, _: list[Triplet]) -> Triplet:
    rgba = images.from_png(triplet.cut_outs["ref0"]).copy()
    rgba[..., :3] = 200
    return with_picture(triplet, rgba)


FAULTS: dict[str, tuple[str, Fault]] = {
    "copy of the clip": ("copy of its target", copy),
    "mirrored copy": ("copy of its target", mirrored),
    "another person": ("another person", another_person),
    "mask is its box": ("doubtful mask", boxed),
    "caption of another": ("not in the caption", other_caption),
    "blank picture": ("blank or tiny", blank),
}

if __name__ == "__main__":
    main(sys.argv[1])
