"""For each element, a picture of the same subject from another clip: what keeps a model from learning to copy its reference."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

import model_zoo.cards
from a2data import copies
from a2data.arrow import from_table
from a2data.corpus import INF, PARTS, Corpus, Footage, assemble, colour
from a2data.identity import Identities, components, identify, number, seen_together
from a2data.records import Look, Match, Reference, Reject, Rule, Take, Trait
from a2data.similarity import TILE
from a2data.spread import Spread, in_turn
from a2data.stage import Stage


@dataclass(frozen=True)
class Retrieve(Stage):
    """Elements that a phrase stands for, their parts and the places -> their references, or why there is none.

    People are told by their faces (`a2data.identity`), objects and places by their embeddings in the same way, garments by
    whose they are, their colour and their embedding. Copies of the target's own footage are refused (`a2data.copies`).
    """

    reads = {"match": Match, "segment": Take} | dict.fromkeys(
        ("detect", "faces", "parse", "background", "ground"), Look
    )
    writes = Reference
    per = "all"
    spreads = True
    unkeyed = ("tile",)
    version = 4

    min_face: float = 0.0  # cosine from which two faces are one person; 0 = as calibrated, else what the card says
    min_object: float = 0.0  # the same for objects
    min_part: float = 0.0  # for garments of one person, in one colour
    min_background: float = 0.0  # for places
    max_similarity: float = 0.999  # cosine above which it is the same picture
    margin: float = 0.1  # lead over the nearest other identity, as a share of what lies between the threshold and 1
    neighbours: int = 64  # nearest neighbours that are looked at for each element
    approximate_from: int = 20_000_000  # elements from which neighbours are sought by an index (faiss); 0 = never
    tile: int = (
        TILE  # elements that one task compares with as many: what bounds its memory, and what a cluster shares out
    )
    different_body: float = -1.0  # cosine of bodies, in one video, below which alike faces are of two; -1 = off
    copy_distance: float = copies.COPY  # thumbnails nearer than this show the same frame; see a2data.copies
    copy_run: int = copies.RUN  # frames in succession that make a clip a copy
    max_copy_risk: float = 0.95  # 0 to 1; lower it for references from farther away
    min_quality: float = 0.0  # 0 to 1, of the reference's picture
    max_references: int = 1  # for each element, each from another clip
    calibrated: str = ""  # JSON, embedder -> kind -> cosine: what `a2data calibrate` found

    def run(
        self, model: None, matches: pa.Table, clips: pa.Table, *looks: pa.Table, spread: Spread = in_turn
    ) -> Iterator[Reference | Reject]:
        corpus = assemble(looks)
        footage = Footage(clips, self.copy_run)
        group_of = self.groups(corpus, footage, spread)
        component_of = linked(corpus, footage, group_of)
        for row in targets(corpus, from_table(Match, matches)):
            target = corpus.traits[row]
            kin, reason, near = self.kin(corpus, group_of, row)
            judged = [self.judge(corpus, footage, target, one) for one in kin]
            accepted = sorted((r for r in judged if all(rule.passed for rule in r.rules)), key=preference)
            if accepted:
                component = component_of[footage.video_id(target.clip_id)]
                yield from (replace(r, component=component) for r in one_per_clip(accepted)[: self.max_references])
            else:
                yield refuse(target, judged, reason, near)

    def groups(self, corpus: Corpus, footage: Footage, spread: Spread = in_turn) -> "dict[int, tuple[Group, int]]":
        """Compare faces with faces, objects with objects of their label, places with places: row -> its group, its node there."""
        faces, objects, places = (corpus.with_embedding(kind) for kind in ("face", "object", "background"))
        comparable = [(faces, "min_face"), *((rows, "min_object") for rows in by_label(corpus, objects))]
        comparable += [(places, "min_background")]
        group_of: dict[int, tuple[Group, int]] = {}
        for rows, setting in comparable:
            if rows:
                group = self.group(corpus, footage, rows, setting, spread)
                group_of |= {row: (group, node) for node, row in enumerate(rows)}
        return group_of

    def group(
        self, corpus: Corpus, footage: Footage, rows: list[int], setting: str, spread: Spread = in_turn
    ) -> "Group":
        """Cluster the elements of these rows."""
        low = self.threshold(corpus, rows, setting)
        matrix = np.stack([corpus.vectors[row] for row in rows])
        clips = [corpus.traits[row].clip_id for row in rows]
        together = seen_together(clips, [corpus.seen(row) for row in rows])
        numbers = np.unique(clips, return_inverse=True)[1]

        def differ(a: int, b: int) -> bool:
            bodies = [corpus.vectors.get(corpus.rows.get(corpus.traits[rows[node]].parent_id, -1)) for node in (a, b)]
            if bodies[0] is None or bodies[1] is None or footage.video_id(clips[a]) != footage.video_id(clips[b]):
                return False  # clothes change from one video to another
            return float(bodies[0] @ bodies[1]) < self.different_body

        asked = differ if self.different_body > -1 else None
        how: dict[str, Any] = {"approximate_from": self.approximate_from, "tile": self.tile, "spread": spread}
        found = identify(matrix, numbers, together, low, self.neighbours, asked, **how)
        first: dict[int, int] = {}
        for row, cluster in zip(rows, found.cluster.tolist(), strict=True):
            first.setdefault(cluster, number(corpus.traits[row].element_id))
        return Group(rows, found, low, first)

    def kin(
        self, corpus: Corpus, group_of: "dict[int, tuple[Group, int]]", row: int
    ) -> tuple[list["Kin"], str, tuple[str, Rule] | None]:
        """Who shows the same subject in other clips as the element of this row does; if nobody, why, and who came nearest.

        A human and what it wears are known by the face.
        """
        trait = corpus.traits[row]
        human = row if trait.kind == "human" else corpus.rows.get(trait.parent_id, -1)
        known_by = corpus.face_of.get(human, -1) if trait.kind in ("human", *PARTS) else row
        if known_by not in group_of or (trait.kind in PARTS and row not in corpus.vectors):
            return [], "no identity", None
        group, node = group_of[known_by]
        kin, nearest = group.kin(node), group.nearest(node)
        near = None
        if nearest:
            other = corpus.human_of.get(nearest[0], nearest[0]) if trait.kind == "human" else nearest[0]
            near = corpus.traits[other].element_id, Rule("similarity", nearest[1], group.low, INF)
        if not kin and near and near[1].passed:
            return [], "ambiguous identity", near
        if trait.kind == "human":
            kin = [replace(k, row=corpus.human_of[k.row]) for k in kin if k.row in corpus.human_of]
        elif trait.kind in PARTS:
            low = self.threshold(corpus, [row], "min_part")
            kin = [part for k in kin for part in parts_like(corpus, row, k, low)]
        return kin, "no other clip shows it", near

    def threshold(self, corpus: Corpus, rows: list[int], setting: str) -> float:
        """The setting, or what was calibrated, or the card's.

        Raises ValueError for embeddings of two models, or of one whose card says nothing.
        """
        value = float(getattr(self, setting))
        embedders = sorted({corpus.traits[row].embedder for row in rows})
        if len(embedders) > 1:
            raise ValueError(f"embeddings by {' and '.join(embedders)} cannot be compared: remake them with one model")
        if value or not embedders:
            return value
        calibrated = json.loads(self.calibrated or "{}").get(embedders[0], {}).get(setting.removeprefix("min_"), 0.0)
        if calibrated:
            return float(calibrated)
        try:
            card = model_zoo.cards.family(embedders[0])
        except KeyError as error:
            raise ValueError(f"{error.args[0]}; or set {setting} of retrieve") from None
        if not card.same:
            raise ValueError(f"the card of {embedders[0]!r} has no threshold: set {setting} of retrieve")
        return card.same_garment or card.same if setting == "min_part" else card.same

    def judge(self, corpus: Corpus, footage: Footage, target: Trait, kin: "Kin") -> Reference:
        """The reference that this relative would make, with every rule that it has to pass."""
        source = corpus.traits[kin.row]
        overlap_s, gap_s = footage.nearness_s(target.clip_id, source.clip_id)
        shown = footage.picture_distance(source, target.clip_id)
        risk = 1.0 if shown < self.copy_distance else copies.copy_risk(shown, gap_s, self.copy_distance)
        rules = [
            Rule("similarity", kin.similarity, kin.low, INF),
            Rule("likeness", kin.similarity, -INF, self.max_similarity),
            Rule("margin", kin.margin, self.margin * (1 - kin.group_low), INF),
            Rule("cohesion", kin.cohesion, kin.group_low, INF),
            Rule("overlap_s", overlap_s, -INF, 0.0),
            Rule("repeat_distance", footage.repeat_distance(target.clip_id, source.clip_id), self.copy_distance, INF),
            Rule("picture_distance", shown, self.copy_distance, INF),
            Rule("copy_risk", risk, -INF, self.max_copy_risk),
            Rule("quality", source.quality, self.min_quality, INF),
        ]
        if target.kind == "human":
            rules.append(Rule("outfit", corpus.outfit(corpus.rows[target.element_id], kin.row), -INF, INF))
        return Reference(
            target.clip_id,
            target.element_id,
            target.kind,
            kin.identity,
            corpus.shards[kin.row],
            source.clip_id,
            source.element_id,
            source.image_sha256,
            kin.similarity,
            risk,
            rules,
        )


COPY_RULES = {"likeness", "overlap_s", "repeat_distance", "picture_distance", "copy_risk"}


def refuse(target: Trait, judged: list[Reference], reason: str, near: tuple[str, Rule] | None = None) -> Reject:
    """Why an element gets no reference: `reason` where there was no candidate, else what stopped them, the likeliest named.

    near: who came nearest to being one, and how near.
    """
    if not judged:
        return Reject(target.element_id, reason, f"{near[0]}: {near[1]}" if near else "")
    failed = [{rule.name: rule for rule in r.rules if not rule.passed} for r in judged]
    if all(COPY_RULES & rules.keys() for rules in failed):
        reason = "only copies"
    elif any({"margin", "cohesion"} & rules.keys() for rules in failed):
        reason = "ambiguous identity"
    likeliest, rules = max(zip(judged, failed, strict=True), key=lambda x: (x[0].similarity, x[0].source_element_id))
    return Reject(target.element_id, reason, f"{likeliest.source_element_id}: {next(iter(rules.values()))}")


def preference(reference: Reference) -> tuple[float, float, float, str]:
    """Best first: in the same outfit, for the prompt speaks of it; surely the same subject times surely another view, in
    twentieths; then the better picture, the lower id.

    The least risk alone would prefer whoever looks least like the target, and so whatever slipped in just above the threshold.
    """
    rules = {rule.name: rule for rule in reference.rules}
    similarity = rules["similarity"]
    sure = (similarity.value - similarity.low) / (1 - similarity.low)
    outfit = rules["outfit"].value if "outfit" in rules else 0.0
    view = round(20 * sure * (1 - reference.copy_risk))
    return -outfit, -view, -rules["quality"].value, reference.source_element_id


def one_per_clip(references: list[Reference]) -> list[Reference]:
    """The first reference from each clip."""
    first: dict[str, Reference] = {}
    for reference in references:
        first.setdefault(reference.source_clip_id, reference)
    return list(first.values())


def targets(corpus: Corpus, matches: list[Match]) -> list[int]:
    """Rows of the elements to find references for: those a phrase stands for, their parts, and the places of their clips."""
    matched, clips = {m.element_id for m in matches}, {m.clip_id for m in matches}
    return [
        row
        for row, t in enumerate(corpus.traits)
        if t.element_id in matched or t.parent_id in matched or (t.kind == "background" and t.clip_id in clips)
    ]


def by_label(corpus: Corpus, rows: list[int]) -> list[list[int]]:
    """Objects of one label each: a cup is never the same as a bottle."""
    labels = defaultdict(list)
    for row in rows:
        labels[corpus.traits[row].label].append(row)
    return [labels[label] for label in sorted(labels)]


@dataclass(frozen=True)
class Kin:
    """An element that shows the same subject as a target does."""

    row: int
    identity: int
    similarity: float
    low: float  # what the similarity must reach
    margin: float  # the smaller one of the pair's: how far they stand from the nearest other identity
    cohesion: float  # the smaller one of the pair's: how far they stand in their own
    group_low: float  # what the cohesion must reach


@dataclass(frozen=True)
class Group:
    """Elements that were compared with one another. Nodes count them, rows count the elements of the corpus."""

    rows: list[int]
    found: Identities
    low: float
    identities: dict[int, int]  # cluster -> the number of its identity, see a2data.identity.number

    def kin(self, node: int) -> list[Kin]:
        """The node's neighbours of its own cluster, most similar first."""
        found, cluster = self.found, int(self.found.cluster[node])
        return [
            Kin(
                row=self.rows[other],
                identity=self.identities[cluster],
                similarity=similarity,
                low=self.low,
                margin=float(min(found.margin[node], found.margin[other])),
                cohesion=float(min(found.cohesion[node], found.cohesion[other])),
                group_low=self.low,
            )
            for other, similarity in zip(found.neighbour[node].tolist(), found.similarity[node].tolist(), strict=True)
            if other >= 0 and found.cluster[other] == cluster
        ]

    def nearest(self, node: int) -> tuple[int, float] | None:
        """The row of the most similar element of another clip, of the node's cluster or not, and its similarity."""
        other = int(self.found.neighbour[node, 0])
        return None if other < 0 else (self.rows[other], float(self.found.similarity[node, 0]))


def parts_like(corpus: Corpus, row: int, face: Kin, low: float) -> Iterator[Kin]:
    """What the human of this face wears that agrees with a garment in colour."""
    trait = corpus.traits[row]
    for other in corpus.parts.get((corpus.human_of.get(face.row, -1), trait.kind), []):
        if other in corpus.vectors and colour(trait) == colour(corpus.traits[other]):
            similarity = round(float(corpus.vectors[row] @ corpus.vectors[other]), 5)
            if similarity >= low:
                yield replace(face, row=other, similarity=similarity, low=low)


def linked(corpus: Corpus, footage: Footage, group_of: dict[int, tuple[Group, int]]) -> dict[str, str]:
    """video_id -> the first video_id of those that share an identity with it, or with one that does, and so on.

    What must not be divided where no person, thing or place may be both in training and in evaluation.
    """
    pairs = [
        (footage.video_id(corpus.traits[row].clip_id), group.identities[int(group.found.cluster[node])])
        for row, (group, node) in sorted(group_of.items())
    ]
    return components([span.video_id for _, span in footage.spans.values()], pairs)
