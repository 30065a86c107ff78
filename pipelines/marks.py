"""Marks: pairs of elements that a person compared in `a2data ui`, and whether both show the same. JSON beside the work folder.

`a2data calibrate --marks` and `a2data triplet-bench score` read it.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from a2data.store.folder import Folder

FORMAT = "a2data-marks/1"

Ends = tuple[str, str]  # two element_ids in order: a mark has no direction


class Mark(NamedTuple):
    """Whether two elements show the same person, object, garment or place.

    frames: frame of the clip in which each was shown, which tells elements apart that another detector calls by the same id.
    """

    elements: Ends
    frames: tuple[int, int]
    same: bool


Marks = dict[Ends, Mark]


def mark(a: tuple[str, int], b: tuple[str, int], same: bool) -> Mark:
    """Return a mark of two elements, each given as (element_id, frame), in either order."""
    (one, one_frame), (other, other_frame) = sorted((a, b))
    return Mark((one, other), (one_frame, other_frame), same)


def ends(a: str, b: str) -> Ends:
    return (a, b) if a <= b else (b, a)


def beside(work: str) -> str:
    """Return the path of the marks of a work folder."""
    return f"{work.rstrip('/')}.marks.json"


def current(marks: Mapping[Ends, Mark], frame_of: Mapping[str, int]) -> list[Mark]:
    """Return the marks whose elements still exist and are shown in the same frames. frame_of: element_id -> frame."""
    return [each for each in marks.values() if tuple(map(frame_of.get, each.elements)) == each.frames]


def read(path: str) -> Marks:
    """Return the marks of a file; none if it does not exist. Raises ValueError if it cannot be read."""
    folder, name = _place(path)
    data = folder.get(name)
    if data is None:
        return {}
    try:
        said = json.loads(data)
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']!r}, not {FORMAT!r}")
        found = [_checked(number, row) for number, row in enumerate(said["marks"])]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a file of marks ({error}): name one that `a2data ui --work` wrote") from error
    return {each.elements: each for each in found}


def _checked(number: int, row: dict) -> Mark:
    (one, other), (one_frame, other_frame), same = row["elements"], row["frames"], row["same"]
    if not all(isinstance(v, kind) for v, kind in ((one, str), (other, str), (one_frame, int), (other_frame, int))):
        raise ValueError(
            f"mark {number} needs two element_ids and two frames, not {row['elements']} and {row['frames']}"
        )
    if not isinstance(same, bool):
        raise ValueError(f"mark {number}: same is {same!r}, not true or false")
    return mark((one, one_frame), (other, other_frame), same)


def write(path: str, marks: Mapping[Ends, Mark]) -> None:
    """Write a file of marks, atomically and in the order of their elements, a line for each."""
    rows = ",\n".join(json.dumps(marks[key]._asdict(), ensure_ascii=False) for key in sorted(marks))
    folder, name = _place(path)
    folder.put(f'{{"format": "{FORMAT}", "marks": [\n{rows}\n]}}\n'.encode(), name)


def _place(path: str) -> tuple[Folder, str]:
    parent, slash, name = path.rpartition("/")
    return Folder(parent or slash or "."), name
