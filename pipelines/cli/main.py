"""Turn raw video into prompt-reference-video triplets; train, sample and judge the models that learn from them."""

import argparse
import contextlib
import logging
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module

from pipelines.cli.commands import COMMANDS, Command
from pipelines.cli.flags import Parser, TopLevelParser, UsageError, Version

log = logging.getLogger("a2data")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0: success. 1: a job failed and the failure was reported. 2: the command or its arguments are invalid. 130: interrupted.
    143: terminated by SIGTERM.
    """
    try:
        args = parser().parse_args(argv)
    except UsageError as error:
        argparse.ArgumentParser.error(error.parser, str(error))
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO if args.verbose else logging.ERROR)
    if not args.verbose:
        _silence_imports()
    try:
        with _interrupt_on_sigterm():
            return execute(args)
    except KeyboardInterrupt as stopped:
        reason, code = ("terminated", 143) if isinstance(stopped, _Terminated) else ("interrupted", 130)
        print(f"a2data: {reason}; re-run the same command to resume", file=sys.stderr)
        return code
    except BrokenPipeError:  # `a2data explain ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _report_error(error, args)


def _silence_imports() -> None:
    """Hide what torch, torchao and diffusers log when they are imported and a user cannot change."""
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    for library in ("torch.utils._pytree", "torchao"):
        logging.getLogger(library).setLevel(logging.ERROR)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as a batch system or a container runtime sends it before it kills."""


@contextlib.contextmanager
def _interrupt_on_sigterm() -> Iterator[None]:
    """Stop as on Ctrl-C when SIGTERM comes. A rank of torchrun dies at once, as its launcher expects."""
    if threading.current_thread() is not threading.main_thread() or "RANK" in os.environ:
        yield
        return

    def stop(*_: object) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _report_error(error: Exception, args: argparse.Namespace) -> int:
    """Print an error that the user can mend and return the exit code; raise any other again."""
    from a2data.store.url import scrub
    from pipelines.run.schedule import ClusterLostError

    if isinstance(error, ClusterLostError | FloatingPointError):  # the run failed, not its arguments
        print(f"a2data: {error}", file=sys.stderr)
        return 1
    if args.verbose or not isinstance(error, ValueError | OSError | ImportError):
        raise error
    print(scrub(f"a2data: {_missing_extra(error, args) or error}{_credentials_hint(error)}"), file=sys.stderr)
    return 2


def _credentials_hint(error: Exception) -> str:
    """Return what to do if S3 refused the credentials; "" otherwise. Its answers to HEAD requests have a status and no text."""
    is_denied = re.search(r"AWS Error (?!SLOW_DOWN).*\b(HTTP status 40[013]|ACCESS_DENIED|ExpiredToken)\b", str(error))
    return ". Check the credentials of the object store: they may be missing, wrong or expired" if is_denied else ""


def _missing_extra(error: Exception, args: argparse.Namespace) -> str:
    """Name the extra that installs the package a command lacks; "" for other errors, and where the error names it already."""
    if not isinstance(error, ModuleNotFoundError) or not str(error).startswith("No module named"):
        return ""
    package = (error.name or "").partition(".")[0]
    # any command with --ray may lack ray
    extra = {"ray": "ray", "prometheus_client": "metrics"}.get(package) or COMMANDS[args.command].extra
    if not extra or package in ("a2data", "model_zoo", "stages", "pipelines"):
        return ""
    return f"`a2data {args.command}` needs the package {package!r}: pip install 'a2data[{extra}]'"


def execute(args: argparse.Namespace) -> int:
    """Run a command and return its exit code.

    It is rerun if it found a damaged part, which was moved aside. Every command is safe to rerun.
    """
    attempts: Counter = Counter()
    while True:
        try:
            return int(args.func(args) or 0)
        except ValueError as error:
            from a2data.store.parquet import DamagedError
            from pipelines.run.schedule import MAX_WORKER_DEATHS

            if not (isinstance(error, DamagedError) and error.moved):
                raise
            attempts[error.path] += 1
            if attempts[error.path] == MAX_WORKER_DEATHS:
                raise
            log.error("%s", error)


def parser() -> TopLevelParser:
    """Return the parser with all commands; the arguments of each are added when they are first needed."""
    top = TopLevelParser("a2data", description=__doc__)
    top.add_argument("--version", action=Version, help="print the version")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        build = partial(_build, command)
        first_sentence = command.summary.partition(". ")[0].removesuffix(".")
        commands.add_parser(name, help=first_sentence, description=command.summary, build=build)
    return top


def _build(command: Command, sub: Parser) -> None:
    sub.add_argument("--verbose", action="store_true", help="log progress and tracebacks")
    if command.work:
        sub.add_argument("work", metavar="WORK", help="work folder (or URL) with the tables")
    module, _, function = command.flags.partition(":")
    getattr(import_module(f"pipelines.cli.{module}"), function)(sub)
