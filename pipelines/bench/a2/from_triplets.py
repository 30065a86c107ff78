"""Cases from triplets that were held out from training: each has a truth, the clip that it was taken from."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from a2data.dataset.decode import facts_of
from a2data.dataset.reader import Index, Tars, members, read_index
from a2data.dataset.triplet import ReferenceMeta, TripletMeta
from a2data.store.filename import safe_name
from pipelines.bench.a2.cases import ROLES, Case, Element


def draw(shards: Path, split: str, count: int, seed: int, folder: Path) -> list[Case]:
    """At most `count` triplets of a folder that `pack` wrote as cases, their files put into `folder`; the same seed, the same.

    Only references from other clips are shown, of people, things and places; a clip without a person or thing is no case. Those
    that show more are taken first, and of those with as much, one from each source before another from one. Raises ValueError
    where there is none, and where a clip or a reference has a name that cannot be used as a file name.
    """
    able = [
        (facts, parts) for facts, parts in _samples(shards, split) if {g.role for g in _usable(facts)} & set(ROLES[:2])
    ]
    if not able:
        wanted = f"of the split {split}" if split else ""
        raise ValueError(f"{shards} has no triplet {wanted} with a person or thing shown by another clip")
    random.Random(seed).shuffle(able)
    turn: dict[str, int] = {}
    order = []
    for facts, parts in able:
        turn[facts.video_id] = turn.get(facts.video_id, 0) + 1
        order.append((-len({g.role for g in _usable(facts)}), turn[facts.video_id], facts, parts))
    order.sort(key=lambda one: one[:2])
    return sorted(
        (_case(facts, parts, folder, str(shards)) for _, _, facts, parts in order[:count]), key=lambda case: case.id
    )


def _usable(facts: TripletMeta) -> list[ReferenceMeta]:
    return [given for given in facts.references if given.role in ROLES and not given.same_clip]


def _samples(shards: Path, split: str) -> Iterator[tuple[TripletMeta, dict[str, bytes]]]:
    """The samples of one split, "" for all, in the order of the index."""
    index, splits = _indexed(shards)
    if split and split not in splits:
        known = ", ".join(sorted(set(splits) - {""})) or "none: pack with --set pack.split=eval=0.05"
        raise ValueError(f"{shards} has no split {split!r}; there are {known}")
    tars = Tars(index)
    for row in range(len(index)):
        if not split or splits[row] == split:
            yield sample(tars, row)


def sample(tars: Tars, row: int) -> tuple[TripletMeta, dict[str, bytes]]:
    """Return the facts and the members of one sample. Raises ValueError, naming it, where it is damaged or lacks a member."""
    key, where = tars.index.key(row), tars.index.where(row)
    try:
        parts = members(tars.read(row), key, where)
        facts = facts_of(parts, key)
    except (LookupError, ValueError) as error:
        raise ValueError(f"{where}: the sample {key[:80]}: {error}") from error
    lacking = [name for name in ("mp4", *(f"{g.name}.png" for g in facts.references)) if name not in parts]
    if lacking:
        raise ValueError(f"{where}: the sample {key} has no .{lacking[0]}: copy it again, or pack again")
    return facts, {name: bytes(part) for name, part in parts.items()}


def _indexed(shards: Path) -> tuple[Index, list[str]]:
    """The index of a folder, and the split of each sample; "" where it was not divided."""
    index = read_index([str(shards)], every_column=True)
    table: Any = index.table
    return index, table["split"].to_pylist() if "split" in table.column_names else [""] * len(index)


def _case(facts: TripletMeta, parts: dict[str, bytes], folder: Path, where: str) -> Case:
    elements = []
    for given in sorted(_usable(facts), key=lambda given: ROLES.index(given.role)):
        file = folder / safe_name(f"{facts.clip_id}.{given.name}.png", where)
        file.write_bytes(parts[f"{given.name}.png"])
        elements.append(Element(given.role, file, _label(given)))
    truth = folder / safe_name(f"{facts.clip_id}.mp4", where)
    truth.write_bytes(parts["mp4"])
    return Case(facts.clip_id, facts.caption.prompt, tuple(elements), truth)


def _label(given: ReferenceMeta) -> str:
    """What to look for: the words of the prompt, without their article, else the detector's own."""
    words = (given.phrase or given.origin.label).lower().split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def shared(shards: Path, split: str, cases: Sequence[Case], against: Sequence[Path]) -> list[str]:
    """A sentence for each case that has a source or an identity in common with data sets that a model was trained on.

    What is compared are the clip itself and where its references come from; in the same shards as the cases the other splits.
    Raises ValueError where those are compared without a split: everything is in common then.
    """
    mine = {
        facts.clip_id: facts for facts, _ in _samples(shards, split) if facts.clip_id in {case.id for case in cases}
    }
    videos, identities = set[str](), set[int]()
    for other in against:
        same = other.resolve() == shards.resolve()
        if same and not split:
            raise ValueError(f"--against {other}: the cases are taken from all of it; name the --split they are of")
        for facts in _others(other, split if same else ""):
            videos |= {facts.video_id, *(given.origin.video_id for given in facts.references)}
            identities |= {given.identity for given in facts.references}
    found = []
    for clip, facts in mine.items():
        sources = {facts.video_id, *(given.origin.video_id for given in facts.references)} & videos
        people = {given.identity for given in facts.references} & identities
        found += [f"{clip}: its source {', '.join(sorted(sources))} is in the training shards"] * bool(sources)
        found += [f"{clip}: its identity {', '.join(map(str, sorted(people)))} is in the training shards"] * bool(
            people
        )
    return found


def _others(shards: Path, split: str) -> Iterator[TripletMeta]:
    """The facts of all samples but those of a split."""
    index, splits = _indexed(shards)
    tars = Tars(index)
    for row in range(len(index)):
        if not split or splits[row] != split:
            yield sample(tars, row)[0]
