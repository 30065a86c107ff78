"""Leaderboard page: the paper's four systems as printed, and ours. A single file without external links or a date."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.bench.a2.grid import Grid
from pipelines.bench.a2.study.page import CRITERIA
from pipelines.bench.a2.totals import FULL, METRICS, PUBLISHED, VARIANTS, WEIGHTS, Figure, comprehensive, published
from pipelines.html.page import render

PAPER = "as published"
SUFFIX = {PAPER: "", "lenient": ", lenient", "strict": ", strict"}  # suffixes in plots; published rows have none


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


class Axis(NamedTuple):
    """An axis of the radar plot; points in pixels."""

    title: str
    label: tuple[float, float]
    anchor: str  # text-anchor of the label
    edge: tuple[float, float]


class Outline(NamedTuple):
    """A row in the radar plot."""

    name: str
    points: str  # of an SVG polygon, one per metric


class Radar(NamedTuple):
    """A radar plot with an axis per metric."""

    centre: float
    width: float
    height: float
    rings: list[str]  # points of SVG polygons
    axes: list[Axis]
    outlines: list[Outline]


class Bar(NamedTuple):
    """A row in a bar plot."""

    row: int  # number in the table, which decides the colour
    label: str
    value: float
    share: float  # of the plot's width, 0 to 1
    interval: tuple[float, float] | None  # ends of the confidence interval as shares


class BarPlot(NamedTuple):
    """A bar for each row that has a value of one metric."""

    title: str
    bars: list[Bar]


def page(
    results: Sequence[Mapping[str, Any]], study: Mapping[str, Any] | None = None, samples: Grid | None = None
) -> str:
    """Return the HTML. results: from `score_file.to_json`. study: from `ratings.aggregate`. samples: from `grid.grid`."""
    lines = rows(results)
    titles = {name: METRICS[name].title if name in METRICS else name for name in (*WEIGHTS, *METRICS)}
    return render(
        "bench/a2/leaderboard.html",
        ["bench/a2/leaderboard.css"],
        ["bench/a2/leaderboard.js"],
        lines=lines,
        titles=titles,
        ours=[line for line in lines if line.kind != PAPER],
        others=extra_metrics(lines),
        radar=radar(lines),
        plots=[bar_plot(lines, name) for name in (*METRICS, *WEIGHTS, *extra_metrics(lines))],
        samples=samples,
        studies=_studies(study or {}),
    )


def extra_metrics(lines: Sequence[Row]) -> list[str]:
    """Return the metrics with other names, because another model measured them, and the copy-paste score."""
    metrics = dict.fromkeys(m for line in lines for m in line.figures)
    return [m for m in metrics if "." in m or m == "copy_paste"]


def scaled(metric: str, value: float) -> float:
    """Return a figure relative to the value that counts as 1 in the `normalised` total, 0 to 1."""
    return min(1.0, value / FULL["normalised"].get(metric, 1.0))


def radar(lines: Sequence[Row], radius_px: float = 150) -> Radar:
    """Return the radar plot of the rows; strict and incomplete rows are omitted."""
    complete = [line for line in lines if line.kind != "strict" and all(_value(line, m) is not None for m in METRICS)]
    centre, count = radius_px + 150, len(METRICS)

    def point(k: int, share: float) -> tuple[float, float]:
        angle = 2 * math.pi * k / count
        return centre + share * radius_px * math.sin(angle), centre - share * radius_px * math.cos(angle)

    def outline(shares: Sequence[float]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (point(k, share) for k, share in enumerate(shares)))

    def axis(k: int, title: str) -> Axis:
        label = point(k, 1.12)
        anchor = "middle" if abs(label[0] - centre) < 1 else ("start" if label[0] > centre else "end")
        return Axis(title, label, anchor, point(k, 1))

    return Radar(
        centre=centre,
        width=2 * centre + 360,
        height=max(2 * centre, 40 + 20 * len(complete)),
        rings=[outline([share] * count) for share in (0.25, 0.5, 0.75, 1)],
        axes=[axis(k, metric.title) for k, metric in enumerate(METRICS.values())],
        outlines=[
            Outline(f"{line.name}, {line.kind}", outline([scaled(m, _value(line, m) or 0.0) for m in METRICS]))
            for line in complete
        ],
    )


def bar_plot(lines: Sequence[Row], metric: str) -> BarPlot:
    """Return the bar plot, with intervals, of the rows that have a value of one metric."""
    with_value = [(n, line, value) for n, line in enumerate(lines) if (value := _value(line, metric)) is not None]
    maximum = METRICS[metric].maximum if metric in METRICS else 1.0
    top = max(
        [maximum if maximum == 1.0 else 0.0, *(line.figures[metric].high or value for _, line, value in with_value)]
    )
    bars = []
    for n, line, value in with_value:
        low, high = line.figures[metric].low, line.figures[metric].high
        interval = (low / top, high / top) if low is not None and high is not None else None
        bars.append(Bar(n, line.name[:16] + SUFFIX[line.kind], value, max(0.0, value) / top, interval))
    return BarPlot(METRICS[metric].title if metric in METRICS else metric, bars)


def _value(line: Row, metric: str) -> float | None:
    figure = line.figures.get(metric)
    return figure.value if figure else None


def _studies(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the means of a study, for people and models separately."""
    names = [*CRITERIA, "overall"]
    return [
        {
            "title": title,
            "raters": len(study[kind]["raters"]),
            "ratings": study[kind]["ratings"],
            "names": names,
            "means": {
                system: {name: Figure(**figures[name]) for name in names}
                for system, figures in study[kind]["means"].items()
            },
        }
        for kind, title in (("person", "Ratings by people"), ("model", "Ratings by a model"))
        if kind in study
    ]
