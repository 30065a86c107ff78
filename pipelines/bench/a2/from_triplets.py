"""Cases from triplets held out from training. The ground truth of each is the clip that it was taken from."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from a2data.dataset.decode import parse_facts
from a2data.dataset.reader import Index, Tars, members, read_index
from a2data.dataset.triplet import ReferenceMeta, TripletMeta
from a2data.store.filename import safe_name
from pipelines.bench.a2.cases import ROLES, Case, Element


def draw(shards: Path, split: str, count: int, seed: int, folder: Path) -> list[Case]:
    """Return at most `count` packed triplets as cases and write their files to `folder`, deterministic in the seed.

    Only human, object and background references from other clips are used; clips without a human or object are skipped. Clips
    with more references are taken first, and among equals, sources alternate. Raises ValueError if there are none, and if a clip
    or a reference has a name that cannot be used as a file name.
    """
    candidates = [
        (facts, parts)
        for facts, parts in _samples(shards, split)
        if {g.role for g in _usable_references(facts)} & set(ROLES[:2])
    ]
    if not candidates:
        split_text = f"of the split {split}" if split else ""
        raise ValueError(f"{shards} has no triplet {split_text} with a human or object reference from another clip")
    random.Random(seed).shuffle(candidates)
    count_of: dict[str, int] = {}
    order = []
    for facts, parts in candidates:
        count_of[facts.video_id] = count_of.get(facts.video_id, 0) + 1
        order.append((-len({g.role for g in _usable_references(facts)}), count_of[facts.video_id], facts, parts))
    order.sort(key=lambda entry: entry[:2])
    return sorted(
        (_case(facts, parts, folder, str(shards)) for _, _, facts, parts in order[:count]), key=lambda case: case.id
    )


def _usable_references(facts: TripletMeta) -> list[ReferenceMeta]:
    return [reference for reference in facts.references if reference.role in ROLES and not reference.same_clip]


def _samples(shards: Path, split: str) -> Iterator[tuple[TripletMeta, dict[str, bytes]]]:
    """Yield the samples of one split, "" for all, in index order."""
    index, splits = _read_splits(shards)
    if split and split not in splits:
        known = ", ".join(sorted(set(splits) - {""})) or "none: pack with --set pack.split=eval=0.05"
        raise ValueError(f"{shards} has no split {split!r}; splits: {known}")
    tars = Tars(index)
    for row in range(len(index)):
        if not split or splits[row] == split:
            yield read_sample(tars, row)


def read_sample(tars: Tars, row: int) -> tuple[TripletMeta, dict[str, bytes]]:
    """Return the metadata and the members of one sample. Raises ValueError with its key if it is damaged or lacks a member."""
    key, tar = tars.index.key(row), tars.index.tar_path(row)
    try:
        parts = members(tars.read(row), key, tar)
        facts = parse_facts(parts, key)
    except (LookupError, ValueError) as error:
        raise ValueError(f"{tar}: the sample {key[:80]}: {error}") from error
    missing = [name for name in ("mp4", *(f"{g.name}.png" for g in facts.references)) if name not in parts]
    if missing:
        raise ValueError(f"{tar}: the sample {key} has no .{missing[0]}: copy it again, or pack again")
    return facts, {name: bytes(part) for name, part in parts.items()}


def _read_splits(shards: Path) -> tuple[Index, list[str]]:
    """Return the index of a folder and the split of each sample; "" without splits."""
    index = read_index([str(shards)], every_column=True)
    table: Any = index.table
    return index, table["split"].to_pylist() if "split" in table.column_names else [""] * len(index)


def _case(facts: TripletMeta, parts: dict[str, bytes], folder: Path, context: str) -> Case:
    elements = []
    for reference in sorted(_usable_references(facts), key=lambda reference_meta: ROLES.index(reference_meta.role)):
        file = folder / safe_name(f"{facts.clip_id}.{reference.name}.png", context)
        file.write_bytes(parts[f"{reference.name}.png"])
        elements.append(Element(reference.role, file, _label(reference)))
    truth = folder / safe_name(f"{facts.clip_id}.mp4", context)
    truth.write_bytes(parts["mp4"])
    return Case(facts.clip_id, facts.caption.prompt, tuple(elements), truth)


def _label(reference: ReferenceMeta) -> str:
    """Return the label to detect: the phrase of the prompt without its article, else the detector's label."""
    words = (reference.phrase or reference.origin.label).lower().split()
    return " ".join(words[1:] if words[:1] in (["a"], ["an"], ["the"]) else words)


def find_shared(shards: Path, split: str, cases: Sequence[Case], against: Sequence[Path]) -> list[str]:
    """Return a message for each case that shares a source or an identity with a model's training data.

    Compares the clip and the origins of its references; in the shards of the cases themselves, only the other splits are used.
    Raises ValueError for these shards without a split, since everything would be shared.
    """
    facts_of_cases = {
        facts.clip_id: facts for facts, _ in _samples(shards, split) if facts.clip_id in {case.id for case in cases}
    }
    videos, identities = set[str](), set[int]()
    for other in against:
        is_same = other.resolve() == shards.resolve()
        if is_same and not split:
            raise ValueError(f"--against {other}: the cases are taken from these shards; give their --split")
        for facts in _other_samples(other, split if is_same else ""):
            videos |= {facts.video_id, *(reference.origin.video_id for reference in facts.references)}
            identities |= {reference.identity for reference in facts.references}
    messages = []
    for clip, facts in facts_of_cases.items():
        shared_videos = {facts.video_id, *(reference.origin.video_id for reference in facts.references)} & videos
        shared_identities = {reference.identity for reference in facts.references} & identities
        messages += [f"{clip}: its source {', '.join(sorted(shared_videos))} is in the training shards"] * bool(
            shared_videos
        )
        messages += [
            f"{clip}: its identity {', '.join(map(str, sorted(shared_identities)))} is in the training shards"
        ] * bool(shared_identities)
    return messages


def _other_samples(shards: Path, split: str) -> Iterator[TripletMeta]:
    """Yield the metadata of all samples except those of a split."""
    index, splits = _read_splits(shards)
    tars = Tars(index)
    for row in range(len(index)):
        if not split or splits[row] != split:
            yield read_sample(tars, row)[0]
