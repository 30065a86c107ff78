"""Retrieval: for each element, a picture of the same subject from another clip, so that a model cannot learn to copy it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import model_zoo.cards
from a2data.media import colours
from a2data.records import ClipThumbs, ClipTimes, Element, EmbeddedElement, Match, Reference, Reject, Rule
from a2data.stage import Stage
from a2data.store.earlier import Earlier
from a2data.store.lookup import ELEMENT_TABLES
from a2data.task_map import TaskMap, map_serial
from stages.retrieve import copies
from stages.retrieve.candidates import Group, Groups, Targets, margin_ignoring, waves
from stages.retrieve.clusters import cannot_link_pairs, cluster_identities, components, stable_identity_id
from stages.retrieve.corpus import INF, Corpus, Footage, Lookup, assemble, kind_code
from stages.retrieve.judge import COLUMN, RULES, Judge, Limits, Pairs
from stages.retrieve.memory import Neighbours, fingerprints, reuse_unchanged, with_margins_and_components
from stages.retrieve.nearest import TILE
from stages.retrieve.pictures import Pictures
from stages.retrieve.rejections import reason_of, rejection

# reasons for which further candidates of the same subject are searched
SEARCH_FURTHER = {"only copies", "doubtful outline"}


@dataclass(frozen=True)
class Retrieve(Stage):
    """Elements matched to a phrase, their parts and backgrounds -> their references, or the reason why there are none.

    People are identified by their faces (`stages.retrieve.clusters`), objects and backgrounds by their embeddings in the same
    way, objects by colour, too, and garments by their owner, colour and embedding. Copies of the target's own footage are
    rejected (`stages.retrieve.copies`).
    """

    reads = {"match": Match, "segment": ClipTimes} | dict.fromkeys(ELEMENT_TABLES, EmbeddedElement)
    lookup_tables = {"segment": ClipThumbs} | dict.fromkeys(ELEMENT_TABLES, Element)
    writes = Reference
    row_noun = "references"
    per = "all"
    accounts_for = "element_id"
    uses_task_map = True
    uses_earlier = True
    unit_timeout_s = 86400.0  # counts no steps beside the tasks of its search
    uncached_fields = ("tile",)
    version = 13

    min_face: float = 0.0
    """cosine at which two faces are the same person; 0 = calibrated value, else the card's"""
    min_object: float = 0.0
    """cosine at which two objects of one label are the same; 0 as for min_face"""
    min_part: float = 0.0
    """cosine at which two garments of one person and colour are the same; 0 as for min_face"""
    min_background: float = 0.0
    """cosine at which two backgrounds are the same place; 0 as for min_face"""
    duplicate_similarity: float = 0.998
    """similarity of a duplicate picture, as a fraction of the way from the threshold to 1"""
    min_margin: float = 0.1
    """lead over the nearest other identity, as a fraction of the way from the threshold to 1"""
    top_k: int = 64
    """nearest neighbours per element"""
    ann_min_elements: int = 20_000_000
    """elements from which an approximate index (faiss) is used; 0 = never"""
    tile: int = TILE
    """queries and gallery elements per task; bounds the memory of a task"""
    min_body_similarity: float = -1.0
    """cosine of bodies in one video below which faces are of two people; -1 = off"""
    copy_distance: float = copies.COPY
    """thumbnail distance below which frames are the same; see stages.retrieve.copies"""
    copy_min_frames: int = copies.RUN
    """successive equal frames that make a clip a copy"""
    max_copy_risk: float = 0.95
    """highest copy risk of a reference, 0 to 1; lower = less similar references"""
    min_quality: float = 0.0
    """lowest quality of a reference's picture, 0 to 1"""
    min_mask_confidence: float = 0.67
    """lowest confidence of a reference's mask, 0 to 1, where model_zoo measured it"""
    references_per_element: int = 1
    """references per element, from different clips and diverse"""
    rerank_k: int = 8
    """candidates per element re-ranked on their pictures, each read from its shard"""
    calibrated: str = ""
    """JSON, embedder -> kind -> cosine: the result of `a2data calibrate`"""

    def run(
        self,
        model: None,
        matches: pa.Table,
        clips: pa.Table,
        *element_tables: pa.Table,
        lookup: Lookup,
        task_map: TaskMap = map_serial,
        earlier: Earlier | None = None,
    ) -> Iterator[pa.Table | Reject]:
        corpus, footage = assemble(element_tables), Footage(clips, lookup)
        clip_of = footage.rows(corpus.column("clip_id", np.arange(len(corpus.elements))))
        group_of = self.groups(corpus, footage, clip_of, task_map, earlier)
        component_of = np.empty(0, object)
        if len(clip_of):
            component_of = component_by_video(footage, group_of)[footage.video[clip_of]]
        pictures = Pictures(corpus, footage, clip_of, lookup)
        judge = Judge(
            corpus, footage, clip_of, pictures, Limits(**{f.name: getattr(self, f.name) for f in fields(Limits)})
        )
        targets = Targets.of(corpus, group_of, target_rows(corpus, matches))
        if earlier is not None:
            current = fingerprints(corpus, group_of, targets, component_of[targets.rows], earlier, self.min_margin)

            def refresh(rows: pa.Table) -> pa.Table:
                target, source = (corpus.find(rows[name]) for name in ("element_id", "source_element_id"))
                margin = np.minimum(group_of.margins(corpus, target), group_of.margins(corpus, source))
                return with_margins_and_components(rows, margin, component_of[target])

            reused, kept = reuse_unchanged(earlier, current, corpus.text("element_id", targets.rows), refresh)
            yield from kept
            targets = targets.take(~reused)
        for element_id in corpus.text("element_id", targets.rows[targets.group < 0]):
            yield rejection(element_id, "no identity")
        for wave in waves(group_of, targets):
            self.spool(judge, wave)
            for group, block in wave:
                yield from self.references_or_rejections(judge, group, block.rows, block.nodes, component_of)

    def spool(self, judge: Judge, wave: list[tuple[Group, Targets]]) -> None:
        """Read the pictures and thumbnails of targets and their candidates, in the order of the shards."""
        garment_threshold, rows = self.garment_thresholds(judge.corpus), list[np.ndarray]()
        for group, block in wave:
            candidates, _ = judge.candidates(group, block.rows, block.nodes, garment_threshold)
            rows += [np.unique(np.concatenate([block.rows, candidates[2]]))]
        needed = np.unique(np.concatenate(rows))
        judge.footage.spool_file.clear()
        judge.pictures.spool_file.clear()
        judge.footage.spool(judge.clips[needed])
        judge.pictures.spool(needed)

    def references_or_rejections(
        self, judge: Judge, group: Group, rows: np.ndarray, nodes: np.ndarray, component_of: np.ndarray
    ) -> Iterator[pa.Table | Reject]:
        """Yield the references or rejections of targets of one group."""
        corpus = judge.corpus
        pairs, any_near = judge.pairs(group, rows, nodes, self.garment_thresholds(corpus))
        accepted = self.accepted(judge, pairs)
        yield from self.selected_references(judge, group, nodes, component_of, pairs, accepted)
        rejected = np.setdiff1d(np.arange(len(rows)), pairs.target_index[accepted])
        rejections = self.rejections_of(judge, group, rows, nodes, pairs, rejected, any_near)
        rejects = dict(zip(rejected.tolist(), rejections, strict=True))
        retried = np.array([n for n, reject in rejects.items() if reject.reason in SEARCH_FURTHER], np.int64)
        if len(retried):
            pairs, _ = judge.pairs(group, rows[retried], nodes[retried], self.garment_thresholds(corpus), further=True)
            accepted = self.accepted(judge, pairs)
            yield from self.selected_references(judge, group, nodes[retried], component_of, pairs, accepted)
            for n in retried[np.unique(pairs.target_index[accepted])].tolist():
                del rejects[n]
        yield from rejects.values()

    def accepted(self, judge: Judge, pairs: Pairs) -> np.ndarray:
        """Return the pairs that pass all rules, best first for each target."""
        shortlist = judge.shortlist(pairs, self.rerank_k)
        rows = np.unique(np.concatenate([pairs.target[shortlist], pairs.source[shortlist]]))
        judge.pictures.spool(rows)
        judge.pictures.read(rows)
        return judge.compare(pairs, shortlist)

    def selected_references(
        self,
        judge: Judge,
        group: Group,
        nodes: np.ndarray,
        component_of: np.ndarray,
        pairs: Pairs,
        accepted: np.ndarray,
    ) -> Iterator[pa.Table]:
        """Yield the references of the targets that have an accepted pair."""
        if not len(accepted):
            return
        target_index, first = np.unique(pairs.target_index[accepted], return_index=True)
        best = accepted[first]
        if self.references_per_element > 1:
            diverse = [
                diversify(judge, pairs, accepted[pairs.target_index[accepted] == n], self.references_per_element)
                for n in target_index
            ]
            best = np.concatenate(diverse)
        identity = group.identities[group.clustering.cluster[nodes[pairs.target_index[best]]]]
        yield judge.references(pairs, best, identity, pa.array(component_of[pairs.target[best]], pa.string()))

    def rejections_of(
        self,
        judge: Judge,
        group: Group,
        rows: np.ndarray,
        nodes: np.ndarray,
        pairs: Pairs,
        rejected: np.ndarray,
        any_near: np.ndarray,
    ) -> list[Reject]:
        """Return the rejections of the rejected targets, indices into rows."""
        corpus = judge.corpus
        first, last = (np.searchsorted(pairs.target_index, rejected, side) for side in ("left", "right"))
        judge.check_repeats(pairs, np.flatnonzero(np.isin(pairs.target_index, rejected)))
        failed, similarity = pairs.failed(), pairs.values[:, COLUMN["similarity"]]
        nearest, nearest_similarity = group.nearest_in_any_cluster(nodes[rejected])
        owner = np.where(corpus.kind[rows[rejected]] == kind_code(corpus, "human"), corpus.human_of[nearest], -1)
        nearest = np.where((nearest >= 0) & (owner >= 0), owner, nearest)
        results = list[tuple[str, int, list[Rule]]]()  # reason, row of the likeliest candidate, its rules
        for index, n in enumerate(rejected.tolist()):
            candidates = np.arange(first[index], last[index])
            candidates = candidates[failed[candidates].any(1)]
            if len(candidates):
                reason, likeliest = reason_of(RULES, failed[candidates], "no other clip shows it")
                likeliest = candidates[likeliest]
                best = likeliest[np.lexsort((pairs.source[likeliest], similarity[likeliest]))[-1]]
                judge.measure_repeats(pairs, np.array([best]))
                results.append((reason, int(pairs.source[best]), pairs.rules(int(best))))
                continue
            rule = Rule("similarity", float(nearest_similarity[index]), group.min_similarity, INF)
            ambiguous = not any_near[n] and nearest[index] >= 0 and rule.passed
            reason = "ambiguous identity" if ambiguous else "no other clip shows it"
            results.append((reason, int(nearest[index]), [rule]))
        target_ids = corpus.text("element_id", rows[rejected])
        source_ids = corpus.text("element_id", [max(row, 0) for _, row, _ in results])
        return [
            rejection(element_id, reason, source if row >= 0 else "", rules)
            for element_id, source, (reason, row, rules) in zip(target_ids, source_ids, results, strict=True)
        ]

    def groups(
        self,
        corpus: Corpus,
        footage: Footage,
        clip_of: np.ndarray,
        task_map: TaskMap = map_serial,
        earlier: Earlier | None = None,
    ) -> Groups:
        """Compare faces with faces, objects with objects of the same label, backgrounds with backgrounds."""
        comparable = [("face", corpus.with_embedding("face"), "min_face")]
        comparable += [
            (f"object {label}", rows, "min_object")
            for label, rows in group_by_label(corpus, corpus.with_embedding("object"))
        ]
        comparable += [("background", corpus.with_embedding("background"), "min_background")]
        memory = Neighbours(earlier, self.top_k)
        groups = [
            self.group(corpus, footage, clip_of, name, rows, setting, task_map, memory)
            for name, rows, setting in comparable
            if len(rows)
        ]
        memory.save()
        return Groups(len(corpus.elements), groups)

    def group(
        self,
        corpus: Corpus,
        footage: Footage,
        clip_of: np.ndarray,
        name: str,
        rows: np.ndarray,
        setting: str,
        task_map: TaskMap,
        memory: Neighbours,
    ) -> Group:
        """Cluster the elements of these rows."""
        min_similarity, clips = self.threshold(corpus, rows, setting), clip_of[rows]
        videos = footage.video[clips].astype(np.int64)

        def bodies_differ(a: int, b: int) -> bool:
            bodies = [corpus.vector(corpus.parent[rows[node]]) for node in (a, b)]
            if bodies[0] is None or bodies[1] is None or videos[a] != videos[b]:
                return False  # clothes change from one video to another
            return float(bodies[0] @ bodies[1]) < self.min_body_similarity

        colour_names = [corpus.colours[code] for code in corpus.colour[rows]] if setting == "min_object" else []

        def colours_differ(a: int, b: int) -> bool:
            return colours.incompatible(colour_names[a], colour_names[b])

        differ = colours_differ if colour_names else bodies_differ if self.min_body_similarity > -1 else None
        vectors = corpus.vectors_of(rows)
        search_options: dict[str, Any] = dict(ann_min_elements=self.ann_min_elements, tile=self.tile, task_map=task_map)
        codes = memory.codes(name, vectors, clips, corpus.column("element_id", rows), **search_options)
        clustering = cluster_identities(
            vectors,
            clips,
            cannot_link_nodes(corpus, rows, clips),
            min_similarity,
            self.top_k,
            differ,
            codes=codes,
            **search_options,
        )
        if colour_names:
            clustering = margin_ignoring(clustering, vectors, colour_names, colours.incompatible, min_similarity)
        _, first = np.unique(clustering.cluster, return_index=True)
        identities = np.array([stable_identity_id(name) for name in corpus.text("element_id", rows[first])], np.int64)
        return Group(rows, clustering, min_similarity, identities, clips, videos, corpus.vectors_of)

    def garment_thresholds(self, corpus: Corpus) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function from rows to the thresholds of their garments."""

        def thresholds(rows: np.ndarray) -> np.ndarray:
            names, code = np.unique(np.array(corpus.text("embedder", rows), object).astype(str), return_inverse=True)
            return np.array([self.threshold_of(name, "min_part") for name in names.tolist()])[code]

        return thresholds

    def threshold(self, corpus: Corpus, rows: np.ndarray, setting: str) -> float:
        """Return the threshold of the embeddings of these rows. Raises ValueError for those of two models."""
        embedders = sorted(pc.unique(corpus.column("embedder", rows)).to_pylist())
        if len(embedders) > 1:
            raise ValueError(
                f"embeddings by {' and '.join(embedders)} cannot be compared: re-run their stages with one embedder"
            )
        return self.threshold_of(embedders[0], setting)

    def threshold_of(self, embedder: str, setting: str) -> float:
        """Return the threshold: the setting, else the calibrated value, else the card's.

        Raises ValueError for a model whose card has no threshold.
        """
        if value := float(getattr(self, setting)):
            return value
        calibrated = json.loads(self.calibrated or "{}").get(embedder, {}).get(setting.removeprefix("min_"), 0.0)
        if calibrated:
            return float(calibrated)
        try:
            card = model_zoo.cards.base_card(embedder)
        except KeyError as error:
            raise ValueError(f"{error.args[0]}; or set {setting} of retrieve") from None
        # a family's threshold is that of its published weights
        if not card.match_threshold or model_zoo.cards.is_family(card):
            raise ValueError(
                f"{embedder!r} has no measured threshold: run `a2data calibrate WORK`, which estimates it from the corpus, "
                f"or set {setting} of retrieve"
            )
        return card.garment_match_threshold or card.match_threshold if setting == "min_part" else card.match_threshold


def diversify(judge: Judge, pairs: Pairs, accepted: np.ndarray, limit: int) -> list[int]:
    """Return the best pair of a target and others unlike those before them, best first.

    Each next one has the largest distance to the nearest one already selected, in units of COPY, minus its rank: maximal marginal
    relevance (Carbonell & Goldstein 1998).
    """
    selected, remaining = [int(accepted[0])], accepted[1:].tolist()
    thumb_pixels = judge.pictures.records["thumb"][judge.pictures.index_of(pairs.source[accepted])]
    thumbs = {n: copies.Thumbs.of(pixels) for n, pixels in zip(accepted.tolist(), thumb_pixels, strict=True)}

    def gain(ranked: tuple[int, int]) -> tuple[float, int]:
        rank, pair = ranked
        nearest = min(
            min(2.0, float(copies.picture_distances(thumbs[pair], [thumbs[other]])[0, 0])) for other in selected
        )
        return nearest / copies.COPY - rank, -rank

    while remaining and len(selected) < limit:
        best, _ = max(enumerate(remaining), key=gain)
        selected.append(remaining.pop(best))
    return selected


def target_rows(corpus: Corpus, matches: pa.Table) -> np.ndarray:
    """Return the rows that need references: elements matched to a phrase, their parts, and their clips' backgrounds."""
    matched, clips = (matches[name].combine_chunks() for name in ("element_id", "clip_id"))
    matched_or_part = pc.or_(
        pc.is_in(corpus.table["element_id"], matched), pc.is_in(corpus.table["parent_id"], matched)
    )
    backgrounds = pc.and_(pc.equal(corpus.table["kind"], "background"), pc.is_in(corpus.table["clip_id"], clips))
    return np.flatnonzero(pc.or_(matched_or_part, backgrounds).to_numpy()[corpus.order])


def group_by_label(corpus: Corpus, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return the rows grouped by label: a cup is never the same as a bottle."""
    names, code = np.unique(np.array(corpus.text("label", rows), object).astype(str), return_inverse=True)
    return [(name, rows[code == n]) for n, name in enumerate(names.tolist())]


def cannot_link_nodes(corpus: Corpus, rows: np.ndarray, clips: np.ndarray) -> list[set[int]]:
    """Return for each node the nodes of the same clip that share a frame with it: its cannot-link nodes."""
    _, clip_index, count = np.unique(clips, return_inverse=True, return_counts=True)
    shared_clip = np.flatnonzero(count[clip_index] > 1)
    cannot_link = [set[int]()] * len(rows)
    linked_nodes = cannot_link_pairs(
        clips[shared_clip].tolist(), [corpus.frames_seen(row) for row in rows[shared_clip].tolist()]
    )
    for node, others in zip(shared_clip.tolist(), linked_nodes, strict=True):
        cannot_link[node] = set(shared_clip[sorted(others)].tolist())
    return cannot_link


def component_by_video(footage: Footage, group_of: Groups) -> np.ndarray:
    """Return for each video the first video_id of its component: videos linked, directly or not, by a shared identity.

    A component must not be divided if no person, object or background may be in both training and evaluation.
    """
    pairs = []
    for group in group_of.groups:
        members = np.unique(np.stack([group.videos, group.clustering.cluster], 1), axis=0)
        pairs += [
            (footage.video_ids[video], identity)
            for video, identity in zip(members[:, 0].tolist(), group.identities[members[:, 1]].tolist(), strict=True)
        ]
    component_of = components(footage.video_ids, pairs)
    return np.array([component_of[video] for video in footage.video_ids], object)
