"""The documentation site: `make docs` builds it without network and fails on a dead link."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "a2data"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]
highlight_language = "text"
html_theme = "furo"
html_title = "a2data"
html_copy_source = html_show_sphinx = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [("py:.*", ".*")]


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_commands)


def add_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the help of every command on the page `commands`."""
    if page == "commands":
        os.environ["COLUMNS"] = "100"
        names = re.findall(r"^    ([a-z][a-z-]+)\b", helped([]), re.MULTILINE)
        source[0] += "\n".join(f"\n## {name}\n\n```text\n{helped([name])}```\n" for name in names)


def helped(words: list[str]) -> str:
    """Return what a command prints with --help."""
    from pipelines.cli import main as cli

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.parser().parse_args([*words, "--help"])
    return printed.getvalue()
