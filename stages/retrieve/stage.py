"""Retrieval: for each element, a picture of the same subject from another clip, so that a model cannot learn to copy it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import model_zoo.cards
from a2data.media import colours
from a2data.records import ClipThumbs, Element, ElementMeta, EmbeddedElement, Match, Reference, Reject, Rule
from a2data.stage import Stage
from a2data.store.lookup import ELEMENT_TABLES
from a2data.task_map import TaskMap, map_serial
from stages.retrieve import copies
from stages.retrieve.candidates import Candidate, Group, Groups, margin_ignoring
from stages.retrieve.clusters import cannot_link_pairs, cluster_identities, components, stable_identity_id
from stages.retrieve.corpus import INF, PARTS, Corpus, Footage, assemble, colour
from stages.retrieve.nearest import TILE
from stages.retrieve.pictures import Shown
from stages.retrieve.rejections import reject_target

TOGETHER = 256  # elements whose pictures, and their candidates', are held at a time: 46 MB with 8 candidates each
FARTHER = {"only copies", "doubtful outline"}  # reasons for which further candidates of the same subject are searched
Lookup = Callable[..., dict[str, Any]]  # a2data.store.lookup.Lookup


class Query(NamedTuple):
    """An element that needs a reference, with its candidates."""

    row: int
    target: ElementMeta
    judged: list[Reference]  # with all rules that need no picture
    shortlist: list[Reference]  # candidates that pass those rules, best first
    reason: str  # why there are none, if there are none
    near: tuple[str, Rule] | None  # the nearest element that did not qualify


@dataclass(frozen=True)
class Retrieve(Stage):
    """Elements matched to a phrase, their parts and backgrounds -> their references, or the reason why there are none.

    People are identified by their faces (`stages.retrieve.clusters`), objects and backgrounds by their embeddings in the same
    way, objects by colour, too, and garments by their owner, colour and embedding. Copies of the target's own footage are
    rejected (`stages.retrieve.copies`).
    """

    reads = {"match": Match, "segment": ClipThumbs} | dict.fromkeys(ELEMENT_TABLES, EmbeddedElement)
    lookup_tables = dict.fromkeys(ELEMENT_TABLES, Element)
    writes = Reference
    row_noun = "references"
    per = "all"
    accounts_for = "element_id"
    uses_task_map = True
    unit_timeout_s = 86400.0  # counts no steps beside the tasks of its search
    uncached_fields = ("tile",)
    version = 9

    min_face: float = 0.0
    """cosine at which two faces are the same person; 0 = calibrated value, else the card's"""
    min_object: float = 0.0
    """cosine at which two objects of one label are the same; 0 as for min_face"""
    min_part: float = 0.0
    """cosine at which two garments of one person and colour are the same; 0 as for min_face"""
    min_background: float = 0.0
    """cosine at which two backgrounds are the same place; 0 as for min_face"""
    duplicate_similarity: float = 0.998
    """similarity of a duplicate picture, as a fraction of threshold to 1"""
    min_margin: float = 0.1
    """lead over the nearest other identity, as a fraction of threshold to 1"""
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
        *looks: pa.Table,
        lookup: Lookup,
        spread: TaskMap = map_serial,
    ) -> Iterator[Reference | Reject]:
        corpus = assemble(looks)
        footage = Footage(clips, self.copy_min_frames)
        group_of = self.groups(corpus, footage, spread)
        component_of = linked(corpus, footage, group_of)
        shown, rows = Shown(corpus, footage, lookup), targets(corpus, matches)
        for first in range(0, len(rows), TOGETHER):
            queries = [self.query(corpus, footage, group_of, row) for row in rows[first : first + TOGETHER]]
            shown.read(key for query in queries for key in shown.keys(query.row, query.target, query.shortlist))
            for query in queries:
                looked = [self.compare(shown, query.row, query.target, r) for r in query.shortlist]
                accepted = sorted((r for r in looked if passes(r)), key=preference)
                refused = [r for r in (*looked, *query.judged) if not passes(r)]
                reject = None if accepted else reject_target(query.target, refused, query.reason, query.near)
                if reject and reject.reason in FARTHER:
                    shortlist = self.query(corpus, footage, group_of, query.row, farther=True).shortlist
                    looked = [self.compare(shown, query.row, query.target, r) for r in shortlist]
                    accepted = sorted((r for r in looked if passes(r)), key=preference)
                if accepted:
                    component = component_of[footage.video_id(query.target.clip_id)]
                    yield from (
                        replace(r, component=component) for r in diversify(shown, accepted, self.references_per_element)
                    )
                elif reject:
                    yield reject

    def query(self, corpus: Corpus, footage: Footage, group_of: Groups, row: int, farther: bool = False) -> Query:
        """Return an element's candidates, as far as they can be judged without their pictures.

        farther: candidates after the nearest ones, which may all be copies if a person is filmed from one place for hours.
        """
        target = corpus.traits[row]
        candidates, reason, near = self.candidates(corpus, group_of, row, farther)
        judged = [self.judge(corpus, footage, row, target, one) for one in candidates]
        shortlist = one_per_clip(sorted((r for r in judged if passes(r)), key=preference))[: self.rerank_k]
        return Query(row, target, judged, shortlist, reason, near)

    def groups(self, corpus: Corpus, footage: Footage, spread: TaskMap = map_serial) -> Groups:
        """Compare faces with faces, objects with objects of the same label, backgrounds with backgrounds."""
        comparable = [(corpus.with_embedding("face"), "min_face")]
        comparable += [(rows, "min_object") for rows in by_label(corpus, corpus.with_embedding("object"))]
        comparable += [(corpus.with_embedding("background"), "min_background")]
        groups = [self.group(corpus, footage, rows, setting, spread) for rows, setting in comparable if len(rows)]
        return Groups(len(corpus.traits), groups)

    def group(
        self, corpus: Corpus, footage: Footage, rows: np.ndarray, setting: str, spread: TaskMap = map_serial
    ) -> Group:
        """Cluster the elements of these rows."""
        low = self.threshold(corpus, rows, setting)
        clips = corpus.text(corpus.clip, rows)
        together = cannot_link_pairs(clips, [corpus.seen(row) for row in rows])
        numbers = np.unique(clips, return_inverse=True)[1]

        def bodies_differ(a: int, b: int) -> bool:
            bodies = [corpus.vector(corpus.parent[rows[node]]) for node in (a, b)]
            if bodies[0] is None or bodies[1] is None or footage.video_id(clips[a]) != footage.video_id(clips[b]):
                return False  # clothes change from one video to another
            return float(bodies[0] @ bodies[1]) < self.min_body_similarity

        named = [colour(corpus.traits[row]) for row in rows] if setting == "min_object" else []

        def colours_differ(a: int, b: int) -> bool:
            return colours.opposed(named[a], named[b])

        cannot_link = colours_differ if named else bodies_differ if self.min_body_similarity > -1 else None
        vectors = corpus.vectors_of(rows)
        how: dict[str, Any] = {"ann_min_elements": self.ann_min_elements, "tile": self.tile, "spread": spread}
        found = cluster_identities(vectors, numbers, together, low, self.top_k, cannot_link, **how)
        if named:
            found = margin_ignoring(found, vectors, named, colours.opposed, low)
        first: dict[int, int] = {}
        for row, cluster in zip(rows, found.cluster.tolist(), strict=True):
            if cluster not in first:
                first[cluster] = stable_identity_id(corpus.traits[row].element_id)
        videos = np.unique([footage.video_id(clip_id) for clip_id in clips], return_inverse=True)[1]
        return Group(rows, found, low, first, numbers, videos, corpus.vectors_of)

    def candidates(
        self, corpus: Corpus, group_of: Groups, row: int, farther: bool = False
    ) -> tuple[list[Candidate], str, tuple[str, Rule] | None]:
        """Return the candidates of the row's identity from other clips, why there are none if so, and the nearest element.

        A human and its parts are identified by the face. farther: candidates after the nearest ones.
        """
        trait = corpus.traits[row]
        human = row if trait.kind == "human" else int(corpus.parent[row])
        known_by = row
        if trait.kind in ("human", *PARTS):
            known_by = int(corpus.face_of[human]) if human >= 0 else -1
        if known_by not in group_of or (trait.kind in PARTS and corpus.place[row] < 0):
            return [], "no identity", None
        group, node = group_of[known_by]
        found, nearest = (
            group.farther_neighbours(node) if farther else group.same_identity_neighbours(node),
            group.nearest(node),
        )
        near = None
        if nearest:
            owner = int(corpus.human_of[nearest[0]])
            other = owner if trait.kind == "human" and owner >= 0 else nearest[0]
            near = corpus.traits[other].element_id, Rule("similarity", nearest[1], group.min_similarity, INF)
        if not found and near and near[1].passed:
            return [], "ambiguous identity", near
        if trait.kind == "human":
            found = [replace(k, row=int(corpus.human_of[k.row])) for k in found if corpus.human_of[k.row] >= 0]
        elif trait.kind in PARTS:
            low = self.threshold(corpus, np.array([row]), "min_part")
            found = [part for k in found for part in garment_matches(corpus, row, k, low)]
        return found, "no other clip shows it", near

    def threshold(self, corpus: Corpus, rows: np.ndarray, setting: str) -> float:
        """Return the threshold: the setting, else the calibrated value, else the card's.

        Raises ValueError for embeddings of two models, or of one whose card has no threshold.
        """
        value = float(getattr(self, setting))
        embedders = sorted({*corpus.text(corpus.embedder, rows)})
        if len(embedders) > 1:
            raise ValueError(
                f"embeddings by {' and '.join(embedders)} cannot be compared: re-run their stages with one embedder"
            )
        if value or not embedders:
            return value
        calibrated = json.loads(self.calibrated or "{}").get(embedders[0], {}).get(setting.removeprefix("min_"), 0.0)
        if calibrated:
            return float(calibrated)
        try:
            card = model_zoo.cards.base_card(embedders[0])
        except KeyError as error:
            raise ValueError(f"{error.args[0]}; or set {setting} of retrieve") from None
        # a family's threshold is that of its published weights
        if not card.match_threshold or model_zoo.cards.is_family(card):
            raise ValueError(
                f"{embedders[0]!r} has no measured threshold: run `a2data calibrate WORK`, which estimates it from the corpus, "
                f"or set {setting} of retrieve"
            )
        return card.garment_match_threshold or card.match_threshold if setting == "min_part" else card.match_threshold

    def judge(self, corpus: Corpus, footage: Footage, row: int, target: ElementMeta, candidate: Candidate) -> Reference:
        """Return the reference that this candidate would make, with every rule that needs no pictures."""
        source = corpus.traits[candidate.row]
        overlap_s, gap_s = footage.nearness_s(target.clip_id, source.clip_id)
        shown = footage.picture_distance(source, target.clip_id)
        rules = [
            Rule("similarity", candidate.similarity, candidate.min_similarity, INF),
            Rule(
                "likeness",
                candidate.similarity,
                -INF,
                candidate.min_similarity + self.duplicate_similarity * (1 - candidate.min_similarity),
            ),
            Rule("margin", candidate.margin, self.min_margin * (1 - candidate.group_min_similarity), INF),
            Rule("cohesion", candidate.cohesion, candidate.group_min_similarity, INF),
            Rule("overlap_s", overlap_s, -INF, 0.0),
            Rule("repeat_distance", footage.repeat_distance(target.clip_id, source.clip_id), self.copy_distance, INF),
            Rule("picture_distance", shown, self.copy_distance, INF),
            Rule("quality", source.quality, self.min_quality, INF),
        ]
        if source.mask_confidence >= 0:
            rules.append(Rule("mask_confidence", source.mask_confidence, self.min_mask_confidence, INF))
        if target.kind == "human":
            rules.append(Rule("outfit", corpus.outfit(row, candidate.row), -INF, INF))
        return Reference(
            target.clip_id,
            target.element_id,
            target.kind,
            candidate.identity,
            int(corpus.shards[candidate.row]),
            source.clip_id,
            source.element_id,
            source.image_sha256,
            candidate.similarity,
            copies.copy_risk(copies.Parts(shown, INF, 1.0, INF, 1.0, 1.0, gap_s), self.copy_distance),
            rules,
            thumbnail_distance=shown,
            gap_s=gap_s,
        )

    def compare(self, shown: Shown, row: int, target: ElementMeta, reference: Reference) -> Reference:
        """Return the reference with its picture distances to the target, its copy risk, and the rule about it."""
        parts = shown.parts(row, target, reference)
        risk = 1.0 if parts.frames < self.copy_distance else copies.copy_risk(parts, self.copy_distance)
        return replace(
            reference,
            copy_risk=risk,
            rules=[*reference.rules, Rule("copy_risk", risk, -INF, self.max_copy_risk)],
            pixel_distance=parts.pixels,
            silhouette_distance=parts.pose,
            log2_scale_ratio=parts.scale,
            luma_difference=parts.light,
            background_distance=parts.place,
        )


def passes(reference: Reference) -> bool:
    return all(rule.passed for rule in reference.rules)


def preference(reference: Reference) -> tuple[float, float, float, str]:
    """Sort key, best first: same outfit, since the prompt mentions it; then a score; then picture quality, then the lower id.

    The score, in twentieths, is the certainty of the identity times that of another view times the confidence of the mask. The
    lowest copy risk alone would prefer the candidate least like the target, and so those barely above the threshold.
    """
    rules = {rule.name: rule for rule in reference.rules}
    similarity = rules["similarity"]
    sure = (similarity.value - similarity.low) / (1 - similarity.low)
    outfit = rules["outfit"].value if "outfit" in rules else 0.0
    outline = rules["mask_confidence"].value if "mask_confidence" in rules else 1.0
    view = round(20 * sure * (1 - reference.copy_risk) * outline)
    return -outfit, -view, -rules["quality"].value, reference.source_element_id


def one_per_clip(references: list[Reference]) -> list[Reference]:
    """Return the first reference from each clip."""
    first: dict[str, Reference] = {}
    for reference in references:
        first.setdefault(reference.source_clip_id, reference)
    return list(first.values())


def diversify(shown: Shown, accepted: list[Reference], most: int) -> list[Reference]:
    """Return the best reference and others unlike those before them, best first.

    Each next one has the largest distance to the nearest one already selected, in units of COPY, minus its rank: maximal marginal
    relevance (Carbonell & Goldstein 1998).
    """
    taken, left = accepted[:1], accepted[1:]

    def gain(one: tuple[int, Reference]) -> tuple[float, int]:
        rank, reference = one
        return min(shown.distance(reference, other) for other in taken) / copies.COPY - rank, -rank

    while left and len(taken) < most:
        place, _ = max(enumerate(left), key=gain)
        taken.append(left.pop(place))
    return taken


def targets(corpus: Corpus, matches: pa.Table) -> list[int]:
    """Return the rows that need references: elements matched to a phrase, their parts, and their clips' backgrounds."""
    matched, clips = (matches[name].combine_chunks() for name in ("element_id", "clip_id"))
    wanted = pc.or_(pc.is_in(corpus.table["element_id"], matched), pc.is_in(corpus.table["parent_id"], matched))
    places = corpus.of_kind("background") & pc.is_in(corpus.clip, clips).to_numpy()
    return np.flatnonzero(wanted.to_numpy() | places).tolist()


def by_label(corpus: Corpus, rows: np.ndarray) -> list[np.ndarray]:
    """Return the rows grouped by label: a cup is never the same as a bottle."""
    labels = np.array(corpus.text(corpus.label, rows), object)
    return [rows[labels == label] for label in sorted({*labels.tolist()})]


def garment_matches(corpus: Corpus, row: int, face: Candidate, low: float) -> Iterator[Candidate]:
    """Yield the garments of this face's owner that match a garment in colour and embedding."""
    trait = corpus.traits[row]
    for other in corpus.parts(int(corpus.human_of[face.row]), trait.kind):
        if corpus.place[other] >= 0 and colour(trait) == colour(corpus.traits[other]):
            similarity = round(float(corpus.vector(row) @ corpus.vector(other)), 5)  # type: ignore[operator]
            if similarity >= low:
                yield replace(face, row=other, similarity=similarity, min_similarity=low)


def linked(corpus: Corpus, footage: Footage, group_of: Groups) -> dict[str, str]:
    """Map each video_id to the first video_id of its component: videos linked, directly or not, by a shared identity.

    A component must not be divided if no person, object or background may be in both training and evaluation.
    """
    pairs = (
        (footage.video_id(corpus.clip[row].as_py()), group.identity(node)) for row, (group, node) in group_of.items()
    )
    return components(footage.videos.to_pylist(), pairs)
