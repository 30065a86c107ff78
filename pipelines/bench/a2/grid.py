"""Sample grid of the leaderboard: for each case its references and prompt, and a few frames of each system's video."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2data.media.pictures import read_picture
from a2data.store.filename import safe_name
from pipelines.bench.a2 import strips
from pipelines.bench.a2.cases import Case

MOST = 8  # cases on the page
STYLE = ".grid td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid #ddd}.grid img{height:96px;display:block}"


def grid(cases: Sequence[Case], scores: Mapping[str, Path], most: int = MOST) -> str:
    """Return an HTML table with a row for each of the first cases and a column for each system.

    scores: name of the system -> the folder of its score, with strips/<case>.jpg. Images are embedded in the page.
    """
    if not scores or not cases:
        return ""
    head = "".join(f"<th class=w>{html.escape(name)}" for name in scores)
    rows = "".join(_row(case, scores) for case in cases[:most])
    more = f"<p><small>{most} of {len(cases)} cases.</small></p>" if len(cases) > most else ""
    return f"<h2>Samples</h2><table class=grid><thead><tr><th class=w>Asked for{head}</thead><tbody>{rows}</tbody></table>{more}"


def _row(case: Case, scores: Mapping[str, Path]) -> str:
    shown = (
        _image(strips.jpeg(strips.strip([read_picture(e.path) for e in case.elements])), "the pictures")
        if case.elements
        else ""
    )
    asked = f"<td>{shown}<small>{html.escape(case.id)}: {html.escape(case.prompt)}</small>"
    return f"<tr>{asked}" + "".join(_cell(case, folder) for folder in scores.values())


def _cell(case: Case, folder: Path) -> str:
    file = folder / strips.FOLDER / safe_name(f"{case.id}.jpg", "id of a case")
    return f"<td>{_image(file.read_bytes(), 'frames of the video')}" if file.is_file() else "<td class=none>no video"


def _image(data: bytes, alt: str) -> str:
    return f'<img src="{strips.data_url(data)}" alt="{alt}">'


def folders(results: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> dict[str, Path]:
    """Return {name of the system: folder of its score}."""
    homes = (path if path.is_dir() else path.parent for path in paths)
    return {result["name"]: home for result, home in zip(results, homes, strict=True)}
