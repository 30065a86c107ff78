"""Render a page from a template: one file, autoescaped, with a policy that allows its own style sheet and script only."""

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any


def render(
    template: str, css: Sequence[str] = (), scripts: Sequence[str] = (), media: str = "data:", **values: Any
) -> str:
    """Return the HTML of a template that extends html/base.html.

    template, css, scripts: paths of files below pipelines/, "report/report.html"; html/base.css precedes `css`.
    media: sources that the policy allows for videos. values: data for the template; every string in them is escaped.
    """
    from markupsafe import Markup

    style = "".join(map(_read, ("html/base.css", *css)))
    script = "".join(map(_read, scripts))
    policy = f"default-src 'none'; img-src data:; media-src {media}; style-src {_hash(style)}"
    if script:
        policy += f"; script-src {_hash(script)}"
    own = {"css": Markup(style), "script": Markup(script), "policy": Markup(policy)}  # ours, not data
    return _environment().get_template(template).render(own | values)


def fragment(template: str, **values: Any) -> str:
    """Return the HTML of a template that is a part of a Gradio page; every string in `values` is escaped.

    Gradio fills in ${…} and {{…}} of HTML that it shows, so those are escaped, too.
    """
    return _environment().get_template(template).render(values).replace("{", "&#123;").replace("$", "&#36;")


def data_uri(data: bytes, mime: str = "image/jpeg") -> str:
    """Return a file as a data: URI, so that a page contains it."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    env = Environment(
        loader=FunctionLoader(_read), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {"number": number, "span": span, "size": size}
    return env


def _read(path: str) -> str:
    return files("pipelines").joinpath(path).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression that allows exactly this inline text (CSP level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def number(value: float, digits: int = 0) -> str:
    """Format 12345 with a thin space as thousands separator."""
    return f"{value:,.{digits}f}".replace(",", " ")


def span(seconds: float) -> str:
    """Format seconds for readers: 12 ms, 4.2 s, 3 min 10 s, 7 h 5 min."""
    if 0 < seconds < 0.0005:
        return "< 1 ms"
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Format bytes in the largest unit that gives at least 1."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
