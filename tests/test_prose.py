"""Docs and help texts are plain technical English: they negate the verb, not the noun, and name the actor."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.cli.flags import Parser
from pipelines.cli.main import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
UNIDIOMATIC = re.compile(r"\b(is|are|was|were) no \w+|\b(somebody|nobody|whoever|anybody)\b", re.IGNORECASE)
OUTPUT = re.compile(r"^```text\n.*?^```$", re.MULTILINE | re.DOTALL)  # printed by programs, not written
GENERATED = re.compile(r"<!-- generated from .*?<!-- to here -->", re.DOTALL)  # from docstrings, by docs.make


def findings(name: str, text: str) -> list[str]:
    """Return the unidiomatic lines of a text as "name:line: text"."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{name}:{number}: {line.strip()}" for number, line in lines if UNIDIOMATIC.search(line)]


def blanked(pattern: re.Pattern[str], text: str) -> str:
    """Return the text with every match emptied, so that line numbers stay the same."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def helps(command: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield (command and flag, help text) of a command and all of its subcommands."""
    yield command.prog, f"{command.description or ''}\n{command.epilog or ''}"
    for action in (command.built() if isinstance(command, Parser) else command)._actions:
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


@pytest.mark.parametrize(
    "line", ["A reject is no failure.", "Nobody reads it.", "what somebody\nwrote", "There are no rows"]
)
def test_unidiomatic_line_is_found(line):
    assert findings("page.md", f"Plain text.\n\n{line}") != []


@pytest.mark.parametrize("line", ["A reject is not a failure.", "It has no rows.", "is now fresh", "are not read"])
def test_idiomatic_line_passes(line):
    assert findings("page.md", line) == []
