"""A score as JSON, as text and as Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.bench.a2.totals import (
    DIMENSIONS,
    METRICS,
    VARIANTS,
    WEIGHTS,
    Figure,
    Measured,
    Table,
    detection,
    summary,
)

FORMAT = "a2-score/1"


def to_json(
    table: Table, name: str, models: Mapping[str, str], seed: int = 0, missing: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a system's score as a JSON object.

    models: metric -> the cards that measured it, with their revisions. missing: cases without a video.
    """
    rates = {m: {"seen": seen, "of": of, "rate": seen / of} for m, (seen, of) in detection(table).items()}
    return {
        "format": FORMAT,
        "name": name,
        "cases": len(table),
        "missing_videos": list(missing),
        "seed": seed,
        **{v: {m: asdict(figure) for m, figure in summary(table, v, seed).items()} for v in VARIANTS},
        "detection": rates,
        "models": dict(models),
        "table": [{"case": case, "metric": m, **asdict(x)} for case, row in table.items() for m, x in row.items()],
    }


def table_of(result: Mapping[str, Any]) -> dict[str, dict[str, Measured]]:
    """Return the per-case table of a score: case -> metric -> result."""
    table: dict[str, dict[str, Measured]] = {}
    for row in result["table"]:
        facts = {key: row[key] for key in ("value", "seen", "of", "skipped")}
        table.setdefault(row["case"], {})[row["metric"]] = Measured(**facts)
    return table


def figure_text(figure: Figure) -> str:
    if figure.value is None:
        return figure.note
    interval = f"  {figure.low:.3f} to {figure.high:.3f}" if figure.low is not None else ""
    return f"{figure.value:.3f}{interval}  n {figure.n}"


def to_text(result: Mapping[str, Any]) -> str:
    """Return the score as text: a line per figure with both variants, and each reason once."""
    missing = result["missing_videos"]
    lines = [f"{result['name']}: {result['cases']} cases, {len(missing)} without a video", _line("", VARIANTS)]
    for name in result["lenient"]:
        both = [figure_text(Figure(**result[variant][name])) for variant in VARIANTS]
        lines.append(_line(name, both[:1] if both[0] == both[1] else both))
    for name, rate in result["detection"].items():
        lines.append(f"{name}: found in {rate['seen']} of {rate['of']} frames")
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:46} " + " ".join(f"{cell:31}" for cell in cells).rstrip()


def to_markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown with a table of the figures, two columns per result, followed by tables with a row per case."""
    own = dict.fromkeys(name for result in results for name in result["lenient"])
    order = [*METRICS, *DIMENSIONS, *WEIGHTS]
    head = [f"{result['name']}, {variant}" for result in results for variant in VARIANTS]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---|" * len(head)]
    for name in [*order, *(name for name in own if name not in order)]:
        cells = [_cell(result[variant].get(name)) for result in results for variant in VARIANTS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + "".join(_cases(result) for result in results)


def _cell(figure: Mapping[str, Any] | None) -> str:
    return figure_text(Figure(**figure)) if figure else "skipped: not measured"


def _cases(result: Mapping[str, Any]) -> str:
    table = table_of(result)
    names = list(dict.fromkeys(m for row in table.values() for m in row))
    lines = [
        f"\n## {result['name']}, case by case\n",
        "| case | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    not_measured = Measured(skipped="not measured")
    for case, row in table.items():
        lines.append(f"| {case} | " + " | ".join(_result_text(row.get(name, not_measured)) for name in names) + " |")
    return "\n".join(lines) + "\n"


def _result_text(result: Measured) -> str:
    if result.skipped:
        return "skipped"
    if result.value is None:
        return "no video" if result.of == 0 else f"not found in {result.of}"
    return f"{result.value:.3f}" + (f" ({result.seen}/{result.of})" if result.seen != result.of else "")


def write(result: Mapping[str, Any], out: Path) -> None:
    """Write score.json and score.md to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "score.json").write_text(text + "\n")
    (out / "score.md").write_text(to_markdown([result]))


def read(path: Path) -> dict[str, Any]:
    """Return the content of a score.json, given its path or folder. Raises ValueError for any other file."""
    file = path / "score.json" if path.is_dir() else path
    data = json.loads(file.read_text())
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{file} is not an A2-Bench score: create one with `a2data bench score`")
    return data
