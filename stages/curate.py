"""The choice of clips that become samples: one of several with the same content, and only those with a useful caption."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.elements import caption_flags
from a2data.records import ClipEmbedding, Kept, Reject
from a2data.stage import Stage
from a2data.store.earlier import Earlier

BLOCK = 4096  # clips that are compared with as many at once: 67 MB


@dataclass(frozen=True)
class Prompt:
    """Columns of the table of captions."""

    clip_id: str
    prompt: str


@dataclass(frozen=True)
class Matched:
    """A column of the table of matches."""

    clip_id: str


@dataclass(frozen=True)
class Curate(Stage):
    """Clips with their captions and embeddings over the whole corpus -> those that become samples.

    It follows retrieve, since a clip that is not a sample may still show a reference. Without embeddings (embed.embedder)
    nothing is a duplicate. Of clips with the same content the first by clip_id is kept, whichever came first, and every other
    has a cosine of at least `duplicate_similarity` with one that is kept. Only new clips are compared, with all.
    """

    reads = {"select": Kept, "embed": ClipEmbedding, "caption": Prompt, "match": Matched}
    writes = Kept
    row_noun = "clips"
    per = "all"
    accounts_for = "clip_id"
    uses_earlier = True

    duplicate_similarity: float = 0.98
    """cosine of embeddings from which two clips have the same content"""
    drop_captions: str = ""
    """caption flags, separated by "|", that drop a clip: too short, too long, repeated, near-duplicate, names nothing"""
    min_caption_words: int = caption_flags.MIN_WORDS
    """words of the shortest caption that is not "too short" """
    max_caption_words: int = caption_flags.MAX_WORDS
    """words of the longest caption that is not "too long" """

    def run(
        self,
        model: None,
        kept: pa.Table,
        embedded: pa.Table,
        captions: pa.Table,
        matches: pa.Table,
        earlier: Earlier | None = None,
    ) -> Iterator[Kept | Reject]:
        flags = parse_flags(self.drop_captions)
        dropped = {
            clip_id: Reject(clip_id, "semantic duplicate", f"cosine {cosine:.3f} with {first}")
            for clip_id, (first, cosine) in self.duplicates(embedded, earlier).items()
        }
        if flags:
            prompts = dict(zip(captions["clip_id"].to_pylist(), captions["prompt"].to_pylist(), strict=True))
            remaining = {clip_id: prompt for clip_id, prompt in prompts.items() if clip_id not in dropped}
            flagged = caption_flags.flags(remaining, self.min_caption_words, self.max_caption_words)
            matched_clips = set(pc.unique(matches["clip_id"]).to_pylist())
            flagged["names nothing"] = dict.fromkeys(
                remaining.keys() - matched_clips, "none of its phrases has an element"
            )
            for flag in flags:
                for clip_id, detail in flagged.get(flag, {}).items():
                    dropped.setdefault(clip_id, Reject(clip_id, f"caption {flag}", detail))
        for clip_id, video_id in zip(kept["clip_id"].to_pylist(), kept["video_id"].to_pylist(), strict=True):
            yield dropped.get(clip_id) or Kept(clip_id, video_id)

    def duplicates(self, embedded: pa.Table, earlier: Earlier | None) -> dict[str, tuple[str, float]]:
        """Return clip_id -> (the kept clip of the same content, their cosine) of the clips that are not kept."""
        if not len(embedded):
            return {}
        ids, vectors = embedded["clip_id"].to_pylist(), matrix(embedded)
        hashes = [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in vectors]
        key = f"{self.duplicate_similarity}"
        old = {name: earlier.load(name, key) if earlier else None for name in ("clips", "pairs")}
        index_of, pairs, new = {clip_id: n for n, clip_id in enumerate(ids)}, list[pa.Table](), np.ones(len(ids), bool)
        if old["clips"] is not None and old["pairs"] is not None:
            earlier_clips = zip(*(old["clips"][name].to_pylist() for name in ("clip_id", "mark")), strict=True)
            unchanged = [
                clip_id
                for clip_id, content_hash in earlier_clips
                if clip_id in index_of and hashes[index_of[clip_id]] == content_hash
            ]
            new[[index_of[clip_id] for clip_id in unchanged]] = False
            value_set = pa.array(unchanged, pa.string())
            both_unchanged = [pc.is_in(old["pairs"][side], value_set) for side in ("a", "b")]
            pairs.append(old["pairs"].filter(pc.and_(*both_unchanged)))
        names = pa.array(ids, pa.string())
        for a, b, cosine in similar_pairs(vectors, np.flatnonzero(new), self.duplicate_similarity):
            pairs.append(pa.table({"a": names.take(a), "b": names.take(b), "cosine": cosine}))
        all_pairs = (
            pa.concat_tables(pairs) if pairs else pa.table({"a": names[:0], "b": names[:0], "cosine": np.zeros(0)})
        )
        if earlier:
            earlier.save("clips", pa.table({"clip_id": names, "mark": hashes}), key)
            earlier.save("pairs", all_pairs, key)
        return keep_first(all_pairs)


def parse_flags(text: str) -> list[str]:
    """Parse "too short|repeated". Raises ValueError for an unknown flag."""
    flags = [flag.strip() for flag in text.split("|") if flag.strip()]
    if unknown := sorted({*flags} - {*caption_flags.FLAGS}):
        raise ValueError(
            f"curate.drop_captions {text!r}: {unknown[0]!r} is not one of {', '.join(caption_flags.FLAGS)}"
        )
    return flags


def matrix(embedded: pa.Table) -> np.ndarray:
    """Return the embeddings, (n, d) float32, without a copy. Raises ValueError for those of two models."""
    if len(names := pc.unique(embedded["embedder"]).to_pylist()) > 1:
        raise ValueError(f"the clips have embeddings of {' and '.join(sorted(names))}: run embed again")
    return pc.list_flatten(embedded["embedding"]).combine_chunks().to_numpy().reshape(len(embedded), -1)


def similar_pairs(
    vectors: np.ndarray, new: np.ndarray, min_cosine: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (a, b, cosine) of the pairs of which at least one is new and whose cosine is at least `min_cosine`, each once.

    Cosines are rounded to 5 decimals, since their last digits depend on the block in which they are computed.
    """
    is_new = np.zeros(len(vectors), bool)
    is_new[new] = True
    for first in range(0, len(new), BLOCK):
        rows = new[first : first + BLOCK]
        for begin in range(0, len(vectors), BLOCK):
            cosine = np.round(vectors[rows] @ vectors[begin : begin + BLOCK].T, 5)
            i, j = np.nonzero(cosine >= min_cosine)
            a, b = rows[i], j + begin
            first_time = (a < b) | ((a > b) & ~is_new[b])
            if first_time.any():
                yield a[first_time], b[first_time], cosine[i, j][first_time].astype(np.float64)


def keep_first(pairs: pa.Table) -> dict[str, tuple[str, float]]:
    """Return clip_id -> (kept clip, cosine) of the clips that are not kept: those similar to a kept one before them.

    A greedy maximal independent set in the order of clip_id. pairs: "a", "b", "cosine", each pair once, in any order.
    """
    earlier_of: dict[str, list[tuple[float, str]]] = {}
    for a, b, cosine in zip(*(pairs[name].to_pylist() for name in ("a", "b", "cosine")), strict=True):
        earlier_of.setdefault(max(a, b), []).append((-cosine, min(a, b)))
    dropped: dict[str, tuple[str, float]] = {}
    for clip_id in sorted(earlier_of):
        kept_neighbours = [(cosine, other) for cosine, other in earlier_of[clip_id] if other not in dropped]
        if kept_neighbours:
            cosine, other = min(kept_neighbours)
            dropped[clip_id] = other, -cosine
    return dropped
