"""The tab that browses a work folder: clips, elements and what was rejected, with filters, each explained by a click."""

from typing import Any

from pipelines.html.page import fragment
from pipelines.ui.message import gradio_error
from pipelines.ui.work import Row, WorkFolder, decode_data_uri

WHAT = ("Clips", "Elements", "Rejected")
PAGE = 24  # pictures shown at a time
ANY = "all"
SCROLL = "() => document.getElementById('explained').scrollIntoView({block: 'nearest'})"  # below all the pictures


def filter_rows(rows: list[Row], group: str, search: str) -> list[Row]:
    """Return the rows of a group whose key or words contain the text."""
    text = search.strip().lower()
    return [row for row in rows if group in (ANY, row.group) and (text in row.key.lower() or text in row.about.lower())]


def explain_html(work: WorkFolder, key: str) -> str:
    """Return the HTML of the history of a key. Raises gr.Error for an unknown one."""
    try:
        return fragment("ui/explained.html", lines=work.explained(key.strip()).splitlines())
    except (OSError, ValueError) as error:
        raise gradio_error(error) from error


def browse_tab(gr: Any, page: Any, work: WorkFolder) -> None:
    """Add the tab."""
    with gr.Row():
        what = gr.Radio(WHAT, value="Clips", label="Show", elem_id="what", min_width=280)
        group = gr.Dropdown([ANY], value=ANY, label="Fate, kind or reason", elem_id="group", min_width=200)
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
        ask = gr.Button("Explain", elem_id="explain", min_width=100)
    text = gr.HTML(elem_id="explained")
    first, keys = gr.State(0), gr.State([])
    views = [first, keys, position, tiles]

    def show(of: str, name: str, words: str, start: int) -> tuple[Any, ...]:
        try:
            rows = filter_rows(work.rows(of), name, words)
            start = start if 0 <= start < len(rows) else 0
            page_rows = rows[start : start + PAGE]
            pictures = work.pictures(page_rows)
        except (OSError, ValueError) as error:
            raise gradio_error(error) from error
        page_rows.sort(key=lambda row: row.key not in pictures)  # stable: those with a picture first
        range_html = fragment("ui/range.html", start=start, end=start + len(page_rows), count=len(rows), what=of.lower(),
                         lacking=[row for row in page_rows if row.key not in pictures])  # fmt: skip
        gallery = [
            (decode_data_uri(pictures[row.key]), f"{row.about}\n{row.key}") for row in page_rows if row.key in pictures
        ]
        # hidden if empty: Gradio's picture of an empty gallery says nothing
        return start, [row.key for row in page_rows], range_html, gr.update(value=gallery, visible=bool(gallery))

    def load(of: str, words: str) -> tuple[Any, ...]:
        counts = sorted(work.groups(of).items(), key=lambda item: (-item[1], item[0]))
        names = gr.update(choices=[ANY, *((f"{name} ({count})", name) for name, count in counts)], value=ANY)
        return names, *show(of, ANY, words, 0)

    def reload(of: str, words: str) -> tuple[Any, ...]:
        work.reload()
        return load(of, words)

    def select(known: list[str], event: gr.SelectData) -> tuple[str, str]:
        return known[event.index], explain_html(work, known[event.index])

    filters = [what, group, search]
    quiet = {"api_name": False, "show_progress": "hidden"}
    page.load(load, [what, search], [group, *views], **quiet)
    what.change(load, [what, search], [group, *views], **quiet)
    gr.on([group.input, search.change], lambda of, name, words: show(of, name, words, 0), filters, views, **quiet)
    for button, by in zip(buttons, (-PAGE, PAGE), strict=False):
        button.click(lambda of, name, words, n, by=by: show(of, name, words, n + by), [*filters, first], views, **quiet)
    buttons[2].click(reload, [what, search], [group, *views], **quiet)
    tiles.select(select, keys, [key, text], **quiet).success(None, js=SCROLL)
    gr.on([ask.click, key.submit], lambda name: explain_html(work, name), key, text, api_name=False)
