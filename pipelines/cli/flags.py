"""Command-line flags from the fields of a stage or of settings: name, type, default and the comment as help text."""

import argparse
import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from a2data.stage import Stage
from pipelines.run.recipe import RUNNER_OWNED
from pipelines.run.settings import TYPES, parse


def add_flags(command: argparse.ArgumentParser, stage: Stage) -> None:
    """Add a flag for each field, with the comment beside it as help. A flag that is not given is None and changes nothing."""
    help_texts = field_help(stage)
    for f in fields(stage):  # type: ignore[arg-type]
        flag, kind = "--" + f.name.replace("_", "-"), TYPES[f.type]
        note = f"{help_texts.get(f.name, '')} (default: {getattr(stage, f.name)!r})".strip().replace("%", "%%")
        if (stage.name(), f.name) in RUNNER_OWNED:
            continue
        if kind is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=note)
        else:
            command.add_argument(
                flag, type=argparse_type(flag, kind), default=None, help=note, metavar=kind.__name__.upper()
            )


def field_help(stage: Stage) -> dict[str, str]:
    """Return the comment beside each field of a stage. The default is on the field's line or, in brackets, on the next."""
    return _field_help(type(stage))  # type: ignore[arg-type]  # a class is hashable


@functools.cache  # finding the source of a class parses its whole file
def _field_help(kind: type) -> dict[str, str]:
    return dict(re.findall(r"^    (\w+): \w+ = (?:\(\n)?.*?  # (.*)$", inspect.getsource(kind), re.MULTILINE))


def argparse_type(flag: str, kind: type) -> Callable[[str], Any]:
    """Return the `type` function for argparse, which parses a flag's text as a `kind`."""

    def read(value: str) -> Any:
        try:
            return parse(value, kind, flag)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
