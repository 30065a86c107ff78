"""The notebook, executed cell by cell as a notebook would: the value of a last expression is displayed."""

import ast
import json
from pathlib import Path

import pytest
from drawn_film import QUICK, film

NOTEBOOK = Path(__file__).parents[2] / "examples" / "triplets.ipynb"


def displayed(value) -> str | bytes:
    for form in ("_repr_png_", "_repr_html_"):
        if hasattr(value, form):
            return getattr(value, form)()
    return repr(value)


def execute(names: dict) -> list[str | bytes]:
    """Execute the cells and return what they display. The names replace those that a cell sets."""
    shown = []
    scope: dict = {}
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        *body, last = ast.parse("".join(cell["source"])).body
        tail = isinstance(last, ast.Expr)
        exec(compile(ast.Module(body if tail else [*body, last], []), NOTEBOOK.name, "exec"), scope)
        scope |= {name: value for name, value in names.items() if name in scope}
        if tail:
            shown.append(displayed(eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), scope)))
    return shown


@pytest.mark.slow
def test_the_notebook_makes_and_shows_triplets(tmp_path, capsys):
    (tmp_path / "films").mkdir()
    for seed in (1, 2):
        film(tmp_path / "films" / f"{seed}.mp4", seed)
    flags = {"in_process": True, "settings": dict(word.split("=", 1) for word in QUICK if "." in word)}
    shown = execute({"VIDEOS": tmp_path / "films", "WORK": tmp_path / "work", "FLAGS": flags})

    assert "<td>pack</td>" in shown[0]
    assert any("data:video/mp4;base64," in text for text in shown if isinstance(text, str))
    assert "verdict     kept" in capsys.readouterr().out
    assert shown[-1] == repr(str(tmp_path / "work" / "report.html"))


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []
