"""Captions that a corpus would be better without: too short, too long, repeated, nearly repeated. Pure functions."""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

MIN_WORDS, MAX_WORDS = 4, 250
FLAGS = ("too short", "too long", "repeated", "near-duplicate", "names nothing")  # the last by its matches, see curate
SHINGLE_WORDS = 3
MIN_JACCARD = 0.8  # Jaccard index of the shingles from which two captions are near-duplicates
HASHES, BANDS = 64, 16  # of MinHash: pairs of a Jaccard index of 0.8 share one of 16 bands of 4 with probability 0.9998


def flags(
    prompts: Mapping[str, str], min_words: int = MIN_WORDS, max_words: int = MAX_WORDS
) -> dict[str, dict[str, str]]:
    """Return flag -> clip_id -> detail for the prompts of a corpus, clip_id -> prompt.

    The first of several equal or nearly equal captions, in the order of clip_id, is not flagged.
    """
    flagged: dict[str, dict[str, str]] = defaultdict(dict)
    first: dict[str, str] = {}
    for clip_id in sorted(prompts):
        words = re.findall(r"[\w']+", prompts[clip_id].lower())
        if len(words) < min_words:
            flagged["too short"][clip_id] = f"{len(words)} words, min = {min_words}"
        if len(words) > max_words:
            flagged["too long"][clip_id] = f"{len(words)} words, max = {max_words}"
        text = " ".join(words)
        if text in first:
            flagged["repeated"][clip_id] = f"the same words as {first[text]}"
        else:
            first[text] = clip_id
    for clip_id, other, index in near_duplicates({clip_id: text for text, clip_id in first.items()}):
        flagged["near-duplicate"].setdefault(clip_id, f"Jaccard index {index:.2f} with {other}")
    return dict(flagged)


def near_duplicates(texts: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """Yield (key, earlier key, Jaccard index) of texts whose shingles of words agree by MIN_JACCARD; by MinHash (Broder 1997)."""
    shingles = {key: _shingles(text) for key, text in sorted(texts.items())}
    rng = np.random.default_rng(0)
    # multiply-shift hashing (Dietzfelbinger et al. 1997): odd factors, the upper half of the product modulo 2 ** 64
    factors, offsets = (
        rng.integers(1, 1 << 63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1) for _ in range(2)
    )
    bands: dict[bytes, list[str]] = defaultdict(list)
    for key, own in shingles.items():
        values = np.array(sorted(own), np.uint64)
        signature = ((values[:, None] * factors + offsets) >> np.uint64(32)).min(axis=0)
        candidates: set[str] = set()
        for number, band in enumerate(signature.reshape(BANDS, -1)):
            name = bytes([number]) + band.tobytes()
            candidates.update(bands[name])
            bands[name].append(key)
        for other in sorted(candidates):
            index = len(own & shingles[other]) / len(own | shingles[other])
            if index >= MIN_JACCARD:
                yield key, other, index


def _shingles(text: str) -> set[int]:
    words = text.split()
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    return {zlib.crc32(" ".join(words[n : n + SHINGLE_WORDS]).encode()) for n in range(count)}
