"""`a2data completion`: a script that completes commands, flags, choices and file names in a shell."""

import argparse
from collections.abc import Iterator

from pipelines.cli.flags import Parser


def add_flags(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `a2data completion`."""
    sub.set_defaults(func=_print)
    sub.add_argument("shell", choices=("bash", "zsh", "fish"), help="shell to print the script for")


def _print(args: argparse.Namespace) -> int:
    import shtab

    from pipelines.cli.main import parser

    top = parser()
    for action in _actions(top):
        # numbers and choices are not paths
        if action.nargs != 0 and action.choices is None and action.type is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(top, args.shell))
    return 0


def _actions(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a command and of all its subcommands."""
    for action in (command.build_arguments() if isinstance(command, Parser) else command)._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
