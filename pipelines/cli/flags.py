"""Command-line flags from the fields of a settings class, and parsers that are built when they are used."""

import argparse
import difflib
import re
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any, Literal, NoReturn, get_args, get_origin


class UsageError(ValueError):
    """An invalid argument. parser: that of the command, to print its usage."""

    def __init__(self, parser: argparse.ArgumentParser, message: str):
        super().__init__(message)
        self.parser = parser


class TopLevelParser(argparse.ArgumentParser):
    """The parser of all commands; it suggests the command that a misspelt one resembles. Raises UsageError."""

    def error(self, message: str) -> NoReturn:
        match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if match and "COMMAND" in message:
            close = difflib.get_close_matches(match[1], re.findall(r"[\w-]+", match[2]), 1)
            hint = f"did you mean `{self.prog} {close[0]}`?" if close else f"`{self.prog} --help` lists them"
            message = f"there is no command {match[1]!r}: {hint}"
        raise UsageError(self, message)


class Version(argparse.Action):
    """Print the installed version."""

    def __init__(self, option_strings: list[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"a2data {version('a2data')}")
        parser.exit()


class Parser(argparse.ArgumentParser):
    """A parser whose arguments are added by `build` when it first parses or prints help.

    With many subcommands, only the module of the chosen one is imported.
    """

    def __init__(self, *args: Any, build: Callable[["Parser"], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._builder = build

    def error(self, message: str) -> NoReturn:
        raise UsageError(self, message)

    def build_arguments(self) -> "Parser":
        """Add the arguments if they are missing and return the parser."""
        if self._builder:
            builder, self._builder = self._builder, None
            builder(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.build_arguments()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        self.build_arguments()
        return super().format_help()


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_int_or_all(text: str) -> int:
    """Parse "all" as 0, other text as a whole number of at least 1."""
    return 0 if text == "all" else positive_int(text)


def add_json_flag(sub: argparse.ArgumentParser) -> None:
    """Add --json."""
    sub.add_argument("--json", action="store_true", help="print JSON")


def add_settings(command: Any, settings: Any, exclude: Collection[str] = ()) -> None:
    """Add a flag for each field of a settings class, or of an instance whose values are the defaults that help shows.

    command: a parser or an argument group. The help text is the docstring under the field. A flag that is not given is None, so
    that it changes nothing, see `given_values`.
    """
    from pipelines.run.settings import field_docs

    docs = field_docs(settings if isinstance(settings, type) else type(settings))
    for f in fields(settings):
        if f.name in exclude:
            continue
        flag, note = "--" + f.name.replace("_", "-"), docs[f.name]
        # a field with a default that is too long to print describes it itself
        if "(default: " not in note:
            note = f"{note} (default: {getattr(settings, f.name)!r})".strip()
        note = note.replace("%", "%%")
        if f.type is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=note)
        elif get_origin(f.type) is Literal:
            command.add_argument(flag, choices=[choice for choice in get_args(f.type) if choice], help=note)
        else:
            kind: Any = f.type
            command.add_argument(flag, type=argparse_type(flag, kind), help=note, metavar=kind.__name__.upper())


def given_values(args: argparse.Namespace, settings: Any, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return the values of the flags of `add_settings` that were given, by field."""
    values = {f.name: getattr(args, f.name, None) for f in fields(settings) if f.name not in exclude}
    return {name: value for name, value in values.items() if value is not None}


def argparse_type(flag: str, kind: type) -> Callable[[str], Any]:
    """Return the `type` function for argparse, which parses a flag's text as a `kind`."""

    from pipelines.run.settings import parse

    def read(value: str) -> Any:
        try:
            return parse(value, kind, flag)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
