"""`a2data diff`: compare two runs or two data sets, whatever the format of their shards.

Two triplets are the same if their prompts, their videos, their references (role, phrase, identity of the subject, clip and
element that the picture is from, pixels of the picture and of the cut-out) and their unpaired phrases are equal. Names and types
of JSON fields, the encoding of masks and pictures, and versions are not compared, since a format may change them.
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
class Dataset:
    """One of the two compared data sets: its shards, and its tables if it is a work folder."""

    shards: Folder
    rows: dict[str, Packed]
    store: Store | None = None
    footers: dict[str, list[Footer]] = field(default_factory=dict)  # by stage, in order of the recipe

    @classmethod
    def of(cls, shards: Folder, store: Store | None = None, stages: Sequence[Stage] = ()) -> "Dataset":
        footers_by_stage = {}
        for name in ("manifest", *(stage.name() for stage in stages)) if store else ():
            footers = (store.footer(name, shard) for shard in store.shards(name))  # type: ignore[union-attr]
            footers_by_stage[name] = [footer for footer in footers if footer]
        return cls(shards, {row.clip_id: row for row in writer.rows(shards)}, store, footers_by_stage)

    def triplet(self, clip_id: str) -> Triplet:
        row = self.rows[clip_id]
        members = writer.read_sample(self.shards, clip_id, row.shard, row.offset, row.bytes)
        return from_sample(members | {"__key__": clip_id})


class StageComparison(NamedTuple):
    """Counts and settings of a stage on both sides."""

    stage: str
    rows: tuple[int, int]
    rejected: tuple[int, int]
    failed: tuple[int, int]
    settings: list[str]  # "name: value → value"


class TripletChange(NamedTuple):
    """A triplet that only one side has, or that differs."""

    clip_id: str
    side: str  # "first" or "second" if only that one has it; "" if both have
    reason: str  # the reason of the other side, or the parts that differ


@dataclass(frozen=True)
class Diff:
    """Differences of two data sets."""

    stages: list[StageComparison]
    changes: list[TripletChange]
    same: int


def diff(a: Dataset, b: Dataset) -> Diff:
    """Compare the counts and settings of the stages of both data sets, and each triplet."""
    stages = (
        [_compare_stage(name, a, b) for name in dict.fromkeys((*a.footers, *b.footers))] if a.store and b.store else []
    )
    changes = [
        TripletChange(key, "first" if key in a.rows else "second", _missing_reason(key, b if key in a.rows else a))
        for key in sorted(a.rows.keys() ^ b.rows.keys())
    ]
    common = sorted(a.rows.keys() & b.rows.keys())
    for key in common:
        changed = changed_parts(comparable_parts(a.triplet(key)), comparable_parts(b.triplet(key)))
        changes += [TripletChange(key, "", ", ".join(changed))] if changed else []
    return Diff(stages, changes, len(common) - sum(not change.side for change in changes))


def _compare_stage(name: str, a: Dataset, b: Dataset) -> StageComparison:
    def totals(value: Any) -> tuple[int, int]:
        first, second = (sum(map(value, side.footers.get(name, []))) for side in (a, b))
        return first, second

    first_footers = [side.footers[name][0] if side.footers.get(name) else Footer() for side in (a, b)]
    names = sorted({*first_footers[0].settings, *first_footers[1].settings})
    changed = [
        f"{setting}: {first_footers[0].settings.get(setting)!r} → {first_footers[1].settings.get(setting)!r}"
        for setting in names
        if first_footers[0].settings.get(setting) != first_footers[1].settings.get(setting)
    ]
    models = [dict(sorted(footer.models.items())) for footer in first_footers]
    changed += [f"models: {models[0]} → {models[1]}"] if models[0] != models[1] else []
    return StageComparison(
        name, totals(lambda f: f.rows), totals(lambda f: len(f.rejected)), totals(lambda f: len(f.failed)), changed
    )


def _missing_reason(clip_id: str, dataset: Dataset) -> str:
    """Return why a data set lacks a triplet: the rejection or failure of its clip or video in its tables."""
    if not dataset.store:
        return "not in its index"
    video_id = clip_id.rpartition("-")[0]
    for stage, footers in dataset.footers.items():
        for footer in footers:
            for reject in footer.rejected:
                if reject.key in (clip_id, video_id):
                    return f"{stage}: {reject.reason}" + (f" ({reject.detail})" if reject.detail else "")
            for unit, error in footer.failed.items():
                if unit in (clip_id, video_id):
                    return f"{stage} failed: {error}"
    shards = dataset.store.shards("manifest")
    if not any(video_id in dataset.store.values("manifest", shard, "video_id") for shard in shards):
        return f"manifest: the video {video_id} is not in it"
    return "segment: its clips begin at other frames" if not _has_clip(dataset.store, clip_id) else "not packed"


def _has_clip(store: Store, clip_id: str) -> bool:
    return any(clip_id in store.values("segment", shard, "clip_id") for shard in store.shards("segment"))


def changed_parts(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the names of the parts that differ; references with the numbers of those that do."""
    changed = [name for name in first if name != "references" and first[name] != second[name]]
    first_references, second_references = first["references"], second["references"]
    if len(first_references) != len(second_references):
        return [*changed, f"references: {len(first_references)} → {len(second_references)}"]
    numbers = [
        f"ref{n} ({one[1] or one[0]})"
        for n, (one, other) in enumerate(zip(first_references, second_references, strict=True))
        if one != other
    ]
    return [*changed, f"references: {', '.join(numbers)}"] if numbers else changed


def comparable_parts(triplet: Triplet) -> dict[str, Any]:
    """Return the parts that are equal in equal triplets, by name."""
    return {
        "prompt": triplet.prompt,
        "video": hashlib.sha256(triplet.video).hexdigest(),
        "references": [
            (
                reference.role,
                reference.phrase,
                (reference.start, reference.end),
                reference.identity,
                reference.origin.clip_id,
                reference.origin.element_id,
                *(pixel_hash(pictures.get(reference.name)) for pictures in (triplet.pictures, triplet.cut_outs)),
            )
            for reference in triplet.facts.references
        ],
        "unpaired": [(phrase.kind, phrase.phrase, phrase.start, phrase.end) for phrase in triplet.facts.unpaired],
    }


def pixel_hash(png: bytes | None) -> str:
    """Return the sha256 of a picture's pixels, so that another compression is not a difference; "" if there is no picture."""
    return hashlib.sha256(images.from_png(png).tobytes()).hexdigest() if png else ""


def format_diff(result: Diff, limit: int = 40) -> str:
    """Return the differences as text, with at most `limit` triplets."""
    lines = []
    if result.stages:
        lines.append(f"{'stage':14} {'rows':>15} {'rejected':>13} {'failed':>9}")
        for comparison in result.stages:
            pairs = (f"{one} → {other}" if one != other else f"{one}" for one, other in comparison[1:4])
            lines.append("{:14} {:>15} {:>13} {:>9}".format(comparison.stage, *pairs))
            lines += [f"{'':14}   {line}" for line in comparison.settings]
    for change in result.changes[:limit]:
        lines.append(
            f"{change.clip_id}: only in the {change.side}; the other: {change.reason}" if change.side
            else f"{change.clip_id}: another {change.reason}"
        )  # fmt: skip
    if len(result.changes) > limit:
        lines.append(f"… {len(result.changes) - limit} more")
    counts = [sum(change.side == side for change in result.changes) for side in ("first", "second", "")]
    lines.append(
        f"{counts[0]} only in the first, {counts[1]} only in the second, {counts[2]} differ, {result.same} are the same"
    )
    return "\n".join(lines) + "\n"


def write_page(path: Path, result: Diff, a: Dataset, b: Dataset, limit: int = 40) -> None:
    """Write the differences as one HTML file, with the pictures of both sides for at most `limit` triplets."""
    changes = [(change, [_pictures(side, change.clip_id) for side in (a, b)]) for change in result.changes[:limit]]
    names = (a.store or a.shards).root, (b.store or b.shards).root
    page = render("corpus/diff.html", names=names, found=result, shown=changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _pictures(dataset: Dataset, clip_id: str) -> tuple[str, list[tuple[str, str]]] | None:
    """Return the prompt, and title and data: URI of the middle frame and of each reference; None without such a triplet."""
    if clip_id not in dataset.rows:
        return None
    triplet = dataset.triplet(clip_id)
    return triplet.prompt, list(_titled_pictures(triplet))


def _titled_pictures(triplet: Triplet) -> Iterator[tuple[str, str]]:
    frames = video.decode(triplet.video)
    yield "clip", data_uri(images.to_jpeg(shrink(frames[len(frames) // 2], STILL_PX)))
    for reference in triplet.facts.references:
        png = triplet.cut_outs.get(reference.name) or triplet.pictures[reference.name]
        picture = images.from_png(png)
        opaque = images.on_white(picture) if picture.shape[2] == 4 else picture
        title = f"{reference.name} {reference.phrase or reference.role}, from {reference.origin.clip_id}"
        yield title, data_uri(images.to_jpeg(shrink(opaque, STILL_PX // 2)))
