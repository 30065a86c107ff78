"""Compare two data sets triplet by triplet, whatever the format of their shards.

    python -m benchmarks.same_triplets SHARDS OTHER_SHARDS

Two triplets are the same if their prompts, their videos, their references (role, phrase, identity of the subject, clip and
element that the picture is from, pixels of the picture and of the cut-out) and their unpaired phrases are equal. What a
format may change is not compared: names and types of JSON fields, the encoding of masks and pictures, versions. The script
names every triplet that differs, with the parts that differ, and exits with 1 if there is one.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset

from a2data.dataset.triplet import Triplet, from_sample
from a2data.media import images


def main(folders: list[str]) -> int:
    if len(folders) != 2:
        print((__doc__ or "").split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    ours, theirs = (dict(read(folder)) for folder in folders)
    differences = compare(ours, theirs)
    for line in differences:
        print(line)
    pictures = sum(len(parts["references"]) for parts in ours.values())
    print(
        f"{len(ours)} and {len(theirs)} triplets, {pictures} references of the first; {len(differences)} triplets differ"
    )
    return 1 if differences else 0


def read(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key and the comparable parts of each triplet of a folder of shards."""
    tars = sorted(map(str, Path(folder).glob("*.tar")))
    if not tars:
        raise ValueError(f"{folder} has no tars")
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        yield sample["__key__"], parts_of(from_sample(sample))


def parts_of(triplet: Triplet) -> dict[str, Any]:
    """Return what two triplets must share to be the same, by name."""
    return {
        "prompt": triplet.prompt,
        "video": hashlib.sha256(triplet.video).hexdigest(),
        "references": [
            (
                given.role,
                given.phrase,
                (given.start, given.end),
                given.identity,
                given.origin.clip_id,
                given.origin.element_id,
                *(pixels(of.get(given.name)) for of in (triplet.pictures, triplet.cut_outs)),
            )
            for given in triplet.facts.references
        ],
        "unpaired": [(left.kind, left.phrase, left.start, left.end) for left in triplet.facts.unpaired],
    }


def pixels(png: bytes | None) -> str:
    """Return the sha256 of a picture's pixels, so that another compression is not a difference; "" if there is no picture."""
    return hashlib.sha256(images.from_png(png).tobytes()).hexdigest() if png else ""


def compare(ours: dict[str, dict[str, Any]], theirs: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each triplet that only one side has or that differs."""
    lines = [
        f"{key}: only in the {'first' if key in ours else 'second'}" for key in sorted(ours.keys() ^ theirs.keys())
    ]
    for key in sorted(ours.keys() & theirs.keys()):
        wrong = [name for name, value in ours[key].items() if theirs[key][name] != value]
        lines += [f"{key}: another {', '.join(wrong)}"] if wrong else []
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
