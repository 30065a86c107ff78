"""Writes the parts of the pages that follow from the code: the records of docs/records.md, the cards of docs/models.md.

python -m docs.make
"""

# The picture of the README is the third triplet of the report of the demo, without its footer: a screenshot of the element by
# playwright, at a width of 1300 px and a device scale of 2, then
#
#   a = Image.open("hero.png").convert("RGB"); a = a.resize((1600, round(1600 * a.height / a.width)), Image.Resampling.LANCZOS)
#   a.quantize(256, dither=Image.Dither.NONE).save("docs/triplet.png", optimize=True)

import ast
import html
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from a2data import records
from a2data.media import images
from a2data.store.schema import arrow_type
from model_zoo import cards
from model_zoo.catalogue import CARDS
from model_zoo.roles import Card
from model_zoo.weights import pinned
from pipelines.run.settings import documented_fields
from pipelines.triplets import triplets

HERE = Path(__file__).parent
GENERATED = re.compile(r"<!-- generated from [^>]+ -->\n\n(.*?)\n<!-- to here -->", re.DOTALL)


def main() -> None:
    for path, text in pages().items():
        path.write_text(text)


def pages() -> dict[Path, str]:
    """Return every page with a generated part, with that part rebuilt."""
    parts = {HERE / "records.md": all_records(), HERE / "models.md": all_cards()}
    return {path: fill(path.read_text(), part) for path, part in parts.items()}


def fill(page: str, part: str) -> str:
    """Return the page with `part` between its marks. Raises ValueError if it has no marks."""
    found = GENERATED.search(page)
    if found is None:
        raise ValueError(f"no line like `<!-- generated from ... -->` and `<!-- to here -->` in the page {page[:40]!r}")
    return page[: found.start(1)] + part + page[found.end(1) :]


# -- records -----------------------------------------------------------------------------------------------------------


def all_records() -> str:
    """Return the conventions, the types, and every record with its columns."""
    tree = ast.parse(inspect.getsource(records))
    parts = [conventions(ast.get_docstring(tree) or ""), arrow_types()]
    parts += [record(node) for node in tree.body if isinstance(node, ast.ClassDef)]
    return "\n".join(parts)


def conventions(docstring: str) -> str:
    """Return the conventions at the start of the module, as a list."""
    _, _, rules = docstring.partition("Conventions, everywhere in the project:")
    return "".join(f"* {escape(rule)}\n" for rule in " ".join(rules.split()).rstrip(".").split("; "))


def arrow_types() -> str:
    types: dict[str, Any] = {
        "str": str,
        "int": int,
        "float": float,
        "bool": bool,
        "bytes": bytes,
        "list[str]": list[str],
    }
    types |= {"Box": images.Box, "Vector": records.Vector}
    rows = [(f"`{name}`", f"`{arrow_type(hint)}`") for name, hint in types.items()]
    return table(("in the code", "in the file"), [*rows, ("a record", "a struct of its fields")])


def record(node: ast.ClassDef) -> str:
    """Return the heading of a record, its description, the stages that write it, and its columns."""
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    makers = [stage.name() for stage in triplets() if stage.writes.__name__ == node.name]
    about = " ".join((ast.get_docstring(node) or "").split())
    text = f"## {node.name}\n\n{escape(about)}"
    if makers:
        text += f" Written by {', '.join(f'`{name}`' for name in makers)}."
    if bases:
        text += f" All columns of [{bases[0]}](#{bases[0].lower()}), and:"
    return text + "\n\n" + table(("column", "type", "what it is"), columns(node))


def columns(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    for field, doc in documented_fields(node):
        yield f"`{ast.unparse(field.target)}`", f"`{ast.unparse(field.annotation)}`", escape(doc)


# -- models ------------------------------------------------------------------------------------------------------------


def all_cards() -> str:
    """Every model, by role: what it does, what it sees, what its licences are and what it costs."""
    roles = dict(re.findall(r"^\* ([\w, -]+?): +((?:.*\n)(?:^  .*\n)*)", inspect.getdoc(cards) or "", re.MULTILINE))
    said = {role: " ".join(text.split()) for names, text in roles.items() for role in names.split(", ")}
    by_role: dict[str, list[tuple[str, Card]]] = {}
    for name, card in CARDS.items():
        by_role.setdefault(card.role, []).append((name, card))
    if unsaid := set(by_role) - set(said):
        raise ValueError(
            f"model_zoo/cards.py does not say how models of the role {', '.join(sorted(unsaid))} are called"
        )
    parts = [f"## {role}\n\n{said[role]}.\n\n{models(by_role[role])}" for role in said if role in by_role]
    return "\n".join(parts)


def models(named: Iterable[tuple[str, Card]]) -> str:
    head = ("card", "what it is", "it sees", "code", "weights", "use", "MB", "memory, MB", "GPU", "extra", "fallback")
    return table(head, [model(name, card) for name, card in named])


def model(name: str, card: Card) -> tuple[str, ...]:
    """Return the row of a card."""
    source = (
        f"`{card.weights}`" + (f" at `{card.revision[:12]}`" if pinned(card.revision) else "") if card.weights else ""
    )
    licences = card.code_license, ", ".join(filter(None, (card.weights_license or "no weights", source)))
    use = card.use + (", remote code" if card.trust_remote_code else "")
    cost = [f"{n:g}" if n else "" for n in (card.size_mb, card.memory_mb, card.gpus)]
    extra, fallback = (f"`{text}`" if text else "" for text in (card.extra, card.fallback))
    return f"`{name}`", prose(what_it_is(card)), prose(card.input), *licences, use, *cost, extra, fallback


def what_it_is(card: Card) -> str:
    """Return the first sentence of the builder's docstring, parsed without an import: builders import heavy packages."""
    module, _, function = card.builder.partition(":")
    tree = ast.parse((HERE.parent / (module.replace(".", "/") + ".py")).read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    about = " ".join((ast.get_docstring(found[0]) or "").split()) if found else ""
    return re.split(r"(?<!\bal)\.(?=\s+[A-Z`]|$)", about)[0]


# -- Markdown ----------------------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def escape(text: str) -> str:
    """Escape prose from the code for Markdown, so that it does not contain tags or emphasis."""
    return html.escape(text, quote=False).replace("*", "\\*")


def prose(text: str) -> str:
    """Escape prose, except code in backticks, which Markdown does not interpret."""
    return "`".join(part if number % 2 else escape(part) for number, part in enumerate(text.split("`")))


if __name__ == "__main__":
    main()
