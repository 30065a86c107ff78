"""`a2data prefer study`: people compare the two videos of pairs on one offline page; their answers replace the rules'.

a2data prefer study make PAIRS --out STUDY
a2data prefer study join PAIRS RATINGS... --key STUDY/key.json --out NEW
"""

import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from a2data.dataset import writer
from a2data.dataset.pair import sha256
from a2data.dataset.triplet import Triplet, TripletMeta, to_members
from a2data.records import Packed
from a2data.store.folder import Folder
from pipelines.bench.a2.study import page, ratings
from pipelines.bench.a2.study.page import Criterion
from pipelines.prefer.make import read
from stages.encode.stage import parse_tar_name
from stages.pack.facts import to_row

SLOTS = ("A", "B")
ANSWERS = {1: "A moves better", 2: "no difference", 3: "B moves better"}
CRITERION = {"motion": Criterion("Motion", "Whose motion is better: natural, smooth, as the text says?", ANSWERS)}


def make(shards: str, out: Path, count: int = 0, seed: int = 0, embed: bool = False, title: str = "") -> dict[str, Any]:
    """Write study.html and key.json and return the key, which must not go to raters.

    count: pairs to show, chosen by the seed; 0 for all. Order and sides depend on the seed. Kinds and grades are not shown.
    """
    folder, rng = Folder(shards), random.Random(seed)
    rows = writer.rows(folder)
    chosen = rng.sample(rows, min(count or len(rows), len(rows)))
    key: dict[str, Any] = {"format": page.FORMAT, "seed": seed, "systems": ["chosen", "rejected"], "slots": {}}
    cases = []
    for number, row in enumerate(chosen):
        triplet = read(folder, row)
        case, order = f"pair-{number:05d}", rng.sample(key["systems"], 2)
        key["slots"][case] = dict(zip(SLOTS, order, strict=True))
        mp4s = {"chosen": triplet.video, "rejected": triplet.rejected}
        videos = {
            slot: page.write_video(mp4s[name], f"{row.clip_id} ({name})", f"{seed}/{name}/{row.clip_id}", out, embed)
            for slot, name in key["slots"][case].items()
        }
        references = [
            {"role": g.role, "label": g.phrase, "picture": page.thumbnail(io.BytesIO(triplet.pictures[g.name]))}
            for g in triplet.facts.references
        ]
        cases.append({"id": case, "prompt": triplet.prompt, "references": references, "videos": videos})
        key.setdefault("pairs", {})[case] = row.clip_id
    return page.write(key, cases, CRITERION, out, title or "Which video moves better?", asked_slots=SLOTS[:1])


def count_votes(answers: Iterable[ratings.Rating]) -> dict[str, Counter]:
    """Return case -> number of votes for "chosen", "rejected" and "tie". A rating is of the video in slot A."""
    counts: dict[str, Counter] = defaultdict(Counter)
    other = {"chosen": "rejected", "rejected": "chosen"}
    for rating in answers:
        better = {1: rating.system, 2: "tie", 3: other[rating.system]}[rating.score]
        counts[rating.case][better] += 1
    return dict(counts)


def majority(counts: Counter) -> str:
    """Return what more than half of the votes are for, or "" if the raters disagree."""
    name, votes = counts.most_common(1)[0]
    return name if 2 * votes > sum(counts.values()) else ""


def join(shards: str, paths: Sequence[Path], key: Mapping[str, Any], out: str) -> dict[str, int]:
    """Write the pairs that raters agree about, with their preferences, and count them: kept, swapped, ties, disagreed.

    Pairs of the study whose raters do not agree by more than half, and pairs without an answer, are not written. Raises
    ValueError for ratings by people and models together, and if no pair is left.
    """
    answers = ratings.read(paths, key, CRITERION)
    if len(kinds := {answer.kind for answer in answers}) > 1:
        raise ValueError("these ratings are by people and by models: join them into two data sets")
    votes_of = {key["pairs"][case]: counts for case, counts in count_votes(answers).items()}
    decisions = {pair: decision for pair, counts in votes_of.items() if (decision := majority(counts))}
    folder, target = Folder(shards), Folder(out)
    rows = writer.rows(folder)
    if unknown := sorted(decisions.keys() - {row.clip_id for row in rows}):
        raise ValueError(
            f"{shards} does not have the pair {unknown[0]} of the study: give the pairs that it was made from"
        )
    if not decisions:
        raise ValueError(f"the raters disagree about all {len(votes_of)} pairs that they answered: no pair is left")
    noun = next(iter(kinds)).replace("person", "people").replace("model", "models")
    written: list[Packed] = []
    for tar in sorted({row.shard for row in rows}):
        number, split = parse_tar_name(tar)
        tar_rows = [row for row in rows if row.shard == tar and row.clip_id in decisions]
        row_of: dict[str, Packed] = {row.clip_id: row for row in tar_rows}
        facts: dict[str, TripletMeta] = {}

        def samples(
            mine: list[Packed] = tar_rows, facts: dict[str, TripletMeta] = facts
        ) -> Iterator[tuple[str, dict[str, bytes]]]:
            for row in sorted(mine, key=lambda row: row.clip_id):
                counts = votes_of[row.clip_id]
                made = apply_decision(read(folder, row), decisions[row.clip_id], f"{counts.total()} {noun}")
                facts[row.clip_id] = made.facts
                yield row.clip_id, to_members(made)

        for member in writer.write(samples(), target, number, 1 << 30, split):
            written.append(to_row(member, facts[member.key], row_of[member.key].split, row_of[member.key].component))
    writer.finish(target, written, {"prefer study": {"study": key["study"], "ratings": len(answers)}})
    counted = Counter(decisions.values())
    return {
        "kept": counted["chosen"],
        "swapped": counted["rejected"],
        "ties": counted["tie"],
        "disagreed": len(votes_of) - len(decisions),
    }


def apply_decision(triplet: Triplet, decision: str, judge: str) -> Triplet:
    """Return a pair with the preference "chosen", "rejected" or "tie"; "rejected" swaps the videos."""
    assert triplet.pair
    better, worse = triplet.video, triplet.rejected
    if decision == "rejected":
        better, worse = worse, better
    pair = replace(
        triplet.pair,
        tie=decision == "tie",
        judge=judge,
        chosen_sha256=sha256(better),
        rejected_sha256=sha256(worse),
    )
    return replace(triplet, video=better, rejected=worse, pair=pair)
