"""For each element, a picture of the same subject from another clip: what keeps a model from learning to copy its reference."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import model_zoo.cards
from a2data import copies, images
from a2data.arrow import from_table
from a2data.identity import Identities, identify, seen_together
from a2data.records import Look, Match, Reference, Reject, Rule, Span, Take, Trait
from a2data.similarity import vectors
from a2data.stage import Stage

INF = float("inf")
PARTS = ("hair", "upper", "lower", "shoes", "accessory")  # one's clothes of today: the person and the outfit must agree


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
    version = 2

    min_face: float = 0.0  # cosine from which two faces are one person; 0 = what the card of the embedder says
    min_object: float = 0.0  # the same for objects
    min_part: float = 0.0  # for garments of one person, in one colour
    min_background: float = 0.0  # for places
    max_similarity: float = 0.999  # cosine above which it is the same picture
    margin: float = 0.1  # lead over the nearest other identity, as a share of what lies between the threshold and 1
    neighbours: int = 64  # nearest neighbours that are looked at for each element
    copy_distance: float = copies.COPY  # thumbnails nearer than this show the same frame; see a2data.copies
    copy_run: int = copies.RUN  # frames in succession that make a clip a copy
    max_copy_risk: float = 0.95  # 0 to 1; lower it for references from farther away
    min_quality: float = 0.0  # 0 to 1, of the reference's picture
    max_references: int = 1  # for each element, each from another clip

    def run(self, model: None, matches: pa.Table, clips: pa.Table, *looks: pa.Table) -> Iterator[Reference | Reject]:
        corpus = assemble(looks)
        footage = Footage(clips, self.copy_run)
        group_of = self.groups(corpus)
        for row in targets(corpus, from_table(Match, matches)):
            target = corpus.traits[row]
            kin, reason = self.kin(corpus, group_of, row)
            judged = [self.judge(corpus, footage, target, one) for one in kin]
            accepted = sorted((r for r in judged if all(rule.passed for rule in r.rules)), key=preference)
            if accepted:
                yield from one_per_clip(accepted)[: self.max_references]
            else:
                yield refuse(target, judged, reason)

    def groups(self, corpus: "Corpus") -> dict[int, tuple["Group", int]]:
        """Compare faces with faces, objects with objects of their label, places with places: row -> its group, its node there."""
        faces, objects, places = (corpus.with_embedding(kind) for kind in ("face", "object", "background"))
        comparable = [(faces, "min_face"), *((rows, "min_object") for rows in by_label(corpus, objects))]
        comparable += [(places, "min_background")]
        group_of: dict[int, tuple[Group, int]] = {}
        first = 0
        for rows, setting in comparable:
            if rows:
                group = self.group(corpus, rows, setting, first)
                group_of |= {row: (group, node) for node, row in enumerate(rows)}
                first += int(group.found.cluster.max()) + 1
        return group_of

    def group(self, corpus: "Corpus", rows: list[int], setting: str, first: int) -> "Group":
        """Cluster the elements of these rows; their identities are numbered from `first`."""
        low = self.threshold(corpus, rows, setting)
        matrix = np.stack([corpus.vectors[row] for row in rows])
        clips = [corpus.traits[row].clip_id for row in rows]
        together = seen_together(clips, [corpus.seen(row) for row in rows])
        numbers = np.unique(clips, return_inverse=True)[1]
        return Group(rows, identify(matrix, numbers, together, low, self.neighbours), low, first)

    def kin(self, corpus: "Corpus", group_of: dict[int, tuple["Group", int]], row: int) -> tuple[list["Kin"], str]:
        """Who shows the same subject in other clips as the element of this row does; if nobody, why. A human and what it wears
        are known by the face."""
        trait = corpus.traits[row]
        human = row if trait.kind == "human" else corpus.rows.get(trait.parent_id, -1)
        known_by = corpus.face_of.get(human, -1) if trait.kind in ("human", *PARTS) else row
        if known_by not in group_of or (trait.kind in PARTS and row not in corpus.vectors):
            return [], "no identity"
        group, node = group_of[known_by]
        kin = group.kin(node)
        if not kin and group.has_likeness(node):
            return [], "ambiguous identity"
        if trait.kind == "human":
            kin = [replace(k, row=corpus.human_of[k.row]) for k in kin if k.row in corpus.human_of]
        elif trait.kind in PARTS:
            low = self.threshold(corpus, [row], "min_part")
            kin = [part for k in kin for part in corpus.parts_like(row, k, low)]
        return kin, "no other clip shows it"

    def threshold(self, corpus: "Corpus", rows: list[int], setting: str) -> float:
        """The setting, or the card's. Raises ValueError for embeddings of two models, or of one whose card says nothing."""
        value = float(getattr(self, setting))
        embedders = sorted({corpus.traits[row].embedder for row in rows})
        if len(embedders) > 1:
            raise ValueError(f"embeddings by {' and '.join(embedders)} cannot be compared: remake them with one model")
        if value or not embedders:
            return value
        try:
            card = model_zoo.cards.family(embedders[0])
        except KeyError as error:
            raise ValueError(f"{error.args[0]}; or set {setting} of retrieve") from None
        if not card.same:
            raise ValueError(f"the card of {embedders[0]!r} has no threshold: set {setting} of retrieve")
        return card.same_garment or card.same if setting == "min_part" else card.same

    def judge(self, corpus: "Corpus", footage: "Footage", target: Trait, kin: "Kin") -> Reference:
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
            Rule("copy_risk", risk, 0.0, self.max_copy_risk),
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


def refuse(target: Trait, judged: list[Reference], reason: str) -> Reject:
    """Why an element gets no reference: `reason` where there was no candidate, else what stopped them, the likeliest named."""
    if not judged:
        return Reject(target.element_id, reason)
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


def targets(corpus: "Corpus", matches: list[Match]) -> list[int]:
    """Rows of the elements to find references for: those a phrase stands for, their parts, and the places of their clips."""
    matched, clips = {m.element_id for m in matches}, {m.clip_id for m in matches}
    return [
        row
        for row, t in enumerate(corpus.traits)
        if t.element_id in matched or t.parent_id in matched or (t.kind == "background" and t.clip_id in clips)
    ]


def by_label(corpus: "Corpus", rows: list[int]) -> list[list[int]]:
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
    first: int  # number of its first identity

    def kin(self, node: int) -> list[Kin]:
        """The node's neighbours of its own cluster, most similar first."""
        found, identity = self.found, int(self.found.cluster[node])
        return [
            Kin(
                row=self.rows[other],
                identity=self.first + identity,
                similarity=similarity,
                low=self.low,
                margin=float(min(found.margin[node], found.margin[other])),
                cohesion=float(min(found.cohesion[node], found.cohesion[other])),
                group_low=self.low,
            )
            for other, similarity in zip(found.neighbour[node].tolist(), found.similarity[node].tolist(), strict=True)
            if other >= 0 and found.cluster[other] == identity
        ]

    def has_likeness(self, node: int) -> bool:
        """Whether somebody is like the node, of its cluster or not."""
        return bool(self.found.similarity[node, 0] >= self.low)


class Corpus(NamedTuple):
    """All elements in the order of their ids; whatever counts them is a row."""

    traits: list[Trait]
    shards: list[int]
    vectors: dict[int, np.ndarray]  # row -> (d,) float32, for those that have an embedding
    rows: dict[str, int]  # element_id -> row
    face_of: dict[int, int]  # row of a human -> row of its best face
    human_of: dict[int, int]  # and back
    parts: dict[tuple[int, str], list[int]]  # row of a human, kind -> rows of its garments

    def with_embedding(self, kind: str) -> list[int]:
        return [row for row, trait in enumerate(self.traits) if trait.kind == kind and row in self.vectors]

    def seen(self, row: int) -> set[int]:
        """The frames in which an element was seen, or the human that it belongs to."""
        parent = self.rows.get(self.traits[row].parent_id, row)
        return {*self.traits[row].seen_frames, *self.traits[parent].seen_frames}

    def parts_like(self, row: int, face: Kin, low: float) -> Iterator[Kin]:
        """What the human of this face wears that agrees with a garment in colour."""
        trait = self.traits[row]
        for other in self.parts.get((self.human_of.get(face.row, -1), trait.kind), []):
            if other in self.vectors and colour(trait) == colour(self.traits[other]):
                similarity = round(float(self.vectors[row] @ self.vectors[other]), 5)
                if similarity >= low:
                    yield replace(face, row=other, similarity=similarity, low=low)

    def outfit(self, a: int, b: int) -> float:
        """Whether two humans wear tops of one colour: 1, or 0, or 0.5 where that of one is not known."""
        tops = [{colour(self.traits[r]) for r in self.parts.get((row, "upper"), [])} for row in (a, b)]
        return 0.5 if not all(tops) else float(not tops[0].isdisjoint(tops[1]))


def colour(trait: Trait) -> str:
    return next((a for a in trait.attributes if a.startswith("colour=")), "")


def assemble(looks: tuple[pa.Table, ...]) -> Corpus:
    """The elements of all tables and who belongs to whom, the same whatever the order of their rows."""
    columns = [f for f in looks[0].column_names if f in (*Look.__dataclass_fields__, "shard")]
    table = pa.concat_tables([t.select(columns) for t in looks]).sort_by("element_id")
    traits = from_table(Trait, table)
    rows = {t.element_id: row for row, t in enumerate(traits)}
    embeddings: dict[int, np.ndarray] = {}
    for kind in sorted({t.kind for t in traits}):
        of_kind = np.array([row for row, t in enumerate(traits) if t.kind == kind])
        found, matrix = vectors(table["embedding"].take(pa.array(of_kind)))
        embeddings |= dict(zip(of_kind[found].tolist(), matrix, strict=True))
    face_of: dict[int, int] = {}
    parts = defaultdict(list)
    for row, trait in enumerate(traits):
        human = rows.get(trait.parent_id, -1)
        if trait.kind in PARTS:
            parts[human, trait.kind].append(row)
        elif trait.kind == "face" and human >= 0 and row in embeddings:
            best = face_of.setdefault(human, row)
            face_of[human] = max(best, row, key=lambda r: (traits[r].quality, -r))
    human_of = {face: human for human, face in face_of.items()}
    return Corpus(traits, table["shard"].to_pylist(), embeddings, rows, face_of, human_of, dict(parts))


class Footage:
    """What the clips show, by their thumbnails, and when."""

    def __init__(self, takes: pa.Table, run: int):
        self.run = run
        self.known: dict[tuple[str, str], float] = {}  # a person's face, hair and clothes all ask for the same clips
        self.thumbs = takes["thumbs"]
        self.spans = {span.clip_id: (row, span) for row, span in enumerate(from_table(Span, takes))}

    def pictures(self, clip_id: str) -> np.ndarray:
        return images.thumbs(self.thumbs[self.spans[clip_id][0]].as_py())

    def repeat_distance(self, a: str, b: str) -> float:
        pair = (min(a, b), max(a, b))
        if pair not in self.known:
            self.known[pair] = copies.repeat_distance(self.pictures(pair[0]), self.pictures(pair[1]), self.run)
        return self.known[pair]

    def picture_distance(self, source: Trait, clip_id: str) -> float:
        return copies.picture_distance(self.pictures(source.clip_id)[source.frame], self.pictures(clip_id))

    def nearness_s(self, a: str, b: str) -> tuple[float, float]:
        """Seconds of one source that two clips share, negative where they are apart, and seconds between them."""
        x, y = self.spans[a][1], self.spans[b][1]
        if x.video_id != y.video_id:
            return -INF, INF
        shared_s = min(x.source_pts_s[-1], y.source_pts_s[-1]) - max(x.source_pts_s[0], y.source_pts_s[0])
        return shared_s, max(0.0, -shared_s)
