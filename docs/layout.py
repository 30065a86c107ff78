"""Draw docs/layout.svg from the imports: the four packages, their modules, and their imports.

    python -m docs.layout

A box is a module or a package; its height in the picture is its layer, the longest chain of imports below it. Arrows between
boxes of one band are imports; arrows between bands are not drawn, since each band may import those below it.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

PICTURE = Path(__file__).with_name("layout.svg")
BANDS = (
    ("pipelines", "the programs; the only band that knows Ray and the command line"),
    ("stages", "one step of the pipeline each; no stage imports another"),
    ("a2data", "records, tables, media, the format of shards, the loader"),
    ("model_zoo", "networks, arrays in and arrays out, and their cards"),
)
WIDTH, MARGIN, BOX_HEIGHT, GAP, ROW_GAP, TITLE = 1080, 16, 26, 10, 34, 34
PX_PER_CHARACTER = 7.2


def siblings(graph: Any, band: str) -> dict[str, set[str]]:
    """Return the children of a package, each with the siblings that it imports, imports inside functions counted."""
    children = sorted(graph.find_children(band))
    inside = {child: {child, *graph.find_descendants(child)} for child in children}
    found: dict[str, set[str]] = {child: set() for child in children}
    for child in children:
        for module in inside[child]:
            targets = graph.find_modules_directly_imported_by(module)
            found[child] |= {other for other in children if other != child and targets & inside[other]}
    return found


def layers(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the names in layers, the highest first: a name is above all that it imports. Raises ValueError for a circle."""
    depth: dict[str, int] = {}
    left = dict(imports)
    while left:
        ready = [name for name, below in left.items() if below <= depth.keys()]
        if not ready:
            raise ValueError(f"these import one another in a circle: {', '.join(sorted(left))}")
        for name in ready:
            depth[name] = 1 + max((depth[other] for other in left[name]), default=-1)
        left = {name: below for name, below in left.items() if name not in ready}
    return [sorted(n for n, d in depth.items() if d == level) for level in sorted(set(depth.values()), reverse=True)]


def rows_of(names: Sequence[str], label: Mapping[str, str]) -> list[list[str]]:
    """Break one layer into rows that fit the width."""
    rows: list[list[str]] = [[]]
    used = 0.0
    for name in names:
        width = box_width(label[name])
        if rows[-1] and used + width > WIDTH - 2 * MARGIN - 2 * GAP:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += width + GAP
    return rows


def box_width(text: str) -> float:
    return len(text) * PX_PER_CHARACTER + 18


def labels(band: str, imports: Mapping[str, set[str]], graph: Any) -> dict[str, str]:
    """Name each box; a package with its number of modules."""
    out = {}
    for name in imports:
        below = [m for m in graph.find_descendants(name) if not graph.find_children(m)]
        short = name.removeprefix(f"{band}.")
        out[name] = f"{short}/ {len(below)}" if below else short
    return out


def draw(graph: Any) -> str:
    """Return the SVG."""
    parts: list[str] = []
    y = float(MARGIN)
    for band, about in BANDS:
        imports = siblings(graph, band)
        label = labels(band, imports, graph)
        rows = [row for layer in layers(imports) for row in rows_of(layer, label)]
        height = TITLE + len(rows) * (BOX_HEIGHT + ROW_GAP) - ROW_GAP + 2 * GAP
        parts.append(
            f'<rect class="band" x="{MARGIN}" y="{y:g}" width="{WIDTH - 2 * MARGIN}" height="{height:g}" rx="8"/>'
        )
        note = f'<tspan dx="12" class="about">{escape(about)}</tspan>'
        parts.append(f'<text class="title" x="{MARGIN + 14}" y="{y + 24:g}">{band}/{note}</text>')
        place: dict[str, tuple[float, float, float]] = {}
        for number, row in enumerate(rows):
            total = sum(box_width(label[name]) for name in row) + GAP * (len(row) - 1)
            x, top = (WIDTH - total) / 2, y + TITLE + GAP + number * (BOX_HEIGHT + ROW_GAP)
            for name in row:
                place[name] = x, top, box_width(label[name])
                x += box_width(label[name]) + GAP
        for name, below in sorted(imports.items()):
            for other in sorted(below):
                (x0, y0, w0), (x1, y1, w1) = place[name], place[other]
                middle = (y0 + BOX_HEIGHT + y1) / 2
                start, end = x0 + w0 / 2, x1 + w1 / 2
                curve = f"M{start:.0f} {y0 + BOX_HEIGHT:.0f}C{start:.0f} {middle:.0f} {end:.0f} {middle:.0f} {end:.0f} {y1:.0f}"
                parts.append(f'<path d="{curve}"/>')
        for name, (x, top, width) in sorted(place.items()):
            parts.append(
                f'<rect class="box" x="{x:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="4"/>'
            )
            parts.append(f'<text x="{x + width / 2:.0f}" y="{top + 17:.0f}" text-anchor="middle">{label[name]}</text>')
        y += height + GAP
    style = (
        "text{font:12px ui-monospace,monospace;fill:#1b1f24}.title{font-weight:700;font-size:15px}.about{font:13px sans-serif;"
        "font-weight:400;fill:#57606a}.band{fill:#f6f8fa;stroke:#d0d7de}.box{fill:#fff;stroke:#8c959f}"
        "path{fill:none;stroke:#0969da;stroke-opacity:.3}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" width="{WIDTH}" height="{y:g}">'
    return "\n".join([head, f"<style>{style}</style>", *parts, "</svg>"]) + "\n"


def picture() -> str:
    """Return the SVG of the code as it is."""
    import grimp

    return draw(grimp.build_graph(*(band for band, _ in BANDS), cache_dir=None))


if __name__ == "__main__":
    PICTURE.write_text(picture())
