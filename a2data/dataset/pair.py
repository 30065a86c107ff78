"""A preference pair: two videos of the same prompt and references, of which one is better, or neither (a tie).

A data set of pairs has the samples of a data set of triplets with two more members each, so that it is also read as one, with the
better videos.

{key}.mp4             the better video; of a tie the first
{key}.rejected.mp4    the worse video; of a tie the second
{key}.pair.json       `Pair`, canonical JSON

The key is "<clip_id>-<kind>-<grade>", and the triplet's `clip_id`.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from a2data.store.folder import Folder

FORMAT = "a2data-pair/1"
VIDEO, META = "rejected.mp4", "pair.json"  # members


@dataclass(frozen=True)
class Pair:
    """What is known about a pair."""

    clip_id: str  # of the triplet that it was made from
    kind: str  # how the worse video was made, such as "reversed"
    grade: int  # 1 light, 2 middle, 3 heavy
    tie: bool  # neither video is better
    judge: str  # "rule", or who compared the videos: "3 people"
    chosen_sha256: str  # of the mp4
    rejected_sha256: str
    measured: dict[str, float] = field(default_factory=dict)  # differences between the two videos


def sha256(video: bytes) -> str:
    return hashlib.sha256(video).hexdigest()


def to_json(pair: Pair) -> bytes:
    return json.dumps(
        asdict(pair) | {"format": FORMAT}, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def from_json(data: bytes, key: str) -> Pair:
    """Return a pair. Raises ValueError with the sample's key for another format or a missing value."""
    try:
        values: dict[str, Any] = json.loads(data)
        if values.pop("format") != FORMAT:
            raise ValueError("it has another format")
        types: dict[str, Any] = {f.name: dict if f.name == "measured" else f.type for f in fields(Pair)}
        invalid = [name for name, type_ in types.items() if not isinstance(values[name], type_)]
        if invalid:
            raise ValueError(f"{invalid[0]} is {values[invalid[0]]!r}")
        return Pair(**values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"sample {key!r} has a {META} that is not as written by `a2data prefer`: {error}") from error


def check_agreement(pairs: Iterable[tuple[str, Pair]]) -> None:
    """Raise ValueError with both keys if two pairs judge the same two videos differently."""
    seen: dict[frozenset[str], tuple[str, str]] = {}
    for key, pair in pairs:
        better = "" if pair.tie else pair.chosen_sha256
        other, other_better = seen.setdefault(frozenset((pair.chosen_sha256, pair.rejected_sha256)), (key, better))
        if other_better != better:
            raise ValueError(
                f"the pairs {other} and {key} disagree: they have the same two videos, but not the same preference. "
                "Remove one of them"
            )


def read(folder: Folder, tars: Iterable[str]) -> Iterator[tuple[str, Pair]]:
    """Yield key and pair of every sample of these tars, without reading videos. Raises ValueError for a tar without pairs."""
    for name in sorted(tars):
        found = 0
        with folder.reading(name) as file, tarfile.open(fileobj=file) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                if extension == META and (data := tar.extractfile(member)):
                    found += 1
                    yield key, from_json(data.read(), key)
        if not found:
            raise ValueError(f"{folder.root}/{name} does not have pairs: make them with `a2data prefer make`")
