"""Sample grid of the leaderboard: for each case its references and prompt, and a few frames of each system's video."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from a2data.media import images
from a2data.media.pictures import read_picture
from a2data.store.filename import safe_name
from pipelines.bench.a2 import strips
from pipelines.bench.a2.cases import Case
from pipelines.html.page import data_uri

MAX_CASES = 8  # cases on the page


class GridRow(NamedTuple):
    """A case: what was asked for, and what each system made of it; pictures as data: URIs, "" for none."""

    case: str
    prompt: str
    pictures: str
    videos: list[str]


class Grid(NamedTuple):
    """The first cases, by system."""

    systems: list[str]
    rows: list[GridRow]
    total: int  # number of all cases


def grid(cases: Sequence[Case], scores: Mapping[str, Path], max_cases: int = MAX_CASES) -> Grid | None:
    """Return a row for each of the first cases with a video for each system; None without cases or systems.

    scores: name of the system -> the folder of its score, with strips/<case>.jpg.
    """
    if not scores or not cases:
        return None
    return Grid(list(scores), [_row(case, scores) for case in cases[:max_cases]], len(cases))


def _row(case: Case, scores: Mapping[str, Path]) -> GridRow:
    files = [folder / strips.FOLDER / safe_name(f"{case.id}.jpg", "id of a case") for folder in scores.values()]
    pictures = [read_picture(element.path) for element in case.elements]
    references = data_uri(images.to_jpeg(strips.strip(pictures))) if pictures else ""
    return GridRow(case.id, case.prompt, references, [data_uri(f.read_bytes()) if f.is_file() else "" for f in files])


def score_folders(results: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> dict[str, Path]:
    """Return {name of the system: folder of its score}."""
    folders = (path if path.is_dir() else path.parent for path in paths)
    return {result["name"]: folder for result, folder in zip(results, folders, strict=True)}
