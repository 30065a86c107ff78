"""The tab that shows the pairs of a work folder and marks them right or wrong."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from pipelines.html.page import fragment
from pipelines.report import audit, contact_sheets
from pipelines.report.audit import Pair
from pipelines.ui.browse import explain_html
from pipelines.ui.message import gradio_error
from pipelines.ui.work import WorkFolder

OUTCOMES = ("references", "rejected", "all")
MARKED = ("all", "not marked", "right", "wrong")
ORDERS = ("by element", "nearest to a threshold", "shuffled")


class Filters(NamedTuple):
    """Filters and order of the pairs."""

    outcome: str = "references"
    kind: str = "all"
    marked: str = "all"
    order: str = "by element"
    search: str = ""


def filter_pairs(pairs: Sequence[Pair], mark_of: Callable[[Pair], bool | None], filters: Filters) -> list[int]:
    """Return the numbers of the pairs that pass the filters, in order. mark_of: mark of a pair, None without one."""
    mark_values = {"not marked": None, "right": True, "wrong": False}
    indices = [
        n
        for n, pair in enumerate(pairs)
        if filters.outcome in ("all", "references" if pair.accepted else "rejected")
        and filters.kind in ("all", pair.kind)
        and (filters.marked == "all" or mark_of(pair) is mark_values[filters.marked])
        and any(filters.search.strip().lower() in text.lower() for text in (pair.target, pair.source, pair.reason))
    ]
    if filters.order == "shuffled":
        random.Random(0).shuffle(indices)  # the same order each time, so that marking can be resumed
    elif filters.order == "nearest to a threshold":
        indices.sort(key=lambda n: min(map(audit.threshold_distance, pairs[n].rules), default=math.inf))
    return indices


def pair_html(work: WorkFolder, pair: Pair) -> str:
    """Return the HTML of a pair: both frames with outlines, both cut-outs, and every rule."""
    pictures = audit.pictures(work.store, work.tables, [pair])
    shard_of = {name: work.elements[name][0] for name in (pair.target, pair.source) if name in work.elements}
    cut_outs = contact_sheets.cut_outs(work.store, work.tables, {(shard, name) for name, shard in shard_of.items()})
    sides = []
    for title, name in (("in the clip", pair.target), ("from another clip", pair.source)):
        frame, width, height, label, path = pictures["elements"].get(name, [None, 0, 0, "", ""])
        picture = cut_outs[name].picture if name in cut_outs else ""
        frame_uri = pictures["frames"][frame] if frame is not None else ""
        sides.append({"title": title, "name": name, "label": label, "frame": frame_uri, "picture": picture}
                     | {"width": width, "height": height, "path": path})  # fmt: skip
    return fragment("ui/pair.html", pair=pair, sides=sides, mark=work.mark_of(pair), isfinite=math.isfinite)


def marks_summary(work: WorkFolder) -> str:
    """Return how many pairs are marked, as text."""
    counts = Counter(each.same for each in work.marks.values())
    return f"{counts[True]} right, {counts[False]} wrong in {work.marks_path}"


def show(work: WorkFolder, indices: list[int], index: int) -> tuple[Any, ...]:
    """Return the outputs of the tab for a pair of the list: list, index, position as HTML, its card, no explanation."""
    pairs, total = work.pairs
    position = fragment(
        "ui/where.html", at=index, count=len(indices), pairs=len(pairs), total=total, marks=marks_summary(work)
    )
    try:
        card_html = pair_html(work, pairs[indices[index]]) if indices else ""
    except (OSError, ValueError) as error:
        raise gradio_error(error) from error
    return indices, index, position, card_html, ""


def show_filtered(work: WorkFolder, *filters: str) -> tuple[Any, ...]:
    """Show the first of the pairs that pass the filters."""
    return show(work, filter_pairs(work.pairs[0], work.mark_of, Filters(*filters)), 0)


def move(work: WorkFolder, step: int, indices: list[int], index: int) -> tuple[Any, ...]:
    """Show another pair of the list, which is a circle."""
    return show(work, indices, (index + step) % max(len(indices), 1))


def mark_pair(work: WorkFolder, same: bool | None, indices: list[int], index: int) -> tuple[Any, ...]:
    """Mark a pair and show the next; None removes its mark and stays."""
    if not indices:
        return show(work, indices, index)
    try:
        work.mark(work.pairs[0][indices[index]], same)
    except (OSError, ValueError) as error:
        raise gradio_error(error) from error
    return show(work, indices, index if same is None else min(index + 1, len(indices) - 1))


def explain_element(work: WorkFolder, side: str, indices: list[int], index: int) -> str:
    """Return the history of the "target" or "source" of a pair as HTML."""
    return explain_html(work, getattr(work.pairs[0][indices[index]], side)) if indices else ""


def pairs_tab(gr: Any, page: Any, work: WorkFolder) -> None:
    """Add the tab."""
    kinds = sorted({pair.kind for pair in work.pairs[0]})
    with gr.Row():
        outcome = gr.Dropdown(OUTCOMES, value="references", label="Pairs", elem_id="pair-which", min_width=150)
        kind = gr.Dropdown(["all", *kinds], value="all", label="Kind", elem_id="pair-kind", min_width=150)
        marked = gr.Dropdown(MARKED, value="all", label="Marked", elem_id="pair-marked", min_width=150)
        order = gr.Dropdown(ORDERS, value="by element", label="Order", elem_id="pair-order", min_width=150)
        search = gr.Textbox("", label="Search", placeholder="id or reason", elem_id="pair-search", min_width=150)
    position = gr.HTML(elem_id="pair-where")
    with gr.Row():
        right = gr.Button("Right (r)", variant="primary", elem_id="pair-right", min_width=130)
        wrong = gr.Button("Wrong (w)", variant="stop", elem_id="pair-wrong", min_width=130)
    with gr.Row():
        before = gr.Button("Previous (p)", size="sm", elem_id="pair-previous", min_width=90)
        after = gr.Button("Next (n)", size="sm", elem_id="pair-next", min_width=90)
        clear = gr.Button("Unmark (u)", size="sm", elem_id="pair-unmark", min_width=90)
    pair_box = gr.HTML(elem_id="pair")
    with gr.Row():
        explain_buttons = [
            gr.Button(f"Explain {word}", size="md", min_width=140) for word in ("the element", "its candidate")
        ]
    text = gr.HTML(elem_id="pair-explained")
    indices, index = gr.State([]), gr.State(0)
    outputs = [indices, index, position, pair_box, text]
    filters = [outcome, kind, marked, order, search]
    quick = {"api_name": False, "show_progress": "hidden"}
    page.load(partial(show_filtered, work), filters, outputs, **quick)
    gr.on([each.change for each in filters], partial(show_filtered, work), filters, outputs, **quick)
    for button, handler in (
        (before, partial(move, work, -1)),
        (after, partial(move, work, 1)),
        (right, partial(mark_pair, work, True)),
        (wrong, partial(mark_pair, work, False)),
        (clear, partial(mark_pair, work, None)),
    ):
        button.click(handler, [indices, index], outputs, **quick)
    for button, side in zip(explain_buttons, ("target", "source"), strict=True):
        button.click(partial(explain_element, work, side), [indices, index], text, **quick)
