"""Leaderboard page: the paper's four systems as printed, and ours. A single file without external links or a date."""

import base64
import hashlib
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.bench.a2 import grid
from pipelines.bench.a2.study.page import CRITERIA
from pipelines.bench.a2.totals import FULL, METRICS, PUBLISHED, VARIANTS, WEIGHTS, Figure, comprehensive, published

COLOURS = ("#4269d0", "#d1603d", "#3a9e5c", "#8a5cc2", "#c23b75", "#2b8c9e", "#8c6d1f", "#6b7280")
PAPER = "as published"
SHORT = {PAPER: "", "lenient": ", lenient", "strict": ", strict"}  # suffixes in plots; published rows have none
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .7rem .2rem 0;text-align:right;vertical-align:top}
td:first-child,th:first-child,td.w,th.w{text-align:left}td{font-variant-numeric:tabular-nums}.none{color:#888}
th button{font:inherit;font-weight:600;border:0;background:none;padding:0;cursor:pointer;text-align:inherit}
small{color:#555}svg text{font:12px system-ui,sans-serif;fill:#222}
.wide{overflow-x:auto}.plots{display:flex;flex-wrap:wrap;gap:1.5rem}"""
SCRIPT = """document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0];
  const column = [...head.parentNode.children].indexOf(head), up = head.getAttribute("aria-sort") === "descending";
  [...head.parentNode.children].forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.children[column].dataset.value;
  const order = (a, b) => (a === "") - (b === "") || (up ? 1 : -1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  [...body.rows].sort((a, b) => order(value(a), value(b))).forEach((row) => body.append(row));
}));"""


class Row(NamedTuple):
    """A row of the table."""

    name: str
    kind: str  # PAPER, "lenient" or "strict"
    figures: dict[str, Figure]


def rows(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the paper's four systems, with the printed totals, and the two variants of each of our scores."""
    out = []
    for name in PUBLISHED:
        values = published(name)
        figures = {metric: Figure(value) for metric, value in values.items()}
        printed = Figure(PUBLISHED[name][1], note="printed")
        out.append(
            Row(
                name, PAPER, figures | {"paper-fit": printed, "normalised": Figure(comprehensive(values, "normalised"))}
            )
        )
    for result in results:
        for variant in VARIANTS:
            out.append(Row(result["name"], variant, {m: Figure(**f) for m, f in result[variant].items()}))
    return out


def page(results: Sequence[Mapping[str, Any]], people: Mapping[str, Any] | None = None, samples: str = "") -> str:
    """Return the HTML. results: from `score_file.to_json`. people: from `ratings.aggregate`. samples: from `grid.grid`."""
    lines = rows(results)
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    bars = "".join(bar_plot(lines, name) for name in (*METRICS, *WEIGHTS, *others(lines)))
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{policy}"><title>A2-Bench</title><style>{STYLE}{grid.STYLE}</style>'
        f"<h1>A2-Bench</h1><p>{NOTE}</p>{_table(lines)}<h2>Profile</h2>{radar(lines)}"
        f"<h2>Metric by metric</h2><div class=plots>{bars}</div>{samples}{_people(people or {})}"
        f"<script>{SCRIPT}</script></html>\n"
    )


NOTE = (
    "Rows marked <em>as published</em> are Table 1 of arXiv 2504.02436, measured by its authors on their cases with code that "
    "is not public: they are for orientation, and differ from ours by more than the system. Lenient excludes missing "
    "detections, strict counts them as 0. For <em>paper-fit</em>, the published rows have the printed total; ours is a formula "
    "fitted to those four. <em>normalised</em> is ours only. A metric without a number was not measured, and there is no total "
    "without it."
)


def _table(lines: Sequence[Row]) -> str:
    names = [*WEIGHTS, *METRICS]
    titles = [METRICS[m].title if m in METRICS else m for m in names]
    head = "".join(f"<th><button type=button>{html.escape(title)}</button>" for title in titles)
    body = "".join(
        f"<tr>{_text(line.name)}{_text(line.kind)}" + "".join(_cell(line.figures.get(m)) for m in names)
        for line in lines
    )
    return (
        "<div class=wide><table><thead><tr><th><button type=button>System</button><th class=w><button type=button>Row</button>"
        f"{head}</thead><tbody>{body}</tbody></table></div>{_others(lines)}"
    )


def others(lines: Sequence[Row]) -> list[str]:
    """Return the metrics with other names, because another model measured them, and the copy-paste score."""
    own = dict.fromkeys(m for line in lines for m in line.figures)
    return [m for m in own if "." in m or m == "copy_paste"]


def _others(lines: Sequence[Row]) -> str:
    """Return the table of `others`: a row per metric, since their names are long, and a column per row of ours."""
    names, ours = others(lines), [line for line in lines if line.kind != PAPER]
    if not names:
        return ""
    head = "".join(f"<th><button type=button>{html.escape(line.name)}, {line.kind}</button>" for line in ours)
    body = "".join(f"<tr>{_text(m)}" + "".join(_cell(line.figures.get(m)) for line in ours) for m in names)
    return (
        "<h2>Metrics by other models</h2><p>They are not part of any total, and not comparable with the metrics above.</p>"
        f"<div class=wide><table><thead><tr><th><button type=button>Metric</button>{head}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _text(text: str) -> str:
    return f'<td class=w data-value="{html.escape(text)}">{html.escape(text)}'


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        why = html.escape(figure.note if figure else "skipped: not measured")
        return f'<td class=none data-value="" title="{why}">{"none" if why.startswith("nothing") else "skipped"}'
    spread = f"<br><small>{figure.low:.3f} to {figure.high:.3f}, n {figure.n}</small>" if figure.low is not None else ""
    return f'<td data-value="{figure.value:.6f}">{figure.value:.3f}{spread}'


def scaled(metric: str, value: float) -> float:
    """Return a figure relative to the value that counts as 1 in the `normalised` total, 0 to 1."""
    return min(1.0, value / FULL["normalised"].get(metric, 1.0))


def radar(lines: Sequence[Row], radius_px: float = 150) -> str:
    """Return a radar plot with an axis per metric and an outline per row; strict and incomplete rows are omitted."""
    shown = [line for line in lines if line.kind != "strict" and all(_value(line, m) is not None for m in METRICS)]
    centre, count = radius_px + 150, len(METRICS)

    def point(k: int, share: float) -> tuple[float, float]:
        turn = 2 * math.pi * k / count
        return centre + share * radius_px * math.sin(turn), centre - share * radius_px * math.cos(turn)

    def outline(shares: Sequence[float]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (point(k, share) for k, share in enumerate(shares)))

    parts = [f"<polygon points='{outline([s] * count)}' fill=none stroke=#ddd />" for s in (0.25, 0.5, 0.75, 1)]
    for k, metric in enumerate(METRICS.values()):
        (x, y), (edge_x, edge_y) = point(k, 1.12), point(k, 1)
        anchor = "middle" if abs(x - centre) < 1 else ("start" if x > centre else "end")
        parts.append(f"<line x1={centre} y1={centre} x2={edge_x:.1f} y2={edge_y:.1f} stroke=#ddd />")
        parts.append(f"<text x={x:.1f} y={y:.1f} text-anchor={anchor}>{metric.title}</text>")
    for n, line in enumerate(shown):
        colour, name = COLOURS[n % len(COLOURS)], html.escape(line.name)
        shares = [scaled(m, _value(line, m) or 0.0) for m in METRICS]
        parts.append(
            f"<polygon points='{outline(shares)}' fill={colour} fill-opacity=.06 stroke={colour} stroke-width=2>"
        )
        parts.append(f"<title>{name}</title></polygon>")
        y = 30 + 20 * n
        parts.append(f"<rect x={2 * centre + 80} y={y - 10} width=12 height=12 fill={colour} />")
        parts.append(f"<text x={2 * centre + 100} y={y}>{name}, {line.kind}</text>")
    width, height = 2 * centre + 360, max(2 * centre, 40 + 20 * len(shown))
    return (
        f"<svg viewBox='0 0 {width} {height}' width={width} height={height} role=img aria-label='all metrics'>"
        f"{''.join(parts)}</svg><p><small>The outer edge is what counts as 1 in the normalised total: an ID consistency of 0.5, "
        "a similarity of 30, and 1 for the others.</small></p>"
    )


def bar_plot(lines: Sequence[Row], metric: str) -> str:
    """Return a bar plot with intervals of the rows that have a value of one metric."""
    known = [(n, line, value) for n, line in enumerate(lines) if (value := _value(line, metric)) is not None]
    most = METRICS[metric].most if metric in METRICS else 1.0
    top = max([most if most == 1.0 else 0.0, *(line.figures[metric].high or value for _, line, value in known)])
    title = METRICS[metric].title if metric in METRICS else metric
    width, parts = 200, []
    for k, (n, line, value) in enumerate(known):
        y, figure = 8 + 22 * k, line.figures[metric]
        parts.append(f"<text x=165 y={y + 12} text-anchor=end>{html.escape(line.name[:16])}{SHORT[line.kind]}</text>")
        parts.append(
            f"<rect x=170 y={y} width={width * max(0.0, value) / top:.1f} height=15 fill={COLOURS[n % len(COLOURS)]} />"
        )
        if figure.low is not None and figure.high is not None:
            low, high = (170 + width * edge / top for edge in (figure.low, figure.high))
            parts.append(f"<line x1={low:.1f} y1={y + 7.5} x2={high:.1f} y2={y + 7.5} stroke=#222 stroke-width=2 />")
        parts.append(f"<text x={176 + width} y={y + 12}>{value:.3f}</text>")
    height = 16 + 22 * len(known)
    return (
        f"<figure><figcaption><b>{html.escape(title)}</b></figcaption>"
        f"<svg viewBox='0 0 430 {height}' width=430 height={height} role=img aria-label='{html.escape(title)}'>"
        f"{''.join(parts)}</svg></figure>"
    )


def _value(line: Row, metric: str) -> float | None:
    figure = line.figures.get(metric)
    return figure.value if figure else None


def _people(people: Mapping[str, Any]) -> str:
    """Return the means of a study, for people and models separately."""
    out = ""
    for kind, title in (("person", "Ratings by people"), ("model", "Ratings by a model")):
        if kind not in people:
            continue
        part = people[kind]
        names = [*CRITERIA, "overall"]
        head = "".join(f"<th><button type=button>{html.escape(name.replace('_', ' '))}</button>" for name in names)
        body = "".join(
            f"<tr>{_text(system)}" + "".join(_cell(Figure(**figures[name])) for name in names)
            for system, figures in part["means"].items()
        )
        out += (
            f"<h2>{title}</h2><p>{len(part['raters'])} raters, {part['ratings']} answers from 1 to 5.</p><table><thead><tr>"
            f"<th><button type=button>System</button>{head}</thead><tbody>{body}</tbody></table>"
        )
    return out
