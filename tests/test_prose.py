"""Docs, help texts, docstrings and comments are plain technical English: they negate the verb and name the actor."""

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cli.flags import Parser
from pipelines.cli.main import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
UNIDIOMATIC = re.compile(r"\b(is|are|was|were) no \w+|\b(somebody|nobody|whoever|anybody)\b", re.IGNORECASE)
# in code, "if there is no X" is common and clear
UNIDIOMATIC_IN_CODE = re.compile(
    r"(?<!\bthere )\b(is|are|was|were) no (?!longer\b)\w+|\b(somebody|nobody|whoever|anybody)\b|\bto the bit\b",
    re.IGNORECASE,
)
PACKAGES = ("a2data", "model_zoo", "stages", "pipelines", "benchmarks", "docs", "examples")
MODULES = sorted(module for package in PACKAGES for module in (ROOT / package).rglob("*.py"))
OUTPUT = re.compile(r"^```text\n.*?^```$", re.MULTILINE | re.DOTALL)  # printed by programs, not written
GENERATED = re.compile(r"<!-- generated from .*?<!-- to here -->", re.DOTALL)  # from docstrings, by docs.make


def findings(name: str, text: str, pattern: re.Pattern[str] = UNIDIOMATIC) -> list[str]:
    """Return the unidiomatic lines of a text as "name:line: text"."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{name}:{number}: {line.strip()}" for number, line in lines if pattern.search(line)]


def prose_of(source: str) -> str:
    """Return the docstrings and comments of a module, each in its line, with everything else emptied."""
    lines = [""] * (source.count("\n") + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] += token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            for number, line in enumerate(text.split("\n") if text else [], node.body[0].lineno if text else 0):
                lines[number - 1] += line
    return "\n".join(lines)


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return the text with every match emptied, so that line numbers stay the same."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def helps(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield (command and flag, help text) of a command and all of its subcommands."""
    yield command.prog, f"{command.description or ''}\n{command.epilog or ''}"
    for action in (command.build_arguments() if isinstance(command, Parser) else command)._actions:
        yield f"{command.prog} {'/'.join(action.option_strings) or action.dest}", action.help or ""
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield f"{command.prog} {choice.dest}", choice.help or ""
            for subcommand in action.choices.values():
                yield from helps(subcommand)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_is_idiomatic(page):
    text = blanked(GENERATED, blanked(OUTPUT, page.read_text()))

    assert findings(str(page.relative_to(ROOT)), text) == []


@pytest.mark.parametrize(
    "page", [ROOT / "docs" / "models.md", ROOT / "docs" / "records.md"], ids=lambda page: page.name
)
def test_generated_part_is_idiomatic(page):
    text = page.read_text()

    assert GENERATED.search(text)
    assert findings(str(page.relative_to(ROOT)), text) == []


def test_help_is_idiomatic():
    texts = dict(helps(parser()))

    assert len(texts) > 100
    assert [line for name, text in texts.items() for line in findings(name, text)] == []


def test_docstrings_and_comments_are_idiomatic():
    assert len(MODULES) > 200
    # to find the prose of a module takes long
    sources = {module: text for module in MODULES if UNIDIOMATIC_IN_CODE.search(text := module.read_text())}
    found = [
        finding
        for module, source in sources.items()
        for finding in findings(str(module.relative_to(ROOT)), prose_of(source), UNIDIOMATIC_IN_CODE)
    ]

    assert found == []


def test_prose_of_a_module_keeps_line_numbers_and_drops_code():
    source = 'x = "nobody"\n# nobody\ndef f():\n    """First.\n\n    is no X\n    """\n'

    assert findings("m.py", prose_of(source), UNIDIOMATIC_IN_CODE) == ["m.py:2: # nobody", "m.py:6: is no X"]


@pytest.mark.parametrize(
    "line", ["A reject is no failure.", "Nobody reads it.", "what somebody\nwrote", "There are no rows"]
)
def test_unidiomatic_line_is_found(line):
    assert findings("page.md", f"Plain text.\n\n{line}") != []


@pytest.mark.parametrize("line", ["A reject is not a failure.", "It has no rows.", "is now fresh", "are not read"])
def test_idiomatic_line_passes(line):
    assert findings("page.md", line) == []
