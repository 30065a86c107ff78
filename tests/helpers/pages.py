"""The fenced blocks of the pages, and the commands in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    path: str  # the file that it is, or changes; "" for none
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def commands(page: Path) -> list[str]:
    """What a reader is told to type: the lines of console blocks after "$ "."""
    lines = [line for block in blocks(page) if block.language == "console" for line in block.text.splitlines()]
    return [line[2:] for line in lines if line.startswith("$ ")]
