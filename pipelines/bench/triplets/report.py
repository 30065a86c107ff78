"""A score as JSON, as text, as Markdown and as one HTML page."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.bench.triplets.score import Result
from pipelines.bench.triplets.statistics import Score
from pipelines.html.page import render


def to_json(result: Result, name: str, rerun: Score | None = None) -> dict[str, Any]:
    """Return a result as JSON. name: of the recipe, for the tables. rerun: score of a second run's shards."""
    scores = [*result.scores, *([rerun] if rerun else [])]
    return {
        "format": "triplet-score/1",
        "name": name,
        "tier": result.tier,
        "triplet_f05": result.headline,
        "precision": result.precision,
        "recall": result.recall,
        "worst": result.worst,
        "histogram": result.histogram,
        "substitution": result.substitution,
        "scores": [asdict(score) for score in scores],
        "failed": [
            {"clip": v.sample.clip, "shot": v.unit, "checks": [list(f) for f in v.failed]}
            for v in result.triplets
            if v.failed
        ],
        "lost": [{"shot": key, "in": stage} for key, stage in sorted(result.lost.items())],
    }


def to_text(data: dict[str, Any]) -> str:
    """Return the text that the command prints."""
    lines = [
        f"{data['name']} on tier {data['tier']}: TripletF0.5 {data['triplet_f05']:.3f} "
        f"(precision {data['precision']:.3f}, recall {data['recall']:.3f})",
        "worst: " + ("; ".join(f"{check} {n}" for check, n in data["worst"]) or "no failures"),
        "",
        *[str(Score(**score)) for score in data["scores"]],
        "",
        "first failing checks:",
        *[f"  {n:3}  {check}" for check, n in ranked(data["histogram"])],
        "largest gain in TripletF0.5 if a stage were perfect:",
        *[f"  {gain:+.3f}  {stage}" for stage, gain in ranked(data["substitution"]) if gain > 0],
    ]
    return "\n".join(lines)


def ranked(counts: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def to_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return a table with a column for each result: figures, first failing checks and possible gains."""
    names = list(dict.fromkeys(s["name"] for r in results for s in r["scores"]))
    head = [f"{r['name']}, {r['tier']}" for r in results]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---|" * len(results)]
    for name in ["TripletF0.5", *(n for n in names if n != "TripletF0.5")]:
        lines.append(f"| {name} | " + " | ".join(_cell(r, name) for r in results) + " |")
    for title, key in (("first failing check", "histogram"), ("largest possible gain", "substitution")):
        lines.append(f"| {title} | " + " | ".join(_listed(r[key]) for r in results) + " |")
    return "\n".join(lines) + "\n"


def _cell(result: dict[str, Any], name: str) -> str:
    value = next((s["value"] for s in result["scores"] if s["name"] == name), None)
    return "-" if value is None else f"{value:.3f}"


def _listed(counts: dict[str, Any]) -> str:
    entries = [f"{k} {v:+.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in ranked(counts) if v]
    return "; ".join(entries) or "nothing"


def to_html(results: Sequence[dict[str, Any]]) -> str:
    """Return one HTML page without external links."""
    return render("bench/triplets/score.html", ["bench/triplets/score.css"], results=results, ranked=ranked)


def write(data: dict[str, Any], out: Path) -> None:
    """Write score.json, score.md and score.html to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "score.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    (out / "score.md").write_text(to_markdown([data]))
    (out / "score.html").write_text(to_html([data]))


def read(path: Path) -> dict[str, Any]:
    """Read score.json from its path or its folder. Raises ValueError for any other file."""
    file = path / "score.json" if path.is_dir() else path
    data = json.loads(file.read_text())
    if not isinstance(data, dict) or data.get("format") != "triplet-score/1":
        raise ValueError(f"{file} is not a TripletBench score: create one with `a2data triplet-bench score`")
    return data
