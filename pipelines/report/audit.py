"""Audit section of the report: single pairs with every rule, its value and threshold, and both frames with outlines.

The page contains all scores of up to MAX_PAIRS pairs, so that it can recount under other thresholds, and pictures of some.
"""

import base64
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from a2data.media import images
from a2data.media.images import Box
from a2data.records import ClipVideo, Reference, Reject, Rule
from a2data.store.tables import Store
from pipelines.report import contact_sheets
from stages.retrieve.rejections import failed_rules

MAX_PAIRS = 100_000  # pairs with scores in the page, spread evenly over all
FRAME_PX = 480  # longer side of a frame in the page
# the components of a copy risk
COPY_RISK_PARTS = (
    "thumbnail_distance",
    "pixel_distance",
    "silhouette_distance",
    "log2_scale_ratio",
    "luma_difference",
    "background_distance",
    "gap_s",
)


class Pair(NamedTuple):
    """An element, a candidate for it, and whether the candidate became its reference."""

    target: str  # element_id
    source: str
    kind: str
    accepted: bool
    reason: str  # of a reject; "" for a reference
    identity: int
    rules: list[Rule]  # for a reject, those of the most likely candidate, failed ones first
    parts: dict[str, float]  # measured components of its copy risk


@dataclass(frozen=True)
class Audit:
    """Data of the audit section."""

    scores: str  # JSON, see `scores`
    pictures: str  # JSON, see `pictures`
    total: int  # all pairs
    shown: int  # pairs with scores in the page
    pictured: int  # pairs with pictures in the page


@dataclass(frozen=True)
class _ElementColumns:  # columns of the tables of elements
    clip_id: str
    element_id: str
    label: str
    frame: int
    box: Box
    mask: bytes


def audit(
    store: Store, tables: Sequence[str], rejects: Iterable[Reject], require: str, max_pictures: int = 80
) -> Audit:
    """Return all pairs of retrieve, with pictures of at most `max_pictures`: half near a threshold, the rest spread evenly.

    tables: those with elements. rejects: those of retrieve.
    require: kinds of which a triplet needs a reference, "human|object|face" (see stages/pack/stage.py).
    """
    pairs, total = read_pairs(store, rejects)
    picture_data = pictures(store, tables, [pairs[n] for n in select_pairs(pairs, max_pictures)])
    triplets = contact_sheets.shards_by_clip(store, "pack")
    score_data = scores(pairs, require.split("|"), {*triplets}, total)
    pictured_elements = picture_data["elements"]
    pictured = sum(pair.target in pictured_elements and pair.source in pictured_elements for pair in pairs)
    return Audit(_script_json(score_data), _script_json(picture_data), total, len(pairs), pictured)


def read_pairs(store: Store, rejects: Iterable[Reject]) -> tuple[list[Pair], int]:
    """Return up to MAX_PAIRS pairs of retrieve, references first, and the number of all. rejects: those of retrieve."""
    rows = store.read_all("retrieve", Reference)
    rejected = [pair for reject in rejects if (pair := _rejected_pair(reject))]
    total = len(rows) + len(rejected)
    if total > MAX_PAIRS:  # sampled in proportion, so that the page's counts are a fraction of all
        num_accepted = round(MAX_PAIRS * len(rows) / total)
        rows = rows.take(np.linspace(0, max(len(rows) - 1, 0), num_accepted).astype(np.int64))
        rejected = contact_sheets.sample_evenly(rejected, MAX_PAIRS - num_accepted)
    return [*_accepted_pairs(rows), *rejected], total


def _accepted_pairs(rows: pa.Table) -> list[Pair]:
    components = [name for name in COPY_RISK_PARTS if name in rows.column_names]
    columns = ["element_id", "source_element_id", "kind", "identity", "rules", *components]
    pairs = []
    for row in rows.select(columns).to_pylist():
        parts = {name: row[name] for name in components if row[name] >= 0}
        rules = [Rule(**rule) for rule in row["rules"]]
        outcome = (row["kind"], True, "", row["identity"], rules, parts)
        pairs.append(Pair(row["element_id"], row["source_element_id"], *outcome))
    return pairs


def _rejected_pair(reject: Reject) -> Pair | None:
    """Return the pair of a reject; None if the element did not have a candidate."""
    source, rules = failed_rules(reject)
    kind = reject.key.split("/")[1]
    return Pair(reject.key, source, kind, False, reject.reason, -1, rules, {}) if rules else None


def select_pairs(pairs: list[Pair], limit: int) -> list[int]:
    """Return the numbers of the pairs with pictures: half nearest to one of their thresholds, half spread evenly over all."""
    by_distance = sorted(
        range(len(pairs)), key=lambda n: (min(map(threshold_distance, pairs[n].rules), default=math.inf), n)
    )
    return list(
        dict.fromkeys(
            [*by_distance[: limit // 2], *contact_sheets.sample_evenly(list(range(len(pairs))), limit), *by_distance]
        )
    )[:limit]


def threshold_distance(rule: Rule) -> float:
    """Return the distance from the value to the nearer threshold; inf without a threshold."""
    thresholds = [threshold for threshold in (rule.low, rule.high) if math.isfinite(threshold)]
    return min((abs(rule.value - threshold) for threshold in thresholds), default=math.inf)


def scores(pairs: list[Pair], require: list[str], triplets: set[str], total: int) -> dict[str, Any]:
    """Return the data for recounting, by columns, in compact form.

    rules: for each rule its rows (numbers of pairs; "" for consecutive ones from 0), their values, and the number of the `limits`
    that applies to each ("" for the first). Numbers are base64 of little-endian int32 and float32. triplets: packed clips, as
    numbers of `clips`.
    """
    clip_ids = sorted({name.split("/")[0] for pair in pairs for name in (pair.target, pair.source)})
    clips = {clip: n for n, clip in enumerate(clip_ids)}
    kinds = sorted({p.kind for p in pairs})
    reasons = sorted({p.reason for p in pairs})
    rules: dict[str, list[tuple[int, Rule]]] = defaultdict(list)
    parts: dict[str, list[tuple[int, Rule]]] = defaultdict(list)
    for n, pair in enumerate(pairs):
        for rule in pair.rules:
            rules[rule.name].append((n, rule))
        for name, value in pair.parts.items():
            parts[name].append((n, Rule(name, value, -math.inf, math.inf)))
    keys = ((p.target, p.source) for p in pairs)
    names = [tuple(name.partition("/") for name in pair) for pair in keys]
    suffixes = sorted({name[2] for pair in names for name in pair})
    suffix_number = {name: n for n, name in enumerate(suffixes)}
    return {
        "total": total,
        "clips": list(clips),
        "tails": suffixes,
        "kinds": kinds,
        "reasons": reasons,
        "require": require,
        "target": _int32([(clips[t[0]], suffix_number[t[2]]) for t, _ in names]),
        "source": _int32([(clips[s[0]], suffix_number[s[2]]) for _, s in names]),
        "kind": _int32([kinds.index(p.kind) for p in pairs]),
        "reason": _int32([reasons.index(p.reason) for p in pairs]),
        "accepted": _int32([p.accepted for p in pairs]),
        "identity": [p.identity for p in pairs],
        "triplets": _int32(sorted(clips[clip] for clip in triplets & clips.keys())),
        "rules": [_rule_column(name, values) for name, values in rules.items()],
        "parts": [_rule_column(name, values) for name, values in parts.items()],
    }


def _rule_column(name: str, rows: list[tuple[int, Rule]]) -> dict[str, Any]:
    limits = sorted({(rule.low, rule.high) for _, rule in rows})
    limit_number = {limit: n for n, limit in enumerate(limits)}
    values = np.array([rule.value for _, rule in rows], "<f4")
    return {
        "name": name,
        "limits": [[_finite_or_none(low), _finite_or_none(high)] for low, high in limits],
        "rows": _int32([n for n, _ in rows]) if [n for n, _ in rows] != list(range(len(rows))) else "",
        "limit": _int32([limit_number[rule.low, rule.high] for _, rule in rows]) if len(limits) > 1 else "",
        "values": base64.b64encode(values.tobytes()).decode(),
    }


def _finite_or_none(value: float) -> float | None:
    """Return None for an infinite value, since JSON cannot represent it and an infinite limit is not a limit."""
    return value if math.isfinite(value) else None


def _int32(values: Any) -> str:
    return base64.b64encode(np.array(values, "<i4").tobytes()).decode()


# -- pictures ----------------------------------------------------------------------------------------------------------


def pictures(store: Store, tables: Sequence[str], pairs: list[Pair]) -> dict[str, Any]:
    """Return frames (data: URIs) and elements (element_id -> number of its frame, width, height, label, outline as SVG path).

    Elements that are no longer in any table are omitted.
    """
    element_ids = {name for pair in pairs for name in (pair.target, pair.source)}
    shard_of = contact_sheets.shards_by_clip(store, "segment") if element_ids else {}
    by_shard: dict[int, set[str]] = defaultdict(set)
    for name in element_ids:
        if (shard := shard_of.get(name.split("/")[0])) is not None:
            by_shard[shard].add(name)
    frames: list[str] = []
    elements: dict[str, list] = {}
    for shard, names in sorted(by_shard.items()):
        rows_of_shard = [
            row
            for table in tables
            if shard in store.shards(table)
            for _, rows in store.groups(table, shard, _ElementColumns, "element_id", names)
            for row in rows
        ]
        by_clip = defaultdict(list)
        for row in rows_of_shard:
            by_clip[row.clip_id].append(row)
        for clip_id, (clip, *_) in store.groups("segment", shard, ClipVideo, "clip_id", set(by_clip)):
            frame_numbers = {
                frame: len(frames) + n for n, frame in enumerate(sorted({r.frame for r in by_clip[clip_id]}))
            }
            frames += [
                contact_sheets.to_jpeg(contact_sheets.fit_within(clip.frames[frame], FRAME_PX))
                for frame in frame_numbers
            ]
            for row in by_clip[clip_id]:
                size = clip.frames.shape[2], clip.frames.shape[1]
                elements[row.element_id] = [
                    frame_numbers[row.frame],
                    *size,
                    row.label,
                    svg_outline(images.from_rle(row.mask)),
                ]
    return {"frames": frames, "elements": elements}


def svg_outline(mask: np.ndarray) -> str:
    """Return the outlines of an (h, w) bool mask, including holes, as an SVG path in pixels; "" for an empty mask."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rounded = (cv2.approxPolyDP(contour, 0.7, True)[:, 0] for contour in contours)
    return "".join("M" + "L".join(f"{x} {y}" for x, y in points.tolist()) + "Z" for points in rounded)


def _script_json(value: Any) -> str:
    """Return JSON for a <script> data block, with "<" escaped so that it cannot end the block."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
