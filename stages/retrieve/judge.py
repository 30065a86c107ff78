"""The rules about candidate references, for many targets at a time: one row of numbers for each target and candidate."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from a2data.records import Reference, Rule
from a2data.store.schema import schema
from stages.retrieve import copies
from stages.retrieve.candidates import Group, dense_blocks
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
COLUMN = {name: n for n, name in enumerate(RULES)}  # of `Pairs.values`
COPY_RULES = [COLUMN[name] for name in ("likeness", "overlap_s", "repeat_distance", "picture_distance", "copy_risk")]
MARGIN_STEP = 0.01  # in which margins are recorded, see `floor_to_step`
MEASURES = ("pixel_distance", "silhouette_distance", "log2_scale_ratio", "luma_difference", "background_distance")


def floor_to_step(margin: np.ndarray, minimum: Any) -> np.ndarray:
    """Return margins in whole steps from `minimum`, rounded down, which keeps the side of `minimum` that they are on.

    Their last digits change when an unrelated cluster grows; in a row they would make `pack` write the shard again.
    """
    return minimum + np.floor((margin - minimum) / MARGIN_STEP) * MARGIN_STEP


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

    target_index: np.ndarray  # (p,) index into the targets of the block, ascending
    target: np.ndarray  # (p,) row
    source: np.ndarray  # (p,) row
    values: np.ndarray  # (p, rules) float64; nan: not measured, or not a rule for this pair
    low: np.ndarray  # (p, rules)
    high: np.ndarray  # (p, rules)
    no_repeat: np.ndarray  # (p,) bool: repeat_distance is large enough, although it may not be measured
    gap_s: np.ndarray  # (p,)
    measures: np.ndarray  # (p, 5), see MEASURES; nan: not measured

    def failed(self) -> np.ndarray:
        """Return the rules that a pair fails, (p, rules) bool; what is not measured does not fail."""
        return (self.values < self.low) | (self.values > self.high)

    def take(self, indices: np.ndarray) -> "Pairs":
        return Pairs(*(getattr(self, field.name)[indices] for field in fields(self)))

    def rules(self, pair: int) -> list[Rule]:
        """Return the measured rules of a pair."""
        columns = zip(RULES, self.values[pair].tolist(), self.low[pair].tolist(), self.high[pair].tolist(), strict=True)
        return [Rule(name, value, low, high) for name, value, low, high in columns if value == value]


# target_index, target, source, similarity, its minimum, margin, cohesion: the first arguments of Judge._apply_rules, (p,) each
Candidates = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Judge:
    """Candidates and rules of a corpus. Thumbnails and pictures are those that `footage` and `pictures` hold."""

    def __init__(self, corpus: Corpus, footage: Footage, clips: np.ndarray, pictures: Pictures, limits: Limits):
        """clips: (n,) the clip of each row."""
        self.corpus, self.footage, self.clips, self.pictures, self.limits = corpus, footage, clips, pictures, limits

    def pairs(
        self, group: Group, rows: np.ndarray, nodes: np.ndarray, garment_threshold: Callable, further: bool = False
    ) -> tuple[Pairs, np.ndarray]:
        """Return the candidates of targets, with every rule that needs no pictures, and which targets have similar elements.

        rows, nodes: (n,) targets, and the nodes of the elements that identify them: a human and its parts by the face.
        garment_threshold: rows -> (n,) thresholds. further: the candidates after the nearest ones. The second result, (n,) bool,
        may be true for a target without candidates, whose human's parts do not match.
        """
        candidates, any_near = self.candidates(group, rows, nodes, garment_threshold, further)
        clips = np.unique(np.concatenate([self.clips[rows], self.clips[candidates[2]]]))
        self.footage.spool(clips)
        self.footage.read(clips)
        return self._apply_rules(*candidates, group.min_similarity), any_near

    def candidates(
        self, group: Group, rows: np.ndarray, nodes: np.ndarray, garment_threshold: Callable, further: bool = False
    ) -> tuple[Candidates, np.ndarray]:
        """Return the first arguments of `_apply_rules` for the candidates of targets, and the second result of `pairs`."""
        corpus, neighbours = self.corpus, group.next_in_cluster(nodes) if further else group.nearest_in_cluster(nodes)
        any_near = np.bincount(neighbours.query, minlength=len(rows)) > 0
        target_node, clustering = nodes[neighbours.query], group.clustering
        kind = corpus.kind[rows][neighbours.query]
        source = group.rows[neighbours.other]
        source = np.where(kind == kind_code(corpus, "human"), corpus.human_of[source], source)
        is_part = np.isin(kind, [kind_code(corpus, name) for name in PARTS])
        whole = np.flatnonzero(~is_part & (source >= 0))
        garment_pairs, garment_rows, garment_similarity, garment_minimum = self._garments(
            rows, neighbours.query, np.flatnonzero(is_part), group.rows[neighbours.other], garment_threshold
        )
        indices = np.concatenate([whole, garment_pairs])
        source = np.concatenate([source[whole], garment_rows])
        similarity = np.concatenate([neighbours.similarity[whole], garment_similarity])
        minimum = np.concatenate([np.full(len(whole), group.min_similarity), garment_minimum])
        order = np.argsort(neighbours.query[indices], kind="stable")
        indices, source, similarity, minimum = (x[order] for x in (indices, source, similarity, minimum))
        other = neighbours.other[indices]
        margin = np.minimum(clustering.margin[target_node[indices]], clustering.margin[other])
        cohesion = np.minimum(clustering.cohesion[target_node[indices]], clustering.cohesion[other])
        target_index = neighbours.query[indices]
        return (target_index, rows[target_index], source, similarity, minimum, margin, cohesion), any_near

    def _garments(
        self,
        rows: np.ndarray,
        target_index: np.ndarray,
        part: np.ndarray,
        faces: np.ndarray,
        garment_threshold: Callable,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the garments of the faces' owners that match the target in colour and embedding.

        part: indices of the pairs whose target is a garment. Returns the pair, row, similarity and threshold of each.
        """
        corpus, target = self.corpus, rows[target_index[part]]
        owner, other_garment = corpus.children(corpus.human_of[faces[part]], corpus.kind[target].astype(np.int64))
        own_garment = target[owner]
        same_colour = (corpus.embedding_index[other_garment] >= 0) & (
            corpus.colour[own_garment] == corpus.colour[other_garment]
        )
        owner, other_garment, own_garment = owner[same_colour], other_garment[same_colour], own_garment[same_colour]
        similarity = np.empty(len(own_garment))
        for code in np.unique(corpus.kind[own_garment]).tolist():
            of_kind, matrix = np.flatnonzero(corpus.kind[own_garment] == code), corpus.matrices[corpus.kinds[code]]
            a, b = corpus.embedding_index[own_garment[of_kind]], corpus.embedding_index[other_garment[of_kind]]
            products = np.einsum("nd,nd->n", matrix[a], matrix[b])
            similarity[of_kind] = np.round(recompute_ties_float64(products, matrix, matrix, a, b), 5)
        minimum = garment_threshold(own_garment) if len(own_garment) else np.empty(0)
        similar = similarity >= minimum
        return part[owner[similar]], other_garment[similar], similarity[similar], minimum[similar]

    def _apply_rules(
        self,
        target_index: np.ndarray,
        target: np.ndarray,
        source: np.ndarray,
        similarity: np.ndarray,
        min_similarity: np.ndarray,
        margin: np.ndarray,
        cohesion: np.ndarray,
        min_cohesion: float,
    ) -> Pairs:
        corpus, limits, n = self.corpus, self.limits, len(target_index)
        target_clip, source_clip = self.clips[target], self.clips[source]
        values = np.full((n, len(RULES)), np.nan)
        lows, highs = np.full((n, len(RULES)), -INF), np.full((n, len(RULES)), INF)
        overlap_s, gap_s = self.footage.overlap_and_gap_s(target_clip, source_clip)
        min_margin = limits.min_margin * (1 - min_cohesion)
        bounds = {
            "similarity": (similarity, min_similarity, INF),
            "likeness": (similarity, -INF, min_similarity + limits.duplicate_similarity * (1 - min_similarity)),
            "margin": (floor_to_step(margin, min_margin), min_margin, INF),
            "cohesion": (cohesion, min_cohesion, INF),
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
        for name, row in bounds.items():
            values[:, COLUMN[name]], lows[:, COLUMN[name]], highs[:, COLUMN[name]] = row
        human = np.flatnonzero(corpus.kind[target] == kind_code(corpus, "human"))
        values[human, COLUMN["outfit"]] = corpus.outfits(target[human], source[human])
        measures = np.full((n, len(MEASURES)), np.nan)
        return Pairs(target_index, target, source, values, lows, highs, np.zeros(n, bool), gap_s, measures)

    def _picture_distances(self, target: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Return how close each source's frame comes to a frame of the target's clip, see stages.retrieve.copies."""
        distances, thumbs, frames = np.empty(len(target)), self.footage.thumbs, self.corpus.frame
        for pairs in dense_blocks(self.clips[target], source):
            (clips, i), (rows, j) = (np.unique(x[pairs], return_inverse=True) for x in (self.clips[target], source))
            source_frames = zip(self.clips[rows].tolist(), frames[rows].tolist(), strict=True)
            pictures = copies.concatenate_thumbs([thumbs[clip].take([frame]) for clip, frame in source_frames])
            distances[pairs] = copies.picture_distances(pictures, [thumbs[clip] for clip in clips.tolist()])[j, i]
        return distances

    # -- copies of footage -----------------------------------------------------------------------------------------

    def check_repeats(self, pairs: Pairs, indices: np.ndarray) -> None:
        """Check which of these pairs are of clips that may repeat one another, and measure `repeat_distance` for those."""
        indices = indices[~pairs.no_repeat[indices] & np.isnan(pairs.values[indices, COLUMN["repeat_distance"]])]
        target_clip, source_clip = self.clips[pairs.target[indices]], self.clips[pairs.source[indices]]
        suspect, thumbs, limits = np.zeros(len(indices), bool), self.footage.thumbs, self.limits
        for block in dense_blocks(target_clip, source_clip):
            (a, i), (b, j) = (np.unique(x[block], return_inverse=True) for x in (target_clip, source_clip))
            target_thumbs, source_thumbs = ([thumbs[clip] for clip in x.tolist()] for x in (a, b))
            suspect[block] = copies.may_repeat(
                target_thumbs, source_thumbs, limits.copy_distance, limits.copy_min_frames
            )[i, j]
        pairs.no_repeat[indices[~suspect]] = True
        self.measure_repeats(pairs, indices[suspect])

    def measure_repeats(self, pairs: Pairs, indices: np.ndarray) -> None:
        """Measure `repeat_distance` of these pairs."""
        first, second = np.sort([self.clips[pairs.target[indices]], self.clips[pairs.source[indices]]], axis=0)
        clip_pairs, inverse = np.unique(np.stack([first, second], 1), axis=0, return_inverse=True)
        thumbs, run = self.footage.thumbs, self.limits.copy_min_frames
        distances = [copies.repeat_distance(thumbs[a], thumbs[b], run) for a, b in clip_pairs.tolist()]
        pairs.values[indices, COLUMN["repeat_distance"]] = np.array(distances, np.float64)[inverse.ravel()]

    # -- the choice ------------------------------------------------------------------------------------------------

    def shortlist(self, pairs: Pairs, limit: int) -> np.ndarray:
        """Return the indices of the best pairs of each target that pass all rules so far, from different clips, best first."""
        order = np.flatnonzero(~pairs.failed().any(1))
        order = order[self.preference(pairs, order)]
        # of each target and clip the first
        clip = self.clips[pairs.source[order]].astype(np.int64)
        target_and_clip = pairs.target_index[order] * (int(clip.max(initial=0)) + 1) + clip
        order = order[np.sort(np.unique(target_and_clip, return_index=True)[1])]
        while True:
            target_index = pairs.target_index[order]
            first = np.searchsorted(target_index, target_index)
            best = order[np.arange(len(order)) - first < limit]
            unchecked = best[~pairs.no_repeat[best] & np.isnan(pairs.values[best, COLUMN["repeat_distance"]])]
            if not len(unchecked):
                return best
            self.check_repeats(pairs, unchecked)
            order = order[~pairs.failed()[order].any(1)]

    def preference(self, pairs: Pairs, indices: np.ndarray) -> np.ndarray:
        """Return the order of these pairs: by target, then best first.

        Same outfit, since the prompt mentions it; then a score; then picture quality, then the lower id. The score, in
        twentieths, is the certainty of the identity times that of another view times the squared confidence of the mask: about
        half of the masks at 0.7 are wrong, almost none at 0.85. The lowest copy risk alone would prefer the candidate least like
        the target, and so those barely above the threshold.
        """
        value = pairs.values[indices]
        low = pairs.low[indices, COLUMN["similarity"]]
        certainty = (value[:, COLUMN["similarity"]] - low) / (1 - low)
        outfit, mask_confidence = np.nan_to_num(value[:, COLUMN["outfit"]]), value[:, COLUMN["mask_confidence"]]
        risk = value[:, COLUMN["copy_risk"]]
        picture_distance = value[:, COLUMN["picture_distance"]]
        risk_by_picture = copies.copy_risk(
            copies.CopyDistances(picture_distance, INF, 1.0, INF, 1.0, 1.0, pairs.gap_s[indices]),
            self.limits.copy_distance,
        )
        risk = np.where(np.isnan(risk), risk_by_picture, risk)
        view = np.rint(20 * certainty * (1 - risk) * np.where(np.isnan(mask_confidence), 1.0, mask_confidence) ** 2)
        return np.lexsort(
            (pairs.source[indices], -value[:, COLUMN["quality"]], -view, -outfit, pairs.target_index[indices])
        )

    def compare(self, pairs: Pairs, indices: np.ndarray) -> np.ndarray:
        """Measure the pictures of these pairs and return those that still pass, best first for each target."""
        parts = self.pictures.compare(pairs.target[indices], pairs.source[indices])
        pixels, pose, scale, light, place = parts.T
        picture_distance = pairs.values[indices, COLUMN["picture_distance"]]
        copy_distance = self.limits.copy_distance
        risk = copies.copy_risk(
            copies.CopyDistances(picture_distance, pixels, pose, scale, light, place, pairs.gap_s[indices]),
            copy_distance,
        )
        pairs.measures[indices] = parts
        pairs.values[indices, COLUMN["copy_risk"]] = np.where(picture_distance < copy_distance, 1.0, risk)
        passed = indices[~pairs.failed()[indices].any(1)]
        return passed[self.preference(pairs, passed)]

    # -- the result ------------------------------------------------------------------------------------------------

    def references(self, pairs: Pairs, indices: np.ndarray, identity: np.ndarray, component: pa.Array) -> pa.Table:
        """Return these pairs as references. identity, component: of each pair."""
        missing = indices[np.isnan(pairs.values[indices, COLUMN["repeat_distance"]])]
        self.measure_repeats(pairs, missing)
        selected, corpus = pairs.take(indices), self.corpus
        measured = ~np.isnan(selected.values)
        names = np.broadcast_to(np.array(RULES, object), measured.shape)[measured]
        numbers = [x[measured] for x in (selected.values, selected.low, selected.high)]
        reference_schema = schema(Reference)
        rule = reference_schema.field("rules").type.value_type
        rules = pa.StructArray.from_arrays([pa.array(names, pa.string()), *map(pa.array, numbers)], fields=list(rule))
        offsets = np.concatenate([[0], np.cumsum(measured.sum(1))]).astype(np.int32)
        columns: dict[str, Any] = {
            "clip_id": corpus.column("clip_id", selected.target),
            "element_id": corpus.column("element_id", selected.target),
            "kind": corpus.column("kind", selected.target),
            "identity": identity,
            "source_shard": corpus.shards[selected.source].astype(np.int64),
            "source_clip_id": corpus.column("clip_id", selected.source),
            "source_element_id": corpus.column("element_id", selected.source),
            "image_sha256": corpus.column("image_sha256", selected.source),
            "similarity": selected.values[:, COLUMN["similarity"]],
            "copy_risk": selected.values[:, COLUMN["copy_risk"]],
            "rules": pa.ListArray.from_arrays(pa.array(offsets), rules, type=reference_schema.field("rules").type),
            "component": component,
            "thumbnail_distance": selected.values[:, COLUMN["picture_distance"]],
            "gap_s": selected.gap_s,
        } | dict(zip(MEASURES, selected.measures.T, strict=True))
        return pa.table(
            [_column(columns[field.name], field.type) for field in reference_schema], schema=reference_schema
        )


def _column(values: Any, dtype: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return pa.array(values, dtype) if isinstance(values, np.ndarray) else values.cast(dtype)
