"""Errors as the page shows them."""

import html

DURATION_S = 20  # display time of an error message, seconds


def gradio_error(error: Exception) -> Exception:
    """Return a gr.Error with the escaped message, since Gradio renders messages as HTML."""
    import gradio as gr

    lines = "<br>".join(html.escape(line) for line in str(error).splitlines())
    return gr.Error(lines, duration=DURATION_S, print_exception=False)
