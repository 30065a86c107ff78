"""For each element, a picture of the same subject from another clip: what keeps a model from learning to copy its reference."""

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
from a2data.task_map import TaskMap, map_serial
from stages.retrieve import copies
from stages.retrieve.candidates import Candidate, Group, Groups, margin_ignoring
from stages.retrieve.clusters import cannot_link_pairs, cluster_identities, components, stable_identity_id
from stages.retrieve.corpus import INF, PARTS, Corpus, Footage, assemble, colour
from stages.retrieve.nearest import TILE
from stages.retrieve.pictures import Shown
from stages.retrieve.rejections import reject_target

TOGETHER = 256  # elements whose pictures, and those of their candidates, are read and held at a time: 46 MB with 8 each
FARTHER = {"only copies", "doubtful outline"}  # reasons for which others of the same subject are looked at, too
TABLES = ("detect", "faces", "parse", "background", "ground")
Lookup = Callable[..., dict[str, Any]]  # a2data.store.lookup.Lookup


class Query(NamedTuple):
    """An element that wants a reference, and those that may be one."""

    row: int
    target: ElementMeta
    judged: list[Reference]  # with all rules that need no picture
    likely: list[Reference]  # those that pass them, best first
    reason: str  # why there are none, where there are none
    near: tuple[str, Rule] | None  # who came nearest to being one


@dataclass(frozen=True)
class Retrieve(Stage):
    """Elements that a phrase stands for, their parts and the places -> their references, or why there is none.

    People are told by their faces (`stages.retrieve.clusters`), objects and places by their embeddings in the same way, objects
    by their colour, too, garments by whose they are, their colour and their embedding. Copies of the target's own footage are
    refused (`stages.retrieve.copies`).
    """

    reads = {"match": Match, "segment": ClipThumbs} | dict.fromkeys(TABLES, EmbeddedElement)
    lookup_tables = dict.fromkeys(TABLES, Element)
    writes = Reference
    per = "all"
    accounts_for = "element_id"
    uses_task_map = True
    unit_timeout_s = 86400.0  # beside the tasks of its search it counts no steps
    uncached_fields = ("tile",)
    version = 9

    min_face: float = 0.0  # cosine from which two faces are one person; 0 = as calibrated, else what the card says
    min_object: float = 0.0  # the same for objects
    min_part: float = 0.0  # for garments of one person, in one colour
    min_background: float = 0.0  # for places
    duplicate_similarity: float = (
        0.998  # share of what lies between the threshold and 1, above which it is the same picture
    )
    min_margin: float = 0.1  # lead over the nearest other identity, as a share of what lies between the threshold and 1
    top_k: int = 64  # nearest neighbours that are looked at for each element
    ann_min_elements: int = 20_000_000  # elements from which neighbours are sought by an index (faiss); 0 = never
    tile: int = TILE  # elements that one task compares with as many: its memory, and what a cluster shares out
    min_body_similarity: float = -1.0  # cosine of bodies, in one video, below which alike faces are of two; -1 = off
    copy_distance: float = copies.COPY  # thumbnails nearer than this show the same frame; see stages.retrieve.copies
    copy_min_frames: int = copies.RUN  # frames in succession that make a clip a copy
    max_copy_risk: float = 0.95  # 0 to 1; lower it for references from farther away
    min_quality: float = 0.0  # 0 to 1, of the reference's picture
    min_mask_trust: float = 0.67  # 0 to 1, of its outline (model_zoo.detect.mask_trust), where that was judged
    references_per_element: int = 1  # for each element, each from another clip, and unlike those before it
    rerank_k: int = 8  # candidates for each element whose pictures are laid over its own: each is read from its shard
    calibrated: str = ""  # JSON, embedder -> kind -> cosine: what `a2data calibrate` found

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
            asked = [self.asked(corpus, footage, group_of, row) for row in rows[first : first + TOGETHER]]
            shown.read(key for a in asked for key in shown.keys(a.row, a.target, a.likely))
            for a in asked:
                looked = [self.compare(shown, a.row, a.target, r) for r in a.likely]
                accepted = sorted((r for r in looked if passes(r)), key=preference)
                refused = [r for r in (*looked, *a.judged) if not passes(r)]
                reject = None if accepted else reject_target(a.target, refused, a.reason, a.near)
                if reject and reject.reason in FARTHER:
                    likely = self.asked(corpus, footage, group_of, a.row, farther=True).likely
                    looked = [self.compare(shown, a.row, a.target, r) for r in likely]
                    accepted = sorted((r for r in looked if passes(r)), key=preference)
                if accepted:
                    component = component_of[footage.video_id(a.target.clip_id)]
                    yield from (
                        replace(r, component=component) for r in diversify(shown, accepted, self.references_per_element)
                    )
                elif reject:
                    yield reject

    def asked(self, corpus: Corpus, footage: Footage, group_of: Groups, row: int, farther: bool = False) -> Query:
        """What can be said of an element's candidates without a look at their pictures.

        farther: of those that come after the nearest, which may all be copies where someone is filmed for hours from one place.
        """
        target = corpus.traits[row]
        kin, reason, near = self.kin(corpus, group_of, row, farther)
        judged = [self.judge(corpus, footage, row, target, one) for one in kin]
        likely = one_per_clip(sorted((r for r in judged if passes(r)), key=preference))[: self.rerank_k]
        return Query(row, target, judged, likely, reason, near)

    def groups(self, corpus: Corpus, footage: Footage, spread: TaskMap = map_serial) -> Groups:
        """Compare faces with faces, objects with objects of their label, places with places."""
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

        asked = colours_differ if named else bodies_differ if self.min_body_similarity > -1 else None
        vectors = corpus.vectors_of(rows)
        how: dict[str, Any] = {"ann_min_elements": self.ann_min_elements, "tile": self.tile, "spread": spread}
        found = cluster_identities(vectors, numbers, together, low, self.top_k, asked, **how)
        if named:
            found = margin_ignoring(found, vectors, named, colours.opposed, low)
        first: dict[int, int] = {}
        for row, cluster in zip(rows, found.cluster.tolist(), strict=True):
            if cluster not in first:
                first[cluster] = stable_identity_id(corpus.traits[row].element_id)
        videos = np.unique([footage.video_id(clip_id) for clip_id in clips], return_inverse=True)[1]
        return Group(rows, found, low, first, numbers, videos, corpus.vectors_of)

    def kin(
        self, corpus: Corpus, group_of: Groups, row: int, farther: bool = False
    ) -> tuple[list[Candidate], str, tuple[str, Rule] | None]:
        """Who shows the same subject in other clips as the element of this row does; if nobody, why, and who came nearest.

        A human and what it wears are known by the face. farther: those that come after the nearest.
        """
        trait = corpus.traits[row]
        human = row if trait.kind == "human" else int(corpus.parent[row])
        known_by = row
        if trait.kind in ("human", *PARTS):
            known_by = int(corpus.face_of[human]) if human >= 0 else -1
        if known_by not in group_of or (trait.kind in PARTS and corpus.place[row] < 0):
            return [], "no identity", None
        group, node = group_of[known_by]
        kin, nearest = group.farther_kin(node) if farther else group.kin(node), group.nearest(node)
        near = None
        if nearest:
            owner = int(corpus.human_of[nearest[0]])
            other = owner if trait.kind == "human" and owner >= 0 else nearest[0]
            near = corpus.traits[other].element_id, Rule("similarity", nearest[1], group.low, INF)
        if not kin and near and near[1].passed:
            return [], "ambiguous identity", near
        if trait.kind == "human":
            kin = [replace(k, row=int(corpus.human_of[k.row])) for k in kin if corpus.human_of[k.row] >= 0]
        elif trait.kind in PARTS:
            low = self.threshold(corpus, np.array([row]), "min_part")
            kin = [part for k in kin for part in garment_matches(corpus, row, k, low)]
        return kin, "no other clip shows it", near

    def threshold(self, corpus: Corpus, rows: np.ndarray, setting: str) -> float:
        """The setting, or what was calibrated, or the card's.

        Raises ValueError for embeddings of two models, or of one whose card says nothing.
        """
        value = float(getattr(self, setting))
        embedders = sorted({*corpus.text(corpus.embedder, rows)})
        if len(embedders) > 1:
            raise ValueError(f"embeddings by {' and '.join(embedders)} cannot be compared: remake them with one model")
        if value or not embedders:
            return value
        calibrated = json.loads(self.calibrated or "{}").get(embedders[0], {}).get(setting.removeprefix("min_"), 0.0)
        if calibrated:
            return float(calibrated)
        try:
            card = model_zoo.cards.base_card(embedders[0])
        except KeyError as error:
            raise ValueError(f"{error.args[0]}; or set {setting} of retrieve") from None
        if not card.match_threshold:
            raise ValueError(f"the card of {embedders[0]!r} has no threshold: set {setting} of retrieve")
        return card.garment_match_threshold or card.match_threshold if setting == "min_part" else card.match_threshold

    def judge(self, corpus: Corpus, footage: Footage, row: int, target: ElementMeta, kin: Candidate) -> Reference:
        """The reference that this relative would make, with every rule that needs no picture of the two."""
        source = corpus.traits[kin.row]
        overlap_s, gap_s = footage.nearness_s(target.clip_id, source.clip_id)
        shown = footage.picture_distance(source, target.clip_id)
        rules = [
            Rule("similarity", kin.similarity, kin.low, INF),
            Rule("likeness", kin.similarity, -INF, kin.low + self.duplicate_similarity * (1 - kin.low)),
            Rule("margin", kin.margin, self.min_margin * (1 - kin.group_low), INF),
            Rule("cohesion", kin.cohesion, kin.group_low, INF),
            Rule("overlap_s", overlap_s, -INF, 0.0),
            Rule("repeat_distance", footage.repeat_distance(target.clip_id, source.clip_id), self.copy_distance, INF),
            Rule("picture_distance", shown, self.copy_distance, INF),
            Rule("quality", source.quality, self.min_quality, INF),
        ]
        if source.mask_confidence >= 0:
            rules.append(Rule("mask_trust", source.mask_confidence, self.min_mask_trust, INF))
        if target.kind == "human":
            rules.append(Rule("outfit", corpus.outfit(row, kin.row), -INF, INF))
        return Reference(
            target.clip_id,
            target.element_id,
            target.kind,
            kin.identity,
            int(corpus.shards[kin.row]),
            source.clip_id,
            source.element_id,
            source.image_sha256,
            kin.similarity,
            copies.copy_risk(copies.Parts(shown, INF, 1.0, INF, 1.0, 1.0, gap_s), self.copy_distance),
            rules,
            thumbnail_distance=shown,
            gap_s=gap_s,
        )

    def compare(self, shown: Shown, row: int, target: ElementMeta, reference: Reference) -> Reference:
        """The reference with its pictures laid over the target's own: its copy risk, the parts of it, and the rule about it."""
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
    """Best first: in the same outfit, for the prompt speaks of it; surely the same subject times surely another view times surely
    its outline, in twentieths; then the better picture, the lower id.

    The least risk alone would prefer whoever looks least like the target, and so whatever slipped in just above the threshold.
    """
    rules = {rule.name: rule for rule in reference.rules}
    similarity = rules["similarity"]
    sure = (similarity.value - similarity.low) / (1 - similarity.low)
    outfit = rules["outfit"].value if "outfit" in rules else 0.0
    outline = rules["mask_trust"].value if "mask_trust" in rules else 1.0
    view = round(20 * sure * (1 - reference.copy_risk) * outline)
    return -outfit, -view, -rules["quality"].value, reference.source_element_id


def one_per_clip(references: list[Reference]) -> list[Reference]:
    """The first reference from each clip."""
    first: dict[str, Reference] = {}
    for reference in references:
        first.setdefault(reference.source_clip_id, reference)
    return list(first.values())


def diversify(shown: Shown, accepted: list[Reference], most: int) -> list[Reference]:
    """The best reference and others that are unlike those before them, best first.

    Each next one has the largest distance to the nearest of those taken, in units of a COPY, less a step for each place that it
    stands lower: the marginal relevance of Carbonell & Goldstein 1998.
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
    """Rows of the elements to find references for: those a phrase stands for, their parts, and the places of their clips."""
    matched, clips = (matches[name].combine_chunks() for name in ("element_id", "clip_id"))
    wanted = pc.or_(pc.is_in(corpus.table["element_id"], matched), pc.is_in(corpus.table["parent_id"], matched))
    places = corpus.of_kind("background") & pc.is_in(corpus.clip, clips).to_numpy()
    return np.flatnonzero(wanted.to_numpy() | places).tolist()


def by_label(corpus: Corpus, rows: np.ndarray) -> list[np.ndarray]:
    """Objects of one label each: a cup is never the same as a bottle."""
    labels = np.array(corpus.text(corpus.label, rows), object)
    return [rows[labels == label] for label in sorted({*labels.tolist()})]


def garment_matches(corpus: Corpus, row: int, face: Candidate, low: float) -> Iterator[Candidate]:
    """What the human of this face wears that agrees with a garment in colour."""
    trait = corpus.traits[row]
    for other in corpus.parts(int(corpus.human_of[face.row]), trait.kind):
        if corpus.place[other] >= 0 and colour(trait) == colour(corpus.traits[other]):
            similarity = round(float(corpus.vector(row) @ corpus.vector(other)), 5)  # type: ignore[operator]
            if similarity >= low:
                yield replace(face, row=other, similarity=similarity, low=low)


def linked(corpus: Corpus, footage: Footage, group_of: Groups) -> dict[str, str]:
    """video_id -> the first video_id of those that share an identity with it, or with one that does, and so on.

    What must not be divided where no person, thing or place may be both in training and in evaluation.
    """
    pairs = (
        (footage.video_id(corpus.clip[row].as_py()), group.identity(node)) for row, (group, node) in group_of.items()
    )
    return components(footage.videos.to_pylist(), pairs)
