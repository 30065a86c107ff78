"""The page and its server."""

import os
from importlib.resources import files
from typing import Any

from pipelines.ui.work import WorkFolder

LOOPBACK = "127.0.0.1"
# colours with a contrast of at least 4.5 to 1, where those of the theme have less
THEME_COLOURS = {
    "body_text_color_subdued": "*neutral_600",
    "input_placeholder_color": "*neutral_600",
    "input_placeholder_color_dark": "*neutral_400",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
}


def serve(blocks: Any, host: str = LOOPBACK, port: int | None = None, out: str = "videos") -> Any:
    """Start the server without blocking and return the page."""
    import gradio as gr

    # system fonts: others would be fetched from the network
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(**THEME_COLOURS)
    assets = files("pipelines").joinpath("ui")
    css, js = (assets.joinpath(name).read_text(encoding="utf-8") for name in ("ui.css", "ui.js"))
    blocks.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, theme=theme, css=css, js=js, show_error=True,
        allowed_paths=[os.path.abspath(out)], share=False, enable_monitoring=False, ssr_mode=False,
    )  # fmt: skip
    return blocks


def page(
    checkpoint: str | None, shards: str | None, out: str, device: str | None = None, work: WorkFolder | None = None
) -> Any:
    """Return the page, with a tab for each of a checkpoint to sample with, a work folder and a folder of shards.

    The checkpoint is loaded on the first request. Raises ValueError if none is given, FileNotFoundError for a folder that is
    not a checkpoint or has no shards, ModuleNotFoundError without gradio.
    """
    if not (checkpoint or shards or work):
        raise ValueError(
            "nothing to show: give a --checkpoint to sample with, a --work folder to look at, or --shards to browse"
        )
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    with gr.Blocks(title="a2data", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("# a2data")
        if checkpoint:
            from pipelines.sample.checkpoint import Checkpoint
            from pipelines.ui.sample import SingleFlight, sample_tab

            with gr.Tab("Sample", elem_id="tab-sample"):
                sample_tab(gr, SingleFlight(Checkpoint.with_references(checkpoint), device), out)
        if work:
            from pipelines.ui import browse, pairs

            with gr.Tab("Pairs", elem_id="tab-pairs"):
                pairs.pairs_tab(gr, blocks, work)
            with gr.Tab("Browse", elem_id="tab-browse"):
                browse.browse_tab(gr, blocks, work)
        if shards:
            from pipelines.ui.shards import ShardReader, shards_tab

            with gr.Tab("Shards", elem_id="tab-shards"):
                shards_tab(gr, blocks, ShardReader(shards))
    return blocks
