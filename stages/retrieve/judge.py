"""The rules about candidate references, for many targets at a time: one row of numbers for each target and candidate."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from a2data.records import Reference, Rule
from a2data.store.schema import schema
from stages.retrieve import copies
from stages.retrieve.candidates import Group, dense
from stages.retrieve.corpus import INF, PARTS, Corpus, Footage, kind_code
from stages.retrieve.join import recompute_ties_float64
from stages.retrieve.pictures import Pictures

# in the order in which they are recorded
RULES = (
    "similarity",
    "likeness",
    "margin",
    "cohesion",
    "overlap_s",
    "repeat_distance",
    "picture_distance",
    "quality",
    "mask_confidence",
    "outfit",
    "copy_risk",
)
AT = {name: n for n, name in enumerate(RULES)}
COPY_RULES = [AT[name] for name in ("likeness", "overlap_s", "repeat_distance", "picture_distance", "copy_risk")]
MARGIN_STEP = 0.01  # in which margins are recorded, see `recorded`
MEASURES = ("pixel_distance", "silhouette_distance", "log2_scale_ratio", "luma_difference", "background_distance")


def recorded(margin: np.ndarray, low: Any) -> np.ndarray:
    """Return margins in whole steps from `low`, rounded down, which keeps the side of `low` that they are on.

    Their last digits change when an unrelated cluster grows; in a row they would make `pack` write the shard again.
    """
    return low + np.floor((margin - low) / MARGIN_STEP) * MARGIN_STEP


@dataclass(frozen=True)
class Limits:
    """The settings of `retrieve` that bound a rule."""

    duplicate_similarity: float
    min_margin: float
    copy_distance: float
    copy_min_frames: int
    max_copy_risk: float
    min_quality: float
    min_mask_confidence: float


@dataclass(frozen=True)
class Pairs:
    """Pairs of a target and a candidate, those of one target together, most similar first."""

    which: np.ndarray  # (p,) index into the targets of the block, ascending
    target: np.ndarray  # (p,) row
    source: np.ndarray  # (p,) row
    values: np.ndarray  # (p, rules) float64; nan: not measured, or not a rule for this pair
    low: np.ndarray  # (p, rules)
    high: np.ndarray  # (p, rules)
    cleared: np.ndarray  # (p,) bool: repeat_distance is large enough, although it may not be measured
    gap_s: np.ndarray  # (p,)
    measures: np.ndarray  # (p, 5), see MEASURES; nan: not measured

    def failed(self) -> np.ndarray:
        """Return the rules that a pair fails, (p, rules) bool; what is not measured does not fail."""
        return (self.values < self.low) | (self.values > self.high)

    def at(self, chosen: np.ndarray) -> "Pairs":
        return Pairs(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def rules(self, pair: int) -> list[Rule]:
        """Return the measured rules of a pair."""
        about = zip(RULES, self.values[pair].tolist(), self.low[pair].tolist(), self.high[pair].tolist(), strict=True)
        return [Rule(name, value, low, high) for name, value, low, high in about if value == value]


# which, target, source, similarity, its minimum, margin, cohesion: the first arguments of Judge._judged, (p,) each
Candidates = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Judge:
    """Candidates and rules of a corpus. Thumbnails and pictures are those that `footage` and `pictures` hold."""

    def __init__(self, corpus: Corpus, footage: Footage, clips: np.ndarray, pictures: Pictures, limits: Limits):
        """clips: (n,) the clip of each row."""
        self.corpus, self.footage, self.clips, self.pictures, self.limits = corpus, footage, clips, pictures, limits

    def pairs(
        self, group: Group, rows: np.ndarray, nodes: np.ndarray, part_low: Callable, farther: bool = False
    ) -> tuple[Pairs, np.ndarray]:
        """Return the candidates of targets, with every rule that needs no pictures, and which targets have similar elements.

        rows, nodes: (n,) targets, and the nodes of the elements that identify them: a human and its parts by the face. part_low:
        rows -> (n,) thresholds of garments. farther: the candidates after the nearest ones. The second result, (n,) bool, may be
        true for a target without candidates, whose human's parts do not match.
        """
        about, any_near = self.candidates(group, rows, nodes, part_low, farther)
        clips = np.unique(np.concatenate([self.clips[rows], self.clips[about[2]]]))
        self.footage.spool(clips)
        self.footage.read(clips)
        return self._judged(*about, group.min_similarity), any_near

    def candidates(
        self, group: Group, rows: np.ndarray, nodes: np.ndarray, part_low: Callable, farther: bool = False
    ) -> tuple[Candidates, np.ndarray]:
        """Return the first arguments of `_judged` for the candidates of targets, and the second result of `pairs`."""
        corpus, near = self.corpus, group.farther(nodes) if farther else group.near(nodes)
        any_near = np.bincount(near.which, minlength=len(rows)) > 0
        node, found = nodes[near.which], group.found
        kind = corpus.kind[rows][near.which]
        source = group.rows[near.other]
        source = np.where(kind == kind_code(corpus, "human"), corpus.human_of[source], source)
        part = np.isin(kind, [kind_code(corpus, name) for name in PARTS])
        whole = np.flatnonzero(~part & (source >= 0))
        garment, worn, likeness, garment_low = self._garments(
            rows, near.which, np.flatnonzero(part), group.rows[near.other], part_low
        )
        chosen = np.concatenate([whole, garment])
        source = np.concatenate([source[whole], worn])
        similarity = np.concatenate([near.similarity[whole], likeness])
        low = np.concatenate([np.full(len(whole), group.min_similarity), garment_low])
        order = np.argsort(near.which[chosen], kind="stable")
        chosen, source, similarity, low = (x[order] for x in (chosen, source, similarity, low))
        other = near.other[chosen]
        margin = np.minimum(found.margin[node[chosen]], found.margin[other])
        cohesion = np.minimum(found.cohesion[node[chosen]], found.cohesion[other])
        which = near.which[chosen]
        return (which, rows[which], source, similarity, low, margin, cohesion), any_near

    def _garments(
        self, rows: np.ndarray, which: np.ndarray, part: np.ndarray, faces: np.ndarray, part_low: Callable
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the garments of the faces' owners that match the target in colour and embedding.

        part: indices of the pairs whose target is a garment. Returns the pair, row, similarity and threshold of each.
        """
        corpus, target = self.corpus, rows[which[part]]
        owner, worn = corpus.children(corpus.human_of[faces[part]], corpus.kind[target].astype(np.int64))
        mine = target[owner]
        same = (corpus.place[worn] >= 0) & (corpus.colour[mine] == corpus.colour[worn])
        owner, worn, mine = owner[same], worn[same], mine[same]
        similarity = np.empty(len(mine))
        for code in np.unique(corpus.kind[mine]).tolist():
            of, matrix = np.flatnonzero(corpus.kind[mine] == code), corpus.matrices[corpus.kinds[code]]
            a, b = corpus.place[mine[of]], corpus.place[worn[of]]
            near = np.einsum("nd,nd->n", matrix[a], matrix[b])
            similarity[of] = np.round(recompute_ties_float64(near, matrix, matrix, a, b), 5)
        low = part_low(mine) if len(mine) else np.empty(0)
        like = similarity >= low
        return part[owner[like]], worn[like], similarity[like], low[like]

    def _judged(
        self,
        which: np.ndarray,
        target: np.ndarray,
        source: np.ndarray,
        similarity: np.ndarray,
        low_similarity: np.ndarray,
        margin: np.ndarray,
        cohesion: np.ndarray,
        low: float,
    ) -> Pairs:
        corpus, limits, n = self.corpus, self.limits, len(which)
        mine, theirs = self.clips[target], self.clips[source]
        values = np.full((n, len(RULES)), np.nan)
        lows, highs = np.full((n, len(RULES)), -INF), np.full((n, len(RULES)), INF)
        overlap_s, gap_s = self.footage.apart_s(mine, theirs)
        given = {
            "similarity": (similarity, low_similarity, INF),
            "likeness": (similarity, -INF, low_similarity + limits.duplicate_similarity * (1 - low_similarity)),
            "margin": (recorded(margin, limits.min_margin * (1 - low)), limits.min_margin * (1 - low), INF),
            "cohesion": (cohesion, low, INF),
            "overlap_s": (overlap_s, -INF, 0.0),
            "repeat_distance": (np.nan, limits.copy_distance, INF),
            "picture_distance": (self._picture_distances(target, source), limits.copy_distance, INF),
            "quality": (corpus.quality[source], limits.min_quality, INF),
            "mask_confidence": (
                np.where(corpus.mask_confidence[source] >= 0, corpus.mask_confidence[source], np.nan),
                limits.min_mask_confidence,
                INF,
            ),
            "copy_risk": (np.nan, -INF, limits.max_copy_risk),
        }
        for name, about in given.items():
            values[:, AT[name]], lows[:, AT[name]], highs[:, AT[name]] = about
        human = np.flatnonzero(corpus.kind[target] == kind_code(corpus, "human"))
        values[human, AT["outfit"]] = corpus.outfits(target[human], source[human])
        measures = np.full((n, len(MEASURES)), np.nan)
        return Pairs(which, target, source, values, lows, highs, np.zeros(n, bool), gap_s, measures)

    def _picture_distances(self, target: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Return how close each source's frame comes to a frame of the target's clip, see stages.retrieve.copies."""
        out, known, frames = np.empty(len(target)), self.footage.known, self.corpus.frame
        for pairs in dense(self.clips[target], source):
            (clips, i), (rows, j) = (np.unique(x[pairs], return_inverse=True) for x in (self.clips[target], source))
            shown = zip(self.clips[rows].tolist(), frames[rows].tolist(), strict=True)
            pictures = copies.joined([known[clip].at([frame]) for clip, frame in shown])
            out[pairs] = copies.picture_distances(pictures, [known[clip] for clip in clips.tolist()])[j, i]
        return out

    # -- copies of footage -----------------------------------------------------------------------------------------

    def clear_repeats(self, pairs: Pairs, chosen: np.ndarray) -> None:
        """Find out which of the chosen pairs are of clips that repeat one another; `repeat_distance` is measured for those."""
        chosen = chosen[~pairs.cleared[chosen] & np.isnan(pairs.values[chosen, AT["repeat_distance"]])]
        mine, theirs = self.clips[pairs.target[chosen]], self.clips[pairs.source[chosen]]
        suspect, known, limits = np.zeros(len(chosen), bool), self.footage.known, self.limits
        for some in dense(mine, theirs):
            (a, i), (b, j) = (np.unique(x[some], return_inverse=True) for x in (mine, theirs))
            one, other = ([known[clip] for clip in x.tolist()] for x in (a, b))
            suspect[some] = copies.may_repeat(one, other, limits.copy_distance, limits.copy_min_frames)[i, j]
        pairs.cleared[chosen[~suspect]] = True
        self.measure_repeats(pairs, chosen[suspect])

    def measure_repeats(self, pairs: Pairs, chosen: np.ndarray) -> None:
        """Measure `repeat_distance` of the chosen pairs."""
        mine, theirs = np.sort([self.clips[pairs.target[chosen]], self.clips[pairs.source[chosen]]], axis=0)
        both, back = np.unique(np.stack([mine, theirs], 1), axis=0, return_inverse=True)
        known, run = self.footage.known, self.limits.copy_min_frames
        found = [copies.repeat_distance(known[a], known[b], run) for a, b in both.tolist()]
        pairs.values[chosen, AT["repeat_distance"]] = np.array(found, np.float64)[back.ravel()]

    # -- the choice ------------------------------------------------------------------------------------------------

    def shortlist(self, pairs: Pairs, most: int) -> np.ndarray:
        """Return the indices of the best pairs of each target that pass all rules so far, from different clips, best first."""
        order = np.flatnonzero(~pairs.failed().any(1))
        order = order[self.preference(pairs, order)]
        # of each target and clip the first
        clip = self.clips[pairs.source[order]].astype(np.int64)
        code = pairs.which[order] * (int(clip.max(initial=0)) + 1) + clip
        order = order[np.sort(np.unique(code, return_index=True)[1])]
        while True:
            which = pairs.which[order]
            first = np.searchsorted(which, which)
            best = order[np.arange(len(order)) - first < most]
            unknown = best[~pairs.cleared[best] & np.isnan(pairs.values[best, AT["repeat_distance"]])]
            if not len(unknown):
                return best
            self.clear_repeats(pairs, unknown)
            order = order[~pairs.failed()[order].any(1)]

    def preference(self, pairs: Pairs, chosen: np.ndarray) -> np.ndarray:
        """Return the order of the chosen pairs: by target, then best first.

        Same outfit, since the prompt mentions it; then a score; then picture quality, then the lower id. The score, in
        twentieths, is the certainty of the identity times that of another view times the squared confidence of the mask: about
        half of the masks at 0.7 are wrong, almost none at 0.85. The lowest copy risk alone would prefer the candidate least like
        the target, and so those barely above the threshold.
        """
        value = pairs.values[chosen]
        low = pairs.low[chosen, AT["similarity"]]
        sure = (value[:, AT["similarity"]] - low) / (1 - low)
        outfit, outline = np.nan_to_num(value[:, AT["outfit"]]), value[:, AT["mask_confidence"]]
        risk = value[:, AT["copy_risk"]]
        shown = value[:, AT["picture_distance"]]
        early = copies.copy_risk(
            copies.Parts(shown, INF, 1.0, INF, 1.0, 1.0, pairs.gap_s[chosen]), self.limits.copy_distance
        )
        risk = np.where(np.isnan(risk), early, risk)
        view = np.rint(20 * sure * (1 - risk) * np.where(np.isnan(outline), 1.0, outline) ** 2)
        return np.lexsort((pairs.source[chosen], -value[:, AT["quality"]], -view, -outfit, pairs.which[chosen]))

    def compare(self, pairs: Pairs, chosen: np.ndarray) -> np.ndarray:
        """Measure the pictures of the chosen pairs and return those that still pass, best first for each target."""
        parts = self.pictures.compare(pairs.target[chosen], pairs.source[chosen])
        pixels, pose, scale, light, place = parts.T
        shown = pairs.values[chosen, AT["picture_distance"]]
        copy = self.limits.copy_distance
        risk = copies.copy_risk(copies.Parts(shown, pixels, pose, scale, light, place, pairs.gap_s[chosen]), copy)
        pairs.measures[chosen] = parts
        pairs.values[chosen, AT["copy_risk"]] = np.where(shown < copy, 1.0, risk)
        passed = chosen[~pairs.failed()[chosen].any(1)]
        return passed[self.preference(pairs, passed)]

    # -- the result ------------------------------------------------------------------------------------------------

    def references(self, pairs: Pairs, chosen: np.ndarray, identity: np.ndarray, component: pa.Array) -> pa.Table:
        """Return the chosen pairs as references. identity, component: of each chosen pair."""
        missing = chosen[np.isnan(pairs.values[chosen, AT["repeat_distance"]])]
        self.measure_repeats(pairs, missing)
        found, corpus = pairs.at(chosen), self.corpus
        present = ~np.isnan(found.values)
        names = np.broadcast_to(np.array(RULES, object), present.shape)[present]
        numbers = [x[present] for x in (found.values, found.low, found.high)]
        kind = schema(Reference)
        rule = kind.field("rules").type.value_type
        rules = pa.StructArray.from_arrays([pa.array(names, pa.string()), *map(pa.array, numbers)], fields=list(rule))
        offsets = np.concatenate([[0], np.cumsum(present.sum(1))]).astype(np.int32)
        named: dict[str, Any] = {
            "clip_id": corpus.column("clip_id", found.target),
            "element_id": corpus.column("element_id", found.target),
            "kind": corpus.column("kind", found.target),
            "identity": identity,
            "source_shard": corpus.shards[found.source].astype(np.int64),
            "source_clip_id": corpus.column("clip_id", found.source),
            "source_element_id": corpus.column("element_id", found.source),
            "image_sha256": corpus.column("image_sha256", found.source),
            "similarity": found.values[:, AT["similarity"]],
            "copy_risk": found.values[:, AT["copy_risk"]],
            "rules": pa.ListArray.from_arrays(pa.array(offsets), rules, type=kind.field("rules").type),
            "component": component,
            "thumbnail_distance": found.values[:, AT["picture_distance"]],
            "gap_s": found.gap_s,
        } | dict(zip(MEASURES, found.measures.T, strict=True))
        return pa.table([_column(named[field.name], field.type) for field in kind], schema=kind)


def _column(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return pa.array(values, kind) if isinstance(values, np.ndarray) else values.cast(kind)
