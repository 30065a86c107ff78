"""Clips, captions and references -> WebDataset shards, every reference with its full provenance."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.media import images
from a2data.records import (
    Caption,
    ClipTimes,
    ClipVideo,
    Element,
    ElementMeta,
    Failure,
    Kept,
    Match,
    Packed,
    Reference,
    Reject,
    Sound,
    Video,
)
from a2data.stage import Stage
from a2data.store.folder import Folder
from a2data.store.lookup import ELEMENT_TABLES
from a2data.store.parquet import DamagedError
from stages.pack.facts import Lookup, build_meta, fetch_reference, locate, reference_meta, to_row
from stages.pack.splits import parse_fractions, split_of


@dataclass(frozen=True)
class Pack(Stage):
    """Clips, captions and references -> WebDataset shards in `out`, and the position of each sample in them.

    A shard is <out>/<shard>-<n>.tar, see docs/shards.md; with a split, <out>/<split>-<shard>-<n>.tar.

    The tars are the only output that is not a part; a rerun writes the same bytes. A clip becomes a sample if another clip shows
    at least one of its subjects; otherwise it is rejected as "no reference".
    """

    reads = {
        "curate": Kept,
        "retrieve": Reference,
        "segment": ClipTimes,
        "caption": Caption,
        "match": Match,
        "ingest": Video,
        "listen": Sound,
    } | dict.fromkeys(ELEMENT_TABLES, ElementMeta)
    lookup_tables = {"ingest": Video, "segment": ClipVideo} | dict.fromkeys(ELEMENT_TABLES, Element)
    writes = Packed
    row_noun = "samples"
    per = "shard"
    accounts_for = "clip_id"
    uncached_fields = ("energon",)
    unit_timeout_s = 21600.0  # a tar is complete only after its last clip
    version = 7

    out: str = "shards"
    """folder of the tars, or a URL"""
    roles: str = "human|object|face|upper|lower|hair|shoes|accessory|background"
    """reference roles in order"""
    required_roles: str = "human|object|face"
    """roles of which a triplet needs at least one reference, separated by "|"; a face shows a person whose mask is doubtful"""
    allow_unpaired_phrases: bool = True
    """keep a triplet even if a phrase has no reference"""
    allow_same_clip: bool = False
    """if no other clip shows a subject, use the clip's own picture, at copy risk 1"""
    max_references: int = samples.SLOTS
    """most references of a triplet, excluding the background; slots of every sample"""
    max_bytes_per_tar: int = 1_000_000_000
    """size at which the next tar starts, bytes"""
    split: str = ""
    """fractions to hold out, "eval=0.05,test=0.05"; splits share no video or identity; "" = none"""
    energon: bool = False
    """also write what Megatron-Energon reads, .nv-meta and an index of each tar"""
    made_by: str = ""
    """"<stage> <model>@<revision>" of every model, separated by "; "; written to each sample"""

    def run(
        self,
        model: None,
        kept: list[Kept],
        references: list[Reference],
        spans: list[ClipTimes],
        captions: list[Caption],
        matches: list[Match],
        videos: list[Video],
        sounds: list[Sound],
        *element_tables: list[ElementMeta],
        shard: int,
        lookup: Lookup,
    ) -> Iterator[Packed | Reject | Failure]:
        kept_ids = {k.clip_id for k in kept}
        caption_of = {c.clip_id: c for c in captions}
        video_of = {v.video_id: v for v in videos}
        by_clip = Rows(
            group_by("clip_id", references),
            group_by("clip_id", matches),
            group_by("clip_id", [t for ts in element_tables for t in ts]),
            {sound.clip_id: sound for sound in sounds},
        )
        not_packed: list[Reject | Failure] = []
        facts: dict[str, samples.TripletMeta] = {}

        fractions = parse_fractions(self.split)
        component_of = {r.clip_id: r.component for r in references}
        if fractions and self.allow_same_clip:
            raise ValueError(
                "pack.split and pack.allow_same_clip cannot be combined: "
                "a split needs every reference's source clip, which allow_same_clip omits"
            )

        def triplets(split: str) -> Iterator[tuple[str, dict[str, bytes]]]:
            for clip_id in sorted(span.clip_id for span in spans):
                if clip_id not in kept_ids or clip_id not in caption_of:
                    continue
                if split_of(component_of.get(clip_id, ""), fractions) != split:
                    continue
                # one at a time: a shard's clips do not fit in memory
                film = lookup("segment", shard, "clip_id", [clip_id])[clip_id]
                result = self.attempt(film, caption_of[clip_id], video_of[film.video_id], by_clip, shard, lookup)
                if isinstance(result, Reject | Failure):
                    not_packed.append(result)
                else:
                    facts[film.clip_id] = result.facts
                    yield film.clip_id, samples.to_members(result, self.max_references)

        for split in ("train", *fractions) if fractions else ("",):
            for written in writer.write(triplets(split), Folder(self.out), shard, self.max_bytes_per_tar, split):
                yield to_row(written, facts.pop(written.key), split, component_of.get(written.key, ""))
        yield from not_packed

    def attempt(self, film: ClipVideo, *rest: Any) -> samples.Triplet | Reject | Failure:
        """Return the result of `triplet`, or its failure: a clip whose reference is missing must not fail its shard."""
        try:
            return self.triplet(film, *rest)
        except DamagedError:  # of a part, which the runner rebuilds
            raise
        except Exception as error:
            return Failure(film.clip_id, f"{type(error).__name__}: {error}")

    def triplet(
        self, film: ClipVideo, caption: Caption, video: Video, rows: "Rows", shard: int, lookup: Lookup
    ) -> samples.Triplet | Reject:
        """Return the triplet of one clip, or its rejection."""
        elements = {t.element_id: t for t in rows.elements[film.clip_id]}
        phrases = {m.element_id: m for m in sorted(rows.matches[film.clip_id], key=lambda m: (m.start, m.element_id))}
        roles, required = self.roles.split("|"), self.required_roles.split("|")
        available = rows.references[film.clip_id]
        if self.allow_same_clip:
            paired = {r.element_id for r in available}
            same_clip_elements = [
                elements[key] for key in phrases if key not in paired and elements[key].kind in required
            ]
            available = [*available, *(same_clip_reference(element_meta, shard) for element_meta in same_clip_elements)]
        chosen = self.choose(available)
        # a face shows its person, too
        represented = {r.element_id for r in chosen} | {
            elements[r.element_id].parent_id for r in chosen if r.kind == "face"
        }
        unpaired = [m for key, m in phrases.items() if key not in represented and elements[key].kind in roles]
        missing = ", ".join(f"{m.element_id} ({m.phrase!r})" for m in unpaired)
        if not any(r.kind in required for r in chosen):
            return Reject(
                film.clip_id,
                "no reference",
                f"none of {self.required_roles}; without a reference: {missing or 'nothing'}",
            )
        if unpaired and not self.allow_unpaired_phrases:
            return Reject(film.clip_id, "not all paired", f"without a reference: {missing}")
        pictures: dict[str, bytes] = {}
        cut_outs: dict[str, bytes] = {}
        metas = []
        for reference, name in zip(chosen, names(chosen), strict=True):
            element, clip, origin = fetch_reference(reference, lookup)
            phrase = phrases.get(reference.element_id) or phrases.get(elements[reference.element_id].parent_id)
            metas.append(
                reference_meta(
                    name, reference, phrase, origin, locate(elements[reference.element_id], film, shard, lookup)
                )
            )
            rgba = images.from_png(element.image)
            if name == "bg":
                pictures[name] = images.to_png(images.on_white(rgba))
            else:
                pictures[name] = images.to_png(images.on_white(rgba, element.box, clip.height, clip.width))
                cut_outs[name] = element.image
        unpaired_metas = [
            samples.Unpaired(
                m.element_id, element_meta.kind, m.phrase, m.start, m.end, locate(element_meta, film, shard, lookup)
            )
            for m, element_meta in ((m, elements[m.element_id]) for m in unpaired)
        ]
        made_by = [line for line in self.made_by.split("; ") if line]
        facts = build_meta(film, video, caption, metas, unpaired_metas, made_by, rows.sounds[film.clip_id])
        return samples.Triplet(facts, film.video, pictures, cut_outs)

    def choose(self, references: Iterable[Reference]) -> list[Reference]:
        """Return the references of the selected roles, in role order: up to `max_references`, then at most one background."""
        order = {role: rank for rank, role in enumerate(self.roles.split("|"))}
        ranked = sorted(
            (r for r in references if r.kind in order),
            key=lambda r: (order[r.kind], r.element_id, r.copy_risk, r.source_element_id),
        )
        subjects = [r for r in ranked if r.kind != "background"]
        backgrounds = [r for r in ranked if r.kind == "background"]
        return subjects[: self.max_references] + backgrounds[:1]


@dataclass(frozen=True)
class Rows:
    """References, matches, elements and sound of each clip of the shard."""

    references: dict[str, list[Reference]]
    matches: dict[str, list[Match]]
    elements: dict[str, list[ElementMeta]]
    sounds: dict[str, Sound]


def group_by(column: str, rows: Iterable[Any]) -> dict[str, list[Any]]:
    """Group rows by the value of a column; other values map to an empty list."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, column)].append(row)
    return groups


def names(chosen: list[Reference]) -> list[str]:
    return ["bg" if r.kind == "background" else f"ref{n}" for n, r in enumerate(chosen)]


def same_clip_reference(element: ElementMeta, shard: int) -> Reference:
    """Return a clip's own picture as its reference, at the highest copy risk."""
    key = (element.clip_id, element.element_id, element.kind)
    return Reference(*key, -1, shard, element.clip_id, element.element_id, element.image_sha256, 1.0, 1.0, [])
