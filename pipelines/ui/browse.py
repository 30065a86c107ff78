"""The tab that browses a work folder: clips, elements and rejects, with filters; a click explains an entry."""

from typing import Any

from pipelines.html.page import fragment
from pipelines.ui.message import gradio_error
from pipelines.ui.work import Row, WorkFolder, decode_data_uri

TABLES = ("Clips", "Elements", "Rejected")
PAGE_SIZE = 24  # pictures shown at a time
ANY_GROUP = "all"
# the explanation is below all the pictures
SCROLL_TO_EXPLANATION = "() => document.getElementById('explained').scrollIntoView({block: 'nearest'})"


def filter_rows(rows: list[Row], group: str, search: str) -> list[Row]:
    """Return the rows of a group whose key or words contain the text."""
    text = search.strip().lower()
    return [
        row
        for row in rows
        if group in (ANY_GROUP, row.group) and (text in row.key.lower() or text in row.about.lower())
    ]


def explain_html(work: WorkFolder, key: str) -> str:
    """Return the HTML of the history of a key. Raises gr.Error for an unknown one."""
    try:
        return fragment("ui/explained.html", lines=work.explain(key.strip()).splitlines())
    except (OSError, ValueError) as error:
        raise gradio_error(error) from error


def browse_tab(gr: Any, page: Any, work: WorkFolder) -> None:
    """Add the tab."""
    with gr.Row():
        table = gr.Radio(TABLES, value="Clips", label="Show", elem_id="what", min_width=280)
        group = gr.Dropdown([ANY_GROUP], value=ANY_GROUP, label="Fate, kind or reason", elem_id="group", min_width=200)
        search = gr.Textbox("", label="Search", placeholder="id or label", elem_id="browse-search", min_width=150)
    position = gr.HTML(elem_id="browse-where")
    with gr.Row():
        buttons = [
            gr.Button(w, elem_id=f"browse-{w.lower()}", size="md", min_width=90) for w in ("Previous", "Next", "Reload")
        ]
    tiles = gr.Gallery(
        show_label=False, elem_id="tiles", columns=6, height="auto", allow_preview=False, object_fit="contain", buttons=[]
    )  # fmt: skip
    with gr.Row(elem_classes="beside"):
        key = gr.Textbox(label="Explain a video, clip or element", placeholder="click a picture, or type an id", scale=4,
                         elem_id="key", min_width=200)  # fmt: skip
        explain_button = gr.Button("Explain", elem_id="explain", min_width=100)
    text = gr.HTML(elem_id="explained")
    first, keys = gr.State(0), gr.State([])
    views = [first, keys, position, tiles]

    def show(table_name: str, name: str, query: str, start: int) -> tuple[Any, ...]:
        try:
            rows = filter_rows(work.rows(table_name), name, query)
            start = start if 0 <= start < len(rows) else 0
            page_rows = rows[start : start + PAGE_SIZE]
            pictures = work.pictures(page_rows)
        except (OSError, ValueError) as error:
            raise gradio_error(error) from error
        page_rows.sort(key=lambda row: row.key not in pictures)  # stable: those with a picture first
        range_html = fragment("ui/range.html", start=start, end=start + len(page_rows), count=len(rows), what=table_name.lower(),
                         lacking=[row for row in page_rows if row.key not in pictures])  # fmt: skip
        gallery = [
            (decode_data_uri(pictures[row.key]), f"{row.about}\n{row.key}") for row in page_rows if row.key in pictures
        ]
        # hidden if empty: Gradio's picture of an empty gallery is meaningless
        return start, [row.key for row in page_rows], range_html, gr.update(value=gallery, visible=bool(gallery))

    def load(table_name: str, query: str) -> tuple[Any, ...]:
        counts = sorted(work.groups(table_name).items(), key=lambda item: (-item[1], item[0]))
        names = gr.update(
            choices=[ANY_GROUP, *((f"{name} ({count})", name) for name, count in counts)], value=ANY_GROUP
        )
        return names, *show(table_name, ANY_GROUP, query, 0)

    def reload(table_name: str, query: str) -> tuple[Any, ...]:
        work.reload()
        return load(table_name, query)

    def select(row_keys: list[str], event: gr.SelectData) -> tuple[str, str]:
        return row_keys[event.index], explain_html(work, row_keys[event.index])

    filters = [table, group, search]
    quiet = {"api_name": False, "show_progress": "hidden"}
    page.load(load, [table, search], [group, *views], **quiet)
    table.change(load, [table, search], [group, *views], **quiet)
    gr.on(
        [group.input, search.change],
        lambda table_name, name, query: show(table_name, name, query, 0),
        filters,
        views,
        **quiet,
    )
    for button, step in zip(buttons, (-PAGE_SIZE, PAGE_SIZE), strict=False):
        button.click(
            lambda table_name, name, query, n, step=step: show(table_name, name, query, n + step),
            [*filters, first],
            views,
            **quiet,
        )
    buttons[2].click(reload, [table, search], [group, *views], **quiet)
    tiles.select(select, keys, [key, text], **quiet).success(None, js=SCROLL_TO_EXPLANATION)
    gr.on([explain_button.click, key.submit], lambda name: explain_html(work, name), key, text, api_name=False)
