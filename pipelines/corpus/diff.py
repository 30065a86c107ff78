"""`a2data diff`: what differs between two runs, or two data sets, whatever the format of their shards.

Two triplets are the same if their prompts, their videos, their references (role, phrase, identity of the subject, clip and
element that the picture is from, pixels of the picture and of the cut-out) and their unpaired phrases are equal. What a format
may change is not compared: names and types of JSON fields, the encoding of masks and pictures, versions.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from a2data.dataset import writer
from a2data.dataset.triplet import Triplet, from_sample
from a2data.media import images, video
from a2data.records import Packed
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.tables import Footer, Store
from model_zoo.pictures import shrink
from pipelines.html.page import data_uri, render

STILL_PX = 320  # longest side of a picture in the page


@dataclass(frozen=True)
class Side:
    """One of the two: its shards, and its tables if it is a work folder."""

    shards: Folder
    rows: dict[str, Packed]
    store: Store | None = None
    footers: dict[str, list[Footer]] = field(default_factory=dict)  # by stage, in order of the recipe

    @classmethod
    def of(cls, shards: Folder, store: Store | None = None, stages: Sequence[Stage] = ()) -> "Side":
        made = {}
        for name in ("manifest", *(stage.name() for stage in stages)) if store else ():
            found = (store.footer(name, shard) for shard in store.shards(name))  # type: ignore[union-attr]
            made[name] = [footer for footer in found if footer]
        return cls(shards, {row.clip_id: row for row in writer.rows(shards)}, store, made)

    def triplet(self, clip_id: str) -> Triplet:
        row = self.rows[clip_id]
        members = writer.read_sample(self.shards, clip_id, row.shard, row.offset, row.bytes)
        return from_sample(members | {"__key__": clip_id})


class Count(NamedTuple):
    """What a stage made on both sides."""

    stage: str
    rows: tuple[int, int]
    rejected: tuple[int, int]
    failed: tuple[int, int]
    settings: list[str]  # "name: value → value"


class Change(NamedTuple):
    """A triplet that only one side has, or that differs."""

    clip_id: str
    side: str  # "first" or "second" if only that one has it; "" if both have
    why: str  # the reason of the other side, or the parts that differ


@dataclass(frozen=True)
class Diff:
    """What differs."""

    counts: list[Count]
    changes: list[Change]
    same: int


def diff(a: Side, b: Side) -> Diff:
    """Compare both sides: the counts and settings of their stages, and each triplet."""
    counts = [_count(name, a, b) for name in dict.fromkeys((*a.footers, *b.footers))] if a.store and b.store else []
    changes = [
        Change(key, "first" if key in a.rows else "second", _why_gone(key, b if key in a.rows else a))
        for key in sorted(a.rows.keys() ^ b.rows.keys())
    ]
    both = sorted(a.rows.keys() & b.rows.keys())
    for key in both:
        wrong = differing(parts_of(a.triplet(key)), parts_of(b.triplet(key)))
        changes += [Change(key, "", ", ".join(wrong))] if wrong else []
    return Diff(counts, changes, len(both) - sum(not change.side for change in changes))


def _count(name: str, a: Side, b: Side) -> Count:
    def both(value: Any) -> tuple[int, int]:
        first, second = (sum(map(value, side.footers.get(name, []))) for side in (a, b))
        return first, second

    used = [side.footers[name][0] if side.footers.get(name) else Footer() for side in (a, b)]
    names = sorted({*used[0].settings, *used[1].settings})
    changed = [
        f"{each}: {used[0].settings.get(each)!r} → {used[1].settings.get(each)!r}"
        for each in names
        if used[0].settings.get(each) != used[1].settings.get(each)
    ]
    models = [dict(sorted(footer.models.items())) for footer in used]
    changed += [f"models: {models[0]} → {models[1]}"] if models[0] != models[1] else []
    return Count(name, both(lambda f: f.rows), both(lambda f: len(f.rejected)), both(lambda f: len(f.failed)), changed)


def _why_gone(clip_id: str, side: Side) -> str:
    """Return why a side does not have a triplet: the rejection or failure of its clip or video in its tables."""
    if not side.store:
        return "not in its index"
    video_id = clip_id.rpartition("-")[0]
    for stage, footers in side.footers.items():
        for footer in footers:
            for reject in footer.rejected:
                if reject.key in (clip_id, video_id):
                    return f"{stage}: {reject.reason}" + (f" ({reject.detail})" if reject.detail else "")
            for unit, why in footer.failed.items():
                if unit in (clip_id, video_id):
                    return f"{stage} failed: {why}"
    shards = side.store.shards("manifest")
    if not any(video_id in side.store.values("manifest", shard, "video_id") for shard in shards):
        return f"manifest: the video {video_id} is not in it"
    return "segment: its clips begin at other frames" if not _holds(side.store, clip_id) else "not packed"


def _holds(store: Store, clip_id: str) -> bool:
    return any(clip_id in store.values("segment", shard, "clip_id") for shard in store.shards("segment"))


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the names of the parts that differ; references with the numbers of those that do."""
    found = [name for name in ours if name != "references" and ours[name] != theirs[name]]
    x, y = ours["references"], theirs["references"]
    if len(x) != len(y):
        return [*found, f"references: {len(x)} → {len(y)}"]
    numbers = [f"ref{n} ({one[1] or one[0]})" for n, (one, other) in enumerate(zip(x, y, strict=True)) if one != other]
    return [*found, f"references: {', '.join(numbers)}"] if numbers else found


def parts_of(triplet: Triplet) -> dict[str, Any]:
    """Return what two triplets must share to be the same, by name."""
    return {
        "prompt": triplet.prompt,
        "video": hashlib.sha256(triplet.video).hexdigest(),
        "references": [
            (
                given.role,
                given.phrase,
                (given.start, given.end),
                given.identity,
                given.origin.clip_id,
                given.origin.element_id,
                *(pixels(of.get(given.name)) for of in (triplet.pictures, triplet.cut_outs)),
            )
            for given in triplet.facts.references
        ],
        "unpaired": [(left.kind, left.phrase, left.start, left.end) for left in triplet.facts.unpaired],
    }


def pixels(png: bytes | None) -> str:
    """Return the sha256 of a picture's pixels, so that another compression is not a difference; "" if there is no picture."""
    return hashlib.sha256(images.from_png(png).tobytes()).hexdigest() if png else ""


def text(found: Diff, most: int = 40) -> str:
    """Return the differences as text, with at most that many triplets."""
    lines = []
    if found.counts:
        lines.append(f"{'stage':14} {'rows':>15} {'rejected':>13} {'failed':>9}")
        for each in found.counts:
            pairs = (f"{one} → {other}" if one != other else f"{one}" for one, other in each[1:4])
            lines.append("{:14} {:>15} {:>13} {:>9}".format(each.stage, *pairs))
            lines += [f"{'':14}   {line}" for line in each.settings]
    for change in found.changes[:most]:
        lines.append(
            f"{change.clip_id}: only in the {change.side}; the other: {change.why}" if change.side
            else f"{change.clip_id}: another {change.why}"
        )  # fmt: skip
    if len(found.changes) > most:
        lines.append(f"… {len(found.changes) - most} more")
    only = [sum(change.side == side for change in found.changes) for side in ("first", "second", "")]
    lines.append(
        f"{only[0]} only in the first, {only[1]} only in the second, {only[2]} differ, {found.same} are the same"
    )
    return "\n".join(lines) + "\n"


def write_page(path: Path, found: Diff, a: Side, b: Side, most: int = 40) -> None:
    """Write the differences as one HTML file, with the pictures of both sides for at most that many triplets."""
    shown = [(change, [_pictures(side, change.clip_id) for side in (a, b)]) for change in found.changes[:most]]
    names = (a.store or a.shards).root, (b.store or b.shards).root
    page = render("corpus/diff.html", names=names, found=found, shown=shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _pictures(side: Side, clip_id: str) -> tuple[str, list[tuple[str, str]]] | None:
    """Return the prompt, and title and data: URI of the middle frame and of each reference; None without such a triplet."""
    if clip_id not in side.rows:
        return None
    triplet = side.triplet(clip_id)
    return triplet.prompt, list(_drawn(triplet))


def _drawn(triplet: Triplet) -> Iterator[tuple[str, str]]:
    frames = video.decode(triplet.video)
    yield "clip", data_uri(images.to_jpeg(shrink(frames[len(frames) // 2], STILL_PX)))
    for given in triplet.facts.references:
        png = triplet.cut_outs.get(given.name) or triplet.pictures[given.name]
        picture = images.from_png(png)
        shown = images.on_white(picture) if picture.shape[2] == 4 else picture
        title = f"{given.name} {given.phrase or given.role}, from {given.origin.clip_id}"
        yield title, data_uri(images.to_jpeg(shrink(shown, STILL_PX // 2)))
