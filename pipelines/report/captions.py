"""Captions that the corpus would be better without, for the report. Nothing is dropped."""

from dataclasses import dataclass
from typing import NamedTuple

from a2data.elements import caption_flags
from a2data.store.tables import Store

MAX_EXAMPLES = 5  # captions shown of each flag; all are counted


class Flagged(NamedTuple):
    """A caption with a flag."""

    clip_id: str
    prompt: str
    detail: str


class Flag(NamedTuple):
    """A flag and its captions."""

    name: str
    captions: int
    examples: list[Flagged]


@dataclass(frozen=True)
class _Prompt:  # columns of the table of captions
    clip_id: str
    prompt: str


@dataclass(frozen=True)
class _Matched:  # of the table of matches
    clip_id: str


def flag_captions(store: Store) -> list[Flag]:
    """Return the flags of all captions, most frequent first.

    A caption "names nothing" if match has run and none of its phrases has an element.
    """
    table = store.read_all("caption", _Prompt)
    prompts = dict(zip(*(table[name].to_pylist() for name in ("clip_id", "prompt")), strict=True))
    flags = caption_flags.flags(prompts)
    matched = set(store.read_all("match", _Matched)["clip_id"].to_pylist())
    match_shards = [shard for shard in store.shards("match") if store.exists("caption", shard)]
    captioned = {clip_id for shard in match_shards for clip_id in store.values("caption", shard, "clip_id")}
    if without_element := sorted(captioned - matched):
        flags["names nothing"] = dict.fromkeys(without_element, "none of its phrases has an element")
    ranked = sorted(flags.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Flag(
            name,
            len(clips),
            [Flagged(c, prompts[c], detail) for c, detail in list(sorted(clips.items()))[:MAX_EXAMPLES]],
        )
        for name, clips in ranked
    ]
