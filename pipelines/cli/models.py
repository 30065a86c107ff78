"""`a2data models`: which models there are, what their licences ask, where their weights are, and how they get there."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from model_zoo import cards, weights
from model_zoo.roles import Card
from pipelines.triplets import PROFILES, triplets

USES = {
    "permissive": "any use",
    "copyleft": "any use, on conditions for what you offer",
    "non-commercial": "research only",
    "gated": "you must accept terms to get the weights",
    "biometric-restricted": "terms that limit the processing of faces or bodies",
}
AGPL = "who lets others use a program with it over a network must offer them that program's source, all of it"


def add_flags(models: argparse.ArgumentParser) -> None:
    """Give the parser of `a2data models` its own commands."""
    commands = models.add_subparsers(dest="action", required=True, metavar="COMMAND")

    def command(name: str, do: Any, summary: str, chooses: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(do=do)
        if chooses:
            sub.add_argument("--profile", choices=sorted(PROFILES), help="the models that its stages load")
            sub.add_argument("--role", help="the models of a role: detect, faces, ...")
        return sub

    command("list", _list, "every model: what it is for, its licences, where its weights are")
    sub = command("show", _show, "all that is known of a model", chooses=False)
    sub.add_argument("names", nargs="+", metavar="NAME")
    sub = command("fetch", _fetch, "bring weights to this machine, and write down what came")
    sub.add_argument("names", nargs="*", metavar="NAME")
    command("verify", _verify, "read all weights that are here: are they still what was fetched?")
    sub = command("licences", _licences, "what the licences of models ask; 1 where they forbid the use")
    sub.add_argument("names", nargs="*", metavar="NAME")
    sub.add_argument("--policy", choices=("commercial", "research"), help="the use that must be allowed")


def chosen(profile: str | None = None, role: str | None = None, names: Iterable[str] = ()) -> list[Card]:
    """The cards of a profile, of a role and with these names; every card where nothing is said.

    Raises ValueError for a name or role that there is not.
    """
    from model_zoo.catalogue import CARDS

    named = [*names, *(names_of(profile) if profile else [])]
    try:
        found = _with_companions([cards.base_card(name) for name in named or (() if profile else CARDS)])
    except KeyError as error:
        raise ValueError(error.args[0]) from error
    roles = sorted({card.role for card in CARDS.values()})
    if role and role not in roles:
        raise ValueError(f"there is no role {role!r}; the roles are {', '.join(roles)}")
    return [card for card in found if role in (None, card.role)]


def _with_companions(found: Iterable[Card]) -> list[Card]:
    """These cards, each once, with those of the networks that they run beside their own."""
    out: dict[str, Card] = {}
    for card in found:
        out[card.name] = card
        if card.companion:
            out |= {also.name: also for also in _with_companions([cards.base_card(card.companion)])}
    return list(out.values())


def names_of(profile: str) -> list[str]:
    """The names of the models that a profile's stages load, in order. Their weights need not be here."""
    with cards.names_only():
        return list(dict.fromkeys(name for stage in triplets(profile) for name in stage.models()))


def where(card: Card) -> str:
    """Where a card's weights are, in words."""
    if card.weights.startswith("http"):
        return card.weights
    if weights.fetched(card):
        path = weights.located(card)
        return str(path) if path else "not here"
    own = f"your own: {card.name}:PATH"
    if _is_family(card):
        return own
    packaged = f"in packages of a2data[{card.extra}]" if card.weights_license and card.extra else "none needed"
    return packaged if card.size_mb or not card.weights_license else f"{packaged}, or {own}"


def _is_family(card: Card) -> bool:
    """Whether a card stands for a kind of network only: others of the same builder name weights for it."""
    from model_zoo.catalogue import CARDS

    return any(other.builder == card.builder and other.weights for other in CARDS.values())


# -- commands ----------------------------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
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
            if field.name != "name" and value not in ("", 0, False):
                print(f"  {field.name:15} {value}")
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
        raise ValueError("which models? Name them, or a --profile or --role; `a2data models list` lists them")
    wanted = chosen(args.profile, args.role, args.names)
    away = [card for card in wanted if weights.fetched(card) and weights.located(card) is None]
    sizes = {card.weights: card.size_mb for card in away}  # two cards may share one network
    print(f"{len(away)} of {len(wanted)} models to fetch, about {sum(sizes.values()):,} MB, to {weights.folder()}")
    failed = 0
    for card in wanted:
        if not weights.fetched(card):
            print(f"{card.name}: nothing to fetch: {where(card)}")
            continue
        try:
            path, now = fetch(card)
            size = sum(file.stat().st_size for _, file in weights.files_of(path)) / 1e6
            print(f"{card.name}: {path}, {size:,.1f} MB{'' if now else ', was here'}")
        except (OSError, ValueError) as error:
            failed += 1
            print(f"a2data: {error}", file=sys.stderr)
    return 1 if failed else 0


def _verify(args: argparse.Namespace) -> int:
    wanted = [card for card in chosen(args.profile, args.role) if weights.fetched(card)]
    there = {weights.located(card) or weights.home(card): card for card in wanted}
    if not (args.profile or args.role):  # what was fetched for cards that have gone since
        for place in weights.lock():
            there.setdefault(weights.folder() / place, Card("", "", name=place))
    wrong, read = [], 0
    for path, card in there.items():
        read += path.exists()
        if args.profile and not path.exists():
            wrong.append(f"model {card.name!r} is not here: {weights.how_to_get(card)}")
        else:
            wrong += weights.differences(card, path, every_byte=True)
    for sentence in wrong:
        print(f"a2data: {sentence}", file=sys.stderr)
    print(f"{read} weights read, {len(wrong)} files or models wrong or missing")
    return 1 if wrong else 0


def _licences(args: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table

    wanted = chosen(args.profile, args.role, args.names)
    table = Table("model", "role", "use", "code", "weights", "what it asks", box=box.SIMPLE)
    for card in wanted:
        licences = card.use, card.code_license, card.weights_license or "-"
        table.add_row(card.name, card.role, *licences, USES.get(card.use, card.use))
    _print(table)
    for sentence in warnings(wanted):
        print(f"a2data: {sentence}", file=sys.stderr)
    offending = offences(wanted) if args.policy == "commercial" else []
    for sentence in offending:
        print(f"a2data: {sentence}", file=sys.stderr)
    if args.policy:
        verdict = f"forbidden by {len(offending)} of {len(wanted)} models" if offending else "allowed"
        print(f"{args.policy} use: {verdict}")
    return 1 if offending else 0


def offences(wanted: Iterable[Card]) -> list[str]:
    """What forbids commercial use of these models together, a sentence for each card, with the card to take instead."""
    wanted = list(wanted)
    faces = [card.name for card in wanted if card.role == "faces"]
    out = []
    for card in wanted:
        if card.use == "non-commercial":
            out.append(f"{card.name} ({card.weights_license}) is for research only: {_instead(card)}")
        elif card.use == "biometric-restricted" and faces:
            out.append(
                f"{card.name} ({card.weights_license}) may not serve to tell people apart, and {', '.join(faces)} does: "
                f"{_instead(card)}"
            )
    return out


def warnings(wanted: Iterable[Card]) -> list[str]:
    """What is allowed on conditions, a sentence for each kind of licence."""
    wanted = list(wanted)
    out = []
    for licence in sorted({(c.code_license, c.weights_license) for c in wanted if c.use == "copyleft"}):
        named = [c.name for c in wanted if c.use == "copyleft" and (c.code_license, c.weights_license) == licence]
        asks = f"{AGPL}; " if "AGPL" in " ".join(licence) else ""
        instead = sorted({c.fallback for c in wanted if c.name in named and c.fallback})
        other = f"take {' or '.join(instead)} where that is refused" if instead else "there is no other card for it"
        out.append(f"{', '.join(named)} ({' and '.join(dict.fromkeys(filter(None, licence)))}): {asks}{other}")
    gated = [f"{c.name} ({c.weights_license})" for c in wanted if c.use == "gated"]
    return [*out, *([f"{', '.join(gated)}: read and accept the terms where the weights are"] if gated else [])]


def _instead(card: Card) -> str:
    return f"take {card.fallback}" if card.fallback else "a2data has no other model for it"


def _print(table: Any) -> None:
    """A table as wide as the terminal; as wide as it likes where nobody looks, for grep."""
    from rich.console import Console

    console = Console()
    (console if console.is_terminal else Console(width=240)).print(table)
